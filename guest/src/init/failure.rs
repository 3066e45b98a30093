//! Why something that the host asked for was not done.

use rustix::io::Errno;
use std::io;

/// Why something that the host asked for was not done: what it is told.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) errno: Option<i32>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>, errno: Errno) -> Failure {
        Failure { text: text.into(), errno: Some(errno.raw_os_error()) }
    }

    pub(crate) fn of(what: &str, error: &io::Error) -> Failure {
        Failure { text: format!("{what}: {error}"), errno: error.raw_os_error() }
    }

    /// An error with its reasons.
    pub(crate) fn chain(error: &dyn std::error::Error, errno: Option<i32>) -> Failure {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        Failure { text, errno }
    }
}
