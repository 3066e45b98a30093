//! Puts files into the root file system: a cpio archive ("newc") as it comes.
//!
//! As the kernel does with an initramfs: later entries win, directories above an entry are expected in
//! the archive or made. A name that is there already is replaced, unless both are directories; that
//! the host's files may lie where the guest has linked its shell is what this is for.

use super::failure::Failure;
use rustix::fs::{AtFlags, CWD};
use rustix::fs::{Dev, FileType, Mode, chmodat, chownat, makedev, mknodat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vmtest_guest::proto;

const HEADER_BYTES: usize = 110;
/// A name and the zeros that align what follows to a page.
const MAX_NAME_BYTES: usize = 8192;
const TRAILER: &[u8] = b"TRAILER!!!";

/// An archive that is being unpacked.
pub(crate) struct Unpacker {
    /// Below which directory.
    root: PathBuf,
    state: State,
    /// A header with its name, as far as it has come.
    begun: Vec<u8>,
    /// First names of files with several, by device and inode.
    links: HashMap<(u32, u32, u32), PathBuf>,
    /// What went wrong first; the rest of the archive is passed over.
    failed: Option<Failure>,
}

enum State {
    Header,
    /// The rest of a file.
    Data {
        file: Option<File>,
        link: Option<Vec<u8>>,
        entry: Box<Entry>,
        left: u64,
        padding: usize,
    },
    /// Zeros between two entries.
    Padding(usize),
    Done,
}

#[derive(Clone)]
struct Entry {
    path: PathBuf,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: (u32, u32),
}

impl Unpacker {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Unpacker {
        Unpacker {
            root: root.into(),
            state: State::Header,
            begun: Vec::new(),
            links: HashMap::new(),
            failed: None,
        }
    }

    /// Takes the next bytes of the archive.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            if let Err(failure) = self.step(&mut bytes) {
                self.failed = Some(failure);
            }
        }
    }

    /// The archive is at its end.
    ///
    /// # Errors
    /// What went wrong first.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match (self.failed, self.state) {
            (Some(failure), _) => Err(failure),
            (None, State::Done) => Ok(()),
            (None, _) => Err(Failure::new("the archive of files is cut short", Errno::INVAL)),
        }
    }

    fn step(&mut self, bytes: &mut &[u8]) -> Result<(), Failure> {
        match &mut self.state {
            State::Done => *bytes = &[],
            State::Padding(left) => {
                let count = (*left).min(bytes.len());
                *bytes = &bytes[count..];
                *left -= count;
                if *left == 0 {
                    self.state = State::Header;
                }
            }
            State::Header => return self.header(bytes),
            State::Data { file, link, entry, left, padding } => {
                let count = (*left).min(bytes.len() as u64) as usize;
                let (data, rest) = bytes.split_at(count);
                *bytes = rest;
                *left -= count as u64;
                if let Some(target) = link {
                    target.extend_from_slice(data);
                } else if let Some(file) = file {
                    file.write_all(data).map_err(|error| cannot("write", &entry.path, &error))?;
                }
                if *left == 0 {
                    if let Some(target) = link.take() {
                        let made =
                            std::os::unix::fs::symlink(OsStr::from_bytes(&target), &entry.path);
                        made.map_err(|error| cannot("link", &entry.path, &error))?;
                        own(entry)?;
                    }
                    self.state = after(*padding);
                }
            }
        }
        Ok(())
    }

    /// Collects a header and its name; begins the entry once both are there.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<(), Failure> {
        let wanted = match self.begun.get(..HEADER_BYTES) {
            None => HEADER_BYTES,
            Some(header) => {
                if !header.starts_with(b"070701") {
                    return Err(broken("an entry that is not of the \"newc\" form"));
                }
                let name = field(header, 11)? as usize;
                if !(1..=MAX_NAME_BYTES).contains(&name) {
                    return Err(broken("a name of an impossible length"));
                }
                (HEADER_BYTES + name).next_multiple_of(4)
            }
        };
        let count = (wanted - self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(&bytes[..count]);
        *bytes = &bytes[count..];
        // With only a header, the next round knows the name's length.
        if self.begun.len() == wanted && wanted > HEADER_BYTES {
            let header = std::mem::take(&mut self.begun);
            self.state = self.begin(&header)?;
        }
        Ok(())
    }

    fn begin(&mut self, header: &[u8]) -> Result<State, Failure> {
        let [ino, mode, uid, gid, links, _, size, major, minor, rmajor, rminor, name, _] =
            fields(header)?;
        // Some writers align a file's content by zeros behind its name; the name ends before them.
        let name = &header[HEADER_BYTES..HEADER_BYTES + name as usize];
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name == TRAILER {
            return Ok(State::Done);
        }
        let path = below(&self.root, name)?;
        let entry = Entry { path, mode, uid, gid, rdev: (rmajor, rminor) };
        let padding = (4 - size as usize % 4) % 4;
        let several = (links > 1).then_some((major, minor, ino));
        let (file, link) = match FileType::from_raw_mode(mode as _) {
            // A directory of the host that is a link here: its entries go where it leads.
            FileType::Directory => {
                make_dir(&entry)?;
                (None, None)
            }
            FileType::Symlink => {
                clear_links(&entry.path);
                make_room(&entry.path)?;
                (None, Some(Vec::new()))
            }
            FileType::RegularFile => (Some(self.open(&entry, several, size)?), None),
            kind => {
                make_room(&entry.path)?;
                let dev: Dev = makedev(entry.rdev.0, entry.rdev.1);
                mknodat(CWD, &entry.path, kind, Mode::from_raw_mode(mode as _), dev)
                    .map_err(|errno| cannot("make", &entry.path, &errno.into()))?;
                own(&entry)?;
                (None, None)
            }
        };
        if size == 0 {
            return Ok(after(0));
        }
        Ok(State::Data { file, link, entry: Box::new(entry), left: size.into(), padding })
    }

    /// Opens a file for its content; one with several names gets it from whichever entry has it.
    fn open(
        &mut self,
        entry: &Entry,
        several: Option<(u32, u32, u32)>,
        size: u32,
    ) -> Result<File, Failure> {
        let first = several.and_then(|inode| self.links.get(&inode));
        let failed = |error: io::Error| cannot("write", &entry.path, &error);
        let file = match first {
            Some(first) => {
                make_room(&entry.path)?;
                fs::hard_link(first, &entry.path).map_err(failed)?;
                fs::OpenOptions::new().write(true).truncate(size > 0).open(&entry.path)
            }
            None => {
                make_room(&entry.path)?;
                fs::OpenOptions::new().write(true).create_new(true).open(&entry.path)
            }
        };
        let file = file.map_err(failed)?;
        own(entry)?;
        if let Some(inode) = several {
            self.links.entry(inode).or_insert_with(|| entry.path.clone());
        }
        Ok(file)
    }
}

fn after(padding: usize) -> State {
    if padding == 0 { State::Header } else { State::Padding(padding) }
}

fn broken(what: &str) -> Failure {
    Failure::new(format!("the archive of files has {what}"), Errno::INVAL)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let full = error.raw_os_error() == Some(Errno::NOSPC.raw_os_error());
    let hint = if full { " (the guest's memory is full: give it more with --memory)" } else { "" };
    Failure {
        text: format!("cannot {what} {} in the guest: {error}{hint}", path.display()),
        errno: error.raw_os_error(),
    }
}

/// The nth field of a header.
fn field(header: &[u8], n: usize) -> Result<u32, Failure> {
    let digits =
        header.get(6 + 8 * n..14 + 8 * n).and_then(|digits| std::str::from_utf8(digits).ok());
    digits
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| broken("a header that is no header"))
}

fn fields(header: &[u8]) -> Result<[u32; 13], Failure> {
    let mut values = [0; 13];
    for (n, value) in values.iter_mut().enumerate() {
        *value = field(header, n)?;
    }
    Ok(values)
}

/// The path of a name; no name leads out of `root`.
fn below(root: &Path, name: &[u8]) -> Result<PathBuf, Failure> {
    let name = Path::new(OsStr::from_bytes(name));
    let mut path = root.to_owned();
    for part in name.components() {
        match part {
            std::path::Component::Normal(part) => path.push(part),
            std::path::Component::RootDir | std::path::Component::CurDir => {}
            _ => return Err(broken("a name with `..`")),
        }
    }
    Ok(path)
}

/// Makes a directory, or gives one that is there its owner and mode.
fn make_dir(entry: &Entry) -> Result<(), Failure> {
    if !entry.path.is_dir() {
        make_room(&entry.path)?;
        fs::create_dir(&entry.path).map_err(|error| cannot("make", &entry.path, &error))?;
    }
    own(entry)
}

/// Removes a directory that has nothing but links to the guest's shell in it: where an image has `/bin`
/// as a link, the directory was made only for them. They are made again where the link leads.
fn clear_links(dir: &Path) {
    let ours =
        |path: &Path| fs::read_link(path).is_ok_and(|target| target.starts_with(proto::SHELL_DIR));
    if !dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    if paths.iter().all(|path| ours(path)) {
        paths.iter().for_each(|path| drop(fs::remove_file(path)));
        let _ = fs::remove_dir(dir);
    }
}

/// Removes what is in the way, and makes the directories above.
fn make_room(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.exists() => {
                fs::create_dir_all(parent).map_err(|error| cannot("make", parent, &error))
            }
            _ => Ok(()),
        },
        Err(error) => Err(cannot("replace", path, &error)),
    }
}

/// Gives an entry its owner and, where it has one, its mode.
fn own(entry: &Entry) -> Result<(), Failure> {
    let failed = |errno: Errno| cannot("change", &entry.path, &errno.into());
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    if (entry.uid, entry.gid) != (0, 0) {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(CWD, &entry.path, Some(uid), Some(gid), flags).map_err(failed)?;
    }
    if FileType::from_raw_mode(entry.mode as _) != FileType::Symlink {
        let mode = Mode::from_raw_mode(entry.mode as _);
        chmodat(CWD, &entry.path, mode, AtFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    /// An archive of entries: name, mode, inode, links, content. Names may be followed by zeros.
    fn archive(entries: &[(&str, u32, u32, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, mode, ino, links, content) in
            entries.iter().chain([&("TRAILER!!!", 0, 0, 1, &b""[..])])
        {
            let (uid, gid) =
                (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            let fields = [
                *ino,
                *mode,
                uid,
                gid,
                *links,
                0,
                content.len() as u32,
                0,
                0,
                0,
                0,
                name.len() as u32 + 1,
                0,
            ];
            bytes.extend(b"070701");
            fields.iter().for_each(|field| bytes.extend(format!("{field:08x}").bytes()));
            bytes.extend(name.bytes().chain([0]));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn unpack(name: &str, bytes: &[u8], cut: usize) -> (PathBuf, Result<(), Failure>) {
        let root = std::env::temp_dir().join(format!("vmtest-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        let mut unpacker = Unpacker::new(&root);
        bytes.chunks(cut).for_each(|chunk| unpacker.push(chunk));
        let result = unpacker.finish();
        (root, result)
    }

    #[test]
    fn archives_are_unpacked_however_they_are_cut() {
        let bytes = archive(&[
            ("d", 0o40755, 1, 1, b""),
            ("d/f", 0o100_640, 2, 1, b"hello"),
            ("d/padded\0\0\0\0\0", 0o100_755, 3, 1, b"x"),
            ("made/above", 0o100_644, 4, 1, b""),
            ("link", 0o120_777, 5, 1, b"d/f"),
            ("h1", 0o100_644, 6, 2, b""),
            ("h2", 0o100_644, 6, 2, b"shared"),
            ("d/f", 0o100_600, 7, 1, b"later wins"),
        ]);
        for cut in [1, 3, 110, 111, 4096] {
            let (root, result) = unpack("cut", &bytes, cut);
            result.unwrap();
            let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
            assert_eq!((read("d/f"), read("link")), ("later wins".into(), "later wins".into()));
            assert_eq!((read("d/padded"), read("made/above")), ("x".into(), String::new()));
            assert_eq!((read("h1"), read("h2")), ("shared".into(), "shared".into()));
            assert_eq!(root.join("h1").metadata().unwrap().nlink(), 2);
            assert_eq!(root.join("d/f").metadata().unwrap().permissions().mode() & 0o777, 0o600);
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn what_is_no_archive_is_refused_by_name() {
        let good = archive(&[("f", 0o100_644, 1, 1, b"hello")]);
        let replaced = |from: &[u8], to: &[u8]| {
            let at = good.windows(from.len()).position(|window| window == from).unwrap();
            [&good[..at], to, &good[at + from.len()..]].concat()
        };
        for (bytes, shown) in [
            (good[..good.len() - 20].to_vec(), "cut short"),
            (replaced(b"070701", b"070707"), "newc"),
            (replaced(b"00000005", b"0000zz05"), "no header"),
            (archive(&[("../f", 0o100_644, 1, 1, b"")]), "`..`"),
        ] {
            let (root, result) = unpack("bad", &bytes, 7);
            let failure = result.unwrap_err();
            assert!(failure.text.contains(shown), "{}", failure.text);
            fs::remove_dir_all(&root).unwrap();
        }
    }
}
