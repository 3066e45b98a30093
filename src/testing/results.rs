//! Results of test programs that ran in a guest, whatever they are written in.

use std::fmt;

use crate::session::{self, Finished};

/// What one test did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed {
        /// What it printed, as far as the program tells it apart.
        output: String,
    },
    /// The program gave up while it ran: it took longer than it may.
    TimedOut {
        /// What it printed, and what the program said.
        output: String,
    },
    /// The program was told not to run it, or it skipped itself.
    Ignored,
    /// The program ended in the middle of it.
    Unfinished,
    /// The program ended before it.
    NotRun,
}

/// One test's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// The program, by the name of its file (Rust) or its package (Go).
    pub program: String,
    /// The test's name.
    pub name: String,
    /// What it did.
    pub outcome: Outcome,
}

impl TestResult {
    pub(super) fn new(program: &str, name: &str, outcome: Outcome) -> TestResult {
        TestResult { program: program.to_owned(), name: name.to_owned(), outcome }
    }

    /// Whether it passed or was not to run.
    pub fn good(&self) -> bool {
        matches!(self.outcome, Outcome::Passed | Outcome::Ignored)
    }
}

/// The results of all programs of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each test, in the order of the programs and of their lists.
    pub tests: Vec<TestResult>,
    /// The run.
    pub finished: Finished,
}

impl Report {
    /// Whether the run passed and no test failed. A run without a test has not passed.
    pub fn passed(&self) -> bool {
        self.finished.record.outcome.verdict.passed()
            && !self.tests.is_empty()
            && self.tests.iter().all(TestResult::good)
    }

    /// A test's outcome.
    pub fn outcome(&self, name: &str) -> Option<&Outcome> {
        self.tests.iter().find(|test| test.name == name).map(|test| &test.outcome)
    }
}

/// One line for each test, the output of those that failed below it, and the verdict.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for test in &self.tests {
            let (word, output) = match &test.outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::Failed { output } => ("FAILED", output.as_str()),
                Outcome::TimedOut { output } => ("TIMED OUT", output.as_str()),
                Outcome::Ignored => ("ignored", ""),
                Outcome::Unfinished => ("UNFINISHED: the program ended in it", ""),
                Outcome::NotRun => ("NOT RUN: the program ended before it", ""),
            };
            writeln!(f, "{} {}: {word}", test.program, test.name)?;
            for line in output.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        write!(f, "the run: {}", self.finished.record.outcome.verdict)
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
