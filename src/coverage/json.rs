//! Our JSON: everything that is known, and read again as an input (`docs/coverage.md`).

use crate::named_file;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::path::Path;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::collect::Collector;
use super::model::{Branch, Coverage, FileCoverage, Function, Line, Ratio, Summary, Test, TestId};
use super::sources::{Base, Resolver};

/// Version of the format.
pub const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    generator: &'static str,
    summary: Sums,
    summary_by_arch: BTreeMap<String, Sums>,
    tests: Vec<TestEntry>,
    files: Files<'a>,
}

#[derive(Serialize)]
struct Sums {
    lines: Pair,
    functions: Pair,
    branches: Pair,
}

#[derive(Serialize)]
struct Pair {
    found: u64,
    hit: u64,
}

#[derive(Serialize, Deserialize)]
struct TestEntry {
    name: String,
    arch: String,
    #[serde(default)]
    verdict: Option<String>,
    #[serde(default)]
    missing: Vec<String>,
}

/// One file after the other: a kernel's do not all have to be there twice.
struct Files<'a>(&'a Coverage);

#[derive(Serialize, Deserialize)]
struct FileEntry {
    path: String,
    #[serde(skip_deserializing, default)]
    summary: Option<Sums>,
    coverage: Vec<TestCoverage>,
}

#[derive(Serialize, Deserialize)]
struct TestCoverage {
    test: usize,
    lines: Vec<(u32, u64)>,
    #[serde(default)]
    functions: Vec<FunctionEntry>,
    #[serde(default)]
    branches: Vec<(u32, u32, Option<u64>)>,
}

#[derive(Serialize, Deserialize)]
struct FunctionEntry {
    name: String,
    line: u32,
    count: u64,
}

impl From<Summary> for Sums {
    fn from(summary: Summary) -> Sums {
        let pair = |ratio: Ratio| Pair { found: ratio.found, hit: ratio.hit };
        Sums {
            lines: pair(summary.lines),
            functions: pair(summary.functions),
            branches: pair(summary.branches),
        }
    }
}

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Files(coverage) = self;
        let mut list = serializer.serialize_seq(Some(coverage.files.len()))?;
        for (path, tests) in &coverage.files {
            let union = coverage.union(tests, None).unwrap_or_default();
            list.serialize_element(&FileEntry {
                path: path.clone(),
                summary: Some(union.summary().into()),
                coverage: tests.iter().map(|(test, file)| entry(*test, file)).collect(),
            })?;
        }
        list.end()
    }
}

fn entry(test: TestId, file: &FileCoverage) -> TestCoverage {
    let function = |function: &Function| FunctionEntry {
        name: function.name.clone(),
        line: function.line,
        count: function.count,
    };
    TestCoverage {
        test: test.0,
        lines: file.lines().iter().map(|line| (line.line, line.count)).collect(),
        functions: file.functions().iter().map(function).collect(),
        branches: file.branches().iter().map(|b| (b.line, b.index, b.taken)).collect(),
    }
}

/// Writes everything.
///
/// # Errors
/// Writing fails.
pub fn write(coverage: &Coverage, out: &mut dyn Write) -> io::Result<()> {
    let totals = super::table::Totals::new(coverage);
    let document = Document {
        schema: SCHEMA,
        generator: concat!("vmtest ", env!("CARGO_PKG_VERSION")),
        summary: totals.all.into(),
        summary_by_arch: totals
            .archs
            .iter()
            .zip(&totals.by_arch)
            .map(|(arch, summary)| (arch.clone(), (*summary).into()))
            .collect(),
        tests: coverage
            .tests
            .iter()
            .map(|test| TestEntry {
                name: test.name.clone(),
                arch: test.arch.clone(),
                verdict: test.verdict.clone(),
                missing: test.missing.clone(),
            })
            .collect(),
        files: Files(coverage),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

#[derive(Deserialize)]
struct Read {
    schema: u32,
    tests: Vec<TestEntry>,
    files: Vec<FileEntry>,
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// The file cannot be read, is no such file, or of another version.
pub(crate) fn read(path: &Path) -> io::Result<Coverage> {
    let file = BufReader::new(named_file::open_stream(path)?);
    let read: Read = serde_json::from_reader(file)?;
    let other = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if read.schema != SCHEMA {
        return Err(other(format!("it has schema {}, this vmtest reads {SCHEMA}", read.schema)));
    }
    let tests = read.tests.into_iter().map(|test| Test {
        name: test.name,
        arch: test.arch,
        verdict: test.verdict,
        missing: test.missing,
    });
    let mut coverage = Coverage { tests: tests.collect(), files: BTreeMap::new() };
    for file in read.files {
        for entry in file.coverage {
            if entry.test >= coverage.tests.len() {
                return Err(other(format!("{} names a test that is not there", file.path)));
            }
            let lines = entry.lines.iter().filter(|(line, _)| *line > 0);
            let branches = entry.branches.iter();
            let functions = entry.functions.into_iter().map(|function| Function {
                name: function.name,
                line: function.line,
                count: function.count,
            });
            let one = FileCoverage::new(
                lines.map(|&(line, count)| Line { line, count }).collect(),
                functions.collect(),
                branches.map(|&(line, index, taken)| Branch { line, index, taken }).collect(),
            );
            coverage.add(&file.path, TestId(entry.test), one);
        }
    }
    Ok(coverage)
}

/// Adds what was read to a report.
pub(crate) fn add(collector: &Collector<'_>, coverage: Coverage) {
    let resolver = Resolver::new(collector.sources, Base::Nothing);
    let tests: Vec<TestId> = {
        let mut all = collector.coverage();
        let mut own = |test: Test| {
            let id = all.test(&test.name, &test.arch);
            let known = &mut all.tests[id.0];
            known.verdict = known.verdict.take().or(test.verdict);
            known.missing.extend(test.missing);
            id
        };
        coverage.tests.into_iter().map(&mut own).collect()
    };
    for (path, files) in coverage.files {
        for (test, file) in files {
            collector.add(tests[test.0], &resolver, None, &path, file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut coverage = Coverage::default();
        let test = coverage.test("a \"b\"", "arm");
        coverage.tests[0].missing.push("go: the guest panicked".into());
        let file = FileCoverage::new(
            vec![Line { line: 1, count: u64::MAX }],
            vec![Function { name: "f".into(), line: 1, count: 0 }],
            vec![Branch { line: 1, index: 65_537, taken: None }],
        );
        coverage.add("/a/b.c", test, file);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write(&coverage, &mut std::fs::File::create(&path).unwrap()).unwrap();
        let again = read(&path).unwrap();
        assert_eq!(again.tests, coverage.tests);
        assert_eq!(again.files, coverage.files);
        for bad in [
            r#"{"schema":9,"tests":[],"files":[]}"#,
            "{",
            "[]",
            r#"{"schema":1,"tests":[],"files":[{"path":"a","coverage":[{"test":0,"lines":[]}]}]}"#,
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad}");
        }
    }
}
