//! JUnit, as Jenkins and GitLab read it.
//!
//! GitLab shows `classname` as the suite and takes the first of two cases of one `classname` and `name`: so
//! the machine is in `classname`. A pass among failures has `flakyFailure`, a failure that was tried again
//! `rerunFailure` (surefire). Output is there for what failed or was tried again.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite, XmlString,
};

use super::super::record::{Attempt, Run, Test};
use super::text;
use crate::results::Status;

pub(super) fn write(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let mut report = Report::new("vmtest");
    report.set_time(seconds(run.secs));
    let mut suites: BTreeMap<_, TestSuite> = BTreeMap::new();
    for test in &run.tests {
        let cell = &test.names.cell;
        let suite = suites.entry(cell).or_insert_with(|| {
            let mut suite = TestSuite::new(cell.to_string());
            let started = text::time_of_day(run.started_secs);
            suite.extra.insert("timestamp".into(), started.into());
            suite
        });
        suite.add_test_case(case(test));
    }
    report.add_test_suites(suites.into_values());
    report.serialize(&mut *out).map_err(io::Error::other)?;
    out.flush()
}

fn case(test: &Test) -> TestCase {
    let (last, status) = (test.last(), test.status());
    let earlier = &test.attempts[..test.attempts.len() - 1];
    let mut told = match status {
        Status::Passed => TestCaseStatus::success(),
        Status::Skipped => TestCaseStatus::skipped(),
        Status::Flaky => {
            let failed = test.attempts.iter().filter(|attempt| !attempt.status.good());
            let mut told = TestCaseStatus::success();
            told.add_reruns(failed.map(rerun));
            told
        }
        bad => {
            let mut told = TestCaseStatus::non_success(kind(bad));
            told.add_reruns(earlier.iter().map(rerun));
            told
        }
    };
    if !matches!(status, Status::Passed | Status::Flaky) {
        told.set_message(xml(&message(last)));
        told.set_type(status.name());
        told.set_description(xml(&description(last)));
    }
    let names = &test.names;
    let name = if names.name.is_empty() { &names.suite } else { &names.name };
    let mut case = TestCase::new(xml(name), told);
    case.set_classname(xml(&format!("{}[{}]", names.suite, names.cell)));
    case.set_time(seconds(last.secs.unwrap_or(0.0)));
    case.extra.insert("timestamp".into(), text::time_of_day(last.started_secs).into());
    if !status.good() && !last.output.is_empty() {
        case.set_system_out(xml(&last.output));
    }
    case
}

fn kind(status: Status) -> NonSuccessKind {
    match status {
        Status::Failed => NonSuccessKind::Failure,
        _ => NonSuccessKind::Error,
    }
}

fn rerun(attempt: &Attempt) -> TestRerun {
    let mut rerun = TestRerun::new(kind(attempt.status));
    rerun.set_message(xml(&message(attempt))).set_type(attempt.status.name());
    rerun.set_description(xml(&description(attempt)));
    rerun.set_time(seconds(attempt.secs.unwrap_or(0.0)));
    if !attempt.output.is_empty() {
        rerun.set_system_out(xml(&attempt.output));
    }
    rerun
}

fn message(attempt: &Attempt) -> String {
    match &attempt.reason {
        Some(reason) => text::one_line(reason),
        None => attempt.status.name().to_owned(),
    }
}

fn description(attempt: &Attempt) -> String {
    let mut text = String::new();
    for line in &attempt.console {
        text.push_str(line);
        text.push('\n');
    }
    if !attempt.repeat.is_empty() {
        text.push_str(&format!("repeat it: {}", attempt.repeat));
    }
    text
}

/// Text without the two characters that XML 1.0 forbids beside control characters, which quick-junit takes
/// out.
fn xml(text: &str) -> XmlString {
    match text.contains(['\u{fffe}', '\u{ffff}']) {
        true => XmlString::new(text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")),
        false => XmlString::new(text),
    }
}

fn seconds(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::run;

    #[test]
    fn a_matrix_and_retries_survive() {
        let mut out = Vec::new();
        super::write(&run(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "tests=\"5\"",
            "failures=\"0\"",
            "errors=\"2\"",
            "name=\"good\" classname=\"good[amd64]\"",
            "name=\"good\" classname=\"good[riscv64]\"",
            "<flakyFailure",
            "<rerunFailure",
            "type=\"timed out\"",
            "<skipped",
            "said &lt;this&gt;",
            "Kernel panic - not syncing: x",
            "repeat it: vmtest --arch=amd64 -- ./a",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1}') && !text.contains('\u{fffe}'), "{text}");
    }
}
