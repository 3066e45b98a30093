//! Go test programs (`go test -c`) in a guest, one result for each test.
//!
//! The guest's `gouinit` runs them as the reference's does and turns their output into the events of
//! `go test -json` (`go doc test2json`), which land on a share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::arch::Arch;
use crate::blocking;
use crate::configure::{Configure, p9_directory};
use crate::options::Environment;
use crate::session::{self, Command};
use crate::vm::read_event_file;

use super::{Outcome, ProgramsError, Report, TestResult};

/// The guest program's name with the command that runs Go tests.
const GOUINIT: [&str; 2] = [vmtest_guest::proto::GUEST_PROGRAM, "gouinit"];

/// Mount tag of the share with the programs and their results.
const SHARE: &str = "gotestdata";

/// The programs' coverage profile on the share.
const PROFILE: &str = "coverage.txt";

/// An event of `go test -json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TestEvent {
    /// `run`, `pass`, `fail`, `skip`, `output`, …
    pub action: String,
    /// The package, or the program's directory on the share.
    #[serde(default)]
    pub package: String,
    /// The test; none for what concerns the whole package.
    #[serde(default)]
    pub test: Option<String>,
    /// What was printed.
    #[serde(default)]
    pub output: Option<String>,
}

/// Runs statically linked Go test programs of the guest's architecture in one guest, one after the
/// other, each for `timeout` at most. A package is called as its program's file, without `.test`.
///
/// With `VMTEST_GO_PROFILE` in the environment their coverage profile is written to that file; the programs
/// have to be built with `-cover` then.
///
/// # Errors
/// [`ProgramsError`] when nothing could be run. Tests that fail are in the report.
pub fn run(
    arch: Arch,
    configurator: impl Configure,
    programs: impl IntoIterator<Item = impl Into<PathBuf>>,
    timeout: Duration,
) -> Result<Report, ProgramsError> {
    let share = tempfile::tempdir().map_err(session::Error::Temporary)?;
    for path in programs {
        let path = path.into();
        let failed = |source| ProgramsError::Program { path: path.clone(), source };
        let package = path.file_stem().unwrap_or(path.as_os_str());
        let dir = share.path().join("tests").join(package);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        std::fs::copy(&path, dir.join(package).with_extension("test")).map_err(failed)?;
    }
    let mut command = Command::new(GOUINIT[0])
        .arg(GOUINIT[1])
        .arg(format!("-test_timeout={}ms", timeout.as_millis()))
        .arg("-list=true");
    let profile = Environment::read().map_err(session::Error::from)?.go_profile;
    if profile.is_some() {
        command = command.arg(format!("-coverprofile=/mount/9p/{SHARE}/{PROFILE}"));
    }
    let configurator = (configurator, p9_directory(share.path(), SHARE));
    let mut finished = blocking::run(arch, configurator, command)?;
    if let Some(to) = profile {
        // The tests' results are worth more than their profile.
        if let Err(error) = std::fs::copy(share.path().join(PROFILE), &to) {
            let text = format!("VMTEST_GO_PROFILE: no profile at {}: {error}", to.display());
            finished.record.outcome.notices.push(text);
        }
    }
    match read_event_file::<TestEvent>(share.path().join("results.json")) {
        Ok(events) => Ok(Report { tests: results(&events), finished }),
        Err(source) => {
            Err(ProgramsError::NoResults { finished: Box::new(finished), source: Some(source) })
        }
    }
}

/// Reads the output of `go test -json`. Lines that are no events are left out, as Go's own tools do.
pub fn parse_test2json(text: &str) -> Vec<TestResult> {
    let events: Vec<TestEvent> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    results(&events)
}

/// How a program, or who started it, says that a test took too long.
const TIMED_OUT: [&str; 2] = ["panic: test timed out after ", "*** Test killed"];

/// One result for each test that an event names.
///
/// A program that gives up at its time-out leaves what it was in as [`Outcome::TimedOut`]; the tests that
/// our guest program then lists, and of which nothing was heard, are [`Outcome::NotRun`].
pub fn results(events: &[TestEvent]) -> Vec<TestResult> {
    let mut order = Vec::new();
    let mut late = BTreeSet::new();
    let mut tests: BTreeMap<(&str, &str), (String, Outcome)> = BTreeMap::new();
    for event in events {
        let text = event.output.as_deref().unwrap_or_default();
        if TIMED_OUT.iter().any(|mark| text.starts_with(mark)) {
            late.insert(event.package.as_str());
        }
        let Some(test) = &event.test else { continue };
        let key = (event.package.as_str(), test.as_str());
        let (printed, outcome) = tests.entry(key).or_insert_with(|| {
            order.push(key);
            let listed = event.action == "listed";
            (String::new(), if listed { Outcome::NotRun } else { Outcome::Unfinished })
        });
        match event.action.as_str() {
            "output" => printed.push_str(text),
            "pass" | "bench" => *outcome = Outcome::Passed,
            "skip" => *outcome = Outcome::Ignored,
            "fail" => *outcome = Outcome::Failed { output: String::new() },
            _ => {}
        }
    }
    let finish = |key: (&str, &str)| {
        let (printed, mut outcome) = tests.get(&key).cloned()?;
        let reported = || printed.contains(&format!("--- FAIL: {} (", key.1));
        if outcome == (Outcome::Failed { output: String::new() }) {
            let output = printed.trim_end().to_owned();
            outcome = match late.contains(key.0) && !reported() {
                true => Outcome::TimedOut { output },
                false => Outcome::Failed { output },
            };
        }
        Some(TestResult::new(key.0, key.1, outcome))
    };
    order.into_iter().filter_map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_results() {
        let text = r#"
            {"Action":"start","Package":"p"}
            {"Action":"run","Package":"p","Test":"TestA"}
            {"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: no\n"}
            {"Action":"fail","Package":"p","Test":"TestA","Elapsed":0.1}
            no json
            {"Action":"run","Package":"p","Test":"TestA/sub"}
            {"Action":"skip","Package":"p","Test":"TestA/sub"}
            {"Action":"pass","Package":"q","Test":"TestA"}
            {"Action":"run","Package":"q","Test":"TestB"}
            {"Action":"fail","Package":"p"}"#;
        let failed = Outcome::Failed { output: "    a_test.go:7: no".into() };
        assert_eq!(
            parse_test2json(text),
            [
                TestResult::new("p", "TestA", failed),
                TestResult::new("p", "TestA/sub", Outcome::Ignored),
                TestResult::new("q", "TestA", Outcome::Passed),
                TestResult::new("q", "TestB", Outcome::Unfinished),
            ]
        );
    }

    #[test]
    fn a_test_past_its_time_is_timed_out_and_those_after_it_have_not_run() {
        let text = r#"
            {"Action":"run","Package":"p","Test":"TestA"}
            {"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}
            {"Action":"fail","Package":"p","Test":"TestA"}
            {"Action":"run","Package":"p","Test":"TestSleep"}
            {"Action":"output","Package":"p","Test":"TestSleep","Output":"panic: test timed out after 1s\n"}
            {"Action":"fail","Package":"p","Test":"TestSleep"}
            {"Action":"fail","Package":"p"}
            {"Action":"listed","Package":"p","Test":"TestSleep"}
            {"Action":"listed","Package":"p","Test":"TestZ"}"#;
        let outcomes: Vec<_> =
            parse_test2json(text).into_iter().map(|test| (test.name, test.outcome)).collect();
        let failed = Outcome::Failed { output: "--- FAIL: TestA (0.00s)".into() };
        let late = Outcome::TimedOut { output: "panic: test timed out after 1s".into() };
        let expected = [("TestA", failed), ("TestSleep", late), ("TestZ", Outcome::NotRun)];
        assert_eq!(outcomes, expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    }
}
