//! What the dynamic loader would load for one program, in its order.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Walk;
use crate::arch::Arch;
use crate::formats::elf::{DlopenNote, ElfInfo, Priority};
use crate::initramfs::closure::Reason;
use crate::initramfs::closure::problem::{
    MissingLibrary, Note, Outcome, Problem, SearchStep, Target, Tried,
};
use crate::initramfs::closure::search::{
    self, Failure, Kind, Libc, Located, Origin, Place, SearchDir, lib_of_loader,
};
use crate::initramfs::closure::sysroot::{copy_error, join, normal, parent};

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

impl Loaded {
    /// glibc's loader finds an object by its `DT_SONAME` too, once it is loaded; musl's only by the
    /// name that it was asked for (`load_library` in `dynlink.c` compares `shortname`).
    fn know_soname(&mut self, info: &ElfInfo) {
        if matches!(self.libc, Libc::Glibc { .. }) {
            self.names.extend(info.soname.clone());
        }
    }
}

/// Why a name led to no library.
struct Miss {
    tried: Vec<Tried>,
    elsewhere: Option<PathBuf>,
}

impl Walk<'_> {
    /// What the dynamic loader does for an ELF program.
    pub(super) fn load(&mut self, place: &Place, dest: Vec<u8>, info: &Arc<ElfInfo>) {
        let host = match place {
            Place::Sysroot(_) => None,
            Place::Moved { host, .. } => host.parent().map(Path::to_owned),
        };
        let origin = Origin { guest: parent(&dest).to_vec(), host };
        let mut loaded = Loaded {
            libc: self.libc_without_loader(info),
            has_loader: false,
            objects: Vec::new(),
            names: HashSet::new(),
        };
        if let Some(path) = &info.interp {
            self.loader(path, &dest, &mut loaded);
        }
        loaded.know_soname(info);
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
        let own = match &*self.search.kind(&host) {
            Kind::Elf(info) => {
                let found = Target::from(&**info);
                if found != Target::of(wanted) {
                    let (interpreter, of) = (path.to_vec(), program.to_vec());
                    let problem = Problem::InterpreterArch { interpreter, of, found, wanted };
                    self.problems.push(problem);
                    return;
                }
                Arc::clone(info)
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
        };
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
        loaded.know_soname(&own);
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
        // ld.so loads filtees with what is needed (`_dl_map_object_deps`), and does without the
        // auxiliary ones; musl's loader knows neither.
        let glibc = matches!(loaded.libc, Libc::Glibc { .. });
        let filters = info.filters.iter().filter(|_| glibc);
        for name in info.auxiliary.iter().filter(|_| glibc) {
            let reason = |via| Reason::Needed { of: dest.clone(), soname: name.clone(), via };
            let _ = self.library(loaded, of, name, &reason);
        }
        for name in filters.chain(&info.needed) {
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
        let (of, tried) = (of.to_vec(), miss.tried);
        MissingLibrary { sonames, of, chain, dlopen, tried, elsewhere, options: Vec::new() }
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
            if self.brought_along(loaded, of, &dirs, file) {
                loaded.names.insert(name.to_vec());
                return Ok(());
            }
            if miss.elsewhere.is_none() {
                miss.elsewhere = outside(&loaded.objects[of], file);
            }
            return Err(miss);
        };
        self.add(loaded, of, name, located, reason);
        Ok(())
    }

    /// Whether the image has this library anyway, where the guest's loader looks for it. What it needs
    /// itself is the business of whoever put it there.
    fn brought_along(
        &mut self,
        loaded: &Loaded,
        of: usize,
        own_dirs: &[SearchDir],
        file: &[u8],
    ) -> bool {
        let nodeflib = loaded.objects[of].info.nodeflib;
        let system = self.search.system_dirs(&loaded.libc, nodeflib);
        let mut dirs = own_dirs.iter().map(|dir| (dir, false));
        let mut system = system.iter().map(|dir| (dir, true));
        let there = |(dir, by_name): (&SearchDir, bool)| {
            let path = join(&normal(&dir.guest), file);
            (self.provided)(&path).then_some((path, by_name))
        };
        let Some((path, by_name)) = dirs.find_map(there).or_else(|| system.find_map(there)) else {
            return false;
        };
        if let (Libc::Glibc { lib }, true) = (&loaded.libc, by_name) {
            self.by_name.push((file.to_vec(), path, lib.clone()));
        }
        true
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
        loaded.know_soname(&info);
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
