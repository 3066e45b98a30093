//! Go's test programs: the text of `-test.v`, and the events of `go test -json`, line by line.
//!
//! A program that gives up at its time-out leaves what it was in as timed out. Tests that are listed
//! (`-test.list` before the run, or events `listed` of our guest program) and of which nothing was heard have
//! not run.

use std::collections::HashSet;

use serde::Deserialize;

use super::book::{Book, Id, State};
use super::capture::Capture;
use super::libtest::seconds;
use super::model::{Case, End, Status};

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
    /// Seconds.
    #[serde(default)]
    pub elapsed: Option<f64>,
}

/// One result for each test that an event names.
pub fn test2json<'a>(events: impl IntoIterator<Item = &'a TestEvent>) -> Vec<Case> {
    let mut parser = Parser::default();
    events.into_iter().for_each(|event| parser.event(event));
    let (book, _) = parser.finish();
    book.finish(&End::Exited(0))
}

/// How a program, or who started it, says that a test took too long.
const TIMED_OUT: [&str; 2] = ["panic: test timed out after ", "*** Test killed"];

#[derive(Debug, Default)]
pub(super) struct Parser {
    book: Book,
    /// Packages that ran out of time.
    late: HashSet<String>,
    /// Tests whose own line said that they failed.
    reported: HashSet<(String, String)>,
    /// Whose output comes.
    current: Option<Id>,
    /// A test has begun: there is no list after that.
    begun: bool,
    /// Tests of the text that run, paused ones among them.
    running: Vec<(String, Id)>,
    rest: Capture,
}

impl Parser {
    pub(super) fn line(&mut self, line: &str) {
        if line.starts_with('{')
            && let Ok(event) = serde_json::from_str::<TestEvent>(line)
        {
            return self.event(&event);
        }
        // Where a marker is not at a line's beginning, Go puts a ^V before it (-test.v=test2json).
        let line = match line.split_once('\u{16}') {
            Some((before, marker)) => {
                if !before.is_empty() {
                    self.printed(before);
                }
                marker
            }
            None => line,
        };
        if let Some(name) = line.strip_prefix("=== RUN").map(str::trim) {
            return self.run(name);
        }
        for resumed in ["=== CONT", "=== NAME"] {
            if let Some(name) = line.strip_prefix(resumed).map(str::trim) {
                self.current = self.book.find("", name);
                return;
            }
        }
        if line.starts_with("=== PAUSE") {
            self.current = None;
            return;
        }
        let inner = line.trim_start_matches(' ');
        for (word, status) in [
            ("--- PASS: ", Status::Passed),
            ("--- FAIL: ", Status::Failed),
            ("--- SKIP: ", Status::Skipped),
            ("--- BENCH: ", Status::Passed),
        ] {
            if let Some(rest) = inner.strip_prefix(word) {
                return self.result(rest, status);
            }
        }
        if !self.begun && is_test_name(line) {
            self.book.get("", line);
            return;
        }
        if TIMED_OUT.iter().any(|mark| line.starts_with(mark)) {
            self.late.insert(String::new());
        }
        if matches!(line, "PASS" | "FAIL") || line.starts_with("ok  \t") {
            self.current = None;
        }
        self.printed(line);
    }

    /// Output that is no result.
    pub(super) fn printed(&mut self, line: &str) {
        match self.current {
            Some(id) => self.book.print_line(id, line),
            None => self.rest.push_line(line),
        }
    }

    fn run(&mut self, name: &str) {
        self.begun = true;
        self.current = self.book.add("", name);
        match self.current {
            Some(id) => {
                self.book.set(id, State::Running);
                self.running.push((name.to_owned(), id));
            }
            None => self.book.beyond(Status::NotRun),
        }
    }

    /// `NAME (0.00s)`: without `-test.v` only failures are named, and only here.
    fn result(&mut self, rest: &str, status: Status) {
        self.begun = true;
        let (name, time) = match rest.rsplit_once(" (") {
            Some((name, time)) => (name, time.strip_suffix(')').and_then(seconds)),
            None => (rest, None),
        };
        let at = self.running.iter().rposition(|(running, _)| running == name);
        let id = match at {
            Some(at) => Some(self.running.remove(at).1),
            None => self.book.add("", name),
        };
        let Some(id) = id else { return self.book.beyond(status) };
        self.book.took(id, time);
        self.book.set(id, State::Done(status));
        // Before Go 1.14, and without -test.v, what a test has logged comes after its result.
        self.current = Some(id);
    }

    fn event(&mut self, event: &TestEvent) {
        let text = event.output.as_deref().unwrap_or_default();
        if TIMED_OUT.iter().any(|mark| text.starts_with(mark)) {
            self.late.insert(event.package.clone());
        }
        let Some(test) = &event.test else {
            self.rest.push(text.as_bytes());
            return;
        };
        let Some(id) = self.book.get(&event.package, test) else {
            if event.action == "run" {
                self.book.beyond(Status::NotRun);
            }
            return;
        };
        let done = match event.action.as_str() {
            "output" => {
                self.book.print(id, text);
                if text.starts_with(&format!("--- FAIL: {test} (")) {
                    self.reported.insert((event.package.clone(), test.clone()));
                }
                None
            }
            "pass" | "bench" => Some(Status::Passed),
            "skip" => Some(Status::Skipped),
            // Who gives up at a time-out fails what it was in, which has not said so itself.
            "fail" if self.late.contains(&event.package) && !self.has_reported(event, test) => {
                Some(Status::TimedOut)
            }
            "fail" => Some(Status::Failed),
            _ => None,
        };
        let elapsed =
            event.elapsed.and_then(|secs| std::time::Duration::try_from_secs_f64(secs).ok());
        match done {
            Some(status) => {
                self.book.took(id, elapsed);
                self.book.set(id, State::Done(status));
            }
            None if self.book.state(id) == State::Planned && event.action != "listed" => {
                self.book.set(id, State::Running);
            }
            None => {}
        }
    }

    fn has_reported(&self, event: &TestEvent, test: &str) -> bool {
        self.reported.contains(&(event.package.clone(), test.to_owned()))
    }

    pub(super) fn finish(mut self) -> (Book, Capture) {
        if self.late.contains("") {
            for (_, id) in self.running {
                self.book.set(id, State::Done(Status::TimedOut));
            }
        }
        (self.book, self.rest)
    }
}

/// Whether a line can be one of `-test.list`.
fn is_test_name(line: &str) -> bool {
    ["Test", "Benchmark", "Example", "Fuzz"].iter().any(|start| line.starts_with(start))
        && line.chars().all(|c| c.is_alphanumeric() || c == '_')
}
