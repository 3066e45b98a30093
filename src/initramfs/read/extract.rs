//! Images to directories. Nothing is ever written outside of the destination: each path is looked up
//! by the kernel with the destination as its root (`openat2` with `RESOLVE_IN_ROOT`), so that
//! neither `..` nor a planted symbolic link leads out, and nobody can swap one in between.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::archive::{ArchiveError, Source};
use super::inspect::plain;
use crate::formats::cpio;
use crate::initramfs::body;
use crate::initramfs::entry::{Kind, Node, PathProblem, Shown, normalize, parent};
use crate::initramfs::problem::Problems;
use crate::initramfs::write::image::Image;

/// How to unpack.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtractOptions<'a> {
    /// Give files the owner and group of the image; needs privileges. Otherwise they are the
    /// caller's.
    pub owner: bool,
    /// Leave out device nodes that cannot be made for lack of privileges.
    pub skip_nodes: bool,
    /// Ends it with [`ExtractError::Cancelled`] soon after somebody sets it. Default: nobody does.
    pub cancel: Option<&'a AtomicBool>,
}

impl ExtractOptions<'_> {
    fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::SeqCst))
    }
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Number of entries.
    pub entries: usize,
    /// Device nodes that were left out.
    pub skipped: Vec<Vec<u8>>,
}

/// Why an image cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// Something is in the way.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// The destination.
        path: PathBuf,
    },
    /// A symbolic link to nothing is in the way.
    #[error("`{}` is a symbolic link to `{}`, where nothing is", path.display(), target.display())]
    Dangling {
        /// The destination.
        path: PathBuf,
        /// The link's text.
        target: PathBuf,
    },
    /// The destination cannot be used.
    #[error("cannot use the directory `{}`", path.display())]
    Dest {
        /// The destination.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file of the image cannot be read.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// [`ExtractOptions::cancel`] was set.
    #[error("interrupted")]
    Cancelled,
    /// Entries that could not be made: all of them, or up to the first error that every further
    /// file would meet too.
    #[error("{}", list(entries))]
    Entries {
        /// Path and reason.
        entries: Vec<(Vec<u8>, String)>,
        /// Whether device nodes are among them for lack of privileges.
        nodes: bool,
        /// Why the rest was not tried: the destination takes no more.
        stopped: Option<io::ErrorKind>,
    },
}

impl ExtractError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ExtractError::NotEmpty { .. } => "give a directory that does not exist yet".into(),
            ExtractError::Archive(err) => return err.hint(),
            ExtractError::Dangling { .. } => {
                "remove it, or give a directory that does not exist yet".into()
            }
            ExtractError::Entries { stopped: Some(kind), .. } => format!(
                "the rest was not tried: {}",
                match kind {
                    io::ErrorKind::ReadOnlyFilesystem => "give a directory that can be written to",
                    _ => "make room, or give a directory where there is more",
                }
            ),
            ExtractError::Entries { nodes: true, .. } => {
                "device nodes need privileges; leave them out with `--skip-nodes`".into()
            }
            _ => return None,
        })
    }
}

fn list(entries: &[(Vec<u8>, String)]) -> String {
    let lines = entries.iter().map(|(path, why)| format!("cannot make `{}`: {why}", Shown(path)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Unpacks an archive into a directory that is new or empty. Members that Linux would pass over
/// without a word are errors like others.
///
/// # Errors
/// See [`ExtractError`]. A directory that was made for it is then removed; in one that was there,
/// what could be unpacked stays.
pub fn extract(
    source: &Source,
    dest: &Path,
    options: ExtractOptions<'_>,
) -> Result<Extracted, ExtractError> {
    in_new(dest, options, |root| unpack(source, root))
}

/// Makes the destination and fills it with `fill`; removes it after an error if it was not there.
fn in_new(
    dest: &Path,
    options: ExtractOptions<'_>,
    fill: impl FnOnce(&mut Root<'_>) -> Result<(), ExtractError>,
) -> Result<Extracted, ExtractError> {
    let mut root = Root::new(dest, options)?;
    let made = root.made;
    let done = fill(&mut root).and_then(|()| root.finish());
    if done.is_err() && made {
        // Whoever called sees what is left where even that fails.
        let _ = fs::remove_dir_all(dest);
    }
    done
}

fn unpack(source: &Source, root: &mut Root<'_>) -> Result<(), ExtractError> {
    let mut links: HashMap<_, First> = HashMap::new();
    source.read::<ExtractError>(|visit| {
        let member = visit.member;
        if root.options.cancelled() {
            return Err(ExtractError::Cancelled);
        }
        if let Some(why) = member.ignored_by_linux() {
            root.refuse(plain(member.name), why);
            return Ok(());
        }
        let attributes =
            Attributes { mode: member.mode & 0o7777, uid: member.uid, gid: member.gid };
        let path = match normalize(&plain(member.name.clone())) {
            Ok(path) if !path.is_empty() => path,
            // The root itself, which is there.
            Ok(_) if !member.name.is_empty() && member.file_type() == cpio::S_IFDIR => {
                return Ok(());
            }
            Ok(_) => {
                root.refuse(
                    plain(member.name),
                    format!(
                        "{} (a member of this name at offset {})",
                        PathProblem::Empty,
                        member.offset
                    ),
                );
                return Ok(());
            }
            Err(problem) => {
                root.refuse(member.name, problem);
                return Ok(());
            }
        };
        let result = match member.file_type() {
            cpio::S_IFDIR => root.directory(&path, attributes),
            cpio::S_IFLNK if visit.target.as_ref().is_none_or(Vec::is_empty) => {
                Err(io::Error::other("the link has no target"))
            }
            cpio::S_IFLNK => {
                root.symlink(&path, visit.target.as_deref().unwrap_or_default(), attributes)
            }
            cpio::S_IFREG => {
                let key = member.link_key();
                match key.and_then(|key| links.get(&key)) {
                    Some(first) if first.path != path => {
                        root.link(&path, first, attributes, visit.body)
                    }
                    _ => {
                        let made = root.file(&path, attributes, visit.body);
                        match (made, key) {
                            (Ok(_), Some(key)) => {
                                root.first(&path).map(|first| drop(links.insert(key, first)))
                            }
                            (made, _) => made.map(drop),
                        }
                    }
                }
            }
            cpio::S_IFCHR => root.node(&path, FileType::CharacterDevice, member.rdev, attributes),
            cpio::S_IFBLK => root.node(&path, FileType::BlockDevice, member.rdev, attributes),
            cpio::S_IFIFO => root.node(&path, FileType::Fifo, (0, 0), attributes),
            cpio::S_IFSOCK => root.node(&path, FileType::Socket, (0, 0), attributes),
            _ => Err(io::Error::other("unknown type")),
        };
        root.note(path, result)
    })?;
    Ok(())
}

/// Writes an image as a directory that is new or empty.
///
/// # Errors
/// See [`ExtractError`], and [`extract`] for what is left.
pub fn write_dir(
    image: &Image,
    dest: &Path,
    options: ExtractOptions<'_>,
) -> Result<Extracted, ExtractError> {
    in_new(dest, options, |root| write_entries(image, root))
}

fn write_entries(image: &Image, root: &mut Root<'_>) -> Result<(), ExtractError> {
    let mut links: HashMap<u32, First> = HashMap::new();
    for entry in image.entries() {
        if root.options.cancelled() {
            return Err(ExtractError::Cancelled);
        }
        let attributes = Attributes { mode: entry.mode, uid: entry.uid, gid: entry.gid };
        let path = entry.path.as_slice();
        let result = match &entry.kind {
            Kind::Directory => root.directory(path, attributes),
            Kind::Symlink { target } => root.symlink(path, target, attributes),
            Kind::Node { node, rdev } => {
                let kind = match node {
                    Node::Char => FileType::CharacterDevice,
                    Node::Block => FileType::BlockDevice,
                    Node::Fifo => FileType::Fifo,
                    Node::Socket => FileType::Socket,
                };
                root.node(path, kind, *rdev, attributes)
            }
            Kind::File { body, link } => match link.and_then(|link| links.get(&link)) {
                Some(first) => root.link(path, first, attributes, &mut io::empty()),
                None => {
                    let mut reader = body::open(body).map_err(Problems::from)?;
                    let written = root.file(path, attributes, &mut reader);
                    written.and_then(|size| {
                        if size != body.size() {
                            return Err(io::Error::other("it changed while it was read"));
                        }
                        if let Some(link) = link {
                            links.insert(*link, root.first(path)?);
                        }
                        Ok(())
                    })
                }
            },
        };
        root.note(path.to_vec(), result)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// The first name of a file that has several.
struct First {
    path: Vec<u8>,
    inode: (u64, u64),
}

/// The destination.
struct Root<'a> {
    dir: OwnedFd,
    /// It was not there before.
    made: bool,
    options: ExtractOptions<'a>,
    /// Directories get their modes last: they may forbid writing.
    directories: Vec<(Vec<u8>, Attributes)>,
    done: Extracted,
    failed: Vec<(Vec<u8>, String)>,
    nodes_failed: bool,
}

impl<'a> Root<'a> {
    fn new(dest: &Path, options: ExtractOptions<'a>) -> Result<Root<'a>, ExtractError> {
        let fail = |source| ExtractError::Dest { path: dest.to_owned(), source };
        let made = match fs::create_dir(dest) {
            Ok(()) => true,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                if let Ok(target) = fs::read_link(dest)
                    && !dest.exists()
                {
                    return Err(ExtractError::Dangling { path: dest.to_owned(), target });
                }
                if fs::read_dir(dest).map_err(fail)?.next().is_some() {
                    return Err(ExtractError::NotEmpty { path: dest.to_owned() });
                }
                false
            }
            Err(err) => return Err(fail(err)),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, dest, flags, Mode::empty());
        Ok(Root {
            dir: dir.map_err(|err| fail(err.into()))?,
            made,
            options,
            directories: Vec::new(),
            done: Extracted::default(),
            failed: Vec::new(),
            nodes_failed: false,
        })
    }

    fn refuse(&mut self, path: Vec<u8>, why: impl ToString) {
        self.failed.push((path, why.to_string()));
    }

    /// Notes how an entry went. After some errors going on means the same error for each file.
    fn note(&mut self, path: Vec<u8>, result: io::Result<()>) -> Result<(), ExtractError> {
        let Err(err) = result else {
            self.done.entries += 1;
            return Ok(());
        };
        if self.options.cancelled() {
            return Err(ExtractError::Cancelled);
        }
        self.failed.push((path, err.to_string()));
        let last = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
        match Errno::from_io_error(&err) {
            Some(errno) if last.contains(&errno) => Err(self.failure(Some(err.kind()))),
            _ => Ok(()),
        }
    }

    fn failure(&mut self, stopped: Option<io::ErrorKind>) -> ExtractError {
        let entries = std::mem::take(&mut self.failed);
        ExtractError::Entries { entries, nodes: self.nodes_failed, stopped }
    }

    fn open_dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(
            &self.dir,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// The directory of a path, made where it is missing.
    fn dir_of(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let dir = parent(path);
        match self.open_dir(dir) {
            Err(Errno::NOENT) if !dir.is_empty() => {}
            other => return Ok(other?),
        }
        for end in (0..=dir.len()).filter(|&i| i == dir.len() || dir[i] == b'/') {
            let part = &dir[..end];
            if matches!(self.open_dir(part), Err(Errno::NOENT)) {
                let above = self.open_dir(parent(part))?;
                rustix::fs::mkdirat(above, name(part), Mode::from_raw_mode(0o755))?;
            }
        }
        Ok(self.open_dir(dir)?)
    }

    /// Removes what is at a path, as Linux does when a member of another type follows.
    fn clear(&self, dir: &OwnedFd, path: &[u8]) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(dir, name(path), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => rustix::fs::unlinkat(dir, name(path), AtFlags::REMOVEDIR),
            other => other,
        }
    }

    fn directory(&mut self, path: &[u8], attributes: Attributes) -> io::Result<()> {
        let dir = self.dir_of(path)?;
        // Also when a link to a directory stands there.
        if self.open_dir(path).is_err() {
            self.clear(&dir, path)?;
            rustix::fs::mkdirat(&dir, name(path), Mode::RWXU)?;
        }
        self.directories.push((path.to_vec(), attributes));
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        body: &mut dyn Read,
    ) -> io::Result<u64> {
        let dir = self.dir_of(path)?;
        self.clear(&dir, path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name(path), flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = fs::File::from(file);
        let size = io::copy(&mut Cancellable { body, options: self.options }, &mut file)?;
        file.flush()?;
        self.own(&dir, path, attributes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(attributes.mode))?;
        Ok(size)
    }

    /// Another name of a file. Data may come with any of the names.
    fn link(
        &mut self,
        path: &[u8],
        first: &First,
        attributes: Attributes,
        body: &mut dyn Read,
    ) -> io::Result<()> {
        let (dir, first_dir) = (self.dir_of(path)?, self.dir_of(&first.path)?);
        self.clear(&dir, path)?;
        rustix::fs::linkat(&first_dir, name(&first.path), &dir, name(path), AtFlags::empty())?;
        // Something else may have taken the first name since, even a symbolic link: then this is a
        // file of its own.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let linked = rustix::fs::openat(&dir, name(path), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&linked)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || (stat.st_dev, stat.st_ino) != first.inode {
            return self.file(path, attributes, body).map(drop);
        }
        let mut start = [0; 1];
        if body.read(&mut start)? == 0 {
            return Ok(());
        }
        // Through the descriptor: the name could be exchanged at any time.
        let this = format!("/proc/self/fd/{}", linked.as_raw_fd());
        let mode = |mode| rustix::fs::chmod(&this, Mode::from_raw_mode(mode));
        mode(attributes.mode | 0o200)?;
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&this)?;
        let body = &mut start.chain(body);
        io::copy(&mut Cancellable { body, options: self.options }, &mut file)?;
        Ok(mode(attributes.mode)?)
    }

    /// What identifies a file that was just made.
    fn first(&self, path: &[u8]) -> io::Result<First> {
        let dir = self.dir_of(path)?;
        let stat = rustix::fs::statat(&dir, name(path), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(First { path: path.to_vec(), inode: (stat.st_dev, stat.st_ino) })
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], attributes: Attributes) -> io::Result<()> {
        let dir = self.dir_of(path)?;
        self.clear(&dir, path)?;
        rustix::fs::symlinkat(target, &dir, name(path))?;
        Ok(self.own(&dir, path, attributes)?)
    }

    fn node(
        &mut self,
        path: &[u8],
        kind: FileType,
        rdev: (u32, u32),
        attributes: Attributes,
    ) -> io::Result<()> {
        let dir = self.dir_of(path)?;
        self.clear(&dir, path)?;
        let mode = Mode::from_raw_mode(attributes.mode);
        let rdev = rustix::fs::makedev(rdev.0, rdev.1);
        match rustix::fs::mknodat(&dir, name(path), kind, mode, rdev) {
            Err(Errno::PERM) if self.options.skip_nodes => {
                self.done.skipped.push(path.to_vec());
                return Ok(());
            }
            Err(err) => {
                self.nodes_failed |= err == Errno::PERM;
                return Err(err.into());
            }
            Ok(()) => {}
        }
        self.own(&dir, path, attributes)?;
        // The umask took part in making it.
        Ok(rustix::fs::chmodat(&dir, name(path), mode, AtFlags::empty())?)
    }

    fn own(&self, dir: &OwnedFd, path: &[u8], attributes: Attributes) -> rustix::io::Result<()> {
        use rustix::fs::{Gid, Uid};
        if !self.options.owner {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::chownat(dir, name(path), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn finish(mut self) -> Result<Extracted, ExtractError> {
        if self.made && !self.failed.is_empty() {
            // It will be removed, which a mode could forbid.
            return Err(self.failure(None));
        }
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let result = self.dir_of(&path).and_then(|dir| {
                // Where a link stands for the directory, its own entry has the mode.
                let stat = rustix::fs::statat(&dir, name(&path), AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Ok(());
                }
                self.own(&dir, &path, attributes)?;
                let mode = Mode::from_raw_mode(attributes.mode);
                Ok(rustix::fs::chmodat(&dir, name(&path), mode, AtFlags::empty())?)
            });
            if let Err(err) = result {
                self.failed.push((path, err.to_string()));
            }
        }
        if self.failed.is_empty() { Ok(self.done) } else { Err(self.failure(None)) }
    }
}

/// A body whose copying can be ended.
struct Cancellable<'a> {
    body: &'a mut dyn Read,
    options: ExtractOptions<'a>,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.options.cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.body.read(buf)
    }
}

/// The last component of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_further_file_would_meet_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("new");
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
            let mut tried = 0;
            let done = in_new(&dest, ExtractOptions::default(), |root| {
                for path in [b"a", b"b", b"c", b"d"] {
                    tried += 1;
                    let errno = if path == b"a" { Errno::ACCESS } else { errno };
                    root.note(path.to_vec(), Err(errno.into()))?;
                }
                Ok(())
            });
            let err = done.unwrap_err();
            assert_eq!((tried, err.to_string().lines().count()), (2, 2), "{err}");
            assert!(err.hint().unwrap().starts_with("the rest was not tried: "), "{err:?}");
            assert!(!dest.exists());
        }
    }
}
