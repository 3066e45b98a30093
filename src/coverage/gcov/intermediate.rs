//! What `llvm-cov gcov --intermediate-format` writes: one field a line.
//!
//! `file:NAME`, then `function:LINE[,END],COUNT,NAME`, `lcount:LINE,COUNT[,…]` and
//! `branch:LINE,taken|nottaken|notexec`.

use std::collections::HashMap;
use std::io::{self, BufRead};

use crate::coverage::model::{Branch, FileCoverage, Function, Line};
use crate::coverage::text;

#[derive(Default)]
struct Source {
    name: String,
    lines: Vec<Line>,
    functions: Vec<Function>,
    branches: Vec<Branch>,
    ways: HashMap<u32, u32>,
}

/// Reads a file; `file` gets name and coverage of each source. Returns what is wrong with a count, which
/// counts as not run then. Names that are no UTF-8 have `\xNN` for the bytes that are none.
///
/// # Errors
/// Reading fails, or a line is none of gcov's.
pub(super) fn read(
    reader: &mut dyn BufRead,
    mut file: impl FnMut(&str, FileCoverage),
) -> io::Result<Option<String>> {
    let mut wrong = None;
    let mut source: Option<Source> = None;
    let mut finish = |source: Option<Source>| {
        if let Some(source) = source {
            let coverage = FileCoverage::new(source.lines, source.functions, source.branches);
            file(&source.name, coverage);
        }
    };
    for line in reader.split(b'\n') {
        let line = line?;
        let line = text::escaped(&line);
        let Some((key, value)) = line.split_once(':') else { continue };
        if key == "file" {
            finish(source.take());
            source = Some(Source { name: value.to_owned(), ..Source::default() });
            continue;
        }
        let read = source.as_mut().map(|source| (source.field(key, value), &source.name));
        match read {
            Some((Some(count), name)) => {
                if let Some(why) = count {
                    wrong.get_or_insert_with(|| format!("a count of {name} {why}"));
                }
            }
            _ => return Err(io::Error::other(format!("`{line}` is no line of gcov's"))),
        }
    }
    finish(source);
    Ok(wrong)
}

impl Source {
    /// `None` if it cannot be read, else what is wrong with its count.
    fn field(&mut self, key: &str, value: &str) -> Option<Option<&'static str>> {
        match key {
            "lcount" => {
                let mut parts = value.split(',');
                let (line, count) = (parts.next()?.parse().ok()?, text::count(parts.next()?));
                if line > 0 {
                    self.lines.push(Line { line, count: count.value });
                }
                return Some(count.wrong);
            }
            "function" => {
                let mut parts = value.splitn(3, ',');
                let line = parts.next()?.parse().ok()?;
                let (second, rest) = (parts.next()?, parts.next()?);
                // Some versions say the last line, too.
                let (count, name) = match rest.split_once(',') {
                    Some((count, name)) if count.parse::<i128>().is_ok() => (count, name),
                    _ => (second, rest),
                };
                let (name, count) = (name.to_owned(), text::count(count));
                self.functions.push(Function { name, line, count: count.value });
                return Some(count.wrong);
            }
            "branch" => {
                let (line, how) = value.split_once(',')?;
                let line = line.parse().ok()?;
                let way = self.ways.entry(line).or_insert(0);
                let taken = match how {
                    "taken" => Some(1),
                    "nottaken" => Some(0),
                    "notexec" => None,
                    _ => return None,
                };
                self.branches.push(Branch { line, index: *way, taken });
                *way = way.saturating_add(1);
            }
            // The versions of gcov's that wrote this form had more keys.
            _ => {}
        }
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_one_by_one() {
        let text = "file:p.c\nfunction:3,10,sq\nfunction:5,13,1,main\nlcount:3,10\nlcount:5,1,0\n\
                    branch:3,taken\nbranch:3,nottaken\nfile:/i/h.h\nlcount:1,0\nbranch:1,notexec\n";
        let mut found = Vec::new();
        read(&mut text.as_bytes(), |name, file| found.push((name.to_owned(), file))).unwrap();
        assert_eq!(found.len(), 2);
        let functions: Vec<_> =
            found[0].1.functions().iter().map(|f| (f.name.as_str(), f.line, f.count)).collect();
        assert_eq!(functions, [("sq", 3, 10), ("main", 5, 1)]);
        assert_eq!(found[0].1.summary().branches.hit, 1);
        assert_eq!(found[1].1.branches()[0].taken, None);
    }

    #[test]
    fn a_negative_count_counts_as_not_run_and_is_told() {
        let text = b"file:a\xff.c\nlcount:1,-3\nlcount:2,1\nfunction:1,-3,f\n";
        let mut found = Vec::new();
        let wrong = read(&mut text.as_slice(), |name, file| found.push((name.to_owned(), file)));
        let wrong = wrong.unwrap().unwrap();
        assert!(wrong.starts_with("a count of a\\xff.c is negative"), "{wrong}");
        assert_eq!(found[0].1.count(1), Some(0));
        assert_eq!(found[0].1.functions()[0].count, 0);
    }

    #[test]
    fn rubbish_is_an_error() {
        for text in ["lcount:1,1\n", "file:a\nlcount:x,1\n", "file:a\nbranch:1,perhaps\n"] {
            assert!(read(&mut text.as_bytes(), |_, _| {}).is_err(), "{text}");
        }
    }
}
