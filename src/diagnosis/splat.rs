//! A report of the kernel about itself, whole.

use serde::Serialize;

use super::frame::Frame;
use super::kind::Kind;
use super::taint::Taint;

/// What the kernel said about one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Splat {
    /// The same for the same bug in every run: no addresses, numbers, ids.
    pub title: String,
    /// What it is about.
    pub kind: Kind,
    /// The function that is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The line that begins it, as it was printed.
    pub message: String,
    /// The processor that it was on, by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<u32>,
    /// The task that ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// When it began, in microseconds since the boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// Where it begins.
    pub begin: Position,
    /// Where its last line ends.
    pub end: Position,
    /// Why it is not to be trusted, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupted: Option<Corruption>,
    /// The reason of the panic that followed from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
    /// What the kernel was tainted with when it was printed.
    #[serde(skip_serializing_if = "Taint::is_empty")]
    pub taint: Taint,
    /// The kernel's build id, in hex digits, if it printed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Its traces, in the log's order.
    pub traces: Vec<Trace>,
    /// Its lines without what stood before each. At most [`MAX_LINES`].
    pub lines: Vec<String>,
}

/// So many lines of a report are kept.
pub const MAX_LINES: usize = 2000;

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// The first 15 bytes of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The byte, from 0.
    pub byte: u64,
}

/// Functions, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The line above it, such as `Freed by task 12`.
    pub title: String,
    /// Its frames.
    pub frames: Vec<Frame>,
}

/// Why a report is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corruption {
    /// Another writer's text is in the middle of its first line.
    Torn,
    /// The console lost messages in it.
    Dropped,
    /// There is no trace, although such a report has one: the log was cut, or another report began.
    NoTrace,
    /// Only its later part is there.
    NoBeginning,
}

impl Corruption {
    /// The reason in words.
    pub fn text(self) -> &'static str {
        match self {
            Corruption::Torn => "another message is in the middle of its first line",
            Corruption::Dropped => "the console lost messages in it",
            Corruption::NoTrace => "its trace is missing",
            Corruption::NoBeginning => "its beginning is missing",
        }
    }
}
