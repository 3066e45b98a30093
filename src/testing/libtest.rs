//! Rust test programs (`cargo test --no-run`) in a guest, one result for each test.
//!
//! The program is asked for its tests (`--list`) before it runs them, so that a program that dies, or a
//! guest that panics, leaves every test with a result: what it was in has crashed, what
//! came later has not run ([`crate::results`] reads the output).

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::blocking;
use crate::configure::{Configure, with_image};
use crate::programs::destination;
use crate::quote;
use crate::results::{Case, End, Format, Reader, listed};
use crate::session::Command;

use super::{ProgramsError, Report, end_of};

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
    let tests = parse_run(&text, &marks, &end_of(&finished.record.outcome.verdict));
    if tests.is_empty() && !text.contains(&marks.listed) {
        return Err(ProgramsError::NoResults { finished: Box::new(finished), source: None });
    }
    Ok(Report { tests, finished })
}

/// Splits a run's stdout into its programs. Only the last one can be what a guest was lost in: those before
/// it have ended, somehow.
fn parse_run(text: &str, marks: &Marks, end: &End) -> Vec<Case> {
    let mut tests = Vec::new();
    let mut parts = text.split(marks.program.as_str()).skip(1).peekable();
    while let Some(part) = parts.next() {
        let (program, rest) = part.split_once('\n').unwrap_or((part, ""));
        let Some((list, output)) = rest.split_once(&marks.listed) else { continue };
        let mut reader = Reader::new(Format::Libtest);
        reader.expect(list.lines().filter_map(listed));
        reader.feed(output.as_bytes());
        let is_last = parts.peek().is_none();
        // Which status those before had, the script does not say.
        let end = if is_last { end } else { &End::Exited(0) };
        let cases = reader.finish(end).into_iter().filter(|case| !case.name.is_empty());
        tests.extend(cases.map(|case| Case { group: program.to_owned(), ..case }));
    }
    tests
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
    use crate::results::Status;

    const PASSED: End = End::Exited(0);

    #[test]
    fn a_test_that_prints_the_marks_of_another_run_changes_nothing() {
        let marks = Marks::new();
        let other = Marks::new();
        assert_ne!(marks.program, other.program);
        let text = format!(
            "{}one\nx: test\n{}\ntest x ... {}two\nok\n\ntest result: ok\n",
            marks.program, marks.listed, other.program
        );
        let [case] = &parse_run(&text, &marks, &PASSED)[..] else { panic!("not one case") };
        assert_eq!((&*case.group, &*case.name, case.status), ("one", "x", Status::Passed));
    }

    #[test]
    fn programs_are_told_apart() {
        let marks = Marks::new();
        let Marks { program, listed } = &marks;
        let text = format!(
            "{program}one\nx: test\n{listed}\ntest x ... ok\n\ntest result: ok\n{program}two\n\
             x: test\n{listed}\n"
        );
        let tests = parse_run(&text, &marks, &PASSED);
        assert_eq!(tests[0], Case::new("one", "x", Status::Passed));
        assert_eq!((&*tests[1].group, tests[1].status), ("two", Status::NotRun));
    }

    #[test]
    fn cargo_names_the_programs() {
        let messages = "{\"reason\":\"compiler-artifact\",\"profile\":{\"test\":true},\"executable\":\"/t/x\"}\n\
            {\"profile\":{\"test\":false},\"executable\":\"/t/y\"}\n{\"reason\":\"build-finished\"}\nnoise\n";
        assert_eq!(programs_of_cargo(messages), [PathBuf::from("/t/x")]);
    }
}
