//! A directory of the host as a vfat image: what a guest mounts read-only from `/dev/sda1`.
//!
//! Walks the directory, decides what to do with links and special files, and writes the image in
//! one pass through [`crate::formats::fat`]. The image is made for one run and thrown away, so
//! nothing is published atomically here; whatever goes wrong, nothing of it should be used.
//!
//! | in the directory | in the image |
//! |---|---|
//! | files and directories, also empty ones | the same; owners and permission bits are lost |
//! | several names of one file | a copy each |
//! | symbolic links | what they lead to, a notice, or an error: [`Symlinks`] |
//! | fifos, sockets, devices | left out, with a notice; never opened |
//!
//! A directory that changes meanwhile is an error: sizes and times of change are compared when a
//! file has been read.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::OFlags;

use crate::formats::fat::{self, DirId, Disk, FatKind, Image, Tree, WriteError};

/// How a directory becomes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do with symbolic links.
    pub symlinks: Symlinks,
    /// The times entries get.
    pub times: Times,
    /// Where on its disk the file system is.
    pub disk: Disk,
}

/// What to do with symbolic links, for which FAT has no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// Store what the link leads to as if it stood in its place, where that is inside of the
    /// directory; leave out the others with a notice.
    #[default]
    Follow,
    /// Leave all of them out, with a notice.
    Skip,
    /// Have none.
    Refuse,
}

/// The times entries get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// This one, in seconds since 1970 (`SOURCE_DATE_EPOCH`): images of equal trees are equal.
    Fixed(i64),
    /// The times of change the host has; FAT keeps even seconds from 1980 to 2107.
    Kept,
}

impl Default for Options {
    /// Follows links, keeps the host's times, in a partition.
    fn default() -> Options {
        Options { symlinks: Symlinks::Follow, times: Times::Kept, disk: Disk::Partitioned }
    }
}

/// A directory that was looked through and fits into an image.
#[derive(Debug)]
pub struct DirImage {
    dir: PathBuf,
    image: Image<Body>,
    notices: Vec<Notice>,
}

/// Something that is not in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Path below the directory.
    pub path: PathBuf,
    /// Why not.
    pub why: Skipped,
}

/// Why something is not in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skipped {
    /// A symbolic link, and links are skipped.
    Symlink,
    /// A symbolic link that leads to nothing, or around in circles.
    Dangling,
    /// A symbolic link that leads out of the directory.
    LeadsOut,
    /// A symbolic link to a directory it lies in.
    LeadsUp,
    /// A fifo, socket or device.
    Special(&'static str),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Skipped::Symlink => write!(f, "left out symbolic link `{path}`"),
            Skipped::Dangling => write!(f, "left out symbolic link `{path}`: it leads nowhere"),
            Skipped::LeadsOut => {
                write!(f, "left out symbolic link `{path}`: it leads out of the directory")
            }
            Skipped::LeadsUp => {
                write!(f, "left out symbolic link `{path}`: it leads to a directory it lies in")
            }
            Skipped::Special(what) => write!(f, "left out {what} `{path}`"),
        }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be read, or is none.
    #[error("cannot make a vfat image of `{}`", .dir.display())]
    Dir {
        /// The directory that was given.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Things in the directory that cannot be read or stored: all there are.
    #[error("cannot make a vfat image of `{}`: {}", .dir.display(), List(.problems))]
    Content {
        /// The directory that was given.
        dir: PathBuf,
        /// At least one, sorted by path.
        problems: Vec<Problem>,
    },
    /// Reading or writing went wrong half-way.
    #[error("the vfat image of `{}` is incomplete", .dir.display())]
    Write {
        /// The directory that was given.
        dir: PathBuf,
        /// Why.
        #[source]
        source: WriteError,
    },
}

/// One thing that cannot be read or stored.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// FAT has no room for it.
    Unstorable(fat::Problem),
    /// It cannot be read.
    Unreadable {
        /// Path below the directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A symbolic link where there must be none.
    Symlink {
        /// Path below the directory.
        path: PathBuf,
    },
    /// Links to directories lead to so many entries that there must be a mistake.
    TooManyLinked {
        /// Path below the directory of the link that was one too many.
        path: PathBuf,
    },
}

/// How many entries are reached through links to directories before it is an error: a few links to
/// each other's directories stand for more entries than there are atoms.
const MAX_LINKED: usize = 100_000;

impl Problem {
    fn path(&self) -> &[u8] {
        match self {
            Problem::Unstorable(problem) => &problem.path,
            Problem::Unreadable { path, .. }
            | Problem::Symlink { path }
            | Problem::TooManyLinked { path } => path.as_os_str().as_bytes(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unstorable(problem) => problem.fmt(f),
            Problem::Unreadable { path, source } => {
                write!(f, "`{}` cannot be read: {source}", path.display())
            }
            Problem::Symlink { path } => write!(f, "`{}` is a symbolic link", path.display()),
            Problem::TooManyLinked { path } => {
                write!(
                    f,
                    "`{}` leads to more than {MAX_LINKED} entries through links",
                    path.display()
                )
            }
        }
    }
}

/// One problem on the same line, several on a line each.
struct List<'a>(&'a [Problem]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [problem] => problem.fmt(f),
            problems => problems.iter().try_for_each(|problem| write!(f, "\n  {problem}")),
        }
    }
}

impl Error {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            Error::Dir { .. } => "give a directory that you may read".to_owned(),
            Error::Write { source, .. } => source.hint(),
            Error::Content { problems, .. } => {
                if problems.iter().any(|problem| matches!(problem, Problem::Unstorable(_))) {
                    "rename or leave out what is listed, or share the directory by 9p (`--share`), which takes all names and sizes".to_owned()
                } else {
                    "leave out what is listed, or share the directory by 9p (`--share`)".to_owned()
                }
            }
        }
    }
}

/// Where the bytes of a file are, and what tells that they are still the same.
#[derive(Debug)]
struct Body {
    path: Box<Path>,
    identity: Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Identity {
        Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl DirImage {
    /// Looks through a directory and plans its image; reads no file yet.
    ///
    /// # Errors
    /// [`Error::Dir`], [`Error::Content`].
    pub fn scan(dir: &Path, options: &Options) -> Result<DirImage, Error> {
        let error = |source| Error::Dir { dir: dir.to_owned(), source };
        let root = fs::canonicalize(dir).map_err(error)?;
        let meta = fs::metadata(&root).map_err(error)?;
        if !meta.is_dir() {
            return Err(error(io::ErrorKind::NotADirectory.into()));
        }
        // What makes the whole directory useless is said about the directory.
        drop(fs::read_dir(&root).map_err(error)?);

        let mut walk = Walk {
            root,
            options: *options,
            tree: Tree::new(),
            notices: Vec::new(),
            problems: Vec::new(),
            pending: Vec::new(),
            linked: 0,
        };
        walk.run(&meta);
        let Walk { tree, mut notices, mut problems, .. } = walk;
        notices.sort_by(|a, b| a.path.cmp(&b.path));
        let image = match Image::plan(tree, options.disk) {
            Ok(image) if problems.is_empty() => image,
            planned => {
                let unstorable = planned.err().into_iter().flat_map(|err| err.problems);
                problems.extend(unstorable.map(Problem::Unstorable));
                problems.sort_by(|a, b| a.path().cmp(b.path()));
                return Err(Error::Content { dir: dir.to_owned(), problems });
            }
        };
        Ok(DirImage { dir: dir.to_owned(), image, notices })
    }

    /// The size the image will have, in bytes.
    pub fn bytes(&self) -> u64 {
        self.image.bytes()
    }

    /// The kind of file system that was chosen.
    pub fn kind(&self) -> FatKind {
        self.image.kind()
    }

    /// What is left out, sorted by path.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Reads all files and writes the image, strictly forward.
    ///
    /// # Errors
    /// [`Error::Content`] with all files that cannot be read, [`Error::Write`] for what goes wrong
    /// half-way. What was written is of no use then.
    pub fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let failed = match self.image.write(out, Checked::open) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if let WriteError::Body { .. } = failed {
            // One file that cannot be opened seldom comes alone: find the others too.
            let problems = self.image.files().filter_map(|(path, body)| {
                let source = Checked::open(body).err()?;
                Some(Problem::Unreadable { path: path_of(path), source })
            });
            let problems: Vec<Problem> = problems.collect();
            if !problems.is_empty() {
                return Err(Error::Content { dir: self.dir.clone(), problems });
            }
        }
        Err(Error::Write { dir: self.dir.clone(), source: failed })
    }
}

/// Scans `dir` with the default [`Options`] and writes its image: what `--ro-dir` does.
///
/// Says what was left out.
///
/// # Errors
/// Those of [`DirImage::scan`] and [`DirImage::write`].
pub fn write_image(dir: &Path, out: &mut impl Write) -> Result<Vec<Notice>, Error> {
    let image = DirImage::scan(dir, &Options::default())?;
    image.write(out)?;
    Ok(image.notices)
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// A file that at its end makes sure that it is still the one that was planned for.
struct Checked {
    file: File,
    identity: Identity,
}

impl Checked {
    fn open(body: &Body) -> io::Result<Checked> {
        // Should something else have taken the file's place, this neither follows nor waits for it.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::options().read(true).custom_flags(flags.bits() as i32).open(&body.path)?;
        Ok(Checked { file, identity: body.identity })
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        if got == 0 && !buffer.is_empty() && Identity::of(&self.file.metadata()?) != self.identity {
            return Err(io::Error::other("it changed while the image was made"));
        }
        Ok(got)
    }
}

/// The directories on the way from the root to one that is being looked through.
struct Ancestor {
    device: u64,
    inode: u64,
    parent: Option<Rc<Ancestor>>,
}

impl Ancestor {
    fn of(meta: &Metadata, parent: Option<Rc<Ancestor>>) -> Rc<Ancestor> {
        Rc::new(Ancestor { device: meta.dev(), inode: meta.ino(), parent })
    }

    /// Whether this directory or one above it is `meta`.
    fn includes(&self, meta: &Metadata) -> bool {
        let mut next = Some(self);
        while let Some(dir) = next {
            if (dir.device, dir.inode) == (meta.dev(), meta.ino()) {
                return true;
            }
            next = dir.parent.as_deref();
        }
        false
    }
}

impl Drop for Ancestor {
    /// Without recursion: directories may be nested by the thousand.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut parent) = next.and_then(Rc::into_inner) {
            next = parent.parent.take();
        }
    }
}

/// A directory that is still to be looked through.
struct Pending {
    id: DirId,
    /// Where it is on the host, without links.
    host: PathBuf,
    /// Where it is in the image.
    below: PathBuf,
    ancestors: Rc<Ancestor>,
    linked: bool,
}

struct Walk {
    root: PathBuf,
    options: Options,
    tree: Tree<Body>,
    notices: Vec<Notice>,
    problems: Vec<Problem>,
    pending: Vec<Pending>,
    linked: usize,
}

impl Walk {
    fn run(&mut self, root: &Metadata) {
        self.pending.push(Pending {
            id: DirId::ROOT,
            host: self.root.clone(),
            below: PathBuf::new(),
            ancestors: Ancestor::of(root, None),
            linked: false,
        });
        while let Some(dir) = self.pending.pop() {
            if let Err(source) = self.directory(&dir) {
                self.problems.push(Problem::Unreadable { path: dir.below, source });
            }
            if self.linked > MAX_LINKED {
                return;
            }
        }
    }

    fn directory(&mut self, dir: &Pending) -> io::Result<()> {
        for entry in fs::read_dir(&dir.host)? {
            let entry = entry?;
            let name = entry.file_name();
            self.linked += usize::from(dir.linked);
            if self.linked > MAX_LINKED {
                self.problems.push(Problem::TooManyLinked { path: dir.below.join(&name) });
                return Ok(());
            }
            match entry.metadata() {
                Ok(meta) if meta.is_symlink() => self.symlink(dir, &name),
                Ok(meta) => self.entry(dir, &name, dir.host.join(&name), &meta, dir.linked),
                Err(source) => {
                    self.problems.push(Problem::Unreadable { path: dir.below.join(&name), source });
                }
            }
        }
        Ok(())
    }

    /// Adds what is at `host` under `name`.
    fn entry(&mut self, dir: &Pending, name: &OsStr, host: PathBuf, meta: &Metadata, linked: bool) {
        let kind = meta.file_type();
        let modified = match self.options.times {
            Times::Fixed(seconds) => seconds,
            Times::Kept => meta.mtime(),
        };
        if kind.is_file() {
            let body = Body { path: host.into(), identity: Identity::of(meta) };
            self.tree.add_file(dir.id, name.as_bytes(), modified, meta.size(), body);
        } else if kind.is_dir() {
            let id = self.tree.add_dir(dir.id, name.as_bytes(), modified);
            let below = dir.below.join(name);
            let ancestors = Ancestor::of(meta, Some(dir.ancestors.clone()));
            self.pending.push(Pending { id, host, below, ancestors, linked });
        } else {
            let what = match () {
                () if kind.is_fifo() => "fifo",
                () if kind.is_socket() => "socket",
                () if kind.is_block_device() => "block device",
                () => "character device",
            };
            self.notice(dir, name, Skipped::Special(what));
        }
    }

    fn symlink(&mut self, dir: &Pending, name: &OsStr) {
        match self.options.symlinks {
            Symlinks::Follow => {}
            Symlinks::Skip => return self.notice(dir, name, Skipped::Symlink),
            Symlinks::Refuse => {
                self.problems.push(Problem::Symlink { path: dir.below.join(name) });
                return;
            }
        }
        let target = fs::canonicalize(dir.host.join(name));
        let found = target.and_then(|host| fs::symlink_metadata(&host).map(|meta| (host, meta)));
        match found {
            Ok((host, _)) if !host.starts_with(&self.root) => {
                self.notice(dir, name, Skipped::LeadsOut);
            }
            Ok((_, meta)) if meta.is_dir() && dir.ancestors.includes(&meta) => {
                self.notice(dir, name, Skipped::LeadsUp);
            }
            Ok((host, meta)) => self.entry(dir, name, host, &meta, true),
            // Circles of links, links to nothing, and links through what is no directory.
            Err(_) => self.notice(dir, name, Skipped::Dangling),
        }
    }

    fn notice(&mut self, dir: &Pending, name: &OsStr, why: Skipped) {
        self.notices.push(Notice { path: dir.below.join(name), why });
    }
}

#[cfg(test)]
mod tests;
