//! The search order of the dynamic loaders, and what lies at each place.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ldconf;
use super::problem::{Outcome, SearchStep, Target, Tried};
use super::script;
use super::sysroot::{PathError, Resolved, Sysroot, join, normal, parent};
use crate::arch::Arch;
use crate::formats::elf::{self, ElfError, ElfInfo, ElfKind, ReadAt};

/// What a file is; read once per file.
#[derive(Debug)]
pub(super) enum Kind {
    Elf(Arc<ElfInfo>),
    /// Starts like ELF and is damaged.
    BadElf(Arc<ElfError>),
    /// Anything else: its first bytes.
    Other(Vec<u8>),
    Unreadable(io::Error),
}

/// Which loader the guest will use for a program, with what it needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Libc {
    /// `lib` is what `$LIB` stands for.
    Glibc { lib: Vec<u8> },
    /// The architecture as musl spells it.
    Musl { arch: Vec<u8> },
}

/// A directory to look in.
#[derive(Clone, Debug)]
pub(super) struct SearchDir {
    /// As the guest's loader opens it, no leading slash; may contain `..`.
    pub(super) guest: Vec<u8>,
    /// Where the files are now, if not there in the sysroot.
    pub(super) host: Option<PathBuf>,
    pub(super) step: SearchStep,
}

/// A file that was found and what has to be in the image for the guest to find it too.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// The path as the guest opens it, no leading slash.
    pub(super) opened: Vec<u8>,
    /// The directory of `opened`: loaders do not follow links for `$ORIGIN` of a library.
    pub(super) origin: Origin,
    pub(super) place: Place,
    pub(super) step: SearchStep,
    pub(super) info: Arc<ElfInfo>,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the sysroot, at the same path as in the guest.
    Sysroot(Arc<Resolved>),
    /// A host file put elsewhere. `links` are names beside it that lead to it.
    Moved { host: PathBuf, dest: Vec<u8>, links: Vec<(Vec<u8>, Vec<u8>)> },
}

impl Place {
    /// Where the file itself is in the image.
    pub(super) fn dest(&self) -> &[u8] {
        match self {
            Place::Sysroot(found) => &found.real,
            Place::Moved { dest, .. } => dest,
        }
    }
}

/// The answer of the directories that are the same for all objects.
#[derive(Debug)]
pub(super) struct SystemAnswer {
    pub(super) found: Option<Located>,
    pub(super) tried: Vec<Tried>,
    pub(super) failed: Vec<Failure>,
}

/// Something on the way that the caller must report, though the search goes on.
pub(super) type Failure = Arc<PathError>;

/// One architecture's view of a sysroot, with everything read so far.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) arch: Arch,
    pub(super) sysroot: Sysroot,
    library_dirs: Vec<PathBuf>,
    kinds: HashMap<PathBuf, Arc<Kind>>,
    system_dirs: HashMap<(Libc, bool), Arc<Vec<SearchDir>>>,
    answers: HashMap<(Libc, bool), HashMap<Vec<u8>, Arc<SystemAnswer>>>,
}

impl Search {
    pub(super) fn new(arch: Arch, sysroot: &Path, library_dirs: Vec<PathBuf>) -> Search {
        Search {
            arch,
            sysroot: Sysroot::new(sysroot),
            library_dirs,
            kinds: HashMap::new(),
            system_dirs: HashMap::new(),
            answers: HashMap::new(),
        }
    }

    pub(super) fn kind(&mut self, host: &Path) -> Arc<Kind> {
        if let Some(kind) = self.kinds.get(host) {
            return Arc::clone(kind);
        }
        let kind = Arc::new(read_kind(host).unwrap_or_else(Kind::Unreadable));
        self.kinds.insert(host.to_owned(), Arc::clone(&kind));
        kind
    }

    /// Whether the guest's loader takes this library.
    fn unfit(&self, info: &ElfInfo) -> Option<Outcome> {
        let found = Target::from(info);
        if found != Target::of(self.arch) || !osabi_fits(info.osabi) {
            return Some(Outcome::WrongTarget(found));
        }
        (info.kind != ElfKind::Dyn).then_some(Outcome::NotElf)
    }

    /// Looks for `name` in one directory. A failure of the file system is told beside the outcome.
    pub(super) fn look(
        &mut self,
        dir: &SearchDir,
        name: &[u8],
    ) -> Result<Located, (Tried, Option<Failure>)> {
        let opened = join(&dir.guest, name);
        let miss = |outcome: Outcome, failure: Option<Failure>| {
            let path = match outcome {
                Outcome::Absent | Outcome::NoDirectory => dir.guest.clone(),
                _ => opened.clone(),
            };
            Err((Tried { path, step: dir.step.clone(), outcome }, failure))
        };
        let place = match &dir.host {
            None => match self.sysroot.resolve(&opened) {
                Ok(found) => Place::Sysroot(found),
                Err(e) if matches!(*e, PathError::Absent(_)) => {
                    let known = self.sysroot.resolve(&dir.guest).is_ok_and(|found| found.is_dir);
                    return miss(if known { Outcome::Absent } else { Outcome::NoDirectory }, None);
                }
                Err(e) => return miss(Outcome::Unreadable, Some(e)),
            },
            Some(host) => match self.beside(host, &dir.guest, name) {
                Ok(place) => place,
                Err(outcome) => return miss(outcome, None),
            },
        };
        let host = match &place {
            Place::Sysroot(found) if found.is_dir => return miss(Outcome::NotElf, None),
            Place::Sysroot(found) => self.sysroot.host(&found.real),
            Place::Moved { host, .. } => host.clone(),
        };
        match &*self.kind(&host) {
            Kind::Elf(info) => match self.unfit(info) {
                None => Ok(Located {
                    opened,
                    origin: Origin { guest: dir.guest.clone(), host: dir.host.clone() },
                    place,
                    step: dir.step.clone(),
                    info: Arc::clone(info),
                }),
                Some(outcome) => miss(outcome, None),
            },
            Kind::BadElf(_) | Kind::Other(_) => miss(Outcome::NotElf, None),
            Kind::Unreadable(e) => {
                let error = PathError::Io(host, super::sysroot::copy_error(e));
                miss(Outcome::Unreadable, Some(Arc::new(error)))
            }
        }
    }

    /// A library of a host directory: links within the directory stay links, others are followed.
    fn beside(&mut self, dir: &Path, guest: &[u8], name: &[u8]) -> Result<Place, Outcome> {
        let guest = normal(guest);
        let mut links = Vec::new();
        let mut name = name.to_vec();
        loop {
            let host = dir.join(std::ffi::OsStr::from_bytes(&name));
            let meta = std::fs::symlink_metadata(&host)
                .map_err(|_| if dir.is_dir() { Outcome::Absent } else { Outcome::NoDirectory })?;
            if !meta.is_symlink() {
                return Ok(Place::Moved { host, dest: join(&guest, &name), links });
            }
            let text = std::fs::read_link(&host).map_err(|_| Outcome::Absent)?;
            let text = text.into_os_string().into_vec();
            if text.contains(&b'/') || links.len() >= 40 {
                // An absolute link in a foreign sysroot means that sysroot, not this host.
                let inside = self.sysroot.inside(&host);
                let host = match inside.and_then(|path| self.sysroot.resolve(&path).ok()) {
                    Some(found) => self.sysroot.host(&found.real),
                    None => std::fs::canonicalize(&host).map_err(|_| Outcome::Absent)?,
                };
                return Ok(Place::Moved { host, dest: join(&guest, &name), links });
            }
            links.push((join(&guest, &name), text.clone()));
            name = text;
        }
    }

    /// Looks for `name` where every object may look: the caller's directories and the system's.
    pub(super) fn system(&mut self, libc: &Libc, nodeflib: bool, name: &[u8]) -> Arc<SystemAnswer> {
        let key = (libc.clone(), nodeflib);
        if let Some(answer) = self.answers.get(&key).and_then(|known| known.get(name)) {
            return Arc::clone(answer);
        }
        let mut answer = SystemAnswer { found: None, tried: Vec::new(), failed: Vec::new() };
        for dir in self.system_dirs(libc, nodeflib).iter() {
            match self.look(dir, name) {
                Ok(found) => {
                    answer.found = Some(found);
                    break;
                }
                Err((tried, failure)) => {
                    answer.tried.push(tried);
                    answer.failed.extend(failure);
                }
            }
        }
        let answer = Arc::new(answer);
        self.answers.entry(key).or_default().insert(name.to_vec(), Arc::clone(&answer));
        answer
    }

    /// Steps 3 to 5 of the search order.
    pub(super) fn system_dirs(&mut self, libc: &Libc, nodeflib: bool) -> Arc<Vec<SearchDir>> {
        let key = (libc.clone(), nodeflib);
        if let Some(dirs) = self.system_dirs.get(&key) {
            return Arc::clone(dirs);
        }
        let dirs = Arc::new(match libc {
            Libc::Glibc { .. } => self.glibc_dirs(nodeflib),
            Libc::Musl { arch } => self.musl_dirs(arch),
        });
        self.system_dirs.insert(key, Arc::clone(&dirs));
        dirs
    }

    fn glibc_dirs(&mut self, nodeflib: bool) -> Vec<SearchDir> {
        let default = default_dirs(self.arch);
        let mut dirs = Vec::new();
        for host in &self.library_dirs {
            let step = SearchStep::LibraryDir;
            dirs.push(match self.sysroot.inside(host) {
                Some(guest) => SearchDir { guest, host: None, step },
                None => SearchDir { guest: EXTRA_DIR.to_vec(), host: Some(host.clone()), step },
            });
        }
        for (dir, file) in ldconf::directories(&mut self.sysroot) {
            let guest = normal(&dir);
            if nodeflib && default.contains(&guest) {
                continue;
            }
            dirs.push(SearchDir { guest, host: None, step: SearchStep::Conf(file) });
        }
        if !nodeflib {
            dirs.extend(default.into_iter().map(|guest| SearchDir {
                guest,
                host: None,
                step: SearchStep::Default,
            }));
        }
        dirs
    }

    fn musl_dirs(&mut self, arch: &[u8]) -> Vec<SearchDir> {
        let file = musl_path_file(arch);
        let (own, step) = match ldconf::contents(&mut self.sysroot, &file) {
            Some(text) => (ldconf::parse_musl(&text), SearchStep::Conf(file)),
            None => {
                let dirs = [&b"/lib"[..], b"/usr/local/lib", b"/usr/lib"];
                (dirs.map(<[u8]>::to_vec).to_vec(), SearchStep::Default)
            }
        };
        let own: Vec<Vec<u8>> = own.iter().map(|dir| normal(dir)).collect();
        // musl has no cache that could name further directories: put such libraries into its own.
        let extra = own.iter().find(|dir| *dir == EXTRA_DIR).or(own.first()).cloned();
        let extra = extra.unwrap_or_else(|| EXTRA_DIR.to_vec());
        let given = self.library_dirs.iter().map(|host| SearchDir {
            guest: extra.clone(),
            host: Some(host.clone()),
            step: SearchStep::LibraryDir,
        });
        given
            .chain(own.into_iter().map(|guest| SearchDir { guest, host: None, step: step.clone() }))
            .collect()
    }

    /// A library of this name that is only for newer CPUs.
    pub(super) fn hardware_variant(&mut self, name: &[u8]) -> Option<PathBuf> {
        for dir in default_dirs(self.arch) {
            let hwcaps = join(&dir, b"glibc-hwcaps");
            let Ok(found) = self.sysroot.resolve(&hwcaps) else { continue };
            for variant in self.sysroot.list(&found.real) {
                let path = join(&join(&hwcaps, &variant), name);
                if let Ok(found) = self.sysroot.resolve(&path) {
                    return Some(self.sysroot.host(&found.real));
                }
            }
        }
        None
    }
}

/// Where libraries from outside of the sysroot go in the image.
pub(super) const EXTRA_DIR: &[u8] = b"usr/local/lib";

/// The directories that some build of glibc for `arch` searches by itself.
fn default_dirs(arch: Arch) -> Vec<Vec<u8>> {
    let tuple = arch.multiarch();
    let mut dirs = vec![format!("lib/{tuple}"), format!("usr/lib/{tuple}")];
    if arch.elf_64() {
        dirs.extend(["lib64".into(), "usr/lib64".into()]);
    }
    dirs.extend(["lib".into(), "usr/lib".into()]);
    dirs.into_iter().map(String::into_bytes).collect()
}

/// The directories that the loader with this `$LIB` surely searches without a cache: Debian's
/// searches the multiarch ones, others `/lib64` or `/lib`.
pub(super) fn searched_anyway(lib: &[u8], dir: &[u8]) -> bool {
    let own = dir == lib || dir.strip_prefix(b"usr/") == Some(lib);
    let plain = dir == b"lib" || dir == b"usr/lib";
    own || plain && lib != b"lib64"
}

pub(super) fn musl_path_file(arch: &[u8]) -> Vec<u8> {
    [b"etc/ld-musl-", arch, b".path"].concat()
}

/// What `$LIB` is to the loader that lies at `real`.
pub(super) fn lib_of_loader(arch: Arch, real: &[u8]) -> Vec<u8> {
    let dir = parent(real);
    let last = dir.rsplit(|&b| b == b'/').next().unwrap_or_default();
    if last == arch.multiarch().as_bytes() {
        return format!("lib/{}", arch.multiarch()).into_bytes();
    }
    if last == b"lib64" { b"lib64".to_vec() } else { b"lib".to_vec() }
}

/// What `$PLATFORM` is on the least CPU of `arch` (`AT_PLATFORM`); riscv64 has none.
fn platform(arch: Arch) -> Option<&'static str> {
    match arch {
        Arch::Amd64 => Some("x86_64"),
        Arch::I386 => Some("i686"),
        Arch::Arm64 => Some("aarch64"),
        Arch::Arm => Some("v7l"),
        Arch::Riscv64 => None,
    }
}

/// System V, GNU, and ARM's own two, as glibc takes them.
fn osabi_fits(osabi: u8) -> bool {
    matches!(osabi, 0 | 3 | 64 | 97)
}

/// Where an object lies, for `$ORIGIN`.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Directory in the guest.
    pub(super) guest: Vec<u8>,
    /// The host directory beside which its libraries lie, if not in the sysroot.
    pub(super) host: Option<PathBuf>,
}

/// The directories that one element of a search path (or a name with a slash) stands for.
///
/// # Errors
/// Why it stands for none.
pub(super) fn expand(
    element: &[u8],
    origin: &Origin,
    arch: Arch,
    libc: &Libc,
    step: &SearchStep,
) -> Result<Vec<SearchDir>, &'static str> {
    if element.is_empty() {
        return Err("an empty element stands for the current directory");
    }
    let mut guest: Vec<u8> = Vec::new();
    let mut beside: Option<PathBuf> = None;
    let mut rest = element;
    while let Some((&byte, after)) = rest.split_first() {
        let token = (byte == b'$').then(|| token(after)).flatten();
        let Some((token, len)) = token else {
            guest.push(byte);
            rest = after;
            continue;
        };
        rest = &after[len..];
        match (token, libc) {
            (Token::Origin, _) => {
                if guest.is_empty()
                    && let Some(host) = &origin.host
                {
                    let relative = rest.iter().skip_while(|b| **b == b'/').copied();
                    beside = Some(host.join(std::ffi::OsString::from_vec(relative.collect())));
                }
                guest.push(b'/');
                guest.extend(&origin.guest);
            }
            (_, Libc::Musl { .. }) => return Err("musl knows no token but $ORIGIN"),
            (Token::Lib, Libc::Glibc { lib }) => guest.extend(lib),
            (Token::Platform, Libc::Glibc { .. }) => match platform(arch) {
                Some(platform) => guest.extend(platform.as_bytes()),
                None => return Err("$PLATFORM has no value on this architecture"),
            },
        }
    }
    if !guest.starts_with(b"/") {
        return Err("a relative element depends on the current directory");
    }
    let first = guest.iter().position(|b| *b != b'/').unwrap_or(guest.len());
    let guest = guest.split_off(first);
    let here = SearchDir { guest: guest.clone(), host: None, step: step.clone() };
    let moved = beside
        .filter(|host| !host.as_os_str().as_bytes().contains(&b'$'))
        .map(|host| SearchDir { guest, host: Some(host), step: step.clone() });
    Ok(moved.into_iter().chain([here]).collect())
}

enum Token {
    Origin,
    Lib,
    Platform,
}

/// The token after a `$`, and its length with the braces.
fn token(text: &[u8]) -> Option<(Token, usize)> {
    let (braces, name) = match text.strip_prefix(b"{") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let names =
        [(&b"ORIGIN"[..], Token::Origin), (b"LIB", Token::Lib), (b"PLATFORM", Token::Platform)];
    names.into_iter().find_map(|(word, token)| {
        let after = name.strip_prefix(word)?;
        let ends = match after.first() {
            Some(b'}') if braces => true,
            _ if braces => false,
            Some(b) => !(b.is_ascii_alphanumeric() || *b == b'_'),
            None => true,
        };
        ends.then_some((token, word.len() + 2 * usize::from(braces)))
    })
}

/// A file read by `pread`.
struct Opened {
    file: File,
    size: u64,
}

impl ReadAt for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
}

/// Whether a file is a program or library that a guest's loader may load: for its machine, whole, and not
/// the debug information of one, which has its headers and none of its contents.
pub(crate) fn is_loadable(arch: Arch, host: &Path) -> bool {
    let Ok(Kind::Elf(info)) = read_kind(host) else { return false };
    matches!(info.kind, ElfKind::Exec | ElfKind::Dyn)
        && Target::from(&*info) == Target::of(arch)
        && info.interp.as_ref().is_none_or(|path| path.starts_with(b"/"))
}

fn read_kind(host: &Path) -> io::Result<Kind> {
    // Opening a fifo would block, opening a device may do anything.
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::CLOEXEC
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(host, flags, rustix::fs::Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = Opened { file, size: meta.len() };
    match elf::parse(&file) {
        Ok(info) if info.load_end > file.size => Ok(Kind::BadElf(Arc::new(ElfError::Truncated {
            what: "program of which the loaded part",
            offset: 0,
            end: info.load_end,
            size: file.size,
        }))),
        Ok(info) => Ok(Kind::Elf(Arc::new(info))),
        Err(ElfError::NotElf) => {
            let mut head = vec![0; script::HEAD];
            let len = file.file.read_at(&mut head, 0)?;
            head.truncate(len);
            Ok(Kind::Other(head))
        }
        Err(ElfError::Read { source, .. }) => Err(source),
        Err(e) => Ok(Kind::BadElf(Arc::new(e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(
        element: &str,
        host: Option<&str>,
    ) -> Result<Vec<(String, Option<PathBuf>)>, &'static str> {
        let origin = Origin { guest: b"opt/bin".to_vec(), host: host.map(PathBuf::from) };
        let libc = Libc::Glibc { lib: b"lib64".to_vec() };
        let found = expand(element.as_bytes(), &origin, Arch::Amd64, &libc, &SearchStep::Path)?;
        Ok(found.into_iter().map(|d| (String::from_utf8(d.guest).unwrap(), d.host)).collect())
    }

    #[test]
    fn tokens_are_expanded_as_glibc_does() {
        for (element, expected) in [
            ("/a/b", "a/b"),
            ("$ORIGIN", "opt/bin"),
            ("${ORIGIN}/../lib", "opt/bin/../lib"),
            ("/x/$LIB/y", "x/lib64/y"),
            ("/x/${LIB}y/$PLATFORM", "x/lib64y/x86_64"),
            ("/x/$LIBY/$NO", "x/$LIBY/$NO"),
            ("/x/${LIB", "x/${LIB"),
        ] {
            assert_eq!(dirs(element, None), Ok(vec![(expected.into(), None)]), "{element}");
        }
        assert!(dirs("", None).unwrap_err().contains("empty"));
        assert!(dirs("lib", None).unwrap_err().contains("relative"));
        assert!(dirs("./$ORIGIN", None).unwrap_err().contains("relative"));
    }

    #[test]
    fn a_moved_program_looks_beside_its_old_place_first() {
        let found = dirs("$ORIGIN/../lib", Some("/home/me/bin")).unwrap();
        assert_eq!(found[0], ("opt/bin/../lib".into(), Some("/home/me/bin/../lib".into())));
        assert_eq!(found[1], ("opt/bin/../lib".into(), None));
        assert_eq!(dirs("/abs", Some("/home/me/bin")), Ok(vec![("abs".into(), None)]));
    }

    #[test]
    fn the_loader_tells_its_own_directories() {
        let lib = |real: &str| lib_of_loader(Arch::Amd64, real.as_bytes());
        assert_eq!(lib("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), b"lib/x86_64-linux-gnu");
        assert_eq!(lib("usr/lib64/ld-linux-x86-64.so.2"), b"lib64");
        assert_eq!(lib("usr/lib/ld-linux-x86-64.so.2"), b"lib");
        assert!(searched_anyway(b"lib/x86_64-linux-gnu", b"usr/lib/x86_64-linux-gnu"));
        assert!(searched_anyway(b"lib/x86_64-linux-gnu", b"usr/lib"));
        assert!(!searched_anyway(b"lib/x86_64-linux-gnu", b"lib64"));
        assert!(!searched_anyway(b"lib64", b"usr/lib"));
        assert!(!searched_anyway(b"lib64", b"usr/local/lib"));
    }
}
