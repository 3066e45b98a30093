//! What a closure consists of: files and links, each with the reason why it is there.

use std::fmt;
use std::path::PathBuf;

use super::problem::{Note, SearchStep};
use crate::formats::elf::Priority;

/// Everything one program needs.
#[derive(Clone, Debug, Default)]
pub struct Closure {
    /// What to put in the image; the program first, each `dest` once, parents not included.
    pub items: Vec<Item>,
    /// What the user should be able to hear about though nothing is wrong.
    pub notes: Vec<Note>,
}

/// One file or link for the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Path in the archive: no leading slash, no `.`, `..` or empty component.
    pub dest: Vec<u8>,
    /// What is there.
    pub source: Source,
    /// Why it is there.
    pub reason: Reason,
}

/// What an [`Item`] is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A copy of this host file (never a link itself).
    File(PathBuf),
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// An empty directory, mode 0755, unless something else is placed below it: a path that the
    /// guest's loader will open goes through it and back (`/opt/bin/../lib`).
    Dir,
    /// A regular file with these bytes, generated here (`etc/ld.so.cache`), mode 0644.
    Bytes(Vec<u8>),
}

/// Why something is in the image. `of` is always the `dest` of the item that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The caller asked for it.
    Requested,
    /// `PT_INTERP` of this program.
    Interpreter {
        /// The program.
        of: Vec<u8>,
    },
    /// `DT_NEEDED` of this object.
    Needed {
        /// The object.
        of: Vec<u8>,
        /// The name as it stands in the object.
        soname: Vec<u8>,
        /// What found it.
        via: SearchStep,
    },
    /// `.note.dlopen` of this object.
    Dlopen {
        /// The object.
        of: Vec<u8>,
        /// The alternative that was found.
        soname: Vec<u8>,
        /// How much the object wants it.
        priority: Priority,
        /// The feature it is for, if the note says.
        feature: Option<String>,
        /// What found it.
        via: SearchStep,
    },
    /// `#!` of this script, directly or through `env`.
    Script {
        /// The script.
        of: Vec<u8>,
        /// The `#!` line without `#!`.
        line: Vec<u8>,
    },
    /// A link on the way to this file.
    LinkHop {
        /// The file that was reached through it.
        of: Vec<u8>,
    },
    /// The guest's loader needs it to find the libraries (`ld.so.cache`, `ld-musl-*.path`).
    LoaderConfig {
        /// One library that is found by it.
        of: Vec<u8>,
    },
    /// A kernel module needed by this module.
    ModuleDep {
        /// The module's `dest`.
        of: Vec<u8>,
    },
    /// Firmware that this module asks for.
    Firmware {
        /// The module's `dest`.
        of: Vec<u8>,
    },
}

impl Closure {
    /// Why `dest` is in the closure: the item, then who asked for it, up to the requested program.
    pub fn why(&self, dest: &[u8]) -> Vec<&Item> {
        let mut chain: Vec<&Item> = Vec::new();
        let mut next = Some(dest);
        while let Some(item) = next.and_then(|dest| self.items.iter().find(|i| i.dest == dest)) {
            if chain.iter().any(|seen| seen.dest == item.dest) {
                break;
            }
            chain.push(item);
            next = item.reason.of();
        }
        chain
    }
}

impl Reason {
    /// The `dest` of the item that asked, if it was not the caller.
    pub fn of(&self) -> Option<&[u8]> {
        match self {
            Reason::Requested => None,
            Reason::Interpreter { of }
            | Reason::Needed { of, .. }
            | Reason::Dlopen { of, .. }
            | Reason::Script { of, .. }
            | Reason::LinkHop { of }
            | Reason::LoaderConfig { of }
            | Reason::ModuleDep { of }
            | Reason::Firmware { of } => Some(of),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dest.escape_ascii())?;
        match &self.source {
            Source::Symlink(target) => write!(f, " -> {}", target.escape_ascii()),
            Source::Dir => write!(f, "/"),
            Source::File(_) | Source::Bytes(_) => Ok(()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match self {
            Reason::Requested => write!(f, "requested"),
            Reason::Interpreter { of } => write!(f, "interpreter of {}", text(of)),
            Reason::Needed { of, soname, via } => {
                write!(f, "{} needed by {}, found by {via}", text(soname), text(of))
            }
            Reason::Dlopen { of, soname, priority, feature, via } => {
                write!(f, "{} {priority} by {}", text(soname), text(of))?;
                if let Some(feature) = feature {
                    write!(f, " for {feature}")?;
                }
                write!(f, " (dlopen), found by {via}")
            }
            Reason::Script { of, line } => {
                write!(f, "`#!{}` of {}", text(line), text(of))
            }
            Reason::LinkHop { of } => write!(f, "link on the way to {}", text(of)),
            Reason::LoaderConfig { of } => write!(f, "lets the loader find {}", text(of)),
            Reason::ModuleDep { of } => write!(f, "kernel module needed by {}", text(of)),
            Reason::Firmware { of } => write!(f, "firmware of {}", text(of)),
        }
    }
}
