//! What `llvm-cov gcov --intermediate-format` writes: one field a line.
//!
//! `file:NAME`, then `function:LINE[,END],COUNT,NAME`, `lcount:LINE,COUNT[,…]` and
//! `branch:LINE,taken|nottaken|notexec`.

use std::collections::HashMap;
use std::io::{self, BufRead};

use crate::coverage::model::{Branch, FileCoverage, Function, Line};

#[derive(Default)]
struct Source {
    name: String,
    lines: Vec<Line>,
    functions: Vec<Function>,
    branches: Vec<Branch>,
    ways: HashMap<u32, u32>,
}

/// Reads a file; `file` gets name and coverage of each source.
pub(super) fn read(
    reader: &mut dyn BufRead,
    mut file: impl FnMut(&str, FileCoverage),
) -> io::Result<()> {
    let mut source: Option<Source> = None;
    let mut finish = |source: Option<Source>| {
        if let Some(source) = source {
            let coverage = FileCoverage::new(source.lines, source.functions, source.branches);
            file(&source.name, coverage);
        }
    };
    for line in reader.lines() {
        let line = line?;
        let Some((key, value)) = line.split_once(':') else { continue };
        if key == "file" {
            finish(source.take());
            source = Some(Source { name: value.to_owned(), ..Source::default() });
            continue;
        }
        let read = source.as_mut().map(|source| source.field(key, value));
        if read != Some(Some(())) {
            return Err(io::Error::other(format!("`{line}` is no line of gcov's")));
        }
    }
    finish(source);
    Ok(())
}

impl Source {
    fn field(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "lcount" => {
                let mut parts = value.split(',');
                let (line, count) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                if line > 0 {
                    self.lines.push(Line { line, count });
                }
            }
            "function" => {
                let mut parts = value.splitn(3, ',');
                let line = parts.next()?.parse().ok()?;
                let (second, rest) = (parts.next()?, parts.next()?);
                // Some versions say the last line, too.
                let (count, name) = match rest.split_once(',') {
                    Some((count, name)) if count.parse::<u64>().is_ok() => (count, name),
                    _ => (second, rest),
                };
                let name = name.to_owned();
                self.functions.push(Function { name, line, count: count.parse().ok()? });
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
        Some(())
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
    fn rubbish_is_an_error() {
        for text in ["lcount:1,1\n", "file:a\nlcount:x,1\n", "file:a\nbranch:1,perhaps\n"] {
            assert!(read(&mut text.as_bytes(), |_, _| {}).is_err(), "{text}");
        }
    }
}
