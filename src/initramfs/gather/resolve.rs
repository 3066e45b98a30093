//! From what was asked for to entries: every file is looked at, and all that is wrong is reported at once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::bases::Bases;
use super::closure::{self, Resolver};
use super::merge::{dangling, merge};
use super::needs::Needs;
use super::scan::{Program, Scan};
use super::tree::{absolute, default_dest, real};
use super::uroot::{self, multicall_links};
use crate::initramfs::entry::{Entry, Kind, PathProblem, Reason, Request, normalize};
use crate::initramfs::links::follow;
use crate::initramfs::problem::{Problem, Problems};
use crate::initramfs::read::archive::Source;
use crate::initramfs::spec::{Attributes, BaseFrom, How, ImageSpec, What};
use crate::initramfs::write::image::Image;

impl ImageSpec {
    /// What the closures of the programs found worth telling, missing libraries that may be missing
    /// among it.
    pub fn notes(&self) -> Vec<closure::Note> {
        self.gather().notes
    }

    /// Looks at everything that was asked for and lays the image out. Nothing is written.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first problem.
    pub fn finish(&self) -> Result<Image, Problems> {
        let Scan { entries, mut problems, mut notices, named_links, left_out, .. } = self.gather();
        let entries = merge(entries, self.take_later, &mut problems, &mut notices);
        dangling(&entries, &named_links, &mut notices);
        match Problems::new(problems) {
            Some(problems) => Err(problems),
            None => {
                let image = Image::new(entries, notices, self.mtime, self.aligned);
                Ok(image.without(left_out))
            }
        }
    }

    /// Looks at everything that was asked for.
    fn gather(&self) -> Scan {
        let mut scan = Scan::new();
        scan.leave_out = self.left_out.iter().map(|path| real(path)).collect();
        let mut programs = Vec::new();
        let mut needs = Needs::default();
        let mut bases = Bases::default();
        for (by, from) in &self.bases {
            base(&mut bases, from, by, &mut scan);
        }
        scan.problems.extend(self.library_dirs.iter().filter_map(|dir| not_a_directory(dir)));
        // Programs come last: what else is in the image can be the interpreter of a script.
        let mut resolver = Resolver::new(self.arch, &self.sysroot)
            .library_dirs(self.library_dirs.iter().cloned())
            .allow_missing(self.allow_missing.iter().cloned());
        for (by, what) in &self.requests {
            match what {
                What::Multicall { src, names } => {
                    let src = self.program_file(src, &mut resolver);
                    let dest = b"bbin/bb".to_vec();
                    let program = Program { src, dest, by: by.clone(), absent: false };
                    programs.push(program);
                    match multicall_links(names, by) {
                        Ok(links) => scan.entries.extend(links),
                        Err(problem) => scan.problems.push(problem),
                    }
                }
                What::Modules(request) => needs.modules(by, request, self.arch, &mut scan),
                _ => self.resolve(by, what, &mut scan, &mut programs, &mut resolver),
            }
        }
        needs.finish_modules(&mut scan);
        self.commands(&bases, &programs, &mut scan);
        let own_init = programs.iter_mut().find(|program| program.dest == b"init");
        bases.finish(self.use_init, own_init, &mut scan);
        needs.programs(resolver, &programs, &self.provided, self.attributes, &mut scan);
        scan.finish_notices();
        scan
    }

    /// Adds the links of commands: everything they can lead to is known by now.
    fn commands(&self, bases: &Bases, programs: &[Program], scan: &mut Scan) {
        let mut named: Vec<Vec<u8>> = programs.iter().map(|program| program.dest.clone()).collect();
        let link = |entry: &&Entry| entry.path.starts_with(b"bbin/");
        named.extend(scan.entries.iter().filter(link).map(|entry| entry.path.clone()));
        let mut made = Vec::new();
        // Each path that is known, and where it leads if it is a link. Later ones win.
        let mut known: HashMap<&[u8], Option<&Vec<u8>>> = HashMap::new();
        for (index, (role, (by, command))) in self.commands.iter().enumerate() {
            if index == 0 {
                for entry in bases.entries().chain(&scan.entries) {
                    let target = match &entry.kind {
                        Kind::Symlink { target } => Some(target),
                        _ => None,
                    };
                    known.insert(&entry.path, target);
                }
                known.extend(named.iter().map(|path| (path.as_slice(), None)));
            }
            let look = |path: &[u8]| known.get(path).map(|target| target.cloned());
            let present = |path: &[u8]| follow(path, &look).is_some();
            match uroot::entries(*role, command, by, &named, &present) {
                Ok(entries) => made.extend(entries),
                Err(problem) => scan.problems.push(problem),
            }
        }
        scan.entries.extend(made);
    }

    /// The file that a program's path means: that of the sysroot, if it has one there, as the guest
    /// will see it; else the host's.
    fn program_file(&self, src: &Path, resolver: &mut Resolver) -> PathBuf {
        let own = self.sysroot != Path::new("/") && src.is_absolute();
        let found = own.then(|| resolver.find_program(src.as_os_str().as_bytes())).flatten();
        found.map_or_else(|| absolute(src), |(_, file)| absolute(&file))
    }

    fn resolve(
        &self,
        by: &Request,
        what: &What,
        scan: &mut Scan,
        programs: &mut Vec<Program>,
        resolver: &mut Resolver,
    ) {
        let path = match path_in_guest(what) {
            None => return,
            Some(Ok(path)) => path,
            Some(Err((dest, problem))) => {
                let (dest, by) = (dest.as_bytes().to_vec(), by.clone());
                return scan.problems.push(Problem::Destination { dest, by, problem });
            }
        };
        let attributes = Attributes {
            preserve_modes: self.attributes.preserve_modes || self.file_modes,
            ..self.attributes
        };
        match what {
            What::File { src, how, .. } => {
                let src = absolute(src);
                let first = scan.entries.len();
                if is_dir(&src, *how) {
                    scan.tree(&src, &path, attributes, by);
                } else {
                    let reason = Reason::Asked(by.clone());
                    scan.file(&src, path, attributes, reason, *how == How::Followed);
                }
                if *how == How::WithLibraries {
                    programs.extend(scan.take_elf_files(first, self.arch, by));
                }
            }
            What::Modules(_) | What::Multicall { .. } => {}
            What::Binary { src, .. } | What::NeedsOf { src, .. } => {
                let src = self.program_file(src, resolver);
                let absent = matches!(what, What::NeedsOf { .. });
                programs.push(Program { src, dest: path, by: by.clone(), absent });
            }
            What::Tree { src, .. } => scan.tree(&absolute(src), &path, attributes, by),
            What::Made { mode, owner, kind, .. } => {
                if let Kind::Symlink { target } = kind
                    && let Some(what) = bad_target(target)
                {
                    return scan.problems.push(Problem::Target { path, by: by.clone(), what });
                }
                scan.entries.push(Entry {
                    path,
                    kind: kind.clone(),
                    mode: *mode,
                    uid: owner.0,
                    gid: owner.1,
                    reason: Reason::Asked(by.clone()),
                });
            }
        }
    }
}

/// A directory of libraries that is none holds no library, and that would be said of the libraries only.
fn not_a_directory(dir: &Path) -> Option<Problem> {
    let why = match dir.metadata() {
        Ok(metadata) if metadata.is_dir() => return None,
        Ok(_) => "it is no directory".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(Problem::Request {
        by: format!("lib-dir {}", dir.display()).into(),
        what: why,
        hint: Some("name a directory of the host that has libraries in it".into()),
    })
}

/// Where in the guest it goes; nothing for what has no place of its own. What is wrong comes with the name that
/// was given.
fn path_in_guest(what: &What) -> Option<Result<Vec<u8>, (&OsStr, PathProblem)>> {
    let (given, path) = match what {
        What::Modules(_) | What::Multicall { .. } => return None,
        What::File { src, dest: None, .. }
        | What::Tree { src, dest: None }
        | What::Binary { src, dest: None } => (src.as_os_str(), default_dest(src)),
        What::File { dest: Some(dest), .. }
        | What::Tree { dest: Some(dest), .. }
        | What::Binary { dest: Some(dest), .. }
        | What::NeedsOf { dest, .. }
        | What::Made { dest, .. } => (dest.as_os_str(), normalize(dest.as_bytes())),
    };
    // Only a directory can be the root.
    let root_allowed = match what {
        What::Tree { .. } => true,
        What::File { src, how, .. } => is_dir(&absolute(src), *how),
        _ => false,
    };
    Some(match path {
        Ok(path) if path.is_empty() && !root_allowed => Err((given, PathProblem::Empty)),
        Ok(path) => Ok(path),
        Err(problem) => Err((given, problem)),
    })
}

fn is_dir(src: &Path, how: How) -> bool {
    match how {
        How::Followed => src.is_dir(),
        _ => src.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()),
    }
}

fn base(bases: &mut Bases, from: &BaseFrom, by: &Request, scan: &mut Scan) {
    let source = match from {
        BaseFrom::Default => return bases.lay_default(scan),
        BaseFrom::Bytes(bytes) => Source::Bytes(bytes.clone()),
        BaseFrom::Path(path) => match Source::open(path) {
            Ok(source) => source,
            Err(source) => {
                let (path, by) = (path.clone(), by.clone());
                return scan.problems.push(Problem::Read { path, by, source });
            }
        },
    };
    bases.add(&source, by, scan);
}

/// What Linux would not take as a symbolic link's text.
fn bad_target(target: &[u8]) -> Option<&'static str> {
    if target.is_empty() {
        Some("an empty target")
    } else if target.contains(&0) {
        Some("a NUL byte in its target")
    } else if target.len() > crate::formats::cpio::NAME_MAX {
        Some("a target of more than 4095 bytes, which Linux skips")
    } else {
        None
    }
}
