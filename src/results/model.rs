//! The model of results.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::capture::Capture;

/// What a test did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The program, or its guest, ended in the middle of it.
    Crashed,
    /// It took longer than it may.
    TimedOut,
    /// It failed.
    Failed,
    /// What ran it ended before it.
    NotRun,
    /// It failed, and passed when it was tried again.
    Flaky,
    /// It was not to run here, or skipped itself.
    Skipped,
    /// It passed.
    Passed,
}

impl Status {
    /// All, the worst first.
    pub const ALL: [Status; 7] = [
        Status::Crashed,
        Status::TimedOut,
        Status::Failed,
        Status::NotRun,
        Status::Flaky,
        Status::Skipped,
        Status::Passed,
    ];

    /// Whether it is no failure: passed, flaky, skipped.
    pub fn good(self) -> bool {
        matches!(self, Status::Passed | Status::Flaky | Status::Skipped)
    }

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Passed => "passed",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
            Status::TimedOut => "timed out",
            Status::Crashed => "crashed",
            Status::NotRun => "not run",
            Status::Flaky => "flaky",
        }
    }

    /// The result of several tries: a pass among failures is flaky. A try that did not get to it says
    /// nothing, unless none did.
    pub fn of_tries(tries: impl IntoIterator<Item = Status>) -> Status {
        let mut tries: Vec<Status> = tries.into_iter().collect();
        tries.retain(|status| *status != Status::NotRun);
        let passed = tries.contains(&Status::Passed);
        match tries.iter().min() {
            Some(worst) if !worst.good() && passed => Status::Flaky,
            _ => tries.last().copied().unwrap_or(Status::NotRun),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One test of a program's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is part of, as far as the output says: a package, a subtest that holds it, a test suite.
    /// Empty where there is nothing.
    pub group: String,
    /// Its name; empty for what concerns the whole program.
    pub name: String,
    /// What it did.
    pub status: Status,
    /// How long it took by the program's own clock; `None` where the format does not say.
    pub duration: Option<Duration>,
    /// What it printed, as far as the output tells it apart; the middle may be left out.
    pub output: String,
    /// Why it has this status: a skip's reason, how the program ended.
    pub reason: Option<String>,
}

impl Case {
    /// A case of which nothing but its status is known.
    pub fn new(group: &str, name: &str, status: Status) -> Case {
        Case {
            group: group.to_owned(),
            name: name.to_owned(),
            status,
            duration: None,
            output: String::new(),
            reason: None,
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(u8),
    /// By a signal.
    Signal(u8),
    /// It took longer than this.
    TimedOut(Duration),
    /// Its guest is gone: panicked, lost; the text says how.
    Lost(String),
    /// The user ended it.
    Interrupted,
}

impl End {
    /// The status of what it was in.
    pub(super) fn status(&self) -> Status {
        match self {
            End::TimedOut(_) => Status::TimedOut,
            End::Interrupted => Status::NotRun,
            End::Exited(_) | End::Signal(_) | End::Lost(_) => Status::Crashed,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(code) => write!(f, "exit status {code}"),
            End::Signal(signal) => write!(f, "killed by signal {signal}"),
            End::TimedOut(after) => {
                write!(f, "timed out after {}", crate::duration::display(*after))
            }
            End::Lost(how) => f.write_str(how),
            End::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What a program's output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "suites", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Anything: the exit status is the result.
    #[default]
    Exit,
    /// Anything: the exit status is the result, 77 a skip and 99 a hard error (Automake, Meson).
    Automake,
    /// Rust's test programs.
    Libtest,
    /// Go's: `-test.v`, or events of `go test -json`.
    Go,
    /// TAP 13 and 14.
    Tap,
    /// KTAP 1.
    Ktap,
    /// A kernel's log with results of KUnit.
    Kunit,
    /// `run_kselftest.sh`.
    Kselftest,
    /// GoogleTest: text, or XML.
    Gtest,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 9] = [
        Format::Exit,
        Format::Automake,
        Format::Libtest,
        Format::Go,
        Format::Tap,
        Format::Ktap,
        Format::Kunit,
        Format::Kselftest,
        Format::Gtest,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Exit => "exit",
            Format::Automake => "automake",
            Format::Libtest => "libtest",
            Format::Go => "go",
            Format::Tap => "tap",
            Format::Ktap => "ktap",
            Format::Kunit => "kunit",
            Format::Kselftest => "kselftest",
            Format::Gtest => "gtest",
        }
    }

    /// Whether the exit status alone is the result.
    pub fn is_status(self) -> bool {
        matches!(self, Format::Exit | Format::Automake)
    }

    /// The exit status that says that all was skipped.
    pub fn skip_code(self) -> Option<u8> {
        match self {
            Format::Automake => Some(77),
            // KSFT_SKIP of Linux' tools/testing/selftests/kselftest.h.
            Format::Ktap | Format::Kselftest => Some(4),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A format's name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no format `{given}`")]
pub struct UnknownFormat {
    /// What was given.
    pub given: String,
}

impl UnknownFormat {
    /// How to fix it.
    pub fn hint(&self) -> String {
        format!("one of: {}", Format::ALL.map(Format::name).join(", "))
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Format, UnknownFormat> {
        let named = |format: &Format| format.name() == text;
        Format::ALL.into_iter().find(named).ok_or_else(|| UnknownFormat { given: text.to_owned() })
    }
}

/// What is to be said of the whole program, beside its cases; `None` where they say it all.
pub(super) fn whole(format: Format, end: &End, cases: &[Case], rest: Capture) -> Option<Case> {
    let skipped = matches!(end, End::Exited(code) if Some(*code) == format.skip_code());
    let (status, reason) = match end {
        End::Exited(0) if cases.is_empty() && !format.is_status() => {
            (Status::Failed, Some(format!("no results of {format} in its output")))
        }
        End::Exited(0) if cases.is_empty() => (Status::Passed, None),
        End::Exited(0) => return None,
        End::Exited(99) if format == Format::Automake => {
            (Status::Failed, Some("a hard error: exit status 99".to_owned()))
        }
        _ if skipped && cases.iter().all(|case| case.status.good()) => {
            // The cases' own reasons are better ones.
            if cases.iter().any(|case| case.status == Status::Skipped) {
                return None;
            }
            (Status::Skipped, Some(end.to_string()))
        }
        _ if cases.iter().any(|case| !case.status.good()) => return None,
        End::Exited(_) if cases.is_empty() => (Status::Failed, Some(end.to_string())),
        End::Exited(code) => {
            (Status::Failed, Some(format!("exit status {code}, though none of its tests failed")))
        }
        End::Signal(_) | End::TimedOut(_) | End::Lost(_) | End::Interrupted => {
            (end.status(), Some(end.to_string()))
        }
    };
    Some(Case { reason, output: rest.text(), ..Case::new("", "", status) })
}
