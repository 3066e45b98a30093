//! Sums by directory and architecture, and the table for a terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::model::{Coverage, Ratio, Summary};

/// The longest path that a table shows whole.
const MAX_PATH: usize = 60;

/// What rows of a table are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// One for each directory.
    #[default]
    Directories,
    /// One for each file.
    Files,
}

/// Sums of files, of directories, and of everything.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The architectures, in the order of all other lists here.
    pub archs: Vec<String>,
    /// Of everything, whichever architecture.
    pub all: Summary,
    /// Of everything, by architecture.
    pub by_arch: Vec<Summary>,
    /// By file.
    pub files: BTreeMap<String, Row>,
    /// By the directory that the files are in.
    pub directories: BTreeMap<String, Row>,
}

/// Sums of a file or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Whichever architecture.
    pub all: Summary,
    /// By architecture; `None` if no code was made for it there.
    pub by_arch: Vec<Option<Summary>>,
}

impl Totals {
    /// Sums up.
    pub fn new(coverage: &Coverage) -> Totals {
        let archs = coverage.archs();
        let mut totals =
            Totals { by_arch: vec![Summary::default(); archs.len()], ..Totals::default() };
        for (path, tests) in &coverage.files {
            let of = |arch: Option<&str>| coverage.union(tests, arch).map(|file| file.summary());
            let by_arch: Vec<_> = archs.iter().map(|arch| of(Some(arch))).collect();
            // One architecture's is everything's.
            let all = match by_arch.as_slice() {
                [one] => *one,
                _ => of(None),
            };
            let all = all.unwrap_or_default();
            totals.all.add(all);
            for (sum, own) in totals.by_arch.iter_mut().zip(&by_arch) {
                sum.add(own.unwrap_or_default());
            }
            let directory = totals.directories.entry(directory(path).to_owned()).or_default();
            directory.all.add(all);
            directory.by_arch.resize(archs.len(), None);
            for (sum, own) in directory.by_arch.iter_mut().zip(&by_arch) {
                if let Some(own) = own {
                    sum.get_or_insert_default().add(*own);
                }
            }
            totals.files.insert(path.clone(), Row { all, by_arch });
        }
        totals.archs = archs;
        totals
    }
}

/// The directory of a path; empty for a bare name.
pub(crate) fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => "",
    }
}

/// What all paths begin with: a directory with its slash, or nothing.
pub(crate) fn common_root<'a>(mut paths: impl Iterator<Item = &'a str>) -> &'a str {
    let Some(first) = paths.next() else { return "" };
    let mut root = first.rfind('/').map_or("", |at| &first[..=at]);
    for path in paths {
        while !path.starts_with(root) {
            let shorter = root[..root.len() - 1].rfind('/');
            root = shorter.map_or("", |at| &root[..=at]);
        }
    }
    root
}

/// 12.3, or 100 only if nothing is missing.
pub(crate) fn percent(ratio: Ratio) -> Option<String> {
    let tenths = (ratio.percent()? * 10.0).floor() / 10.0;
    Some(match ratio.hit == ratio.found {
        true => "100".into(),
        false => format!("{tenths:.1}"),
    })
}

fn cell(ratio: Option<Ratio>) -> String {
    match ratio.and_then(|ratio| Some((ratio, percent(ratio)?))) {
        Some((ratio, percent)) => format!("{percent}% {}/{}", ratio.hit, ratio.found),
        None => "-".into(),
    }
}

/// Writes the table: lines for each architecture, and functions and branches of all.
///
/// # Errors
/// Writing fails.
pub fn write(totals: &Totals, rows: Rows, out: &mut dyn Write) -> io::Result<()> {
    let root = common_root(totals.files.keys().map(String::as_str));
    let several = totals.archs.len() > 1;
    let mut table = vec![vec![match rows {
        Rows::Directories => "directory".to_owned(),
        Rows::Files => "file".to_owned(),
    }]];
    let lines = |arch: &String| match several {
        true => format!("lines {arch}"),
        false => "lines".to_owned(),
    };
    table[0].extend(totals.archs.iter().map(lines));
    table[0].extend(several.then(|| "lines all".to_owned()));
    table[0].extend(["functions".to_owned(), "branches".to_owned()]);
    let cells = |name: String, all: &Summary, by_arch: &[Option<Summary>]| {
        let mut row = vec![name];
        row.extend(by_arch.iter().map(|own| cell(own.map(|own| own.lines))));
        row.extend(several.then(|| cell(Some(all.lines))));
        row.extend([cell(Some(all.functions)), cell(Some(all.branches))]);
        row
    };
    let list = match rows {
        Rows::Directories => &totals.directories,
        Rows::Files => &totals.files,
    };
    for (path, row) in list {
        table.push(cells(shown(path, root), &row.all, &row.by_arch));
    }
    let by_arch: Vec<_> = totals.by_arch.iter().copied().map(Some).collect();
    table.push(cells("total".to_owned(), &totals.all, &by_arch));
    let widths: Vec<usize> = (0..table[0].len())
        .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    if !root.is_empty() {
        writeln!(out, "in {}", root.escape_debug())?;
    }
    for row in &table {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A path as a table shows it: below the root, without what a terminal would act on, and its end
/// if it is long.
fn shown(path: &str, root: &str) -> String {
    let path = path.strip_prefix(root).unwrap_or(if path.len() < root.len() { "." } else { path });
    let path: String = path.escape_debug().to_string();
    let length = path.chars().count();
    if length <= MAX_PATH {
        return path;
    }
    let end: String = path.chars().skip(length - MAX_PATH + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::model::tests::lines;

    fn sample() -> Coverage {
        let mut coverage = Coverage::default();
        let amd64 = coverage.test("boot", "amd64");
        let arm = coverage.test("boot", "arm");
        coverage.add("/k/fs/open.c", amd64, lines(&[(1, 1), (2, 0), (3, 0)]));
        coverage.add("/k/fs/open.c", arm, lines(&[(1, 0), (2, 4), (3, 0)]));
        coverage.add("/k/mm/x.c", arm, lines(&[(1, 2)]));
        coverage.add("/k/a.c", arm, lines(&[(1, 0)]));
        coverage
    }

    #[test]
    fn architectures_are_side_by_side() {
        let mut out = Vec::new();
        write(&Totals::new(&sample()), Rows::Directories, &mut out).unwrap();
        let expected = "\
in /k/
directory  lines amd64    lines arm  lines all  functions  branches
.                    -      0.0% 0/1   0.0% 0/1          -         -
fs           33.3% 1/3     33.3% 1/3  66.6% 2/3          -         -
mm                   -      100% 1/1   100% 1/1          -         -
total        33.3% 1/3     40.0% 2/5  60.0% 3/5          -         -
";
        let squeeze = |text: &str| -> Vec<Vec<String>> {
            text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let text = String::from_utf8(out).unwrap();
        assert_eq!(squeeze(&text), squeeze(expected));
        let ends: Vec<usize> = text.lines().skip(1).map(|line| line.chars().count()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{text}");
    }

    #[test]
    fn a_hundred_percent_is_all() {
        assert_eq!(percent(Ratio { found: 10_000, hit: 9_999 }).unwrap(), "99.9");
        assert_eq!(percent(Ratio { found: 3, hit: 3 }).unwrap(), "100");
        assert_eq!(percent(Ratio::default()), None);
    }

    #[test]
    fn the_root_is_a_directory() {
        for (paths, root) in [
            (&["/a/b/c.c", "/a/b/d.c"][..], "/a/b/"),
            (&["/a/b/c.c", "/a/bc/d.c"], "/a/"),
            (&["/a/b.c", "c.c"], ""),
            (&["x.c"], ""),
            (&["/x.c", "/y/z.c"], "/"),
        ] {
            assert_eq!(common_root(paths.iter().copied()), root);
        }
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        assert_eq!(shown("/a/\x1b[31m.c", "/a/"), "\\u{1b}[31m.c");
        assert!(shown(&"é".repeat(90), "").chars().count() <= MAX_PATH);
    }
}
