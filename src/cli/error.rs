//! What ends the program before there is a verdict.

use std::error::Error;

pub(crate) use vmtest::causes::chain;
use vmtest::coverage::run_dir::RunDirError;
use vmtest::session;

use super::ui;

/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// A kernel, a QEMU or a file is missing or unusable (`EX_UNAVAILABLE` of `sysexits.h`).
pub(crate) const UNAVAILABLE: u8 = 69;

/// SIGINT and its like.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// The user's command line is wrong.
    pub(crate) fn usage(error: &dyn Error, hint: Option<String>) -> Failure {
        Failure { code: USAGE, text: chain(error), hint }
    }

    /// Something that is needed is missing or unusable.
    pub(crate) fn unavailable(error: &dyn Error, hint: Option<String>) -> Failure {
        Failure { code: UNAVAILABLE, text: chain(error), hint }
    }

    /// The same, in words.
    pub(crate) fn missing(text: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { code: UNAVAILABLE, text: text.into(), hint: Some(hint.into()) }
    }

    /// Wrong usage, in words.
    pub(crate) fn wrong(text: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { code: USAGE, text: text.into(), hint: Some(hint.into()) }
    }

    /// As a line of `--message-format json`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "type": "error", "exit_code": self.code, "text": self.text, "hint": self.hint,
        })
    }

    pub(crate) fn print(&self) {
        ui::error(&self.text);
        if let Some(hint) = &self.hint {
            ui::hint(hint);
        }
    }
}

impl From<session::Error> for Failure {
    fn from(error: session::Error) -> Failure {
        let code = match error {
            // Flags that contradict each other are wrong usage; all else is missing or unusable.
            session::Error::Plan(_)
            | session::Error::Config(_)
            | session::Error::CoverageWithoutPlace
            | session::Error::Coverage(RunDirError::Name { .. }) => USAGE,
            session::Error::Interrupted { .. } => INTERRUPTED,
            _ => UNAVAILABLE,
        };
        let text = match &error {
            // It lists its causes itself.
            session::Error::Image(problems) => problems.to_string(),
            error => chain(error),
        };
        Failure { code, text, hint: error.hint() }
    }
}
