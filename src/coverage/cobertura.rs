//! Cobertura's XML, as its `coverage-04.dtd` says; counts of all tests are added up.

use std::io::{self, Write};

use super::model::{Branch, Coverage, FileCoverage, Ratio};
use super::table::{Totals, common_root, directory};

/// Writes the report. `timestamp` is in milliseconds since 1970; packages are directories, named with
/// dots for slashes, and file names are relative to the one `<source>`.
///
/// # Errors
/// Writing fails.
pub fn write(coverage: &Coverage, timestamp: u64, out: &mut dyn Write) -> io::Result<()> {
    let totals = Totals::new(coverage);
    let root = common_root(coverage.files.keys().map(String::as_str));
    let (lines, branches) = (totals.all.lines, totals.all.branches);
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">"#
    )?;
    writeln!(
        out,
        r#"<coverage line-rate="{}" branch-rate="{}" lines-covered="{}" lines-valid="{}" branches-covered="{}" branches-valid="{}" complexity="0" version="vmtest {}" timestamp="{timestamp}">"#,
        rate(lines),
        rate(branches),
        lines.hit,
        lines.found,
        branches.hit,
        branches.found,
        env!("CARGO_PKG_VERSION"),
    )?;
    let source = if root.is_empty() { "." } else { root };
    writeln!(out, "<sources><source>{}</source></sources>\n<packages>", Escaped(source))?;
    let mut open: Option<&str> = None;
    // A directory's files are not always in a row: `a/b.c` is before `a/c/d.c` before `a/e.c`.
    let mut paths: Vec<&String> = coverage.files.keys().collect();
    paths.sort_by_key(|path| (directory(path), path.as_str()));
    for path in paths {
        let package = directory(path);
        if open != Some(package) {
            if open.is_some() {
                out.write_all(b"</classes></package>\n")?;
            }
            let sum = totals.directories.get(package).map(|row| row.all).unwrap_or_default();
            let below = package.strip_prefix(root.trim_end_matches('/')).unwrap_or(package);
            let name = match below.trim_matches('/') {
                "" => ".".to_owned(),
                below => below.replace('/', "."),
            };
            writeln!(
                out,
                r#"<package name="{}" line-rate="{}" branch-rate="{}" complexity="0"><classes>"#,
                Escaped(&name),
                rate(sum.lines),
                rate(sum.branches),
            )?;
            open = Some(package);
        }
        let file = coverage.union(&coverage.files[path], None).unwrap_or_default();
        class(path.strip_prefix(root).unwrap_or(path), &file, out)?;
    }
    if open.is_some() {
        out.write_all(b"</classes></package>\n")?;
    }
    out.write_all(b"</packages>\n</coverage>\n")
}

fn class(path: &str, file: &FileCoverage, out: &mut dyn Write) -> io::Result<()> {
    let summary = file.summary();
    let name = path.rsplit('/').next().unwrap_or(path);
    writeln!(
        out,
        r#"<class name="{}" filename="{}" line-rate="{}" branch-rate="{}" complexity="0">"#,
        Escaped(name),
        Escaped(path),
        rate(summary.lines),
        rate(summary.branches),
    )?;
    out.write_all(b"<methods>\n")?;
    for function in file.functions() {
        let hit = u64::from(function.count > 0);
        writeln!(
            out,
            r#"<method name="{}" signature="" line-rate="{hit}" branch-rate="{hit}" complexity="0"><lines><line number="{}" hits="{}"/></lines></method>"#,
            Escaped(&function.name),
            function.line,
            function.count,
        )?;
    }
    out.write_all(b"</methods>\n<lines>\n")?;
    for line in file.lines() {
        let branches = condition(file.branches_of(line.line));
        writeln!(out, r#"<line number="{}" hits="{}"{branches}/>"#, line.line, line.count)?;
    }
    out.write_all(b"</lines>\n</class>\n")
}

fn condition(branches: &[Branch]) -> String {
    if branches.is_empty() {
        return String::new();
    }
    let mut ways = Ratio::default();
    branches.iter().for_each(|branch| ways.count(branch.taken.unwrap_or(0) > 0));
    let percent = ways.hit * 100 / ways.found;
    let (hit, found) = (ways.hit, ways.found);
    format!(r#" branch="true" condition-coverage="{percent}% ({hit}/{found})""#)
}

/// From 0 to 1. Nothing to cover is covered: a gate on rates must not fail on it.
fn rate(ratio: Ratio) -> String {
    match ratio.percent() {
        Some(percent) => format!("{:.4}", percent / 100.0),
        None => "1".into(),
    }
}

/// Text as XML and HTML take it, in elements and in quoted attributes. Characters that XML cannot
/// say become U+FFFD.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut plain = 0;
        for (at, c) in self.0.char_indices() {
            let entity = match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\'' => "&#39;",
                '\t' => continue,
                '\n' => "&#10;",
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => "\u{fffd}",
                _ => continue,
            };
            f.write_str(&self.0[plain..at])?;
            f.write_str(entity)?;
            plain = at + c.len_utf8();
        }
        f.write_str(&self.0[plain..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::model::{Function, Line};

    #[test]
    fn elements_are_in_the_order_of_the_dtd() {
        let mut coverage = Coverage::default();
        let test = coverage.test("t", "arm");
        for path in ["/s/a/b.c", "/s/a/c/d.c", "/s/a/e<&>.c"] {
            let file = FileCoverage::new(
                vec![Line { line: 1, count: 3 }, Line { line: 2, count: 0 }],
                vec![Function { name: "f<T>".into(), line: 1, count: 3 }],
                vec![
                    Branch { line: 1, index: 0, taken: Some(1) },
                    Branch { line: 1, index: 1, taken: None },
                ],
            );
            coverage.add(path, test, file);
        }
        let mut out = Vec::new();
        write(&coverage, 5, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let tags: Vec<&str> = text
            .split('<')
            .skip(3)
            .map(|tag| tag.split([' ', '>', '/']).next().unwrap())
            .filter(|tag| !tag.is_empty())
            .collect();
        let class = ["class", "methods", "method", "lines", "line", "lines", "line", "line"];
        let package = ["package", "classes"];
        let mut expected = vec!["coverage", "sources", "source", "packages"];
        expected.extend(package.iter().chain(&class).chain(&class));
        expected.extend(package.iter().chain(&class));
        assert_eq!(tags, expected, "{text}");
        assert!(text.contains(r#"<package name="c" "#), "{text}");
        assert!(text.contains(r#"filename="e&lt;&amp;&gt;.c""#), "{text}");
        assert!(text.contains(r#"condition-coverage="50% (1/2)""#), "{text}");
        assert!(text.contains(r#"lines-covered="3" lines-valid="6""#), "{text}");
    }

    #[test]
    fn nothing_escapes() {
        let text = Escaped("a<b>&\"'\x1b\n\tü").to_string();
        assert_eq!(text, "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}&#10;\tü");
    }
}
