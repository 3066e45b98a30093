//! Rust test programs (`cargo test --no-run`) in a guest, one result for each test.
//!
//! The program is asked for its tests (`--list`) before it runs them, so that a program that dies, or a
//! guest that panics, leaves every test with a result: what it was in is [`Outcome::Unfinished`], what
//! came later [`Outcome::NotRun`].

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::blocking;
use crate::configure::{Configure, with_image};
use crate::programs::destination;
use crate::quote;
use crate::session::Command;

use super::{Outcome, ProgramsError, Report, TestResult};

/// What divides a run's stdout. A test may print anything, also such a mark: each run has its own.
#[derive(Debug)]
struct Marks {
    /// Begins the part of a program.
    program: String,
    /// Ends the list of its tests.
    listed: String,
}

impl Marks {
    fn new() -> Marks {
        let number = RandomState::new().hash_one(0);
        Marks {
            program: format!("vmtest {number:016x}: test program "),
            listed: format!("vmtest {number:016x}: tests listed"),
        }
    }
}

/// Runs test programs of the guest's architecture in one guest, one after the other. `args` are filters
/// and options of libtest, for each of them; tests run one at a time.
///
/// The guest needs a shell, which pinned assets have.
///
/// # Errors
/// [`ProgramsError`] when nothing could be run. Tests that fail are in the report.
pub fn run(
    arch: Arch,
    configurator: impl Configure,
    programs: impl IntoIterator<Item = impl Into<PathBuf>>,
    args: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Report, ProgramsError> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let programs: Vec<PathBuf> = programs.into_iter().map(Into::into).collect();
    let marks = Marks::new();
    let mut script = OsString::from("status=0\n");
    let mut files = Vec::new();
    for path in programs {
        let dest = destination(&path, None);
        let quoted = quote::join(std::iter::once(&dest).chain(&args));
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = quote::join([OsString::from(format!("{}{name}", marks.program))]);
        script.push("echo ");
        script.push(name);
        script.push("\n");
        script.push(&quoted);
        script.push(format!(" --list --format terse && echo '{}' && ", marks.listed));
        script.push(&quoted);
        script.push(" --test-threads=1 --format pretty --color never || status=$?\n");
        files.push((path, dest));
    }
    script.push("exit $status\n");
    let image = with_image(move |builder| {
        builder.by("a test program");
        for (path, dest) in &files {
            builder.binary_os(path, Some(dest));
        }
    });
    let command = Command::new("sh").arg("-c").arg(script);
    let finished = blocking::run(arch, (configurator, image), command)?;
    let text = finished.stdout_text();
    let tests = parse_run(&text, &marks);
    if tests.is_empty() && !text.contains(&marks.listed) {
        return Err(ProgramsError::NoResults { finished: Box::new(finished), source: None });
    }
    Ok(Report { tests, finished })
}

/// Splits a run's stdout into its programs.
fn parse_run(text: &str, marks: &Marks) -> Vec<TestResult> {
    let mut tests = Vec::new();
    for part in text.split(marks.program.as_str()).skip(1) {
        let (program, rest) = part.split_once('\n').unwrap_or((part, ""));
        let Some((list, output)) = rest.split_once(&marks.listed) else { continue };
        tests.extend(parse(program, list, output));
    }
    tests
}

/// Reads what a program says with `--list --format terse` and with `--test-threads=1`.
///
/// A test may print anything past libtest's capture, also a line `ok`: only what is last before the next
/// test begins, or before the program's own summary, is a result.
pub fn parse(program: &str, list: &str, output: &str) -> Vec<TestResult> {
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test").or_else(|| line.strip_suffix(": benchmark")))
        .collect();
    let seen = outcomes(&names, output);
    let result = |name: &&str| {
        let outcome = seen.get(name).cloned().unwrap_or(Outcome::NotRun);
        TestResult::new(program, name, outcome)
    };
    names.iter().map(result).collect()
}

fn outcomes<'a>(names: &[&'a str], output: &str) -> BTreeMap<&'a str, Outcome> {
    let lines: Vec<&str> = output.lines().collect();
    let mut waiting: BTreeSet<&str> = names.iter().copied().collect();
    let mut starts = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if let Some((name, rest)) = begun(line)
            && let Some(name) = waiting.take(name)
        {
            starts.push((number, name, rest));
        }
    }
    let mut seen = BTreeMap::new();
    for (place, (number, name, rest)) in starts.iter().enumerate() {
        let outcome = match starts.get(place + 1) {
            Some((next, ..)) => result(rest, &lines[number + 1..*next]),
            None => match summary(&lines[number + 1..]) {
                Some((own, summary)) => {
                    seen.insert(*name, result(rest, own));
                    note_output(&mut seen, summary);
                    return seen;
                }
                None => Outcome::Unfinished,
            },
        };
        seen.insert(*name, outcome);
    }
    seen
}

/// `test NAME ... REST`: a test begins.
fn begun(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.strip_suffix(" - should panic").unwrap_or(name), rest))
}

/// What the last test printed, and the summary after it; `None` if there is none: the program died.
fn summary<'l, 'a>(lines: &'l [&'a str]) -> Option<(&'l [&'a str], &'l [&'a str])> {
    let ended = |line: &&str| line.starts_with("test result: ");
    if !lines.iter().any(ended) {
        return None;
    }
    let begins = |line: &str| line == "failures:" || line == "successes:" || ended(&line);
    let begin = (0..lines.len())
        .find(|&at| begins(lines[at]) && at.checked_sub(1).is_none_or(|at| lines[at].is_empty()))?;
    Some(lines.split_at(begin))
}

/// The result of a test: `first` is on the line with its name, the lines after it are what it printed.
fn result(first: &str, lines: &[&str]) -> Outcome {
    let first = first.trim_end();
    let last = lines.iter().rev().map(|line| line.trim_end()).find(|line| !line.is_empty());
    let text = last.unwrap_or(first);
    // With --report-time and --ensure-time.
    let text =
        text.strip_suffix('>').and_then(|text| text.rsplit_once(" <")).map_or(text, |it| it.0);
    let text = text.strip_suffix(" (time limit exceeded)").unwrap_or(text);
    if last.is_none() && first.starts_with("ignored") {
        Outcome::Ignored
    } else if text.ends_with("FAILED") {
        Outcome::Failed { output: String::new() }
    } else if text.ends_with("ok") || text.contains("bench: ") {
        Outcome::Passed
    } else {
        Outcome::Unfinished
    }
}

/// Gives failed tests what the summary has of their output.
fn note_output(seen: &mut BTreeMap<&str, Outcome>, summary: &[&str]) {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut within = false;
    for line in summary {
        let name = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        match name.filter(|name| matches!(seen.get(name), Some(Outcome::Failed { .. }))) {
            Some(name) => {
                sections.push((name, Vec::new()));
                within = true;
            }
            None if *line == "failures:" => within = false,
            None => {
                if let Some((_, lines)) = sections.last_mut().filter(|_| within) {
                    lines.push(line);
                }
            }
        }
    }
    for (name, lines) in sections {
        if let Some(Outcome::Failed { output }) = seen.get_mut(name) {
            lines.join("\n").trim_end().clone_into(output);
        }
    }
}

/// The programs that `cargo test --no-run --message-format=json` names, of its stdout.
pub fn programs_of_cargo(messages: &str) -> Vec<PathBuf> {
    let executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message.get("profile")?.get("test")?.as_bool()?;
        let path = message.get("executable")?.as_str()?;
        is_test.then(|| Path::new(path).to_owned())
    });
    executables.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "a: test\nb::c: test\nd: test\ne: test\nf: test\n\n5 tests, 0 benchmarks\n";

    #[test]
    fn every_test_has_a_result() {
        let output = "\nrunning 5 tests\ntest a ... ok\ntest b::c ... FAILED\n\
            test d - should panic ... ok\ntest e ... ignored, not today\ntest f ... noise\nok\n\
            \nfailures:\n\n---- b::c stdout ----\nthread 'b::c' panicked at x.rs:1:1:\nno\n\n\n\
            failures:\n    b::c\n\ntest result: FAILED. 3 passed; 1 failed\n";
        let tests = parse("t", LIST, output);
        let outcomes: Vec<_> = tests.iter().map(|test| test.outcome.clone()).collect();
        let failed = Outcome::Failed { output: "thread 'b::c' panicked at x.rs:1:1:\nno".into() };
        assert_eq!(
            outcomes,
            [Outcome::Passed, failed, Outcome::Passed, Outcome::Ignored, Outcome::Passed]
        );
        assert_eq!(tests[1].name, "b::c");
    }

    #[test]
    fn a_program_that_dies_leaves_every_test_with_a_result() {
        let tests = parse("t", LIST, "running 5 tests\ntest a ... ok\ntest b::c ... ");
        let outcomes: Vec<_> = tests.into_iter().map(|test| test.outcome).collect();
        let rest = [Outcome::NotRun, Outcome::NotRun, Outcome::NotRun];
        assert_eq!(outcomes, [&[Outcome::Passed, Outcome::Unfinished][..], &rest].concat());
    }

    #[test]
    fn a_test_that_prints_ok_and_then_dies_has_not_passed() {
        for text in ["ok\n", "noise\nok\n", "ok", "FAILED\n", "\n\ntest a ... ok\n"] {
            let tests = parse("t", "a: test\nb: test\n", &format!("\ntest a ... {text}"));
            assert_eq!(tests[0].outcome, Outcome::Unfinished, "{text:?}");
        }
    }

    #[test]
    fn only_the_last_word_of_a_test_is_its_result() {
        let end = "test b ... ok\n\ntest result: x\n";
        for (text, expected) in [
            ("ok\nFAILED\n", false),
            ("FAILED\nok\n", true),
            ("no newline before itok\n", true),
            ("no newline before itFAILED\n", false),
            ("ok <0.001s>\n", true),
            ("FAILED (time limit exceeded)\n", false),
            ("bench:          12 ns/iter (+/- 1)\n", true),
            ("\nfailures:\n\n---- a stdout ----\nok\n", true),
        ] {
            let tests = parse("t", "a: test\nb: test\n", &format!("test a ... {text}{end}"));
            let passed = tests[0].outcome == Outcome::Passed;
            assert_eq!(passed, expected, "{text:?}: {:?}", tests[0].outcome);
            assert_eq!(tests[1].outcome, Outcome::Passed, "{text:?}");
        }
    }

    #[test]
    fn a_test_that_prints_the_marks_of_another_run_changes_nothing() {
        let marks = Marks::new();
        let other = Marks::new();
        assert_ne!(marks.program, other.program);
        let text = format!(
            "{}one\nx: test\n{}\ntest x ... {}two\nok\n\ntest result: ok\n",
            marks.program, marks.listed, other.program
        );
        assert_eq!(parse_run(&text, &marks), [TestResult::new("one", "x", Outcome::Passed)]);
    }

    #[test]
    fn programs_are_told_apart() {
        let marks = Marks::new();
        let Marks { program, listed } = &marks;
        let text = format!(
            "{program}one\nx: test\n{listed}\ntest x ... ok\n\ntest result: ok\n{program}two\n\
             x: test\n{listed}\n"
        );
        let tests = parse_run(&text, &marks);
        assert_eq!(tests[0], TestResult::new("one", "x", Outcome::Passed));
        assert_eq!(tests[1], TestResult::new("two", "x", Outcome::NotRun));
    }

    #[test]
    fn cargo_names_the_programs() {
        let messages = "{\"reason\":\"compiler-artifact\",\"profile\":{\"test\":true},\"executable\":\"/t/x\"}\n\
            {\"profile\":{\"test\":false},\"executable\":\"/t/y\"}\n{\"reason\":\"build-finished\"}\nnoise\n";
        assert_eq!(programs_of_cargo(messages), [PathBuf::from("/t/x")]);
    }
}
