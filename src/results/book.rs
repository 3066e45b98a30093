//! The cases of an output, in the order in which they are first named.

use std::collections::HashMap;
use std::time::Duration;

use super::capture::Capture;
use super::model::{Case, End, Status};

/// How many cases are kept of one program; of the rest one case says that there were more.
pub const MAX_CASES: usize = 100_000;

/// How much of their output is kept, all cases of a program together.
pub const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// What is kept of the output of a case that passed, of its beginning and its end.
const PASSED_HEAD: usize = 2 << 10;
const PASSED_TAIL: usize = 6 << 10;

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Planned,
    Running,
    Done(Status),
}

#[derive(Debug)]
struct Entry {
    group: String,
    name: String,
    state: State,
    duration: Option<Duration>,
    reason: Option<String>,
    output: Capture,
}

/// A case in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

/// All cases.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: Vec<Entry>,
    by_name: HashMap<(String, String), Id>,
    /// The last number that was given to one of several of a name.
    numbers: HashMap<(String, String), u64>,
    /// Bytes of output that are held.
    held: usize,
    /// Cases that came when the book was full, and the worst of what they did.
    more: u64,
    worst: Option<Status>,
}

impl Book {
    /// The case of this name, made where there is none; `None` when the book is full.
    pub(super) fn get(&mut self, group: &str, name: &str) -> Option<Id> {
        let key = (group.to_owned(), name.to_owned());
        if let Some(id) = self.by_name.get(&key) {
            return Some(*id);
        }
        if self.entries.len() >= MAX_CASES {
            return None;
        }
        let id = Id(self.entries.len());
        self.entries.push(Entry {
            group: key.0.clone(),
            name: key.1.clone(),
            state: State::Planned,
            duration: None,
            reason: None,
            output: Capture::default(),
        });
        self.by_name.insert(key, id);
        Some(id)
    }

    /// A new case; where the name is taken by one that has a result, it gets a number.
    pub(super) fn add(&mut self, group: &str, name: &str) -> Option<Id> {
        let free = |book: &Book, name: &str| {
            let key = (group.to_owned(), name.to_owned());
            book.by_name.get(&key).is_none_or(|id| book.state(*id) == State::Planned)
        };
        if free(self, name) {
            return self.get(group, name);
        }
        let last = self.numbers.entry((group.to_owned(), name.to_owned())).or_insert(1);
        let mut number = *last;
        let numbered = loop {
            number += 1;
            let numbered = format!("{name} #{number}");
            if !self.by_name.contains_key(&(group.to_owned(), numbered.clone())) {
                *last = number;
                break numbered;
            }
        };
        self.get(group, &numbered)
    }

    pub(super) fn find(&self, group: &str, name: &str) -> Option<Id> {
        self.by_name.get(&(group.to_owned(), name.to_owned())).copied()
    }

    pub(super) fn state(&self, id: Id) -> State {
        self.entries[id.0].state
    }

    pub(super) fn set(&mut self, id: Id, state: State) {
        let entry = &mut self.entries[id.0];
        entry.state = state;
        if state == State::Done(Status::Passed) {
            self.held -= entry.output.held();
            entry.output.shrink(PASSED_HEAD, PASSED_TAIL);
            self.held += entry.output.held();
        }
    }

    /// A result of which there is no case, because the book is full.
    pub(super) fn beyond(&mut self, status: Status) {
        self.more += 1;
        self.worst = Some(self.worst.map_or(status, |worst| worst.min(status)));
    }

    pub(super) fn took(&mut self, id: Id, duration: Option<Duration>) {
        let entry = &mut self.entries[id.0];
        entry.duration = duration.or(entry.duration);
    }

    pub(super) fn reason(&mut self, id: Id, reason: &str) {
        if !reason.is_empty() {
            self.entries[id.0].reason = Some(reason.to_owned());
        }
    }

    /// Adds to what a case printed.
    pub(super) fn print(&mut self, id: Id, text: &str) {
        let output = &mut self.entries[id.0].output;
        if self.held > MAX_OUTPUT_BYTES {
            output.omit(text.len() as u64);
            return;
        }
        self.held -= output.held();
        output.push(text.as_bytes());
        self.held += output.held();
    }

    pub(super) fn print_line(&mut self, id: Id, line: &str) {
        self.print(id, line);
        self.print(id, "\n");
    }

    /// Takes a case over as it is.
    pub(super) fn adopt(&mut self, case: Case, output: Capture) {
        let Some(id) = self.add(&case.group, &case.name) else { return self.beyond(case.status) };
        let entry = &mut self.entries[id.0];
        entry.duration = case.duration;
        entry.reason = case.reason;
        entry.output = output;
        self.held += entry.output.held();
        self.set(id, State::Done(case.status));
    }

    /// Every case with its result; those that have none get one from how the program ended.
    pub(super) fn finish(self, end: &End) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            let (status, why) = match entry.state {
                State::Done(status) => (status, None),
                State::Running => (end.status(), Some(format!("the program ended in it: {end}"))),
                State::Planned => {
                    (Status::NotRun, Some(format!("the program ended before it: {end}")))
                }
            };
            cases.push(Case {
                group: entry.group,
                name: entry.name,
                status,
                duration: entry.duration,
                output: entry.output.text().trim_end().to_owned(),
                reason: entry.reason.or(why),
            });
        }
        if self.more > 0 {
            let name = format!("{} more tests", self.more);
            let reason = format!("of one program {MAX_CASES} tests are kept");
            let status = self.worst.unwrap_or(Status::NotRun);
            cases.push(Case { reason: Some(reason), ..Case::new("", &name, status) });
        }
        cases
    }
}
