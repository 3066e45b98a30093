//! Finds closures, program after program.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::item::{Closure, Item, Reason, Source};
use super::problem::Problems;
use super::search::{Search, searched_anyway};
use super::sysroot;
use super::walk::{self, Rules, Walk};
use crate::arch::Arch;
use crate::formats::elf::Priority;
use crate::formats::ldcache;

/// Where the guest looks for programs named without a slash, unless told otherwise.
pub const DEFAULT_PATH: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Whether `path` leads to a file in the tree at `sysroot`, links followed as the guest will.
pub fn is_file_in(sysroot: &Path, path: &Path) -> bool {
    let mut tree = sysroot::Sysroot::new(sysroot);
    let found = tree.resolve(path.as_os_str().as_encoded_bytes());
    found.is_ok_and(|found| tree.host(&found.real).is_file())
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
        let (closure, by_name) = match walk.finish() {
            Ok(found) => found,
            Err(problems) => return Err(problems.with_options(&self.options(host))),
        };
        for (name, path, lib) in by_name {
            let sure = searched_anyway(&lib, sysroot::parent(&path));
            self.by_name.entry(name).or_insert((path, sure));
        }
        Ok(closure)
    }

    /// The options of `vmtest initramfs why` that look at this program as it was looked at here.
    fn options(&self, program: &Path) -> Vec<OsString> {
        let mut options = Vec::new();
        let mut add = |option: &str, value: &OsStr| {
            options.extend([OsString::from(option), value.to_owned()]);
        };
        if Arch::host() != Some(self.arch) {
            add("--arch", self.arch.name().as_ref());
        }
        if self.sysroot != Path::new("/") {
            add("--sysroot", self.sysroot.as_os_str());
        }
        self.library_dirs.iter().for_each(|dir| add("--lib-dir", dir.as_os_str()));
        // A colon in a name separates it from where it goes.
        let mut escaped = OsString::new();
        for (n, part) in program.as_os_str().as_bytes().split(|byte| *byte == b':').enumerate() {
            if n > 0 {
                escaped.push("\\:");
            }
            escaped.push(OsStr::from_bytes(part));
        }
        add("--bin", &escaped);
        options
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
