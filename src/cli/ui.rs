//! What goes to stderr: progress, remarks, verdicts. Never stdout, that is the command's.
//!
//! Colours only on a terminal, and not with `NO_COLOR` (<https://no-color.org>). One line is written
//! with one call, so that lines of several programs do not mix.

use std::io::{IsTerminal, Write, stderr};
use std::sync::OnceLock;

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MessageFormat {
    /// Lines that a person reads.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

fn colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| {
        stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    })
}

fn paint(code: &str, text: &str) -> String {
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Writes a line. A stderr that is gone is no reason to fail.
pub(crate) fn line(text: &str) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}

pub(crate) fn error(text: &str) {
    line(&format!("{} {text}", paint("1;31", "error:")));
}

pub(crate) fn hint(text: &str) {
    line(&format!("{} {text}", paint("1;36", "hint:")));
}

pub(crate) fn note(text: &str) {
    line(&format!("{} {text}", paint("1;33", "note:")));
}

/// Progress and verdict.
pub(crate) fn status(text: &str) {
    line(&format!("{} {text}", paint("1;32", "vmtest:")));
}

/// A verdict that is no success.
pub(crate) fn failed(text: &str) {
    line(&format!("{} {text}", paint("1;31", "vmtest:")));
}

/// A test's result, in a column.
pub(crate) fn result(status: vmtest::results::Status) -> String {
    let colour = match status {
        vmtest::results::Status::Passed => "32",
        vmtest::results::Status::Flaky => "1;35",
        vmtest::results::Status::Skipped => "33",
        _ => "1;31",
    };
    paint(colour, &format!("{:>9}", status.name()))
}

/// Lines of the guest's console, set off.
pub(crate) fn excerpt(lines: &[String]) {
    for text in lines {
        line(&format!("  {} {text}", paint("2", "|")));
    }
}
