//! Rust test programs (`cargo test --no-run`) in a guest, one result for each test.
//!
//! The program is asked for its tests (`--list`) before it runs them, so that a program that dies, or a
//! guest that panics, leaves every test with a result: what it was in is [`Outcome::Unfinished`], what
//! came later [`Outcome::NotRun`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::blocking;
use crate::configure::{Configure, with_image};
use crate::quote;
use crate::session::{Command, destination};

use super::{Outcome, ProgramsError, Report, TestResult};

/// Begins the part of a program, in the run's stdout.
const PROGRAM: &str = "vmtest: test program ";
/// Ends the list of its tests.
const LISTED: &str = "vmtest: tests listed";

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
    let mut script = OsString::from("status=0\n");
    let mut files = Vec::new();
    for path in programs {
        let dest = destination(&path, None);
        let quoted = quote::join(std::iter::once(&dest).chain(&args));
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = quote::join([OsString::from(format!("{PROGRAM}{name}"))]);
        script.push("echo ");
        script.push(name);
        script.push("\n");
        script.push(&quoted);
        script.push(format!(" --list --format terse && echo '{LISTED}' && "));
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
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    let finished = blocking::run(arch, (configurator, image), command)?;
    let tests = parse_run(&finished.stdout_text());
    if tests.is_empty() && !finished.stdout_text().contains(LISTED) {
        return Err(ProgramsError::NoResults { finished: Box::new(finished), source: None });
    }
    Ok(Report { tests, finished })
}

/// Splits a run's stdout into its programs.
fn parse_run(text: &str) -> Vec<TestResult> {
    let mut tests = Vec::new();
    for part in text.split(PROGRAM).skip(1) {
        let (program, rest) = part.split_once('\n').unwrap_or((part, ""));
        let Some((list, output)) = rest.split_once(LISTED) else { continue };
        tests.extend(parse(program, list, output));
    }
    tests
}

/// Reads what a program says with `--list --format terse` and with `--test-threads=1`.
pub fn parse(program: &str, list: &str, output: &str) -> Vec<TestResult> {
    let seen = outcomes(output);
    list.lines()
        .filter_map(|line| line.strip_suffix(": test").or_else(|| line.strip_suffix(": benchmark")))
        .map(|name| {
            let outcome = seen.get(name).cloned().unwrap_or(Outcome::NotRun);
            TestResult::new(program, name, outcome)
        })
        .collect()
}

fn outcomes(output: &str) -> BTreeMap<String, Outcome> {
    let mut seen = BTreeMap::new();
    let mut open: Option<String> = None;
    let mut printed: Option<(String, String)> = None;
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
        {
            note_output(&mut seen, printed.replace((name.to_owned(), String::new())));
        } else if line == "failures:" {
            note_output(&mut seen, printed.take());
        } else if let Some((_, text)) = &mut printed {
            text.push_str(line);
            text.push('\n');
        } else if let Some((name, rest)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            match outcome(rest) {
                Some(outcome) => {
                    seen.insert(name.to_owned(), outcome);
                    open = None;
                }
                None => {
                    seen.insert(name.to_owned(), Outcome::Unfinished);
                    open = Some(name.to_owned());
                }
            }
        } else if let (Some(name), Some(outcome)) = (&open, outcome(line)) {
            // The test wrote past libtest's capture, between its name and its result.
            seen.insert(name.clone(), outcome);
            open = None;
        }
    }
    note_output(&mut seen, printed);
    seen
}

fn note_output(seen: &mut BTreeMap<String, Outcome>, printed: Option<(String, String)>) {
    if let Some((name, text)) = printed
        && let Some(Outcome::Failed { output }) = seen.get_mut(&name)
    {
        text.trim_end().clone_into(output);
    }
}

/// The result at the end of a line.
fn outcome(text: &str) -> Option<Outcome> {
    let text = text.trim_end();
    let word = text.rsplit(' ').next()?;
    if text.starts_with("ignored") {
        Some(Outcome::Ignored)
    } else if word == "ok" || text.ends_with(" ok") {
        Some(Outcome::Passed)
    } else if word == "FAILED" || text.starts_with("FAILED") {
        Some(Outcome::Failed { output: String::new() })
    } else {
        None
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
    fn programs_are_told_apart() {
        let text = format!(
            "{PROGRAM}one\nx: test\n{LISTED}\ntest x ... ok\n{PROGRAM}two\nx: test\n{LISTED}\n"
        );
        let tests = parse_run(&text);
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
