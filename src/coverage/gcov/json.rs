//! What `gcov --json-format` writes: one object for each file of counters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead};

use serde::Deserialize;

use crate::coverage::model::{Branch, FileCoverage, Function, Line};

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
    count: i64,
    #[serde(default)]
    branches: Vec<SourceBranch>,
}

#[derive(Deserialize)]
struct SourceBranch {
    count: i64,
}

#[derive(Deserialize)]
struct SourceFunction<'a> {
    #[serde(borrow)]
    demangled_name: Cow<'a, str>,
    start_line: u32,
    execution_count: i64,
}

/// Reads what gcov writes for `0.gcda`, `1.gcda` …; `file` gets the number, the directory that names
/// are relative to, the name and the coverage of each source.
pub(super) fn read(
    stdout: &mut dyn BufRead,
    mut file: impl FnMut(usize, Option<&str>, &str, FileCoverage),
) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        // A document is a line; a gcov that wrote it over several would be read all the same.
        let n = stdout.read_until(b'\n', &mut bytes)?;
        if bytes.trim_ascii().is_empty() {
            if n == 0 {
                return Ok(());
            }
            bytes.clear();
            continue;
        }
        match serde_json::from_slice::<Document<'_>>(&bytes) {
            Ok(document) => document.files_into(&mut file),
            Err(error) if error.is_eof() && n > 0 && bytes.len() < MAX_DOCUMENT => continue,
            Err(error) => return Err(error.into()),
        }
        bytes.clear();
    }
}

impl Document<'_> {
    fn files_into(self, file: &mut impl FnMut(usize, Option<&str>, &str, FileCoverage)) {
        let number = self.data_file.rsplit('/').next().and_then(|name| name.split('.').next());
        let Some(index) = number.and_then(|number| number.parse().ok()) else { return };
        let dir = self.current_working_directory.as_deref();
        for source in self.files {
            let name = source.file.clone();
            file(index, dir, &name, source.coverage());
        }
    }
}

impl SourceFile<'_> {
    fn coverage(self) -> FileCoverage {
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let mut ways = HashMap::new();
        let mut branches = Vec::new();
        let mut lines = Vec::with_capacity(self.lines.len());
        // Line 0 is code that no line was the reason for.
        for line in self.lines.iter().filter(|line| line.line_number > 0) {
            lines.push(Line { line: line.line_number, count: count(line.count) });
            for branch in &line.branches {
                // A line that several functions have (a macro, a template) is listed once for each.
                let way = ways.entry(line.line_number).or_insert(0u32);
                let taken = (line.count > 0 || branch.count > 0).then(|| count(branch.count));
                branches.push(Branch { line: line.line_number, index: *way, taken });
                *way = way.saturating_add(1);
            }
        }
        let functions = self.functions.into_iter().map(|function| Function {
            name: function.demangled_name.into_owned(),
            line: function.start_line,
            count: count(function.execution_count),
        });
        FileCoverage::new(lines, functions.collect(), branches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(text: &str) -> io::Result<Vec<(usize, String, FileCoverage)>> {
        let mut found = Vec::new();
        read(&mut text.as_bytes(), |index, dir, name, file| {
            found.push((index, format!("{}:{name}", dir.unwrap_or_default()), file));
        })?;
        Ok(found)
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
    fn what_is_cut_is_an_error() {
        assert!(collect(r#"{"files": ["#).is_err());
        assert!(collect("gcov: no").is_err());
        assert_eq!(collect("\n").unwrap().len(), 0);
    }
}
