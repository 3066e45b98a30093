//! The model of what was done, and its form for programs: JSON lines.
//!
//! ```json
//! {"type":"suite","schema":1,"vmtest_version":"0.1.0","started_secs":1764558000.0,"jobs":2}
//! {"type":"planned","arch":"amd64","kernel":"default","suite":"boots"}
//! {"type":"result","arch":"amd64","kernel":"default","suite":"boots","name":"","attempt":1,"status":"passed",…}
//! {"type":"end","secs":3.2,"interrupted":false}
//! ```
//!
//! A line is written when it is known, with one call, so that a file of a run that was killed lacks nothing
//! but its end. The schema only grows within one [`SCHEMA`]: readers accept fields they do not know.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::file::Cell;
use crate::results::Status;

/// Version of the lines' format.
pub const SCHEMA: u32 = 1;

/// How much of the output of tests is held, all together; of the rest only its size is known.
const OUTPUT_MAX: usize = 48 << 20;

/// What tells a test from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Names {
    /// The machine.
    #[serde(flatten)]
    pub cell: Cell,
    /// The suite's entry.
    pub suite: String,
    /// The test within the entry's output; empty for the entry itself.
    pub name: String,
}

impl Names {
    /// The entry, and the test in it if it has several.
    pub fn test(&self) -> String {
        match self.name.as_str() {
            "" => self.suite.clone(),
            name => format!("{}: {name}", self.suite),
        }
    }
}

/// `entry: test [amd64]`
impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.test(), self.cell)
    }
}

/// One try of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    #[serde(rename = "attempt")]
    pub number: u32,
    /// What it did.
    pub status: Status,
    /// When its guest was started, in seconds since 1970.
    pub started_secs: f64,
    /// How long it took: by the program's own clock where its output says so, else its guest.
    pub secs: Option<f64>,
    /// How long its guest took, from start to end.
    pub guest_secs: f64,
    /// Of that, until the command ran.
    pub boot_secs: f64,
    /// Which of the guests at a time, from 0.
    pub slot: u32,
    /// What it printed; the middle may be left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Why it has this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The console around a panic, or its last lines where the guest is to blame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
    /// The command line that repeats it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repeat: String,
}

/// A test with all its tries.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Which.
    pub names: Names,
    /// Its tries, the first one first; at least one.
    pub attempts: Vec<Attempt>,
}

impl Test {
    /// What it did, all tries together.
    pub fn status(&self) -> Status {
        Status::of_tries(self.attempts.iter().map(|attempt| attempt.status))
    }

    /// The try that says most: the last one that failed, else the last one.
    pub fn telling(&self) -> &Attempt {
        let failed = self.attempts.iter().rev().find(|attempt| !attempt.status.good());
        failed.unwrap_or_else(|| self.last())
    }

    /// The last try.
    pub fn last(&self) -> &Attempt {
        self.attempts.last().expect("a test is made with its first try")
    }

    /// How long its tries took together.
    pub fn secs(&self) -> f64 {
        self.attempts.iter().filter_map(|attempt| attempt.secs).sum()
    }
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Line {
    /// A run begins.
    Suite {
        /// [`SCHEMA`].
        schema: u32,
        /// Who wrote it.
        vmtest_version: String,
        /// When, in seconds since 1970.
        started_secs: f64,
        /// How many guests at a time.
        jobs: u32,
    },
    /// A test is going to be run.
    Planned {
        /// The machine.
        #[serde(flatten)]
        cell: Cell,
        /// The suite's entry.
        suite: String,
    },
    /// A try of a test has ended.
    Result {
        /// Which test.
        #[serde(flatten)]
        names: Names,
        /// What it did.
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// The run has ended.
    End {
        /// How long it took.
        secs: f64,
        /// Whether the user ended it.
        interrupted: bool,
    },
}

impl Line {
    /// As text, with its newline.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// What was done of a suite; of several runs, joined.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// When the first began, in seconds since 1970.
    pub started_secs: f64,
    /// How long it took: from the first one's beginning to the last one's end.
    pub secs: f64,
    /// How many guests at a time.
    pub jobs: u32,
    /// Whether the user ended it, or something killed it.
    pub incomplete: bool,
    /// What was planned.
    pub planned: Vec<(Cell, String)>,
    /// The tests, in the order in which they ended.
    pub tests: Vec<Test>,
    /// Bytes of output that are not held, because there is too much of it.
    pub omitted_bytes: u64,
    by_names: HashMap<Names, usize>,
    held: usize,
}

impl Run {
    /// A run that begins, at seconds since 1970, with so many guests at a time.
    pub fn new(started_secs: f64, jobs: u32) -> Run {
        Run { started_secs, jobs, ..Run::default() }
    }

    /// Adds a try.
    pub fn add(&mut self, names: Names, mut attempt: Attempt) {
        let size = attempt.output.len();
        if self.held + size > OUTPUT_MAX {
            attempt.output = format!("[… {size} bytes left out: there is too much output …]");
            self.omitted_bytes += size as u64;
        }
        self.held += attempt.output.len();
        match self.by_names.get(&names) {
            Some(at) => self.tests[*at].attempts.push(attempt),
            None => {
                self.by_names.insert(names.clone(), self.tests.len());
                self.tests.push(Test { names, attempts: vec![attempt] });
            }
        }
    }

    /// Takes a line.
    pub fn line(&mut self, line: Line) {
        match line {
            Line::Suite { started_secs, jobs, .. } => {
                if self.started_secs == 0.0 || started_secs < self.started_secs {
                    let end = self.started_secs + self.secs;
                    self.secs = if self.started_secs == 0.0 { 0.0 } else { end - started_secs };
                    self.started_secs = started_secs;
                }
                self.jobs = self.jobs.max(jobs);
            }
            Line::Planned { cell, suite } => self.planned.push((cell, suite)),
            Line::Result { names, attempt } => {
                let end = attempt.started_secs + attempt.guest_secs;
                self.secs = self.secs.max(end - self.started_secs);
                self.add(names, attempt);
            }
            Line::End { secs, interrupted } => {
                self.secs = self.secs.max(secs);
                self.incomplete |= interrupted;
            }
        }
    }

    /// A test for what was planned and has no result: its run was killed before it.
    pub fn fill(&mut self) {
        let done: std::collections::HashSet<(&Cell, &str)> =
            self.tests.iter().map(|test| (&test.names.cell, &*test.names.suite)).collect();
        let missing: Vec<(Cell, String)> = self
            .planned
            .iter()
            .filter(|(cell, suite)| !done.contains(&(cell, suite.as_str())))
            .cloned()
            .collect();
        for (cell, suite) in missing {
            self.incomplete = true;
            let attempt = Attempt {
                number: 1,
                status: Status::NotRun,
                started_secs: self.started_secs,
                secs: None,
                guest_secs: 0.0,
                boot_secs: 0.0,
                slot: 0,
                output: String::new(),
                reason: Some("the run ended before it".into()),
                console: Vec::new(),
                repeat: String::new(),
            };
            self.add(Names { cell, suite, name: String::new() }, attempt);
        }
    }

    /// How many tests have a status.
    pub fn count(&self, status: Status) -> usize {
        self.tests.iter().filter(|test| test.status() == status).count()
    }

    /// Whether nothing failed. A run without a test has not passed.
    pub fn passed(&self) -> bool {
        !self.tests.is_empty() && self.tests.iter().all(|test| test.status().good())
    }

    /// What did not pass, the worst first.
    pub fn failures(&self) -> Vec<&Test> {
        let mut failures: Vec<&Test> =
            self.tests.iter().filter(|test| !test.status().good()).collect();
        failures.sort_by_key(|test| test.status());
        failures
    }

    /// The cells, in order.
    pub fn cells(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self.tests.iter().map(|test| &test.names.cell).collect();
        cells.sort();
        cells.dedup();
        cells
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::read::{Broken, read};
    use super::*;

    pub(crate) fn names(arch: &str, suite: &str, name: &str) -> Names {
        let cell = Cell { arch: arch.into(), kernel: "default".into() };
        Names { cell, suite: suite.into(), name: name.into() }
    }

    pub(crate) fn attempt(number: u32, status: Status) -> Attempt {
        Attempt {
            number,
            status,
            started_secs: 1_764_558_000.0 + f64::from(number),
            secs: Some(0.25),
            guest_secs: 0.5,
            boot_secs: 0.125,
            slot: 0,
            output: "said <this>\n".into(),
            reason: (!status.good()).then(|| "exit status 1".into()),
            console: Vec::new(),
            repeat: "vmtest --arch=amd64 -- ./a".into(),
        }
    }

    pub(crate) fn run() -> Run {
        let mut run = Run { started_secs: 1_764_558_000.0, secs: 3.5, jobs: 2, ..Run::default() };
        run.add(names("amd64", "good", ""), attempt(1, Status::Passed));
        run.add(names("amd64", "flaky", "a"), attempt(1, Status::Failed));
        run.add(names("amd64", "flaky", "a"), attempt(2, Status::Passed));
        run.add(
            names("riscv64", "good", ""),
            Attempt {
                console: vec!["Kernel panic - not syncing: x".into()],
                reason: Some("the guest panicked: x\u{1}\u{fffe}]]>".into()),
                ..attempt(1, Status::Crashed)
            },
        );
        run.add(names("riscv64", "bad", "b"), attempt(1, Status::Failed));
        run.add(names("riscv64", "bad", "b"), attempt(2, Status::TimedOut));
        run.add(names("riscv64", "skip", ""), attempt(1, Status::Skipped));
        run
    }

    #[test]
    fn lines_are_read_again_and_joined() {
        let run = run();
        let begin = Line::Suite {
            schema: SCHEMA,
            vmtest_version: "x".into(),
            started_secs: run.started_secs,
            jobs: 2,
        };
        let mut text = begin.to_text();
        let planned = Names { suite: "never".into(), ..names("arm", "", "") };
        text += &Line::Planned { cell: planned.cell, suite: planned.suite }.to_text();
        for test in &run.tests {
            for attempt in &test.attempts {
                let (names, attempt) = (test.names.clone(), attempt.clone());
                text += &Line::Result { names, attempt }.to_text();
            }
        }
        let mut again = Run::default();
        read(text.as_bytes(), &mut again).unwrap();
        assert_eq!(again.tests, run.tests);
        assert!(again.incomplete && !again.passed());
        // Killed in the middle of a line.
        let mut cut = Run::default();
        read(&text.as_bytes()[..text.len() - 9], &mut cut).unwrap();
        assert_eq!(cut.tests.len(), run.tests.len() - 1);
        cut.fill();
        assert_eq!(cut.tests.last().unwrap().names.to_string(), "never [arm]");
        text += "{\"type\":\"end\",\"secs\":7.5,\"interrupted\":false,\"later\":1}\n";
        let mut whole = Run::default();
        read(text.as_bytes(), &mut whole).unwrap();
        assert_eq!((whole.secs, whole.incomplete), (7.5, false));
        read(text.as_bytes(), &mut whole).unwrap();
        assert_eq!(whole.tests[0].attempts.len(), 2);

        let error = read(&b"{\"type\":\"suite\"}\nno\n"[..], &mut Run::default()).unwrap_err();
        assert!(error.to_string().starts_with("line 1 is no result"), "{error}");
        let later = begin.to_text().replace("\"schema\":1", "\"schema\":9");
        let error = read(later.as_bytes(), &mut Run::default()).unwrap_err();
        assert!(matches!(error, Broken::Schema { found: 9 }));
    }

    #[test]
    fn failures_come_worst_first() {
        let run = run();
        let told: Vec<String> =
            run.failures().iter().map(|test| format!("{} {}", test.names, test.status())).collect();
        assert_eq!(told, ["good [riscv64] crashed", "bad: b [riscv64] timed out"]);
        assert_eq!((run.count(Status::Flaky), run.passed()), (1, false));
        assert_eq!(run.cells().len(), 2);
    }
}
