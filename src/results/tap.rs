//! TAP 13 and 14, KTAP 1, KUnit in a kernel's log, and what `run_kselftest.sh` prints.
//!
//! They differ in how deep a line is: by indentation, behind the prefix of a kernel's log, or by `# ` before
//! it (kselftest). A result at some depth ends all that is deeper: those are its parts, and its own line only
//! counts where it fails although none of them did. Other lines may be anywhere (a kernel's log mixes in)
//! and are what the next result, in TAP also the last failure, has printed.

use std::time::Duration;

use super::book::{Book, MAX_CASES, MAX_OUTPUT_BYTES};
use super::capture::Capture;
use super::model::{Case, End, Format, Status};
use super::tap_line::{Line, Outcome, read};

/// How many tests that a plan has and nothing else names get a case of their own.
const MISSING_MAX: u64 = 1000;

/// How deep tests may be within each other; what is deeper counts as that deep.
const DEPTH_MAX: usize = 32;

/// A case, and what it is part of, innermost first.
#[derive(Debug)]
struct Node {
    within: Vec<String>,
    name: String,
    status: Status,
    reason: Option<String>,
    duration: Option<Duration>,
    output: Capture,
}

/// The tests of one depth.
#[derive(Debug)]
struct Frame {
    indent: usize,
    /// Where its nodes begin.
    first: usize,
    plan: Option<u64>,
    seen: u64,
    /// What all of it is part of, where that is said before.
    name: Option<String>,
}

#[derive(Debug)]
pub(super) struct Parser {
    format: Format,
    nodes: Vec<Node>,
    frames: Vec<Frame>,
    /// The name of the frame that comes next.
    next_name: Option<String>,
    /// The test that runs, where that is said.
    running: Option<String>,
    /// Lines that belong to no result yet.
    pending: Capture,
    /// Within a YAML block, which belongs to the last result; with its indentation.
    yaml: Option<usize>,
    bailed: Option<String>,
    /// All of it is skipped, and why.
    skipped: Option<String>,
    /// Bytes of output in nodes.
    held: usize,
    book: Book,
}

impl Parser {
    pub(super) fn new(format: Format) -> Parser {
        Parser {
            format,
            nodes: Vec::new(),
            frames: Vec::new(),
            next_name: None,
            running: None,
            pending: Capture::default(),
            yaml: None,
            bailed: None,
            skipped: None,
            held: 0,
            book: Book::default(),
        }
    }

    pub(super) fn line(&mut self, raw: &str) {
        let (indent, line) = read(self.format, raw);
        if let Some(depth) = self.yaml {
            let ends = matches!(line, Line::Other("...")) && indent == depth;
            if ends || matches!(line, Line::Result { .. }) && indent < depth {
                self.yaml = None;
            }
            if !matches!(line, Line::Result { .. }) || indent >= depth {
                return self.yaml_line(raw);
            }
        }
        match line {
            Line::Result { ok, name, outcome, reason } => {
                self.result(indent, ok, &name, outcome, reason);
            }
            Line::Plan { count, skip } => {
                if count == 0 && (skip.is_some() || self.format == Format::Tap) && indent == 0 {
                    self.skipped = Some(skip.unwrap_or_default());
                }
                self.frame(indent).plan = Some(count);
            }
            Line::Version => self.version(indent),
            Line::Subtest(name) => self.subtest(indent, name),
            Line::Begins(name) => self.running = Some(name.to_owned()),
            Line::Bail(why) => self.bailed = Some(why.to_owned()),
            Line::Other("---") if self.frames.last().is_some_and(|top| indent > top.indent) => {
                self.yaml = Some(indent);
                self.yaml_line(raw);
            }
            Line::Comment | Line::Other(_) => self.printed(raw),
        }
    }

    /// A line that is no result.
    pub(super) fn printed(&mut self, raw: &str) {
        let is_comment = raw.trim_start().starts_with('#');
        let failed = self.nodes.last_mut().filter(|node| !node.status.good());
        match failed.filter(|_| self.format == Format::Tap && is_comment) {
            Some(node) => print(node, &mut self.held, raw),
            None => self.pending.push_line(raw),
        }
    }

    fn yaml_line(&mut self, raw: &str) {
        let Some(node) = self.nodes.last_mut() else { return self.pending.push_line(raw) };
        let text = raw.trim();
        let number = |value: &str| value.trim().parse::<f64>().ok();
        if let Some(ms) = text.strip_prefix("duration_ms:").and_then(number) {
            node.duration = Duration::try_from_secs_f64(ms / 1000.0).ok();
        }
        print(node, &mut self.held, raw);
    }

    /// The frame of this depth, made where there is none.
    fn frame(&mut self, indent: usize) -> &mut Frame {
        let deeper = self.frames.last().is_none_or(|top| top.indent < indent);
        if deeper && self.frames.len() < DEPTH_MAX {
            let (first, name) = (self.nodes.len(), self.next_name.take());
            self.frames.push(Frame { indent, first, plan: None, seen: 0, name });
        }
        let at = self.frames.iter().rposition(|frame| frame.indent <= indent).unwrap_or(0);
        &mut self.frames[at]
    }

    /// A stream begins; after another one of the same depth its plan is a new one.
    fn version(&mut self, indent: usize) {
        let again = self.frames.last().is_some_and(|top| top.indent == indent && top.seen > 0);
        if again {
            let Some(frame) = self.frames.pop() else { return };
            self.missing(&frame, "it was planned, and another list of results began");
        }
        self.frame(indent);
    }

    fn subtest(&mut self, indent: usize, name: &str) {
        let deeper = self.frames.last().is_none_or(|top| top.indent < indent);
        let frame = self.frame(indent);
        if deeper || (frame.seen == 0 && frame.name.is_none() && indent > 0) {
            frame.name = Some(name.to_owned());
        } else {
            self.next_name = Some(name.to_owned());
        }
    }

    fn result(
        &mut self,
        indent: usize,
        ok: bool,
        name: &str,
        outcome: Option<Outcome>,
        reason: Option<String>,
    ) {
        let first_child = self.close_deeper(indent, name);
        self.next_name = None;
        self.running = None;
        let frame = self.frame(indent);
        frame.seen += 1;
        let name = match name {
            "" => format!("test {}", frame.seen),
            name => name.to_owned(),
        };
        let (status, reason) = match (outcome, ok) {
            (Some(Outcome::Skip), _) => (Status::Skipped, reason),
            (Some(Outcome::Todo), false) => {
                let why = reason.map_or("todo".into(), |reason| format!("todo: {reason}"));
                (Status::Skipped, Some(why))
            }
            // It fails, as it should.
            (Some(Outcome::ExpectedFailure), _) => (Status::Passed, reason),
            (Some(Outcome::Timeout), false) => (Status::TimedOut, reason),
            (_, true) => (Status::Passed, reason),
            (_, false) => (Status::Failed, reason),
        };
        let output = std::mem::take(&mut self.pending);
        if let Some(first) = first_child.filter(|first| *first < self.nodes.len()) {
            let parts = &self.nodes[first..];
            if status.good() || parts.iter().any(|node| !node.status.good()) {
                return;
            }
        }
        let reason = reason.filter(|text| !text.is_empty());
        self.add(Node { within: Vec::new(), name, status, reason, duration: None, output });
    }

    /// Ends what is deeper than this; it was part of the test `name`. Gives the first node of it.
    fn close_deeper(&mut self, indent: usize, name: &str) -> Option<usize> {
        let mut first = None;
        while self.frames.last().is_some_and(|top| top.indent > indent) && self.frames.len() > 1 {
            let frame = self.frames.pop()?;
            self.missing(&frame, "it was planned, and has no result");
            // Frames between that and this one have their own names.
            let is_last = self.frames.last().is_none_or(|top| top.indent <= indent);
            let own = if is_last { Some(name.to_owned()) } else { frame.name };
            self.enclose(frame.first, own);
            first = Some(frame.first);
        }
        first
    }

    fn enclose(&mut self, first: usize, name: Option<String>) {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return };
        for node in &mut self.nodes[first..] {
            node.within.push(name.clone());
        }
    }

    /// Cases for what a plan has more than was seen.
    fn missing(&mut self, frame: &Frame, reason: &str) {
        let missing = frame.plan.unwrap_or(0).saturating_sub(frame.seen);
        for number in 0..missing.min(MISSING_MAX) {
            let name = match missing > MISSING_MAX && number == MISSING_MAX - 1 {
                true => format!("{} more tests", missing - number),
                false => format!("test {}", frame.seen + number + 1),
            };
            self.add(Node {
                within: Vec::new(),
                name,
                status: Status::NotRun,
                reason: Some(reason.to_owned()),
                duration: None,
                output: Capture::default(),
            });
        }
    }

    fn add(&mut self, mut node: Node) {
        if self.nodes.len() >= MAX_CASES {
            return self.book.beyond(node.status);
        }
        if self.held > MAX_OUTPUT_BYTES {
            node.output.shrink(0, 0);
        } else if node.status.good() {
            node.output.shrink(2 << 10, 6 << 10);
        }
        self.held += node.output.held();
        self.nodes.push(node);
    }

    pub(super) fn finish(mut self, end: &End) -> (Book, Capture) {
        if let (Some(why), true) = (self.skipped.take(), self.nodes.is_empty()) {
            let reason = Some(why).filter(|why| !why.is_empty());
            self.add(Node {
                within: Vec::new(),
                name: String::new(),
                status: Status::Skipped,
                reason,
                duration: None,
                output: Capture::default(),
            });
        }
        self.end_open(end);
        for node in std::mem::take(&mut self.nodes) {
            let within: Vec<&str> = node.within.iter().rev().map(String::as_str).collect();
            let case = Case {
                group: within.join("/"),
                name: node.name,
                status: node.status,
                duration: node.duration,
                output: String::new(),
                reason: node.reason,
            };
            self.book.adopt(case, node.output);
        }
        (self.book, self.pending)
    }

    /// Gives a result to all that has none.
    fn end_open(&mut self, end: &End) {
        let cut_off = !matches!(end, End::Exited(_)) && self.bailed.is_none();
        let why = match &self.bailed {
            Some(why) => format!("the program bailed out: {why}"),
            None => format!("the program ended before it: {end}"),
        };
        let mut crashed = false;
        // What was being run: the program ended in it.
        if let (Some(name), true) = (self.running.take(), self.bailed.is_none()) {
            crashed = true;
            self.end_in(name, end);
        }
        while let Some(mut frame) = self.frames.pop() {
            let has_name = frame.name.is_some();
            if cut_off && !crashed && frame.plan.is_some_and(|plan| plan > frame.seen) {
                crashed = true;
                self.end_in(format!("test {}", frame.seen + 1), end);
                frame.seen += 1;
            } else if crashed && self.frames.is_empty() {
                // One of the missing ones is what it ended in.
                frame.seen += 1;
            }
            self.missing(&frame, &why);
            if let (true, Some(above)) = (has_name, self.frames.last_mut()) {
                above.seen += 1;
            }
            self.enclose(frame.first, frame.name);
        }
        if self.bailed.is_some() && self.nodes.iter().all(|node| node.status.good()) {
            let mut node = self.ended("bail out".into(), Status::Failed);
            node.reason = Some(why);
            self.add(node);
        }
    }

    fn end_in(&mut self, name: String, end: &End) {
        let mut node = self.ended(name, end.status());
        node.reason = Some(format!("the program ended in it: {end}"));
        self.add(node);
    }

    /// A case that got what is left of the output.
    fn ended(&mut self, name: String, status: Status) -> Node {
        let output = std::mem::take(&mut self.pending);
        Node { within: Vec::new(), name, status, reason: None, duration: None, output }
    }
}

fn print(node: &mut Node, held: &mut usize, line: &str) {
    if *held > MAX_OUTPUT_BYTES {
        return node.output.omit(line.len() as u64 + 1);
    }
    *held -= node.output.held();
    node.output.push_line(line);
    *held += node.output.held();
}
