//! The walk from one program to everything it needs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::item::{Closure, Item, Reason, Source};
use super::problem::{Note, Outcome, Problem, Problems, SearchStep, Target, Tried};
use super::script::{self, Shebang};
use super::search::{Failure, Kind, Place, Search};
use super::sysroot::{PathError, copy_error, join, normal, parent};
use crate::formats::elf::{ElfKind, Priority};

mod load;

/// `PATH_MAX` without the final NUL, and `NAME_MAX`: the kernel drops longer names silently.
const DEST_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// A library that the loader finds by name: name, path, and the loader's `$LIB`.
pub(super) type ByName = (Vec<u8>, Vec<u8>, Vec<u8>);

/// What the caller decides about a closure.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) path: Vec<Vec<u8>>,
    pub(super) allow_missing: BTreeSet<Vec<u8>>,
    pub(super) dlopen: Option<Priority>,
}

/// One closure being made.
pub(super) struct Walk<'a> {
    search: &'a mut Search,
    rules: &'a Rules,
    provided: &'a dyn Fn(&[u8]) -> bool,
    closure: Closure,
    /// Where each `dest` is in `closure.items`.
    index: HashMap<Vec<u8>, usize>,
    problems: Vec<Problem>,
    /// Executables that were walked already.
    done: HashSet<Vec<u8>>,
    by_name: Vec<ByName>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        search: &'a mut Search,
        rules: &'a Rules,
        provided: &'a dyn Fn(&[u8]) -> bool,
    ) -> Walk<'a> {
        Walk {
            search,
            rules,
            provided,
            closure: Closure::default(),
            index: HashMap::new(),
            problems: Vec::new(),
            done: HashSet::new(),
            by_name: Vec::new(),
        }
    }

    pub(super) fn finish(mut self) -> Result<(Closure, Vec<ByName>), Problems> {
        if !self.problems.is_empty() {
            return Err(self.problems.into());
        }
        // A directory with something in it comes into being by itself.
        let parents: HashSet<Vec<u8>> = self
            .closure
            .items
            .iter()
            .flat_map(|item| {
                std::iter::successors(Some(parent(&item.dest)), |dir| {
                    (!dir.is_empty()).then(|| parent(dir))
                })
            })
            .map(<[u8]>::to_vec)
            .collect();
        self.closure
            .items
            .retain(|item| item.source != Source::Dir || !parents.contains(&item.dest));
        Ok((self.closure, self.by_name))
    }

    /// Walks from the host file `host`, to be placed at `dest`.
    pub(super) fn program(&mut self, host: &Path, dest: &[u8]) {
        let Some(dest) = checked_dest(dest) else {
            self.problems.push(Problem::Dest { dest: dest.to_vec() });
            return;
        };
        match self.place(host, &dest) {
            Ok(place) => self.executable(place, Reason::Requested, &[]),
            Err(source) => self.problems.push(Problem::Read { path: host.to_owned(), source }),
        }
    }

    /// Whether `host` is what the sysroot has at `dest` anyway, or is put there from elsewhere.
    fn place(&mut self, host: &Path, dest: &[u8]) -> io::Result<Place> {
        let sysroot = &mut self.search.sysroot;
        let mut inside = sysroot.inside(host);
        let mut file = host.to_owned();
        if inside.is_none() {
            file = std::fs::canonicalize(host)?;
            inside = sysroot.inside(&file);
        }
        let Some(inside) = inside else {
            return Ok(Place::Moved { host: file, dest: dest.to_vec(), links: Vec::new() });
        };
        let found = sysroot.resolve(&inside).map_err(|e| match &*e {
            PathError::Absent(_) => rustix::io::Errno::NOENT.into(),
            PathError::Loop(_) => io::Error::from(rustix::io::Errno::LOOP),
            PathError::Io(_, e) => copy_error(e),
        })?;
        if found.is_dir {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        match sysroot.resolve(dest) {
            Ok(there) if there.real == found.real => Ok(Place::Sysroot(there)),
            _ => Ok(Place::Moved {
                host: sysroot.host(&found.real),
                dest: dest.to_vec(),
                links: Vec::new(),
            }),
        }
    }

    /// A program, an interpreter of a script or a script; `scripts` are the ones before it.
    fn executable(&mut self, place: Place, reason: Reason, scripts: &[Vec<u8>]) {
        let dest = place.dest().to_vec();
        let host = self.host(&place);
        let requested = reason == Reason::Requested;
        let of = reason.of().unwrap_or_default().to_vec();
        self.emit_place(&place, &reason);
        // One that interprets itself comes to the kernel's limit.
        if !self.done.insert(dest.clone()) && !scripts.contains(&dest) {
            return;
        }
        match &*self.search.kind(&host) {
            Kind::Elf(info) => {
                let (found, wanted) = (Target::from(&**info), self.search.arch);
                let kind = match info.kind {
                    // `objcopy --only-keep-debug` keeps headers and no contents.
                    _ if info.interp.as_ref().is_some_and(Vec::is_empty) => Some(DEBUG_ONLY),
                    ElfKind::Exec | ElfKind::Dyn => None,
                    ElfKind::Rel => Some("an object file"),
                    ElfKind::Core => Some("a core dump"),
                    ElfKind::Other(_) => Some("an ELF file of an unknown type"),
                };
                let problem = if let Some(kind) = kind {
                    Problem::NotExecutable { path: host, kind }
                } else if found == Target::of(wanted) {
                    self.load(&place, dest, info);
                    return;
                } else if requested {
                    Problem::ProgramArch { path: host, found, wanted }
                } else {
                    Problem::InterpreterArch { interpreter: slash(&dest), of, found, wanted }
                };
                self.problems.push(problem);
            }
            Kind::Other(head) => match script::shebang(head) {
                Some(Ok(line)) => self.script(dest, host, line, scripts),
                Some(Err(source)) => self.problems.push(Problem::Script { path: host, source }),
                None => {
                    let start = head[..head.len().min(8)].to_vec();
                    self.problems.push(Problem::NotAProgram { path: host, start });
                }
            },
            Kind::BadElf(source) => {
                self.problems.push(Problem::Elf { path: host, source: Arc::clone(source) });
            }
            Kind::Unreadable(e) => {
                self.problems.push(Problem::Read { path: host, source: copy_error(e) });
            }
        }
    }

    fn script(&mut self, dest: Vec<u8>, host: PathBuf, line: Shebang, scripts: &[Vec<u8>]) {
        let mut chain = scripts.to_vec();
        chain.push(dest.clone());
        if chain.len() > script::MAX_SCRIPTS {
            let limit = script::MAX_SCRIPTS;
            let path = self.closure.items.first().map(|i| i.dest.clone()).unwrap_or(dest);
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&path));
            self.problems.push(Problem::ScriptDepth { path, chain, limit });
            return;
        }
        let mut text = line.interpreter.clone();
        if let Some(argument) = &line.argument {
            text.push(b' ');
            text.extend(argument);
        }
        let reason = Reason::Script { of: dest.clone(), line: text };
        self.interpreter(&line.interpreter, reason.clone(), &chain);
        match line.env_program() {
            None => {}
            Some(Err(source)) => self.problems.push(Problem::Script { path: host, source }),
            Some(Ok(program)) if program.contains(&b'/') => {
                self.interpreter(&program, reason, &chain);
            }
            Some(Ok(program)) => self.env_program(&program, reason, &chain),
        }
    }

    /// An interpreter of a script by its absolute path.
    fn interpreter(&mut self, path: &[u8], reason: Reason, scripts: &[Vec<u8>]) {
        if (self.provided)(&normal(path)) {
            return;
        }
        if let Some(place) = self.interpreter_place(path, &reason) {
            self.executable(place, reason, scripts);
        }
    }

    /// Where an interpreter is; a problem if nowhere.
    fn interpreter_place(&mut self, path: &[u8], reason: &Reason) -> Option<Place> {
        let of = reason.of().unwrap_or_default().to_vec();
        let (at, outcome) = if path.starts_with(b"/") {
            match self.search.sysroot.resolve(path) {
                Ok(found) if !found.is_dir => return Some(Place::Sysroot(found)),
                Ok(found) => (found.real.to_vec(), Outcome::NotElf),
                Err(e) => match &*e {
                    PathError::Absent(at) => (at.clone(), Outcome::Absent),
                    _ => {
                        self.fail(&e, &of);
                        return None;
                    }
                },
            }
        } else {
            (path.to_vec(), Outcome::Rejected)
        };
        let tried = vec![Tried { path: at, step: SearchStep::Path, outcome }];
        self.missing_interpreter(path, of, tried);
        None
    }

    fn missing_interpreter(&mut self, interpreter: &[u8], of: Vec<u8>, tried: Vec<Tried>) {
        let chain = self.chain(&of);
        let interpreter = interpreter.to_vec();
        self.problems.push(Problem::MissingInterpreter { interpreter, of, chain, tried });
    }

    /// A program that `env` looks for in `PATH`.
    fn env_program(&mut self, program: &[u8], reason: Reason, scripts: &[Vec<u8>]) {
        let mut tried = Vec::new();
        for dir in &self.rules.path {
            let path = join(&normal(dir), program);
            if (self.provided)(&path) {
                return;
            }
            match self.search.sysroot.resolve(&path) {
                Ok(found) if !found.is_dir => {
                    self.executable(Place::Sysroot(found), reason, scripts);
                    return;
                }
                _ => tried.push(Tried {
                    path: normal(dir),
                    step: SearchStep::ProgramPath,
                    outcome: Outcome::Absent,
                }),
            }
        }
        let of = reason.of().unwrap_or_default().to_vec();
        self.missing_interpreter(program, of, tried);
    }

    /// The file system's answer as a problem, once.
    fn fail(&mut self, failure: &Failure, of: &[u8]) {
        let problem = match &**failure {
            PathError::Absent(_) => return,
            PathError::Loop(cycle) => Problem::LinkLoop { cycle: cycle.clone(), of: of.to_vec() },
            PathError::Io(path, e) => Problem::Read { path: path.clone(), source: copy_error(e) },
        };
        let text = problem.to_string();
        if !self.problems.iter().any(|known| known.to_string() == text) {
            self.problems.push(problem);
        }
    }

    fn note(&mut self, note: Note) {
        if !self.closure.notes.contains(&note) {
            self.closure.notes.push(note);
        }
    }

    fn host(&self, place: &Place) -> PathBuf {
        match place {
            Place::Sysroot(found) => self.search.sysroot.host(&found.real),
            Place::Moved { host, .. } => host.clone(),
        }
    }

    fn emit_place(&mut self, place: &Place, reason: &Reason) {
        let host = self.host(place);
        let hop = || Reason::LinkHop { of: place.dest().to_vec() };
        self.emit(place.dest(), Source::File(host), reason.clone());
        match place {
            Place::Sysroot(found) => {
                for link in &found.hops {
                    self.emit(&link.at, Source::Symlink(link.text.to_vec()), hop());
                }
                for dir in &found.crossed {
                    self.emit(dir, Source::Dir, hop());
                }
            }
            Place::Moved { links, .. } => {
                for (at, text) in links {
                    self.emit(at, Source::Symlink(text.clone()), hop());
                }
            }
        }
    }

    fn emit(&mut self, dest: &[u8], source: Source, reason: Reason) {
        let Some(&known) = self.index.get(dest) else {
            self.index.insert(dest.to_vec(), self.closure.items.len());
            self.closure.items.push(Item { dest: dest.to_vec(), source, reason });
            return;
        };
        let known = &self.closure.items[known];
        if known.source != source {
            let second = Item { dest: dest.to_vec(), source, reason };
            let tell = |item: &Item| match &item.source {
                Source::File(host) => format!("`{}` ({})", host.display(), item.reason),
                _ => format!("{item} ({})", item.reason),
            };
            let (first, second) = (tell(known), tell(&second));
            self.problems.push(Problem::Conflict { dest: dest.to_vec(), first, second });
        }
    }

    /// From the requested program to `dest`.
    fn chain(&self, dest: &[u8]) -> Vec<Vec<u8>> {
        let chain = self.closure.why(dest);
        let mut chain: Vec<_> = chain.into_iter().map(|item| item.dest.clone()).collect();
        chain.reverse();
        chain
    }
}

/// The guest path and host file of a program by name.
pub(super) fn find_program(
    search: &mut Search,
    path: &[Vec<u8>],
    name: &[u8],
) -> Option<(Vec<u8>, PathBuf)> {
    let candidates = if name.contains(&b'/') {
        vec![normal(name)]
    } else {
        path.iter().map(|dir| join(&normal(dir), name)).collect()
    };
    candidates.into_iter().find_map(|candidate| {
        let found = search.sysroot.resolve(&candidate).ok().filter(|found| !found.is_dir)?;
        Some((candidate, search.sysroot.host(&found.real)))
    })
}

/// What a `.debug` file is called.
const DEBUG_ONLY: &str = "the debug information of one";

/// `dest` without `.` and empty components, if an archive can hold it.
fn checked_dest(dest: &[u8]) -> Option<Vec<u8>> {
    let bad = |name: &[u8]| name == b".." || name.len() > NAME_MAX || name.contains(&0);
    if dest.split(|&b| b == b'/').any(bad) {
        return None;
    }
    let dest = normal(dest);
    (!dest.is_empty() && dest.len() <= DEST_MAX && dest != b"TRAILER!!!").then_some(dest)
}

fn slash(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}
