//! What could not be used, and why. The rest is used all the same.

use std::fmt;
use std::path::Path;

/// Something that could not be used, or only in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which file, member of an archive, or run.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// About a file, or a member of an archive.
    pub(crate) fn new(object: impl Into<String>, why: impl fmt::Display) -> Problem {
        Problem { object: object.into(), why: why.to_string(), hint: None }
    }

    /// About a file.
    pub(crate) fn at(path: &Path, why: impl fmt::Display) -> Problem {
        Problem::new(path.display().to_string(), why)
    }

    /// The same with what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.why)
    }
}
