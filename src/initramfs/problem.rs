//! What can be wrong with an image, all of it at once.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::entry::{PathProblem, Request, Shown};
use super::read::archive::ArchiveError;
use super::{closure, modules};
use crate::causes::chain;
use crate::formats::cpio;

/// One reason why an image cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A destination that Linux would not unpack as meant.
    #[error("destination `{}` of {by} cannot be in an image: {problem}", dest.escape_ascii())]
    Destination {
        /// The destination as given.
        dest: Vec<u8>,
        /// Who asked for it.
        by: Request,
        /// The rule it breaks.
        problem: PathProblem,
    },
    /// Missing, unreadable, or of a kind that cannot be stored.
    #[error("cannot read `{}`, which {by} asks for", path.display())]
    Read {
        /// The host's file.
        path: PathBuf,
        /// Who asked for it.
        by: Request,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One path, two contents.
    #[error("`{}` is given twice with different content: {first}, and {second}", Shown(path))]
    Conflict {
        /// Path in the image.
        path: Vec<u8>,
        /// What it is and who asked first.
        first: String,
        /// What it is and who asked later.
        second: String,
    },
    /// A path that goes through something else than a directory.
    #[error(
        "`{}` ({by}) would be in `{}`, which is no directory ({under_by})",
        Shown(path),
        Shown(under)
    )]
    NotADirectory {
        /// Path in the image.
        path: Vec<u8>,
        /// Who asked for it.
        by: String,
        /// The part of it that is no directory.
        under: Vec<u8>,
        /// Who asked for that.
        under_by: String,
    },
    /// Symbolic links that lead to each other.
    #[error(
        "the directory of `{}` ({by}) cannot be found: symbolic links lead in a circle",
        Shown(path)
    )]
    LinkLoop {
        /// Path in the image.
        path: Vec<u8>,
        /// Who asked for it.
        by: String,
    },
    /// More than a cpio header can say.
    #[error("`{}` has {size} bytes; a file in an image can have {max}", path.display(), max = cpio::SIZE_MAX)]
    TooLarge {
        /// The host's file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// Bytes that are allocated: less than the size for a sparse file.
        allocated: u64,
    },
    /// Another process wrote to it.
    #[error("`{}` changed while the image was made: {what}", path.display())]
    Changed {
        /// The host's file.
        path: PathBuf,
        /// What was noticed.
        what: String,
    },
    /// A symbolic link's text that Linux does not take.
    #[error("symbolic link `{}` of {by} has {what}", Shown(path))]
    Target {
        /// Path in the image.
        path: Vec<u8>,
        /// Who asked for it.
        by: Request,
        /// What is wrong with its text.
        what: &'static str,
    },
    /// A base archive cannot be used.
    #[error("{by}: {}", chain(problem))]
    Base {
        /// Who asked for it.
        by: Request,
        /// What is wrong.
        problem: ArchiveError,
    },
    /// A program lacks something, or is none.
    #[error("{by}: {}", chain(problem))]
    Closure {
        /// Who asked for the program.
        by: Request,
        /// What is wrong.
        problem: closure::Problem,
    },
    /// Kernel modules lack something.
    #[error("{by}: {problems}")]
    Modules {
        /// Who asked for modules.
        by: Request,
        /// What is wrong.
        problems: modules::ModuleProblems,
    },
    /// A kernel module, or the directory of modules, cannot be used.
    #[error("{by}: {}", chain(problem))]
    Module {
        /// Who asked for it.
        by: Request,
        /// What is wrong.
        problem: modules::ModuleProblem,
    },
    /// Anything else that belongs to one request.
    #[error("{by}: {what}")]
    Request {
        /// Who asked.
        by: Request,
        /// What is wrong.
        what: String,
        /// How to fix it.
        hint: Option<String>,
    },
    /// The archive could not be written.
    #[error("cannot write the image")]
    Write {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Problem {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Problem::Destination { problem: PathProblem::DotDot, by, .. } => {
                let option = by.split(' ').next().filter(|word| word.starts_with("--"));
                let option = option.map(|option| format!("{option} ")).unwrap_or_default();
                format!("give the destination after a colon: `{option}SRC:DEST`")
            }
            Problem::Conflict { .. } => {
                "leave one of them out, or take the later one with `--override`".into()
            }
            Problem::TooLarge { size, allocated, .. } if allocated < &(size / 2) => format!(
                "it is sparse ({allocated} bytes on disk), but an image stores every byte: pass it \
                 with `--drive` or `--share`"
            ),
            Problem::TooLarge { .. } => {
                "pass it with `--share` (9p), `--ro-dir` (vfat) or `--drive`".into()
            }
            Problem::Changed { .. } => "try again when nothing writes to it".into(),
            Problem::Base { problem, .. } => return problem.hint(),
            Problem::Closure { problem, .. } => return problem.hint(),
            Problem::Module { problem, .. } => return problem.hint(),
            Problem::Request { hint, .. } => return hint.clone(),
            Problem::Write { source } if source.kind() == io::ErrorKind::StorageFull => {
                "make room where the image is written".into()
            }
            _ => return None,
        })
    }
}

/// Everything that is wrong with an image: at least one problem.
#[derive(Debug)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `None` where nothing is wrong.
    pub fn new(problems: Vec<Problem>) -> Option<Problems> {
        (!problems.is_empty()).then_some(Problems(problems))
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The hints, each once.
    pub fn hints(&self) -> Vec<String> {
        let mut hints: Vec<String> = Vec::new();
        for hint in self.0.iter().filter_map(Problem::hint) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        hints
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&chain(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
