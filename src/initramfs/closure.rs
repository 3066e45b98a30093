//! Which files a program needs to run in a guest, found without running anything.
//!
//! ```no_run
//! use std::path::Path;
//! use vmtest::{arch::Arch, initramfs::closure::Resolver};
//!
//! let mut resolver = Resolver::new(Arch::Riscv64, Path::new("/srv/riscv64-sysroot"));
//! let closure = resolver.program(Path::new("./hello"), b"bin/hello", &|_| false)?;
//! for item in &closure.items {
//!     println!("{item}: {}", item.reason);
//! }
//! # Ok::<(), vmtest::initramfs::closure::Problems>(())
//! ```
//!
//! What is followed: `PT_INTERP`, `DT_NEEDED` in the loader's own order, `.note.dlopen`, and `#!`
//! lines. Symbolic links are kept as links, every hop of them, including linked directories on the
//! way (`lib -> usr/lib`), so that a file has one place in the image whatever path leads to it.
//! Absolute links are followed inside of the sysroot, never out of it.
//!
//! # Where libraries are looked for
//!
//! glibc, as `ld.so(8)` says: a name with a slash is a path. Otherwise
//! 1. `DT_RPATH` of the object, then of what loaded it, up to the executable; only if the object
//!    has no `DT_RUNPATH`. An object that has both loses its `DT_RPATH`;
//! 2. `DT_RUNPATH` of the object itself;
//! 3. [`Resolver::library_dirs`];
//! 4. the directories of `/etc/ld.so.conf` (what `ld.so.cache` is made from);
//! 5. `/lib/TUPLE /usr/lib/TUPLE /lib64 /usr/lib64 /lib /usr/lib` (`lib64` for 64-bit guests only).
//!    `DF_1_NODEFLIB` takes these away, also where step 4 names them.
//!
//! musl, when the interpreter is called `ld-musl-*`: `DT_RUNPATH`, else `DT_RPATH`, of the object
//! and of what loaded it; [`Resolver::library_dirs`]; then `/etc/ld-musl-*.path`, else
//! `/lib /usr/local/lib /usr/lib`.
//!
//! A candidate of another class, byte order, machine or OS ABI is passed over and noted, as the
//! loader does.
//!
//! # What is deliberately absent
//!
//! - `glibc-hwcaps` and the older hardware directories: the guest's CPU is not known here, so only
//!   the baseline library is taken. One that exists in such a directory only is reported missing,
//!   with that as the hint.
//! - `LD_LIBRARY_PATH`, `LD_PRELOAD` and `/etc/ld.so.preload`: an image must not depend on the
//!   caller's environment.
//! - What no file declares: NSS modules (`libnss_*.so`), gconv, PAM, Python's or Perl's modules,
//!   plugins. Name them with `--file` or `--tree`.
//!
//! # A program from outside of the sysroot
//!
//! Any host file can be put at any `dest`. If that is not its place in the sysroot, `$ORIGIN` has
//! two readings: the host directory, where libraries are found now, and the directory of `dest`,
//! where the guest's loader will look. `$ORIGIN/../lib/libx.so` of `/home/me/app/bin/tool` placed
//! at `opt/bin/tool` is therefore read from `/home/me/app/lib/libx.so` and placed at
//! `opt/lib/libx.so`. Everything else, the interpreter included, comes from the sysroot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::formats::elf::Priority;
use crate::formats::ldcache;

pub mod ldconf;
mod problem;
pub mod script;
mod search;
mod sysroot;
mod walk;

pub use problem::{MissingLibrary, Note, Outcome, Problem, Problems, SearchStep, Target, Tried};

use search::{Search, searched_anyway};
use walk::Walk;

/// Where the guest looks for programs named without a slash, unless told otherwise.
pub const DEFAULT_PATH: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Whether `path` leads to a file in the tree at `sysroot`, links followed as the guest will.
pub fn is_file_in(sysroot: &Path, path: &Path) -> bool {
    let mut tree = sysroot::Sysroot::new(sysroot);
    let found = tree.resolve(path.as_os_str().as_encoded_bytes());
    found.is_ok_and(|found| tree.host(&found.real).is_file())
}

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

/// Finds closures in one sysroot for one architecture; keeps what it read for the next program.
#[derive(Debug)]
pub struct Resolver {
    arch: Arch,
    sysroot: PathBuf,
    library_dirs: Vec<PathBuf>,
    rules: Rules,
    /// Made when it is first needed, from then on the settings above are fixed.
    search: Option<Search>,
    /// Libraries that a glibc loader finds by name: name, path, and whether without a cache.
    by_name: BTreeMap<Vec<u8>, (Vec<u8>, bool)>,
}

/// What the caller decides about a closure.
#[derive(Debug)]
struct Rules {
    path: Vec<Vec<u8>>,
    allow_missing: BTreeSet<Vec<u8>>,
    dlopen: Option<Priority>,
}

impl Resolver {
    /// A resolver for programs of `arch` with libraries from `sysroot` (`/` for this host's).
    ///
    /// Nothing is read yet.
    pub fn new(arch: Arch, sysroot: &Path) -> Resolver {
        Resolver {
            arch,
            sysroot: sysroot.to_owned(),
            library_dirs: Vec::new(),
            rules: Rules {
                path: DEFAULT_PATH.iter().map(|dir| dir.as_bytes().to_vec()).collect(),
                allow_missing: BTreeSet::new(),
                dlopen: Some(Priority::Recommended),
            },
            search: None,
            by_name: BTreeMap::new(),
        }
    }

    /// Further host directories with libraries, first one first; default none.
    ///
    /// They are searched after `DT_RUNPATH` and before the system's directories. A library of a
    /// directory inside of the sysroot keeps its place, one from elsewhere goes to
    /// `usr/local/lib`; [`Resolver::loader_cache`] makes the guest's loader find it.
    #[must_use]
    pub fn library_dirs(mut self, dirs: impl IntoIterator<Item = PathBuf>) -> Resolver {
        self.library_dirs = dirs.into_iter().collect();
        self
    }

    /// Guest directories for `#!/usr/bin/env NAME`; default [`DEFAULT_PATH`].
    #[must_use]
    pub fn path(mut self, dirs: impl IntoIterator<Item = Vec<u8>>) -> Resolver {
        self.rules.path = dirs.into_iter().collect();
        self
    }

    /// Libraries whose absence is a note and not a problem; default none.
    #[must_use]
    pub fn allow_missing(mut self, sonames: impl IntoIterator<Item = Vec<u8>>) -> Resolver {
        self.rules.allow_missing = sonames.into_iter().collect();
        self
    }

    /// The least priority of `.note.dlopen` entries to follow, `None` for none at all; default
    /// [`Priority::Recommended`]. A missing `required` one is a problem, any other a note.
    #[must_use]
    pub fn dlopen(mut self, least: Option<Priority>) -> Resolver {
        self.rules.dlopen = least;
        self
    }

    /// The closure of the program, script or shared object `host`, placed at `dest`.
    ///
    /// `provided` tells whether the image has something executable at an archive path already
    /// (`bin/sh` of a base image); the interpreter of a `#!` line is then not looked for.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn program(
        &mut self,
        host: &Path,
        dest: &[u8],
        provided: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Closure, Problems> {
        let (search, rules) = self.parts();
        let mut walk = Walk::new(search, rules, provided);
        walk.program(host, dest);
        let (closure, by_name) = walk.finish()?;
        for (name, path, lib) in by_name {
            let sure = searched_anyway(&lib, sysroot::parent(&path));
            self.by_name.entry(name).or_insert((path, sure));
        }
        Ok(closure)
    }

    /// Where the guest would find the program `name` in the sysroot: guest path and host file.
    ///
    /// A `name` with a slash is taken as a path of the guest.
    pub fn find_program(&mut self, name: &[u8]) -> Option<(Vec<u8>, PathBuf)> {
        let (search, rules) = self.parts();
        walk::find_program(search, &rules.path, name)
    }

    fn parts(&mut self) -> (&mut Search, &Rules) {
        let search = self.search.get_or_insert_with(|| {
            Search::new(self.arch, &self.sysroot, self.library_dirs.clone())
        });
        (search, &self.rules)
    }

    /// The guest loader's `etc/ld.so.cache`, once all programs are resolved.
    ///
    /// `None` when every library lies where the loader looks anyway. The sysroot's own cache is
    /// never copied: it may be stale and names what is not in the image.
    pub fn loader_cache(&self) -> Option<Item> {
        let (_, (first, _)) = self.by_name.iter().find(|(_, (_, sure))| !sure)?;
        let entries = self.by_name.iter().map(|(name, (path, _))| ldcache::Entry {
            name: name.clone(),
            path: [b"/", &path[..]].concat(),
        });
        Some(Item {
            dest: b"etc/ld.so.cache".to_vec(),
            source: Source::Bytes(ldcache::write(self.arch, entries.collect())),
            reason: Reason::LoaderConfig { of: first.clone() },
        })
    }
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

#[cfg(test)]
mod tests;
