//! What can be wrong with a closure, in full: for messages, for `why --missing`, for tests.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::script::ShebangError;
use crate::arch::Arch;
use crate::formats::elf::{ElfError, ElfInfo, Priority};

/// All problems of one closure; never empty.
#[derive(Debug)]
pub struct Problems(Vec<Problem>);

/// Something that keeps a program from running in the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A host file or directory cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program is for another machine than the guest.
    #[error("`{}` is a program for {found}, the guest is {wanted}", .path.display())]
    ProgramArch {
        /// The program.
        path: PathBuf,
        /// What it is for.
        found: Target,
        /// What the guest is.
        wanted: Arch,
    },
    /// A file that starts like an ELF file is none.
    #[error("`{}` is a damaged ELF file", .path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: Arc<ElfError>,
    },
    /// Neither an ELF file nor a script.
    #[error("`{}` is neither an ELF program nor a script (it starts with `{}`)", .path.display(), .start.escape_ascii())]
    NotAProgram {
        /// The file.
        path: PathBuf,
        /// Its first bytes, at most 8.
        start: Vec<u8>,
    },
    /// An ELF file that cannot be started: an object file or a core dump.
    #[error("`{}` is not a program but {kind}", .path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The program interpreter (`PT_INTERP`) or the interpreter of a script is not in the sysroot.
    #[error("interpreter `{}` of `{}` not found", .interpreter.escape_ascii(), .of.escape_ascii())]
    MissingInterpreter {
        /// The interpreter.
        interpreter: Vec<u8>,
        /// Who names it (archive path).
        of: Vec<u8>,
        /// From the requested program to `of` (archive paths).
        chain: Vec<Vec<u8>>,
        /// Every path tried.
        tried: Vec<Tried>,
    },
    /// An interpreter is there and does not fit.
    #[error("interpreter `{}` of `{}` is for {found}, the guest is {wanted}", .interpreter.escape_ascii(), .of.escape_ascii())]
    InterpreterArch {
        /// The interpreter.
        interpreter: Vec<u8>,
        /// Who names it.
        of: Vec<u8>,
        /// What it is for.
        found: Target,
        /// What the guest is.
        wanted: Arch,
    },
    /// A `#!` line that the kernel would not understand as it was meant.
    #[error("`{}` cannot be interpreted", .path.display())]
    Script {
        /// The script.
        path: PathBuf,
        /// What is wrong with its first line.
        #[source]
        source: ShebangError,
    },
    /// Scripts that interpret scripts, deeper than the kernel goes.
    #[error("`{}`: more than {limit} scripts interpret each other: {}", .path.display(), join(.chain, " -> "))]
    ScriptDepth {
        /// The first script.
        path: PathBuf,
        /// All of them.
        chain: Vec<Vec<u8>>,
        /// The kernel's limit.
        limit: usize,
    },
    /// Symbolic links that lead to each other.
    #[error("{}: {}", if .cycle.first() == .cycle.last() { "symbolic links form a loop" } else { "too many symbolic links" }, join(.cycle, " -> "))]
    LinkLoop {
        /// The links (paths in the sysroot), first one again at the end.
        cycle: Vec<Vec<u8>>,
        /// Who asked (archive path).
        of: Vec<u8>,
    },
    /// A library is nowhere.
    #[error("{0}")]
    MissingLibrary(Box<MissingLibrary>),
    /// Two files for one place.
    #[error("`{}` would be two things: {first} and {second}", .dest.escape_ascii())]
    Conflict {
        /// The place in the image.
        dest: Vec<u8>,
        /// What is there, and why.
        first: String,
        /// What should be there as well, and why.
        second: String,
    },
    /// A destination that no archive can hold.
    #[error("`{}` is no place in an image", .dest.escape_ascii())]
    Dest {
        /// The destination.
        dest: Vec<u8>,
    },
}

/// A library that was not found, with everything needed to understand why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLibrary {
    /// The names that would do; more than one for dlopen alternatives.
    pub sonames: Vec<Vec<u8>>,
    /// The object that needs it (archive path).
    pub of: Vec<u8>,
    /// From the requested program to `of` (archive paths).
    pub chain: Vec<Vec<u8>>,
    /// Set if the object opens it at run time.
    pub dlopen: Option<Priority>,
    /// Every place that was looked at, in order.
    pub tried: Vec<Tried>,
    /// A library of that name outside of the search path: a hardware directory, or the host.
    pub elsewhere: Option<PathBuf>,
    /// The options that look for it again: the program, and where its libraries are.
    pub options: Vec<OsString>,
}

/// One place where a library was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Directory or file, as the guest sees it.
    pub path: Vec<u8>,
    /// What led there.
    pub step: SearchStep,
    /// What was found.
    pub outcome: Outcome,
}

/// What was found at a place that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// No such file in an existing directory.
    Absent,
    /// No such directory.
    NoDirectory,
    /// A library for another machine.
    WrongTarget(Target),
    /// No shared object, or a damaged one.
    NotElf,
    /// The file system says no; there is a [`Problem`] for it.
    Unreadable,
    /// An empty or relative search element: depends on the current directory, never used.
    Rejected,
}

/// The rule of the search order that names a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SearchStep {
    /// The name itself is a path.
    Path,
    /// `DT_RPATH` of this object (archive path).
    Rpath(Vec<u8>),
    /// `DT_RUNPATH` of this object (archive path).
    Runpath(Vec<u8>),
    /// A directory given by the caller.
    LibraryDir,
    /// `ld.so.conf` or a file it includes (path in the sysroot), or musl's path file.
    Conf(Vec<u8>),
    /// The loader's built-in directories.
    Default,
    /// `PATH`, for programs named by `env`.
    ProgramPath,
}

/// Class, byte order and machine of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// 64-bit.
    pub class64: bool,
    /// Little endian.
    pub little_endian: bool,
    /// `e_machine`.
    pub machine: u16,
}

/// Something to tell that is no problem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A candidate of the right name was for another machine or no library; the search went on.
    PassedOver {
        /// The name looked for.
        soname: Vec<u8>,
        /// The place and what is there.
        tried: Tried,
    },
    /// A library that may be missing is.
    AllowedMissing(MissingLibrary),
    /// A library that an object opens at run time, not strictly required, is missing.
    DlopenMissing {
        /// What is missing.
        missing: MissingLibrary,
        /// What it is for, from the note.
        feature: Option<String>,
    },
    /// An element of a search path was not used.
    SearchElement {
        /// The object (archive path).
        of: Vec<u8>,
        /// The element.
        element: Vec<u8>,
        /// Why not.
        why: &'static str,
    },
    /// A note section could not be read, so that its dlopen entries are not known.
    BadNote {
        /// The object (archive path).
        of: Vec<u8>,
        /// What is wrong, and where.
        why: String,
    },
}

fn join(paths: &[Vec<u8>], separator: &str) -> String {
    paths.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>().join(separator)
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for SearchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SearchStep::Path => write!(f, "path"),
            SearchStep::Rpath(of) => write!(f, "RPATH of {}", of.escape_ascii()),
            SearchStep::Runpath(of) => write!(f, "RUNPATH of {}", of.escape_ascii()),
            SearchStep::LibraryDir => write!(f, "library directory"),
            SearchStep::Conf(file) => write!(f, "/{}", file.escape_ascii()),
            SearchStep::Default => write!(f, "default directory"),
            SearchStep::ProgramPath => write!(f, "PATH"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.arch() {
            Some(arch) => write!(f, "{arch}"),
            None => write!(
                f,
                "machine {} ({}-bit, {} endian)",
                self.machine,
                if self.class64 { 64 } else { 32 },
                if self.little_endian { "little" } else { "big" },
            ),
        }
    }
}

impl Target {
    /// The guest architecture whose programs are like this.
    pub fn arch(self) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| Target::of(*arch) == self)
    }

    /// What the programs of `arch` are.
    pub fn of(arch: Arch) -> Target {
        Target { class64: arch.elf_64(), little_endian: true, machine: arch.elf_machine() }
    }
}

impl From<&ElfInfo> for Target {
    fn from(info: &ElfInfo) -> Target {
        Target { class64: info.class64, little_endian: info.little_endian, machine: info.machine }
    }
}

impl fmt::Display for Tried {
    /// One line of `why --missing`: `/lib (default directory): not there`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.escape_ascii();
        match self.outcome {
            // The element as it stands, which is no path.
            Outcome::Rejected => write!(f, "`{path}` ({}): {}", self.step, self.outcome),
            _ => write!(f, "/{path} ({}): {}", self.step, self.outcome),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Absent => write!(f, "not there"),
            Outcome::NoDirectory => write!(f, "no such directory"),
            Outcome::WrongTarget(found) => write!(f, "is for {found}"),
            Outcome::NotElf => write!(f, "is no usable shared object"),
            Outcome::Unreadable => write!(f, "cannot be read"),
            Outcome::Rejected => write!(f, "depends on the current directory, not used"),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::PassedOver { soname, tried } => {
                write!(f, "passed over for `{}`: {tried}", soname.escape_ascii())
            }
            Note::AllowedMissing(missing) => write!(f, "{missing} (allowed)"),
            Note::DlopenMissing { missing, feature } => {
                write!(f, "{missing}")?;
                match feature {
                    Some(feature) => write!(f, "; without it there is no {feature}"),
                    None => Ok(()),
                }
            }
            Note::SearchElement { of, element, why } => write!(
                f,
                "`{}` in the search path of `{}` not used: {why}",
                element.escape_ascii(),
                of.escape_ascii()
            ),
            Note::BadNote { of, why } => write!(f, "`{}`: {why}", of.escape_ascii()),
        }
    }
}

impl Problem {
    /// How to fix it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Problem::ProgramArch { found, .. } => match found.arch() {
                Some(arch) => {
                    format!("build it for the guest, or boot a guest with `--arch {arch}`")
                }
                None => "build it for the guest".to_owned(),
            },
            Problem::Elf { .. } => {
                "copy or build it again; `--file` takes it as plain data".to_owned()
            }
            Problem::NotAProgram { start, .. } if start.is_empty() => "it is empty".to_owned(),
            Problem::NotAProgram { .. } => {
                "a script needs a first line like `#!/bin/sh`; `--file` takes it as plain data"
                    .to_owned()
            }
            Problem::NotExecutable { kind, .. } if kind.starts_with("an object") => {
                "link it into a program first".to_owned()
            }
            Problem::NotExecutable { .. } => {
                "give the program itself; `--file` takes this as plain data".to_owned()
            }
            Problem::MissingInterpreter { interpreter, tried, .. } => {
                let relative = tried.iter().any(|t| t.outcome == Outcome::Rejected);
                let loader = interpreter.rsplit(|&b| b == b'/').next().unwrap_or_default();
                if relative {
                    "it must be an absolute path".to_owned()
                } else if loader.starts_with(b"ld") {
                    "give the directory tree that has the guest's C library with `--sysroot DIR`, \
                     or link the program statically"
                        .to_owned()
                } else {
                    "install it in the sysroot, or give the tree that has it with `--sysroot DIR`"
                        .to_owned()
                }
            }
            Problem::InterpreterArch { .. } => {
                "the sysroot is for another architecture: give another one with `--sysroot DIR`"
                    .to_owned()
            }
            Problem::Script { source, .. } => source.hint().to_owned(),
            Problem::MissingLibrary(missing) => missing.hint(),
            Problem::LinkLoop { .. } => "remove one of the links".to_owned(),
            Problem::Dest { .. } => {
                "give a path below the root, without `..` and at most 4095 bytes long".to_owned()
            }
            Problem::Conflict { .. } => "choose another destination".to_owned(),
            Problem::Read { .. } | Problem::ScriptDepth { .. } => return None,
        })
    }
}

impl MissingLibrary {
    /// How to fix it.
    pub fn hint(&self) -> String {
        let wrong = self.tried.iter().find_map(|tried| match tried.outcome {
            Outcome::WrongTarget(found) => Some((tried, found)),
            _ => None,
        });
        let name = self.sonames.first().map(|name| name.escape_ascii().to_string());
        let name = name.unwrap_or_default();
        if name.contains('/') && self.tried.iter().any(|t| t.outcome == Outcome::Rejected) {
            return "the name depends on the current directory: link with `-L DIR -l NAME`, or give \
                    the library a soname"
                .to_owned();
        }
        let mut words =
            ["vmtest", "initramfs", "why", "--missing", &*name].map(OsString::from).to_vec();
        words.extend(self.options.iter().cloned());
        let more = format!("`{}` shows every directory tried", crate::quote::join(words).display());
        if let Some(path) = &self.elsewhere {
            let path = path.display();
            return format!("`{path}` exists and is outside of the search path; {more}");
        }
        match wrong {
            Some((tried, found)) => {
                format!("/{} is for {found}; {more}", tried.path.escape_ascii())
            }
            None => format!(
                "install it in the sysroot, name its directory with `--lib-dir DIR`, or pass \
                 `--allow-missing {name}`; {more}"
            ),
        }
    }
}

impl fmt::Display for MissingLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain: Vec<_> = self.chain.iter().map(|p| p.escape_ascii().to_string()).collect();
        write!(
            f,
            "library `{}` needed by `{}` not found",
            self.sonames
                .iter()
                .map(|n| n.escape_ascii().to_string())
                .collect::<Vec<_>>()
                .join("` or `"),
            self.of.escape_ascii(),
        )?;
        if chain.len() > 1 {
            write!(f, " ({})", chain.join(" -> "))?;
        }
        Ok(())
    }
}

impl Problems {
    /// Says of missing libraries how to look for them again.
    pub(super) fn with_options(mut self, options: &[OsString]) -> Problems {
        for problem in &mut self.0 {
            if let Problem::MissingLibrary(missing) = problem {
                missing.options = options.to_vec();
            }
        }
        self
    }

    /// The problems, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The missing libraries among them.
    pub fn missing_libraries(&self) -> impl Iterator<Item = &MissingLibrary> {
        self.0.iter().filter_map(|problem| match problem {
            Problem::MissingLibrary(missing) => Some(&**missing),
            _ => None,
        })
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Problems {
        Problems(problems)
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
