//! Rust's test programs: what `--list --format terse` says, and the pretty format after it.
//!
//! ```text
//! a::b: test                        the list, optional
//! running 2 tests                   a program begins
//! test a::b ... ok                  a result; with one thread the line is begun before the test
//! test c - should panic ... FAILED
//!                                   an empty line, then the failures' output
//! failures:
//! ---- c stdout ----
//! test result: FAILED. …            a program has ended
//! ```
//!
//! A test may print anything past libtest's capture, also a line `ok`: only what is last before the next
//! test begins, or before the program's own summary, is a result.

use std::collections::HashSet;
use std::time::Duration;

use super::book::{Book, Id, State};
use super::capture::Capture;
use super::model::Status;

/// The names of a list: `NAME: test` and `NAME: benchmark`.
pub fn listed(line: &str) -> Option<&str> {
    line.strip_suffix(": test").or_else(|| line.strip_suffix(": benchmark"))
}

/// A test that has begun.
#[derive(Clone, Debug)]
struct Current {
    id: Id,
    /// What stands behind its name.
    first: String,
    /// The last line with something on it, since then.
    last: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Parser {
    book: Book,
    /// Names that were listed: others are no tests. Empty where there was no list.
    planned: HashSet<String>,
    /// A program was seen to begin; there is no list after it.
    running: bool,
    /// How many tests the program that runs has not yet named.
    missing: u64,
    current: Option<Current>,
    /// The summary may have begun: the current test as it was then.
    before_summary: Option<Current>,
    /// Whose output the summary shows.
    section: Option<Id>,
    /// Text of failures, by test, until it is known whether this is the summary.
    sections: Vec<(Id, String)>,
    empty_line: bool,
    rest: Capture,
}

impl Parser {
    pub(super) fn expect(&mut self, name: String) {
        self.book.get("", &name);
        self.planned.insert(name);
    }

    pub(super) fn line(&mut self, line: &str) {
        if let (false, Some(name)) = (self.running, listed(line)) {
            return self.expect(name.to_owned());
        }
        if let Some(count) = line.strip_prefix("running ").and_then(|rest| {
            rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"))?.parse().ok()
        }) && self.current.is_none()
        {
            self.running = true;
            self.missing = count;
            return;
        }
        let was_empty = std::mem::replace(&mut self.empty_line, line.is_empty());
        if let Some(id) = self.begun(line) {
            return self.begin(id, line);
        }
        // Without an empty line before it, it is a line of a test's own.
        if line.starts_with("test result: ") && (was_empty || self.before_summary.is_some()) {
            return self.ended();
        }
        let begins = line == "failures:" || line == "successes:";
        if begins && was_empty && self.before_summary.is_none() && self.current.is_some() {
            self.before_summary = self.current.clone();
        }
        if self.before_summary.is_some() {
            self.summary_line(line);
        }
        match &mut self.current {
            Some(current) => {
                if !line.trim_end().is_empty() {
                    current.last = Some(line.trim_end().to_owned());
                }
                if self.before_summary.is_none() {
                    self.book.print_line(current.id, line);
                }
            }
            None => self.rest.push_line(line),
        }
    }

    /// The test of a line `test NAME ... REST`, if it is one that may begin now.
    fn begun(&mut self, line: &str) -> Option<Id> {
        let (name, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let name = name.strip_suffix(" - should panic").unwrap_or(name);
        if !self.planned.is_empty() {
            let id = self.planned.contains(name).then(|| self.book.find("", name))??;
            return (self.book.state(id) == State::Planned).then_some(id);
        }
        // Without a list, a name may begin once a program.
        match self.book.find("", name) {
            Some(id) if self.current.as_ref().is_some_and(|current| current.id == id) => None,
            Some(_) if self.missing == 0 => None,
            _ => {
                let id = self.book.add("", name);
                if id.is_none() {
                    self.book.beyond(Status::NotRun);
                }
                id
            }
        }
    }

    fn begin(&mut self, id: Id, line: &str) {
        self.settle();
        self.missing = self.missing.saturating_sub(1);
        self.before_summary = None;
        self.sections.clear();
        self.section = None;
        self.book.set(id, State::Running);
        let first = line.split_once(" ... ").map_or("", |it| it.1).to_owned();
        self.current = Some(Current { id, first, last: None });
        // What comes next is as good as behind an empty line.
        self.empty_line = true;
    }

    /// The current test has ended: what was last is its result.
    fn settle(&mut self) {
        if let Some(current) = self.current.take() {
            record(&mut self.book, &current);
        }
    }

    /// A program has ended.
    fn ended(&mut self) {
        if let Some(before) = self.before_summary.take() {
            self.current = Some(before);
        }
        self.settle();
        self.section = None;
        for (id, text) in std::mem::take(&mut self.sections) {
            self.book.print(id, &text);
        }
        for number in 0..self.missing.min(1000) {
            let name = format!("a test that was not named, {} of {}", number + 1, self.missing);
            if self.planned.is_empty() {
                self.book.get("", &name);
            }
        }
        self.missing = 0;
    }

    fn summary_line(&mut self, line: &str) {
        let name = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(id) = name.and_then(|name| self.book.find("", name)) {
            self.sections.push((id, String::new()));
            self.section = Some(id);
        } else if line == "failures:" {
            self.section = None;
        } else if let (Some(_), Some((_, text))) = (self.section, self.sections.last_mut())
            && text.len() < 64 << 10
        {
            text.push_str(line);
            text.push('\n');
        }
    }

    pub(super) fn finish(self) -> (Book, Capture) {
        // Where there is no end, the current test is still running, whatever it has printed.
        (self.book, self.rest)
    }
}

/// Writes down the result of a test that has ended.
fn record(book: &mut Book, current: &Current) {
    let first = current.first.trim_end();
    let text = current.last.as_deref().unwrap_or(first);
    // With --report-time and --ensure-time.
    let (text, time) = match text.strip_suffix('>').and_then(|text| text.rsplit_once(" <")) {
        Some((text, time)) => (text, seconds(time)),
        None => (text, None),
    };
    let (text, late) = match text.strip_suffix(" (time limit exceeded)") {
        Some(text) => (text, true),
        None => (text, false),
    };
    book.took(current.id, time);
    let status = if current.last.is_none() && first.starts_with("ignored") {
        let reason = first.strip_prefix("ignored, ").unwrap_or_default();
        book.reason(current.id, reason);
        Status::Skipped
    } else if late {
        Status::TimedOut
    } else if text.ends_with("FAILED") {
        Status::Failed
    } else if text.ends_with("ok") || text.contains("bench: ") {
        Status::Passed
    } else {
        return;
    };
    book.set(current.id, State::Done(status));
}

/// `0.001s`
pub(super) fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}
