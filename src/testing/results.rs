//! Results of test programs that ran in a guest, whatever they are written in.

use std::fmt;

use crate::results::{Case, End, Status};
use crate::session::{self, Finished};
use crate::vm::Verdict;
use vmtest_guest::proto::ExitStatus;

/// The results of all programs of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each test, in the order of the programs and of their lists. [`Case::group`] is the program,
    /// by the name of its file (Rust) or its package (Go).
    pub tests: Vec<Case>,
    /// The run.
    pub finished: Finished,
}

impl Report {
    /// Whether the run passed and no test failed. A run without a test has not passed.
    pub fn passed(&self) -> bool {
        self.finished.record.outcome.verdict.passed()
            && !self.tests.is_empty()
            && self.tests.iter().all(|test| test.status.good())
    }

    /// A test, by its name.
    pub fn test(&self, name: &str) -> Option<&Case> {
        self.tests.iter().find(|test| test.name == name)
    }

    /// What a test did.
    pub fn status(&self, name: &str) -> Option<Status> {
        self.test(name).map(|test| test.status)
    }
}

/// One line for each test, the output of those that failed below it, and the verdict.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for test in &self.tests {
            write!(f, "{} {}: {}", test.group, test.name, test.status)?;
            match &test.reason {
                Some(reason) => writeln!(f, ": {reason}")?,
                None => writeln!(f)?,
            }
            if !test.status.good() {
                for line in test.output.lines() {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        write!(f, "the run: {}", self.finished.record.outcome.verdict)
    }
}

/// How the guest's command ended, as far as a verdict says.
pub fn end_of(verdict: &Verdict) -> End {
    match verdict {
        Verdict::Exited(ExitStatus::Code(code)) => End::Exited(*code),
        Verdict::Exited(ExitStatus::Signal(signal)) => End::Signal(*signal),
        Verdict::Ready | Verdict::PoweredOff => End::Exited(0),
        Verdict::TimedOut { after, .. } => End::TimedOut(*after),
        Verdict::Interrupted { .. } => End::Interrupted,
        lost => End::Lost(lost.to_string()),
    }
}

/// Test programs could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramsError {
    /// Nothing was started.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A program cannot be copied to where the guest finds it.
    #[error("cannot take the test program `{}`", .path.display())]
    Program {
        /// The program.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The programs said nothing that could be understood.
    #[error("no results came from the guest: {}", .finished.record.outcome.verdict)]
    NoResults {
        /// The run.
        finished: Box<Finished>,
        /// What is wrong with them.
        #[source]
        source: Option<crate::vm::EventError>,
    },
}
