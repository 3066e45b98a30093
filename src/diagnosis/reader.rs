//! Finds reports in a console's bytes as they come.
//!
//! Processors write at the same time. Where the kernel says who prints (`CONFIG_PRINTK_CALLER`), each
//! writer's lines are followed by themselves; otherwise all lines are one stream.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::harmless;
use super::head::{self, Certainty, Head};
use super::kind::Kind;
use super::lines::{Line, LineReader};
use super::open::Open;
use super::prefix::{Caller, Source};
use super::splat::Splat;
use super::taint::Taint;

/// So many reports are read at the same time; one more ends the oldest.
const MAX_OPEN: usize = 32;
/// So many writers' last lines are remembered.
const MAX_WRITERS: usize = 64;
/// So many lines of a writer are remembered: what a warning says stands before it.
const BEFORE: usize = 6;
/// So many first lines are remembered, to know them again.
const MAX_SEEN: usize = 1 << 16;

/// Takes a console's bytes and gives the reports in them. Its memory is bounded whatever comes.
///
/// ```
/// use vmtest::diagnosis::{Kind, Reader};
///
/// let log = b"[    1.000000] BUG: scheduling while atomic: init/1/0x00000002\n\
///             [    1.000001] Call Trace:\n\
///             [    1.000002]  my_wait+0x12/0x40\n";
/// let mut reader = Reader::default();
/// let mut splats = reader.feed(log);
/// splats.extend(reader.finish());
/// assert_eq!(splats[0].kind, Kind::AtomicSleep);
/// assert_eq!(splats[0].title, "scheduling while atomic in my_wait");
/// ```
#[derive(Debug, Default)]
pub struct Reader {
    lines: LineReader,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Open>,
    finished: Vec<Splat>,
    /// The last lines of writers that have no report open.
    before: Vec<(Option<Caller>, Vec<Line>)>,
    /// Times and texts of first lines.
    seen: HashSet<u64>,
    newest: u64,
    /// Lines of this log have times, and say who printed them.
    timed: bool,
    called: bool,
    taint: Taint,
}

impl Reader {
    /// Takes a chunk and gives the reports that are known to be whole now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Splat> {
        let state = &mut self.state;
        self.lines.feed(bytes, &mut |line| state.line(line));
        std::mem::take(&mut self.state.finished)
    }

    /// The log is over: the reports that were still open.
    pub fn finish(&mut self) -> Vec<Splat> {
        let state = &mut self.state;
        self.lines.finish(&mut |line| state.line(line));
        state.close_all();
        std::mem::take(&mut state.finished)
    }

    /// Whether a report has begun and not yet ended.
    pub fn is_reading(&self) -> bool {
        !self.state.open.is_empty()
    }

    /// The kinds of the reports that have begun and not yet ended: a kernel that hangs says no more.
    pub fn reading(&self) -> impl Iterator<Item = Kind> {
        self.state.open.iter().map(|open| open.head.kind)
    }

    /// What the kernel was tainted with, as far as its reports said.
    pub fn taint(&self) -> Taint {
        self.state.taint
    }
}

/// What to do with a head.
enum Place {
    /// A report's later line.
    Part(usize),
    /// A panic that another report led to.
    Consequence(usize),
    /// It is a new report.
    New,
}

impl State {
    fn line(&mut self, line: Line) {
        if line.prefix.source == Source::LoggedProgram {
            return;
        }
        self.timed |= line.prefix.time.is_some();
        self.called |= line.prefix.time.is_some() && line.prefix.caller.is_some();
        self.close_those_over(line.prefix.time);
        let text = line.text.trim_start();
        if let Some(taint) = Taint::parse(text) {
            self.taint = self.taint.union(taint);
        }
        let writer = line.prefix.caller;
        // Without a time it is a program's line, or a piece of a message that another one interrupted.
        let foreign = self.called && writer.is_none() && line.prefix.time.is_none();
        let open = self.open.iter().rposition(|open| open.callers.contains(&writer));
        if self.is_restart(&line) {
            self.close_all();
            let head = Head {
                kind: Kind::Reboot,
                what: "the machine started again".to_owned(),
                function: None,
                other: None,
                certainty: Certainty::Certain,
            };
            self.begin(head, &line);
            self.timed = false;
            self.called = false;
            self.newest = 0;
            return;
        }
        let head = head::recognise(text).filter(|head| self.counts(head, &line));
        if let Some(time) = line.prefix.time {
            self.newest = self.newest.max(time);
        }
        match (head, open) {
            (Some(head), open) => {
                if self.is_replay(&line) {
                    return;
                }
                match self.place(&head, &line, open) {
                    Place::Part(at) => self.open[at].merge(&head, &line),
                    Place::Consequence(at) => {
                        if !self.open[at].callers.contains(&writer) {
                            self.open[at].callers.push(writer);
                        }
                        self.open[at].panicked(&line);
                    }
                    Place::New => self.begin(head, &line),
                }
            }
            // A program's, or a piece of a message that another one interrupted.
            (None, Some(at)) if !foreign && self.timed && !line.prefix.is_kernel() => {
                self.open[at].stray(&line);
            }
            (None, Some(at)) if !foreign => self.open[at].line(&line),
            (None, None) if !foreign => {
                // Another processor's stack, which a hang's report asked for.
                let adopted = text.starts_with("NMI backtrace for cpu");
                match self.open.iter().rposition(|open| adopted && open.head.kind.is_hang()) {
                    Some(at) => {
                        self.open[at].callers.push(writer);
                        self.open[at].line(&line);
                    }
                    None => self.remember(writer, line),
                }
            }
            _ => {}
        }
    }

    /// Whether a head is one here.
    fn counts(&self, head: &Head, line: &Line) -> bool {
        let proven = line.prefix.is_kernel() || !self.timed;
        (head.certainty != Certainty::IfKernel || proven) && harmless::reason(&line.text).is_none()
    }

    /// A decompressor speaks before its kernel: one that speaks behind a kernel's lines is another boot's.
    fn is_restart(&self, line: &Line) -> bool {
        let says = line.text.starts_with("Booting the kernel")
            || line.text.starts_with("early console in extract_kernel");
        says && self.timed && !line.prefix.is_kernel()
    }

    /// Whether the same line with the same time was there before: a log that was printed again.
    fn is_replay(&mut self, line: &Line) -> bool {
        let Some(time) = line.prefix.time.filter(|time| *time > 0) else { return false };
        let mut hasher = DefaultHasher::new();
        (time, line.text.trim()).hash(&mut hasher);
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        !self.seen.insert(hasher.finish())
    }

    fn place(&self, head: &Head, line: &Line, open: Option<usize>) -> Place {
        if head.kind == Kind::Panic {
            let led = open.or_else(|| {
                let latest = (0..self.open.len()).max_by_key(|at| self.open[*at].begin());
                latest.filter(|_| head::is_consequence(&line.text))
            });
            return led.map_or(Place::New, Place::Consequence);
        }
        let Some(at) = open else { return Place::New };
        let open = &self.open[at];
        let (old, new) = (open.head.kind, head.kind);
        let detail = matches!(new, Kind::Refcount | Kind::ListCorruption | Kind::Usercopy);
        let part = match head.certainty {
            Certainty::Inner => true,
            _ if open.has_trace() => false,
            _ if old.is_oops() && new.is_oops() => true,
            _ if old == Kind::Warning && detail => true,
            _ if matches!(old, Kind::Refcount | Kind::ListCorruption | Kind::Usercopy) => {
                new == Kind::Warning && head.function.is_some() || new == old
            }
            _ if old == Kind::RustPanic => new == Kind::Bug || new.is_oops(),
            _ => old == Kind::Leak && new == Kind::Leak,
        };
        if part { Place::Part(at) } else { Place::New }
    }

    fn begin(&mut self, head: Head, line: &Line) {
        let writer = line.prefix.caller;
        // A line that is all of it ends nothing that it interrupts.
        if head.kind == Kind::StillInUse && head.what.starts_with("network device") {
            self.finished.push(Open::new(head, writer, line).finish());
            return;
        }
        while let Some(at) = self.open.iter().position(|open| open.callers.contains(&writer)) {
            self.close(at);
        }
        if self.open.len() >= MAX_OPEN {
            self.close(0);
        }
        let mut open = Open::new(head, writer, line);
        if let Some(at) = self.before.iter().position(|(other, _)| *other == writer) {
            let (_, lines) = self.before.remove(at);
            open.prepend(announced(&lines));
        }
        self.open.push(open);
    }

    fn remember(&mut self, writer: Option<Caller>, line: Line) {
        let at = match self.before.iter().position(|(other, _)| *other == writer) {
            Some(at) => at,
            None => {
                if self.before.len() >= MAX_WRITERS {
                    self.before.remove(0);
                }
                self.before.push((writer, Vec::new()));
                self.before.len() - 1
            }
        };
        let lines = &mut self.before[at].1;
        if lines.len() >= BEFORE {
            lines.remove(0);
        }
        lines.push(line);
    }

    fn close_those_over(&mut self, time: Option<u64>) {
        while let Some(at) = self.open.iter().position(|open| open.is_over(time)) {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        let splat = self.open.remove(at).finish();
        self.finished.push(splat);
    }

    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close(0);
        }
    }
}

/// From `------------[ cut here ]------------` on, if it is there; of a sanitizer's, the bar above it.
fn announced(lines: &[Line]) -> &[Line] {
    let is_cut =
        |line: &Line| line.text.contains("[ cut here ]") || line.text.contains("--- cut here ---");
    let is_bar = |line: &Line| line.text.trim_start().starts_with("=====");
    let at = lines
        .iter()
        .rposition(is_cut)
        .or_else(|| lines.len().checked_sub(1).filter(|last| is_bar(&lines[*last])));
    at.map_or(&[], |at| &lines[at..])
}
