//! A line of the report.

use serde::Serialize;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) state: State,
    pub(super) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

impl Line {
    pub(super) fn ok(name: &str, text: impl Into<String>) -> Line {
        Line { name: name.to_owned(), state: State::Ok, text: text.into(), fix: None }
    }

    pub(super) fn warn(name: &str, text: impl Into<String>, fix: impl Into<String>) -> Line {
        Line { name: name.to_owned(), state: State::Warn, text: text.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(name: &str, text: impl Into<String>, fix: impl Into<String>) -> Line {
        Line { name: name.to_owned(), state: State::Fail, text: text.into(), fix: Some(fix.into()) }
    }
}
