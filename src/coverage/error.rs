//! Why there is nothing to report.

use std::io;
use std::path::PathBuf;

use super::problem::Problem;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was given cannot be read.
    #[error("cannot read {}", path.display())]
    Input {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory without runs.
    #[error("there is no coverage in {}", path.display())]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// A directory without runs, as far as it can be entered.
    #[error("there is no coverage in {} that could be read: {problem}", path.display())]
    Closed {
        /// The directory.
        path: PathBuf,
        /// What of it cannot be entered.
        problem: Problem,
    },
    /// No place for temporary files.
    #[error("cannot make a temporary directory")]
    Scratch {
        /// Why.
        source: io::Error,
    },
    /// [`super::Cancel`].
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Input { .. } | Error::Nothing { .. } => Some(
                "give directories that `vmtest run --coverage DIR` wrote, lcov files (*.info), or \
                 JSON files of `vmtest coverage`",
            ),
            Error::Closed { .. } => Some("who may read it?"),
            Error::Scratch { .. } => Some("TMPDIR says where temporary files go"),
            Error::Cancelled => None,
        }
    }
}
