//! lcov's text format (`geninfo(1)`): read from others, written for others.
//!
//! Both forms of functions are read, that of lcov 1 (`FN`, `FNDA`) and that of lcov 2 (`FNL`, `FNA`);
//! the first is written, which both read. What is not about lines, functions and branches is skipped.

mod names;
mod record;

use std::collections::HashSet;
use std::io::{self, BufRead, Write};

use super::model::{Coverage, FileCoverage, Function, Test};
use super::text;
use record::Record;

/// A line longer than this is no lcov.
const MAX_LINE: u64 = 1 << 20;

/// What was wrong with a file that was read, by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The line's number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Reads a file; `file` gets test name, path and coverage of each record. Lines that are wrong are
/// skipped and returned, a hundred at most; counts that cannot be read count as not run. Names that
/// are no UTF-8 have `\xNN` for the bytes that are none.
///
/// # Errors
/// Reading fails.
pub fn read(
    reader: &mut dyn BufRead,
    mut file: impl FnMut(&str, &str, FileCoverage),
) -> io::Result<Vec<Wrong>> {
    let mut wrong = Vec::new();
    // One is enough to say that something is wrong; a binary file has thousands.
    let mut fail = |line: u64, why: String| {
        if wrong.len() < 100 {
            wrong.push(Wrong { line, why });
        }
    };
    let mut test = String::new();
    let mut record = Record::default();
    let mut finish = |record: &mut Record, test: &str, fail: &mut dyn FnMut(u64, String)| {
        if let Some((path, coverage)) = std::mem::take(record).finish(&mut |at, why| fail(at, why))
        {
            file(test, &path, coverage);
        }
    };
    let mut bytes = Vec::new();
    for number in 1u64.. {
        bytes.clear();
        if io::Read::take(&mut *reader, MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let text = text::escaped(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        match text.split_once(':') {
            Some(("TN", name)) => name.clone_into(&mut test),
            Some(("SF", path)) => {
                if record.path.is_some() {
                    fail(number, "a record begins before the one before it ended".into());
                }
                finish(&mut record, &test, &mut fail);
                record.path = Some(path.to_owned());
            }
            Some((key, value)) if key.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                if record.path.is_none()
                    && matches!(key, "DA" | "FN" | "FNDA" | "FNL" | "FNA" | "BRDA")
                {
                    fail(number, "there is no SF before it".into());
                } else if let Err(why) = record.field(number, key, value) {
                    fail(number, why);
                }
            }
            None if text == "end_of_record" => finish(&mut record, &test, &mut fail),
            None if text.trim().is_empty() || text.starts_with('#') => {}
            _ => fail(number, "this is no line of an lcov file".into()),
        }
    }
    if record.path.is_some() {
        fail(0, "the file ends within a record".into());
        finish(&mut record, &test, &mut fail);
    }
    Ok(wrong)
}

/// The tests' names as lcov allows them, letters, digits and underscores: anything else becomes an
/// underscore. Names that several tests share get the architecture after them, then a number.
pub fn test_names(tests: &[Test]) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    };
    let plain: Vec<String> = tests.iter().map(|test| word(&test.name)).collect();
    let shared = |name: &String| plain.iter().filter(|other| *other == name).count() > 1;
    let mut taken = HashSet::new();
    let mut names = Vec::new();
    for (test, name) in tests.iter().zip(&plain) {
        let name = match shared(name) {
            true => format!("{name}_{}", word(&test.arch)),
            false => name.clone(),
        };
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
        let free = free.unwrap_or(name);
        taken.insert(free.clone());
        names.push(free);
    }
    names
}

/// The functions with names that lcov can tell apart: `f@9` for the second `f`, at line 9, and no
/// number before a comma, which would be a line.
fn written_names(file: &FileCoverage) -> Vec<(&Function, String)> {
    let mut taken = HashSet::new();
    let name = |function: &Function| {
        let mut name = function.name.replace(['\n', '\r'], "?");
        if name.split_once(',').is_some_and(|(before, _)| before.parse::<u32>().is_ok()) {
            name = name.replacen(',', "_", 1);
        }
        if !taken.insert(name.clone()) {
            name = format!("{name}@{}", function.line);
        }
        name
    };
    let names: Vec<String> = file.functions().iter().map(name).collect();
    file.functions().iter().zip(names).collect()
}

/// Writes a file: a record for each source file and test.
///
/// # Errors
/// Writing fails.
pub fn write(coverage: &Coverage, out: &mut dyn Write) -> io::Result<()> {
    let names = test_names(&coverage.tests);
    for (path, tests) in &coverage.files {
        // A line break would end the field; nothing in lcov can say one.
        let path = path.replace(['\n', '\r'], "?");
        for (test, file) in tests {
            writeln!(out, "TN:{}\nSF:{path}", names[test.0])?;
            let summary = file.summary();
            let functions = written_names(file);
            for (function, name) in &functions {
                writeln!(out, "FN:{},{name}", function.line)?;
            }
            for (function, name) in &functions {
                writeln!(out, "FNDA:{},{name}", function.count)?;
            }
            writeln!(out, "FNF:{}\nFNH:{}", summary.functions.found, summary.functions.hit)?;
            for branch in file.branches() {
                let (block, way) = (branch.index >> 16, branch.index & 0xffff);
                write!(out, "BRDA:{},{block},{way},", branch.line)?;
                match branch.taken {
                    Some(taken) => writeln!(out, "{taken}")?,
                    None => writeln!(out, "-")?,
                }
            }
            if summary.branches.found > 0 {
                writeln!(out, "BRF:{}\nBRH:{}", summary.branches.found, summary.branches.hit)?;
            }
            for line in file.lines() {
                writeln!(out, "DA:{},{}", line.line, line.count)?;
            }
            writeln!(out, "LF:{}\nLH:{}", summary.lines.found, summary.lines.hit)?;
            out.write_all(b"end_of_record\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coverage::model::UNKNOWN_ARCH;

    fn parse(text: &str) -> (Coverage, Vec<Wrong>) {
        let mut coverage = Coverage::default();
        let wrong = read(&mut text.as_bytes(), |test, path, file| {
            let test = coverage.test(test, UNKNOWN_ARCH);
            coverage.add(path, test, file);
        });
        (coverage, wrong.unwrap())
    }

    fn print(coverage: &Coverage) -> String {
        let mut out = Vec::new();
        write(coverage, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const SAMPLE: &str = "TN:boot\nSF:/s/a.c\nFN:1,f\nFN:9,g\nFNDA:2,f\nFNDA:0,g\nFNF:2\nFNH:1\n\
        BRDA:2,0,0,2\nBRDA:2,0,1,-\nBRF:2\nBRH:1\nDA:1,2\nDA:2,2\nDA:9,0\nLF:3\nLH:2\nend_of_record\n";

    #[test]
    fn what_is_written_is_what_was_read() {
        let (coverage, wrong) = parse(SAMPLE);
        assert_eq!(wrong, []);
        assert_eq!(print(&coverage), SAMPLE);
    }

    #[test]
    fn the_second_version_is_read_too() {
        let (coverage, wrong) = parse(
            "TN:\nSF:a.c\nVER:x\nFNL:0,3,7\nFNA:0,5,f\nFN:9,12,g\nFNDA:1,g\n\
             BRDA:3,e0,x > 1,4\nBRDA:3,0,!(x > 1),0\nDA:3,5,abc\nMCF:0\nend_of_record\n",
        );
        assert_eq!(wrong, []);
        let file = coverage.files["a.c"].values().next().unwrap();
        let functions: Vec<_> =
            file.functions().iter().map(|f| (f.name.as_str(), f.line, f.count)).collect();
        assert_eq!(functions, [("f", 3, 5), ("g", 9, 1)]);
        assert_eq!(file.branches().len(), 2);
        assert_eq!(file.count(3), Some(5));
    }

    #[test]
    fn the_good_part_of_a_bad_file_is_kept() {
        let (coverage, wrong) = parse("SF:a.c\nDA:1,x\nDA:2,7\nrubbish\nDA:3,1\n");
        let said: Vec<_> = wrong.iter().map(|wrong| wrong.line).collect();
        assert_eq!(said, [2, 4, 0]);
        assert_eq!(coverage.files["a.c"].values().next().unwrap().lines().len(), 3);
        let (coverage, wrong) = parse("DA:1,1\nSF:b.c\nDA:2,1\nend_of_record\n");
        assert_eq!(wrong.len(), 1);
        assert_eq!(coverage.files["b.c"].values().next().unwrap().count(1), None);
    }

    #[test]
    fn functions_of_one_name_stay_two() {
        let (coverage, _) = parse(
            "SF:a\nFN:1,f\nFNDA:3,f\nend_of_record\nSF:a\nFN:9,f\nFNDA:4,f\nFNL:0,2\nFNA:0,1,3,x\n\
             end_of_record\n",
        );
        let once = print(&coverage);
        assert!(once.contains("FNDA:3,f\nFNDA:1,3_x\nFNDA:4,f@9\n"), "{once}");
        assert_eq!(print(&parse(&once).0), once);
    }

    #[test]
    fn names_of_tests_are_words_and_differ() {
        let test = |name: &str, arch: &str| Test {
            name: name.into(),
            arch: arch.into(),
            verdict: None,
            missing: Vec::new(),
        };
        let tests = [
            test("net: ping", "arm"),
            test("boot", "amd64"),
            test("boot", "arm"),
            test("a-b", "arm"),
            test("a.b", "arm"),
        ];
        let names = ["net__ping", "boot_amd64", "boot_arm", "a_b_arm", "a_b_arm_2"];
        assert_eq!(test_names(&tests), names);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(
            text in "(((SF|DA|FN|FNDA|FNL|FNA|BRDA|TN):[0-9a-c,:-]{0,8}|end_of_record|.{0,5})\n){0,20}"
        ) {
            let (coverage, _) = parse(&text);
            // And what came of it survives.
            let (again, wrong) = parse(&print(&coverage));
            prop_assert_eq!(wrong, []);
            prop_assert_eq!(print(&again), print(&coverage));
        }
    }
}
