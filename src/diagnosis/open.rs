//! A report whose end has not been seen yet.

use super::blame::{self, Evidence};
use super::facts;
use super::frame::{self, Role};
use super::head::{Certainty, Head};
use super::kind::Kind;
use super::lines::Line;
use super::marks;
use super::prefix::Caller;
use super::splat::{Corruption, MAX_LINES, Position, Splat, Task, Trace};
use super::taint::Taint;
use super::title;

/// So many lines in a row that are no part of a report end it.
const QUIET_LINES: u32 = 24;
/// The same behind a line that says that the report ends: only a panic may follow.
const QUIET_AFTER_END: u32 = 8;
/// A report that said nothing for so long, in microseconds of the guest's time, is over.
const QUIET_MICROS: u64 = 15_000_000;
const MAX_TRACES: usize = 64;
/// In all traces together.
const MAX_FRAMES: usize = 2000;
/// All lines together, in bytes.
const MAX_BYTES: usize = 512 << 10;

/// A report that is being read.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) head: Head,
    /// Who prints it. `None` when the log does not say.
    pub(super) callers: Vec<Option<Caller>>,
    splat: Splat,
    bytes: usize,
    frames: usize,
    /// Function and reason come from these.
    named: Option<String>,
    /// A finer title that a later line gave.
    detail: Option<String>,
    /// The line before said that the next one names a place.
    awaits_place: bool,
    /// The trace that frames belong to was announced by a line of its own.
    in_section: bool,
    /// How many of the kept lines belong to it for certain, and where the last of them ends.
    sure: usize,
    quiet: u32,
    last_time: Option<u64>,
    ended: bool,
}

impl Open {
    pub(super) fn new(head: Head, caller: Option<Caller>, line: &Line) -> Open {
        let begin = Position { line: line.number, byte: line.begin };
        let corrupted = match head.certainty {
            _ if line.torn => Some(Corruption::Torn),
            Certainty::Inner if head.kind == Kind::SlabCorruption => Some(Corruption::NoBeginning),
            _ if line.prefix.dropped > 0 => Some(Corruption::Dropped),
            _ => None,
        };
        let splat = Splat {
            title: String::new(),
            kind: head.kind,
            function: None,
            message: line.text.trim_start().to_owned(),
            processor: None,
            task: None,
            time: line.prefix.time,
            begin,
            end: begin,
            corrupted,
            panic: None,
            taint: Taint::default(),
            build_id: None,
            traces: Vec::new(),
            lines: Vec::new(),
        };
        let mut open = Open {
            named: head.function.clone(),
            head,
            callers: vec![caller],
            splat,
            bytes: 0,
            frames: 0,
            detail: None,
            awaits_place: false,
            in_section: false,
            sure: 0,
            quiet: 0,
            last_time: line.prefix.time,
            ended: false,
        };
        open.facts(line.text.trim());
        open.keep(line, true);
        open
    }

    /// Lines that were printed just before the head and belong to it.
    pub(super) fn prepend(&mut self, before: &[Line]) {
        let Some(first) = before.first() else { return };
        self.splat.begin = Position { line: first.number, byte: first.begin };
        for line in before {
            self.message(line.text.trim());
        }
        self.sure += before.len();
        self.splat.lines.splice(0..0, before.iter().map(|line| line.text.clone()));
    }

    pub(super) fn has_trace(&self) -> bool {
        self.splat.traces.iter().any(|trace| {
            trace.frames.iter().any(|frame| matches!(frame.role, Role::Call | Role::Guess))
        })
    }

    /// How many lines it has, and where it began: for the decision what belongs together.
    pub(super) fn begin(&self) -> u64 {
        self.splat.begin.byte
    }

    /// Whether it is over when a line with this time comes.
    pub(super) fn is_over(&self, time: Option<u64>) -> bool {
        let limit = if self.ended { QUIET_AFTER_END } else { QUIET_LINES };
        let late = matches!((self.last_time, time), (Some(last), Some(now))
            if now > last.saturating_add(QUIET_MICROS));
        late || self.quiet >= limit
    }

    /// Takes over what a later head line of the same report knows better.
    pub(super) fn merge(&mut self, head: &Head, line: &Line) {
        let vague = self.head.certainty == Certainty::Inner
            || self.head.kind == Kind::Exception && head.kind.is_oops() && self.head.what == "oops";
        let refines = (self.head.kind == Kind::Warning || self.head.what == "refcount warning")
            && matches!(head.kind, Kind::Refcount | Kind::ListCorruption | Kind::Usercopy);
        if (vague && head.certainty == Certainty::Certain) || refines {
            self.splat.kind = head.kind;
            self.head = head.clone();
            if vague && self.splat.corrupted == Some(Corruption::NoBeginning) {
                self.splat.corrupted = None;
            }
        }
        if self.named.is_none() {
            self.named.clone_from(&head.function);
        }
        self.keep(line, true);
        self.facts(line.text.trim());
    }

    /// The panic that follows from this report.
    pub(super) fn panicked(&mut self, line: &Line) {
        let reason = line.text.split_once("not syncing: ").map_or("", |(_, reason)| reason);
        if self.splat.panic.is_none() {
            self.splat.panic = Some(reason.trim().to_owned());
        }
        self.ended = false;
        self.section("Kernel panic");
        self.keep(line, true);
    }

    /// A line without a time in a log that has times: it counts if only a report can say it.
    pub(super) fn stray(&mut self, line: &Line) {
        if self.belongs(line.text.trim()) {
            self.keep(line, true);
        }
    }

    /// A line in the same context.
    pub(super) fn line(&mut self, line: &Line) {
        let text = line.text.trim();
        if line.prefix.dropped > 0 && self.splat.corrupted.is_none() && !self.ended {
            self.splat.corrupted = Some(Corruption::Dropped);
        }
        let sure = self.belongs(text);
        self.facts(text);
        self.message(text);
        if text.starts_with("---[ end trace") {
            self.ended = true;
        }
        if text.starts_with("======") && self.is_sanitizer() && self.splat.lines.len() > 2 {
            self.ended = true;
        }
        self.keep(line, sure);
    }

    fn is_sanitizer(&self) -> bool {
        matches!(
            self.head.kind,
            Kind::Kasan | Kind::Kcsan | Kind::Kmsan | Kind::Kfence | Kind::Ubsan
        )
    }

    fn keep(&mut self, line: &Line, sure: bool) {
        if self.splat.lines.len() < MAX_LINES && self.bytes < MAX_BYTES {
            self.bytes += line.text.len();
            self.splat.lines.push(line.text.clone());
        }
        if sure {
            self.sure = self.splat.lines.len();
            self.splat.end = Position { line: line.number, byte: line.end };
            self.last_time = line.prefix.time.or(self.last_time);
            self.quiet = 0;
        } else {
            self.quiet += 1;
        }
    }

    /// Whether a line is of a kind that only reports have. Frames go into the traces.
    fn belongs(&mut self, text: &str) -> bool {
        if let Some(frame) = frame::parse(text) {
            let starts =
                self.splat.traces.is_empty() || frame.role == Role::Instruction && !self.in_section;
            if starts {
                self.section("");
                self.in_section = false;
            }
            if let Some(trace) = self.splat.traces.last_mut()
                && self.frames < MAX_FRAMES
            {
                self.frames += 1;
                trace.frames.push(frame);
            }
            return true;
        }
        if marks::is_section(text) {
            self.section(text.trim_end_matches([':', ' ']));
            return true;
        }
        marks::is_detail(text)
    }

    fn section(&mut self, title: &str) {
        if self.splat.traces.len() < MAX_TRACES {
            self.splat.traces.push(Trace { title: title.to_owned(), frames: Vec::new() });
            self.in_section = true;
        }
    }

    /// Words that make the title finer.
    fn message(&mut self, text: &str) {
        match self.head.kind {
            Kind::Kasan if self.detail.is_none() => {
                let access = ["Read of size", "Write of size"]
                    .iter()
                    .find(|access| text.starts_with(**access));
                self.detail = access.map(|access| access[..access.len() - 8].to_lowercase());
            }
            // The place is in the trace; the reason is in the second line.
            Kind::RustPanic if self.splat.lines.len() == 1 => {
                self.head.what = format!("Rust panic: {}", title::normalise(text));
            }
            Kind::Ubsan if self.head.what.eq_ignore_ascii_case("UBSAN: undefined behaviour") => {
                if let Some(what) = marks::undefined(text) {
                    self.head.what = format!("UBSAN: {what}");
                }
            }
            _ => {}
        }
    }

    /// Processor, task, taint, build id, functions that a line names.
    fn facts(&mut self, text: &str) {
        if let Some(taint) = Taint::parse(text) {
            self.splat.taint = self.splat.taint.union(taint);
        }
        if let Some((processor, task)) = facts::running(text) {
            self.splat.processor = self.splat.processor.or(processor);
            // The task that a line names by its id only has a name in another line.
            if self.splat.task.as_ref().is_none_or(|task| task.name.is_none()) {
                self.splat.task = Some(task);
            }
            self.splat.build_id = self.splat.build_id.take().or_else(|| facts::build_id(text));
        }
        if self.named.is_none() {
            self.named = self.named_by(text);
        }
        if self.splat.task.is_none() {
            self.splat.task = facts::named_task(text);
        }
        if self.splat.processor.is_none() {
            self.splat.processor = facts::number_after(text, "CPU#");
        }
    }

    /// The function that a line of a report about locks, a worker or a processor's number names.
    fn named_by(&mut self, text: &str) -> Option<String> {
        if !matches!(self.head.kind, Kind::Deadlock | Kind::Locking) {
            return None;
        }
        const TRIES: [&str; 6] = [
            "trying to acquire lock",
            "trying to release lock",
            "trying to lock",
            "] takes:",
            ") takes:",
            "freeing memory",
        ];
        let tries = TRIES.iter().any(|tries| text.contains(tries));
        // These are about the locks that they list.
        let listed = self.head.what.contains("held") && text.starts_with('#');
        let place = match text.split_once(" at: ") {
            Some((_, place)) if tries || listed || self.awaits_place => Some(place),
            _ if self.awaits_place => Some(text),
            _ => {
                ["caller is ", "last function: "].iter().find_map(|start| text.strip_prefix(start))
            }
        };
        self.awaits_place = tries && !text.contains(" at: ");
        let place = place.and_then(|place| {
            frame::place(place).filter(|place| place.offset.is_some() || text.starts_with("last "))
        });
        place.map(|place| place.function).filter(|name| !blame::is_generic(name))
    }

    /// The whole report.
    pub(super) fn finish(mut self) -> Splat {
        self.splat.lines.truncate(self.sure.max(1));
        self.splat.traces.retain(|trace| !trace.frames.is_empty());
        if self.splat.task.is_none() || self.splat.processor.is_none() {
            match self.callers.first() {
                Some(Some(Caller::Task(pid))) if self.splat.task.is_none() => {
                    self.splat.task = Some(Task { name: None, pid: Some(*pid) });
                }
                Some(Some(Caller::Processor(number))) => {
                    self.splat.processor = self.splat.processor.or(Some(*number));
                }
                _ => {}
            }
        }
        self.splat.function = blame::blame(Evidence {
            kind: self.splat.kind,
            named: self.named.as_deref(),
            traces: &self.splat.traces,
        });
        if self.splat.kind.wants_trace()
            && self.splat.traces.is_empty()
            && self.splat.corrupted.is_none()
        {
            self.splat.corrupted = Some(Corruption::NoTrace);
        }
        self.splat.title = self.title();
        self.splat
    }

    fn title(&self) -> String {
        let mut title = self.head.what.clone();
        if let Some(detail) = &self.detail {
            title.push(' ');
            title.push_str(detail);
        }
        let tells = match self.splat.kind {
            Kind::Panic => self.head.what.contains("stack"),
            Kind::WorkqueueStall | Kind::StillInUse | Kind::OutOfMemory | Kind::Reboot => false,
            Kind::OtherBug => false,
            _ => true,
        };
        let Some(function) = self.splat.function.as_ref().filter(|_| tells) else { return title };
        match &self.head.other {
            // Which of two racing functions came first differs from run to run.
            Some(other) => {
                let mut both = [function, other];
                both.sort();
                format!("{title} in {} / {}", both[0], both[1])
            }
            None => format!("{title} in {function}"),
        }
    }
}
