//! GoogleTest: its list, its text, or its XML (`--gtest_output=xml:FILE`, printed by who ran it).
//!
//! ```text
//! Suite.                            --gtest_list_tests, optional
//!   Case
//! [ RUN      ] Suite.Case
//! [       OK ] Suite.Case (0 ms)
//! [  FAILED  ] Suite.Case (0 ms)
//! [  SKIPPED ] Suite.Case (0 ms)
//! ```

use std::time::Duration;

use super::book::{Book, Id, State};
use super::capture::Capture;
use super::model::Status;
use super::xml;

#[derive(Debug, Default)]
pub(super) struct Parser {
    book: Book,
    current: Option<(String, Id)>,
    /// The suite whose cases a list names.
    listing: Option<String>,
    begun: bool,
    xml: Option<xml::Tokens>,
    report: Xml,
    rest: Capture,
}

impl Parser {
    pub(super) fn line(&mut self, line: &str) {
        if self.xml.is_none() && line.trim_start_matches('\u{feff}').starts_with("<?xml") {
            self.xml = Some(xml::Tokens::default());
        }
        if let Some(tokens) = &mut self.xml {
            let (book, report) = (&mut self.book, &mut self.report);
            tokens.feed(line, &mut |token| report.token(token, book));
            tokens.feed("\n", &mut |token| report.token(token, book));
            return;
        }
        if line.starts_with("[==========] Running ") {
            self.begun = true;
            self.listing = None;
        }
        if let Some(name) = line.strip_prefix("[ RUN      ] ") {
            return self.run(name);
        }
        for (word, status) in [
            ("[       OK ] ", Status::Passed),
            ("[  FAILED  ] ", Status::Failed),
            ("[  SKIPPED ] ", Status::Skipped),
        ] {
            // A test may leave its last line open.
            if let Some(at) = line.find(word)
                && self.result(&line[at + word.len()..], status, &line[..at])
            {
                return;
            }
        }
        if !self.begun && self.list(line) {
            return;
        }
        self.printed(line);
    }

    pub(super) fn cut_line(&mut self, line: &str) {
        match self.xml {
            Some(_) => self.line(line),
            None => self.printed(line),
        }
    }

    fn printed(&mut self, line: &str) {
        match &self.current {
            Some((_, id)) => self.book.print_line(*id, line),
            None => self.rest.push_line(line),
        }
    }

    /// `Suite.` and `  Case`, with a comment for what has parameters.
    fn list(&mut self, line: &str) -> bool {
        let text = line.split("  # ").next().unwrap_or_default();
        match (text.strip_prefix("  "), &self.listing) {
            (Some(name), Some(suite)) if !name.is_empty() && !name.contains(' ') => {
                let suite = suite.clone();
                self.book.get(&suite, name);
                true
            }
            (None, _) => {
                let suite = text.trim_end().strip_suffix('.').filter(|name| !name.contains(' '));
                self.listing = suite.map(str::to_owned);
                self.listing.is_some()
            }
            _ => false,
        }
    }

    fn run(&mut self, full: &str) {
        self.begun = true;
        let (suite, name) = split(full);
        self.current = None;
        match self.book.add(suite, name) {
            Some(id) => {
                self.book.set(id, State::Running);
                self.current = Some((full.to_owned(), id));
            }
            None => self.book.beyond(Status::NotRun),
        }
    }

    /// The current test's result; anything else is a line of its own, or the summary's.
    fn result(&mut self, rest: &str, status: Status, before: &str) -> bool {
        let (full, time) = match rest.rsplit_once(" (") {
            Some((full, time)) => (full, time.strip_suffix(')').and_then(milliseconds)),
            None => (rest, None),
        };
        // `, where GetParam() = …` follows the name of a failed one.
        let full = full.split(", where ").next().unwrap_or(full);
        let Some((name, id)) = &self.current else { return false };
        if name != full {
            return false;
        }
        let id = *id;
        if !before.is_empty() {
            self.book.print_line(id, before);
        }
        self.book.took(id, time);
        self.book.set(id, State::Done(status));
        self.current = None;
        true
    }

    pub(super) fn finish(self) -> (Book, Capture) {
        (self.book, self.rest)
    }
}

fn split(full: &str) -> (&str, &str) {
    full.split_once('.').unwrap_or(("", full))
}

/// `12 ms`
fn milliseconds(text: &str) -> Option<Duration> {
    text.strip_suffix(" ms")?.parse().ok().map(Duration::from_millis)
}

/// Where in a report we are.
#[derive(Debug, Default)]
struct Xml {
    case: Option<Id>,
    status: Option<Status>,
    /// Text within `<failure>` belongs to the case.
    within: bool,
}

impl Xml {
    fn token(&mut self, token: xml::Token<'_>, book: &mut Book) {
        match token {
            xml::Token::Open { name: "testcase", attributes, closed } => {
                let name = xml::attribute(attributes, "name").unwrap_or_default();
                let suite = xml::attribute(attributes, "classname").unwrap_or_default();
                let ran = xml::attribute(attributes, "status").as_deref() != Some("notrun");
                self.case = book.add(&suite, &name);
                self.status = Some(if ran { Status::Passed } else { Status::Skipped });
                if let Some(id) = self.case {
                    let time = xml::attribute(attributes, "time");
                    let time = time.and_then(|text| text.parse().ok());
                    let time = time.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
                    book.took(id, time);
                    book.set(id, State::Running);
                }
                if closed {
                    self.end(book);
                }
            }
            xml::Token::Open {
                name: word @ ("failure" | "error" | "skipped"),
                attributes,
                closed,
            } => {
                self.status = Some(match word {
                    "skipped" => Status::Skipped,
                    _ => Status::Failed,
                });
                let message = xml::attribute(attributes, "message").unwrap_or_default();
                if let Some(id) = self.case {
                    book.reason(id, message.lines().next().unwrap_or_default());
                }
                self.within = !closed;
            }
            xml::Token::Close("testcase") => self.end(book),
            xml::Token::Close("failure" | "error" | "skipped") => self.within = false,
            xml::Token::Text(text) => {
                if let (true, Some(id)) = (self.within, self.case) {
                    book.print(id, text);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, book: &mut Book) {
        self.within = false;
        if let (Some(id), Some(status)) = (self.case.take(), self.status.take()) {
            book.set(id, State::Done(status));
        }
    }
}
