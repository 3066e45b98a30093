//! What `gcov --json-format` writes: one object for each file of counters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead};

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::coverage::model::{Branch, FileCoverage, Function, Line};
use crate::coverage::text;

/// An object's description is never larger; those of a kernel have some MiB.
const MAX_DOCUMENT: usize = 512 << 20;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    data_file: Cow<'a, str>,
    #[serde(borrow, default)]
    current_working_directory: Option<Cow<'a, str>>,
    #[serde(borrow)]
    files: Vec<SourceFile<'a>>,
}

#[derive(Deserialize)]
struct SourceFile<'a> {
    #[serde(borrow)]
    file: Cow<'a, str>,
    lines: Vec<SourceLine>,
    #[serde(borrow)]
    functions: Vec<SourceFunction<'a>>,
}

#[derive(Deserialize)]
struct SourceLine {
    line_number: u32,
    count: Count,
    #[serde(default)]
    branches: Vec<SourceBranch>,
}

#[derive(Deserialize)]
struct SourceBranch {
    count: Count,
}

#[derive(Deserialize)]
struct SourceFunction<'a> {
    #[serde(borrow)]
    demangled_name: Cow<'a, str>,
    start_line: u32,
    execution_count: Count,
}

/// Any number: a counter that overflowed is negative, and no reason to lose all the others.
#[derive(Clone, Copy)]
struct Count(text::Count);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a count")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
                Ok(Count(text::Count { value, wrong: None }))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
                Ok(Count(text::of_float(value as f64)))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
                Ok(Count(text::of_float(value)))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// What is in the documents that gcov writes.
pub(super) trait Found {
    /// A source of the object with this number, which was compiled in this directory.
    fn source(&mut self, index: usize, dir: Option<&str>, name: &str, file: FileCoverage);

    /// Something is wrong with the counts of the object with this number.
    fn wrong(&mut self, index: usize, why: String);
}

/// Reads what gcov writes for `0.gcda`, `1.gcda` …. Names that are no UTF-8 have `\xNN` for the bytes
/// that are none.
///
/// # Errors
/// Reading fails, or a document cannot be read; those before and after it are read all the same.
pub(super) fn read(stdout: &mut dyn BufRead, found: &mut dyn Found) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut failed = None;
    loop {
        // A document is a line; a gcov that wrote it over several would be read all the same.
        let n = stdout.read_until(b'\n', &mut bytes)?;
        if bytes.trim_ascii().is_empty() {
            if n == 0 {
                return failed.map_or(Ok(()), Err);
            }
            bytes.clear();
            continue;
        }
        match serde_json::from_str::<Document<'_>>(&text::escaped_json(&bytes)) {
            Ok(document) => document.files_into(found),
            Err(error) if error.is_eof() && n > 0 && bytes.len() < MAX_DOCUMENT => continue,
            Err(error) => drop(failed.get_or_insert(error.into())),
        }
        bytes.clear();
    }
}

impl Document<'_> {
    fn files_into(self, found: &mut dyn Found) {
        let number = self.data_file.rsplit('/').next().and_then(|name| name.split('.').next());
        let Some(index) = number.and_then(|number| number.parse().ok()) else { return };
        let dir = self.current_working_directory.as_deref();
        for source in self.files {
            let name = source.file.clone();
            let (file, wrong) = source.coverage();
            if let Some(wrong) = wrong {
                found.wrong(index, format!("a count of {name} {wrong}"));
            }
            found.source(index, dir, &name, file);
        }
    }
}

impl SourceFile<'_> {
    /// Its coverage, and what is wrong with one of its counts.
    fn coverage(self) -> (FileCoverage, Option<&'static str>) {
        let mut wrong = None;
        let mut count = |Count(count): Count| {
            wrong = wrong.or(count.wrong);
            count.value
        };
        let mut ways = HashMap::new();
        let mut branches = Vec::new();
        let mut lines = Vec::with_capacity(self.lines.len());
        // Line 0 is code that no line was the reason for.
        for line in self.lines.iter().filter(|line| line.line_number > 0) {
            let ran = count(line.count);
            lines.push(Line { line: line.line_number, count: ran });
            for branch in &line.branches {
                // A line that several functions have (a macro, a template) is listed once for each.
                let way = ways.entry(line.line_number).or_insert(0u32);
                let times = count(branch.count);
                let taken = (ran > 0 || times > 0).then_some(times);
                branches.push(Branch { line: line.line_number, index: *way, taken });
                *way = way.saturating_add(1);
            }
        }
        let functions = self.functions.into_iter().map(|function| Function {
            name: function.demangled_name.into_owned(),
            line: function.start_line,
            count: count(function.execution_count),
        });
        let functions = functions.collect();
        (FileCoverage::new(lines, functions, branches), wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct All {
        sources: Vec<(usize, String, FileCoverage)>,
        wrong: Vec<(usize, String)>,
    }

    impl Found for All {
        fn source(&mut self, index: usize, dir: Option<&str>, name: &str, file: FileCoverage) {
            self.sources.push((index, format!("{}:{name}", dir.unwrap_or_default()), file));
        }

        fn wrong(&mut self, index: usize, why: String) {
            self.wrong.push((index, why));
        }
    }

    fn collect(text: &str) -> io::Result<Vec<(usize, String, FileCoverage)>> {
        let mut found = All::default();
        read(&mut text.as_bytes(), &mut found)?;
        assert_eq!(found.wrong, []);
        Ok(found.sources)
    }

    const LINE: &str = r#"{"branches": [{"fallthrough": true, "count": 6, "throw": false}], "count": 10, "line_number": 3, "unexecuted_block": false, "function_name": "sq"}"#;

    #[test]
    fn documents_are_read_one_by_one() {
        let document = |n: usize| {
            format!(
                r#"{{"gcc_version": "12.2.0", "files": [{{"lines": [{LINE}, {LINE}], "functions": [{{"blocks": 5, "start_line": 3, "name": "sq", "execution_count": 10, "demangled_name": "sq"}}], "file": "p.c"}}], "format_version": "1", "current_working_directory": "/w d", "data_file": "{n}.gcda"}}"#
            )
        };
        let found = collect(&format!("{}\n\n{}\n", document(0), document(17))).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].0, found[1].1.as_str()), (17, "/w d:p.c"));
        let file = &found[0].2;
        assert_eq!(file.count(3), Some(20));
        assert_eq!(file.branches().len(), 2);
        assert_eq!(file.functions()[0].count, 10);
        // The same over several lines.
        let pretty = document(0).replace(", ", ",\n");
        assert_eq!(collect(&pretty).unwrap().len(), 1);
    }

    #[test]
    fn a_negative_count_counts_as_not_run_and_is_told() {
        let text = |count: &str| {
            format!(
                r#"{{"data_file": "3.gcda", "files": [{{"file": "p.c", "functions": [], "lines": [{{"line_number": 1, "count": {count}}}, {{"line_number": 2, "count": 5}}]}}]}}"#
            )
        };
        for (count, value, wrong) in
            [("-7", 0, true), ("-1e30", 0, true), ("1e30", u64::MAX, false)]
        {
            let mut found = All::default();
            read(&mut text(count).as_bytes(), &mut found).unwrap();
            assert_eq!(found.sources[0].2.count(1), Some(value), "{count}");
            assert_eq!(found.sources[0].2.count(2), Some(5));
            let told: Vec<_> = found.wrong.iter().map(|(index, _)| *index).collect();
            assert_eq!(told, if wrong { vec![3] } else { vec![] }, "{count}");
        }
    }

    #[test]
    fn a_source_whose_name_is_no_utf8_loses_nobody_anything() {
        let document = |n: usize, name: &[u8]| {
            let head = format!(
                r#"{{"data_file": "{n}.gcda", "files": [{{"functions": [], "lines": [{LINE}], "file": ""#
            );
            [head.as_bytes(), name, b"\"}]}\n"].concat()
        };
        let text = [document(0, b"a.c"), document(1, b"b\xff.c"), document(2, b"c.c")].concat();
        let mut found = All::default();
        read(&mut text.as_slice(), &mut found).unwrap();
        let names: Vec<_> = found.sources.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!(names, [":a.c", ":b\\xff.c", ":c.c"]);
    }

    #[test]
    fn a_document_that_cannot_be_read_is_told_and_the_others_are_read() {
        let good =
            r#"{"data_file": "0.gcda", "files": [{"functions": [], "lines": [], "file": "a"}]}"#;
        let text = format!("{good}\n{{\"data_file\": 7}}\n{good}\n");
        let mut found = All::default();
        assert!(read(&mut text.as_bytes(), &mut found).is_err());
        assert_eq!(found.sources.len(), 2);
    }

    #[test]
    fn what_is_cut_is_an_error() {
        assert!(collect(r#"{"files": ["#).is_err());
        assert!(collect("gcov: no").is_err());
        assert_eq!(collect("\n").unwrap().len(), 0);
    }
}
