//! The walk from one program to everything it needs.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{MissingLibrary, Note, Outcome, Problem, Problems, SearchStep, Target, Tried};
use super::script::{self, Shebang};
use super::search::{
    self, Failure, Kind, Libc, Located, Origin, Place, Search, SearchDir, lib_of_loader,
};
use super::sysroot::{PathError, copy_error, join, normal, parent};
use super::{Closure, Item, Reason, Rules, Source};
use crate::arch::Arch;
use crate::formats::elf::{DlopenNote, ElfInfo, ElfKind, Priority};

/// `PATH_MAX` without the final NUL, and `NAME_MAX`: the kernel drops longer names silently.
const DEST_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// A library that the loader finds by name: name, path, and the loader's `$LIB`.
pub(super) type ByName = (Vec<u8>, Vec<u8>, Vec<u8>);

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

/// What one process has loaded, in the loader's order.
struct Loaded {
    libc: Libc,
    /// The musl loader stands for the C library itself.
    has_loader: bool,
    objects: Vec<Object>,
    /// Names and sonames that need no second search.
    names: HashSet<Vec<u8>>,
}

struct Object {
    dest: Vec<u8>,
    origin: Origin,
    info: Arc<ElfInfo>,
    /// The object that made the loader load it first.
    loader: Option<usize>,
}

/// Why a name led to no library.
struct Miss {
    tried: Vec<Tried>,
    elsewhere: Option<PathBuf>,
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
            PathError::Absent(_) => io::Error::from(io::ErrorKind::NotFound),
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
        if !self.done.insert(dest.clone()) {
            return;
        }
        match &*self.search.kind(&host) {
            Kind::Elf(info) => {
                let (found, wanted) = (Target::from(&**info), self.search.arch);
                let kind = match info.kind {
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

    /// What the dynamic loader does for an ELF program.
    fn load(&mut self, place: &Place, dest: Vec<u8>, info: &Arc<ElfInfo>) {
        let host = match place {
            Place::Sysroot(_) => None,
            Place::Moved { host, .. } => host.parent().map(Path::to_owned),
        };
        let origin = Origin { guest: parent(&dest).to_vec(), host };
        let mut loaded = Loaded {
            libc: self.libc_without_loader(info),
            has_loader: false,
            objects: Vec::new(),
            names: info.soname.iter().cloned().collect(),
        };
        if let Some(path) = &info.interp {
            self.loader(path, &dest, &mut loaded);
        }
        let program = Object { dest, origin, info: Arc::clone(info), loader: None };
        loaded.objects.push(program);

        // Breadth first, as the loader; what objects open themselves comes when all is loaded.
        let mut needing = 0;
        let mut opening = 0;
        loop {
            if needing < loaded.objects.len() {
                self.needed(&mut loaded, needing);
                needing += 1;
            } else if opening < loaded.objects.len() {
                self.dlopen(&mut loaded, opening);
                opening += 1;
            } else {
                return;
            }
        }
    }

    /// The program's `PT_INTERP`.
    fn loader(&mut self, path: &[u8], program: &[u8], loaded: &mut Loaded) {
        let reason = Reason::Interpreter { of: program.to_vec() };
        let Some(place) = self.interpreter_place(path, &reason) else { return };
        let host = self.host(&place);
        let wanted = self.search.arch;
        match &*self.search.kind(&host) {
            Kind::Elf(info) => {
                let found = Target::from(&**info);
                if found != Target::of(wanted) {
                    let (interpreter, of) = (path.to_vec(), program.to_vec());
                    let problem = Problem::InterpreterArch { interpreter, of, found, wanted };
                    self.problems.push(problem);
                    return;
                }
                loaded.names.extend(info.soname.clone());
            }
            Kind::BadElf(source) => {
                self.problems.push(Problem::Elf { path: host, source: Arc::clone(source) });
                return;
            }
            Kind::Other(head) => {
                let start = head[..head.len().min(8)].to_vec();
                self.problems.push(Problem::NotAProgram { path: host, start });
                return;
            }
            Kind::Unreadable(e) => {
                self.problems.push(Problem::Read { path: host, source: copy_error(e) });
                return;
            }
        }
        self.emit_place(&place, &reason);
        loaded.has_loader = true;
        loaded.names.insert(path.to_vec());
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        loaded.libc = match name.strip_prefix(b"ld-musl-") {
            Some(rest) => {
                let end = rest.iter().position(|&b| b == b'.').unwrap_or(rest.len());
                Libc::Musl { arch: rest[..end].to_vec() }
            }
            None => Libc::Glibc { lib: lib_of_loader(wanted, place.dest()) },
        };
    }

    /// The loader that will load a shared object, guessed from what it needs.
    fn libc_without_loader(&mut self, info: &ElfInfo) -> Libc {
        let arch = self.search.arch;
        let musl = |name: &Vec<u8>| name == b"libc.so" || name.starts_with(b"libc.musl-");
        if info.needed.iter().any(musl) {
            let name = match arch {
                Arch::Amd64 => "x86_64",
                Arch::I386 => "i386",
                Arch::Arm64 => "aarch64",
                Arch::Arm => "armhf",
                Arch::Riscv64 => "riscv64",
            };
            return Libc::Musl { arch: name.into() };
        }
        let multiarch = format!("lib/{}", arch.multiarch()).into_bytes();
        let candidates = [multiarch, b"lib64".to_vec()];
        let lib = candidates.into_iter().find(|dir| self.search.sysroot.resolve(dir).is_ok());
        Libc::Glibc { lib: lib.unwrap_or_else(|| b"lib".to_vec()) }
    }

    fn needed(&mut self, loaded: &mut Loaded, of: usize) {
        let info = Arc::clone(&loaded.objects[of].info);
        let dest = loaded.objects[of].dest.clone();
        for why in &info.bad_notes {
            self.note(Note::BadNote { of: dest.clone(), why: why.clone() });
        }
        for name in &info.needed {
            let reason = |via| Reason::Needed { of: dest.clone(), soname: name.clone(), via };
            if let Err(miss) = self.library(loaded, of, name, &reason) {
                let missing = self.missing(vec![name.clone()], &dest, None, miss);
                self.report(missing, None);
                // Once per program is enough.
                loaded.names.insert(name.clone());
            }
        }
    }

    fn dlopen(&mut self, loaded: &mut Loaded, of: usize) {
        let info = Arc::clone(&loaded.objects[of].info);
        let Some(least) = self.rules.dlopen else { return };
        for note in info.dlopen.iter().filter(|note| note.priority >= least) {
            self.dlopen_note(loaded, of, note);
        }
    }

    fn dlopen_note(&mut self, loaded: &mut Loaded, of: usize, note: &DlopenNote) {
        let dest = loaded.objects[of].dest.clone();
        let mut miss = Miss { tried: Vec::new(), elsewhere: None };
        for name in &note.soname {
            let name = name.as_bytes();
            let reason = |via| Reason::Dlopen {
                of: dest.clone(),
                soname: name.to_vec(),
                priority: note.priority,
                feature: note.feature.clone(),
                via,
            };
            match self.library(loaded, of, name, &reason) {
                Ok(()) => return,
                Err(next) => {
                    miss.tried.extend(next.tried);
                    miss.elsewhere = miss.elsewhere.or(next.elsewhere);
                }
            }
        }
        let names: Vec<_> = note.soname.iter().map(|name| name.as_bytes().to_vec()).collect();
        let missing = self.missing(names, &dest, Some(note.priority), miss);
        self.report(missing, note.feature.as_deref());
    }

    /// A missing library is a problem, or a note if it may be missing.
    fn report(&mut self, missing: MissingLibrary, feature: Option<&str>) {
        if missing.sonames.iter().any(|name| self.rules.allow_missing.contains(name)) {
            self.note(Note::AllowedMissing(missing));
        } else if missing.dlopen.is_some_and(|priority| priority < Priority::Required) {
            self.note(Note::DlopenMissing { missing, feature: feature.map(str::to_owned) });
        } else {
            self.problems.push(Problem::MissingLibrary(Box::new(missing)));
        }
    }

    fn missing(
        &mut self,
        sonames: Vec<Vec<u8>>,
        of: &[u8],
        dlopen: Option<Priority>,
        miss: Miss,
    ) -> MissingLibrary {
        let elsewhere = miss
            .elsewhere
            .or_else(|| sonames.iter().find_map(|name| self.search.hardware_variant(name)));
        let chain = self.chain(of);
        MissingLibrary { sonames, of: of.to_vec(), chain, dlopen, tried: miss.tried, elsewhere }
    }

    /// Finds `name` for object `of` and adds it to what is loaded.
    fn library(
        &mut self,
        loaded: &mut Loaded,
        of: usize,
        name: &[u8],
        reason: &dyn Fn(SearchStep) -> Reason,
    ) -> Result<(), Miss> {
        if loaded.names.contains(name) || musl_itself(loaded, name) {
            return Ok(());
        }
        let mut miss = Miss { tried: Vec::new(), elsewhere: None };
        let dest = loaded.objects[of].dest.clone();
        let (dirs, file) = match name.iter().rposition(|&b| b == b'/') {
            Some(cut) => {
                let dir = if cut == 0 { &b"/"[..] } else { &name[..cut] };
                let mut dirs = Vec::new();
                self.expand(loaded, of, dir, SearchStep::Path, &mut dirs, &mut miss);
                (dirs, &name[cut + 1..])
            }
            None => (self.object_dirs(loaded, of, &mut miss), name),
        };
        let mut found = None;
        for dir in &dirs {
            match self.search.look(dir, file) {
                Ok(located) => {
                    found = Some(located);
                    break;
                }
                Err((tried, failure)) => self.tried(name, &dest, tried, failure, &mut miss),
            }
        }
        if found.is_none() && !name.contains(&b'/') {
            let nodeflib = loaded.objects[of].info.nodeflib;
            let answer = self.search.system(&loaded.libc, nodeflib, name);
            for failure in &answer.failed {
                self.fail(failure, &dest);
            }
            for tried in &answer.tried {
                self.tried(name, &dest, tried.clone(), None, &mut miss);
            }
            found = answer.found.clone();
        }
        let Some(located) = found else {
            if miss.elsewhere.is_none() {
                miss.elsewhere = outside(&loaded.objects[of], file);
            }
            return Err(miss);
        };
        self.add(loaded, of, name, located, reason);
        Ok(())
    }

    fn add(
        &mut self,
        loaded: &mut Loaded,
        of: usize,
        name: &[u8],
        located: Located,
        reason: &dyn Fn(SearchStep) -> Reason,
    ) {
        let Located { opened, origin, place, step, info } = located;
        if let Libc::Glibc { lib } = &loaded.libc
            && matches!(step, SearchStep::LibraryDir | SearchStep::Conf(_) | SearchStep::Default)
        {
            self.by_name.push((name.to_vec(), opened, lib.clone()));
        }
        if let (Libc::Musl { arch }, SearchStep::Conf(_)) = (&loaded.libc, &step) {
            let file = search::musl_path_file(arch);
            if let Ok(found) = self.search.sysroot.resolve(&file) {
                let reason = Reason::LoaderConfig { of: place.dest().to_vec() };
                self.emit_place(&Place::Sysroot(found), &reason);
            }
        }
        self.emit_place(&place, &reason(step));
        loaded.names.insert(name.to_vec());
        let dest = place.dest();
        // The loader compares device and inode: a second name for the same file loads nothing.
        if loaded.objects.iter().any(|object| object.dest == dest) {
            return;
        }
        loaded.names.extend(info.soname.clone());
        loaded.objects.push(Object { dest: dest.to_vec(), origin, info, loader: Some(of) });
    }

    /// Steps 1 and 2 of the search order.
    fn object_dirs(&mut self, loaded: &Loaded, of: usize, miss: &mut Miss) -> Vec<SearchDir> {
        let mut dirs = Vec::new();
        let musl = matches!(loaded.libc, Libc::Musl { .. });
        let runpath = loaded.objects[of].info.runpath.is_some();
        let mut next = Some(of).filter(|_| musl || !runpath);
        while let Some(i) = next {
            let Object { dest, info, loader, .. } = &loaded.objects[i];
            match (&info.rpath, &info.runpath) {
                (_, Some(path)) if musl => {
                    let step = SearchStep::Runpath(dest.clone());
                    self.expand_list(loaded, i, path, &step, &mut dirs, miss);
                }
                (Some(path), None) => {
                    let step = SearchStep::Rpath(dest.clone());
                    self.expand_list(loaded, i, path, &step, &mut dirs, miss);
                }
                _ => {}
            }
            next = *loader;
        }
        if let (false, Some(path)) = (musl, &loaded.objects[of].info.runpath) {
            let step = SearchStep::Runpath(loaded.objects[of].dest.clone());
            self.expand_list(loaded, of, path, &step, &mut dirs, miss);
        }
        dirs
    }

    fn expand_list(
        &mut self,
        loaded: &Loaded,
        of: usize,
        list: &[u8],
        step: &SearchStep,
        dirs: &mut Vec<SearchDir>,
        miss: &mut Miss,
    ) {
        for element in list.split(|&b| b == b':') {
            self.expand(loaded, of, element, step.clone(), dirs, miss);
        }
    }

    fn expand(
        &mut self,
        loaded: &Loaded,
        of: usize,
        element: &[u8],
        step: SearchStep,
        dirs: &mut Vec<SearchDir>,
        miss: &mut Miss,
    ) {
        let object = &loaded.objects[of];
        match search::expand(element, &object.origin, self.search.arch, &loaded.libc, &step) {
            Ok(found) => dirs.extend(found),
            Err(why) => {
                let (of, element) = (object.dest.clone(), element.to_vec());
                miss.tried.push(Tried { path: element.clone(), step, outcome: Outcome::Rejected });
                self.note(Note::SearchElement { of, element, why });
            }
        }
    }

    fn tried(
        &mut self,
        soname: &[u8],
        of: &[u8],
        tried: Tried,
        failure: Option<Failure>,
        miss: &mut Miss,
    ) {
        if let Some(failure) = failure {
            self.fail(&failure, of);
        }
        if matches!(tried.outcome, Outcome::WrongTarget(_) | Outcome::NotElf) {
            self.note(Note::PassedOver { soname: soname.to_vec(), tried: tried.clone() });
        }
        miss.tried.push(tried);
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

/// `dest` without `.` and empty components, if an archive can hold it.
fn checked_dest(dest: &[u8]) -> Option<Vec<u8>> {
    let bad = |name: &[u8]| name == b".." || name.len() > NAME_MAX || name.contains(&0);
    if dest.split(|&b| b == b'/').any(bad) {
        return None;
    }
    let dest = normal(dest);
    (!dest.is_empty() && dest.len() <= DEST_MAX && dest != b"TRAILER!!!").then_some(dest)
}

/// The names for which musl's loader takes itself (`load_library` in `dynlink.c`).
fn musl_itself(loaded: &Loaded, name: &[u8]) -> bool {
    if !loaded.has_loader || !matches!(loaded.libc, Libc::Musl { .. }) {
        return false;
    }
    let Some(rest) = name.strip_prefix(b"lib") else { return false };
    let Some(dot) = rest.iter().position(|&b| b == b'.') else { return false };
    matches!(&rest[..dot], b"c" | b"pthread" | b"rt" | b"m" | b"dl" | b"util" | b"xnet")
}

/// A library on this host where the program names an absolute directory, for the hint.
fn outside(object: &Object, file: &[u8]) -> Option<PathBuf> {
    let list = object.info.runpath.as_ref().or(object.info.rpath.as_ref())?;
    object.origin.host.as_ref()?;
    list.split(|&b| b == b':').filter(|dir| dir.starts_with(b"/")).find_map(|dir| {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&join(dir, file)));
        path.is_file().then_some(path)
    })
}

fn slash(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}
