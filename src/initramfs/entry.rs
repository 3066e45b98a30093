//! What an image is made of: paths, entries, where their bytes come from and why they are there.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gather::closure;
use crate::formats::cpio;

/// Who asked for something, as a person would say it: `--file a:b`, `manifest vm.toml, line 12`.
pub type Request = Arc<str>;

/// Why an entry is in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was asked for by name.
    Asked(Request),
    /// It is in a tree that was asked for.
    Tree(Request),
    /// It is in a base archive.
    Base(Request),
    /// Something in the image needs it.
    Needed {
        /// What was asked for in the first place.
        by: Request,
        /// What needs it, and how.
        why: Arc<closure::Reason>,
    },
    /// It leads to a command (`--init`, `--default-sh`, `--uinit`).
    Command {
        /// Who asked for it.
        by: Request,
        /// Path of the command. The link's text is made of it when it is known where the link and
        /// the command end up.
        target: Arc<[u8]>,
    },
    /// Kernel modules need it: the list of those to load.
    ModuleList(Request),
    /// It is the directory of another entry.
    Parent,
}

impl Reason {
    /// Who asked for it; `None` for a parent directory.
    pub fn request(&self) -> Option<&Request> {
        match self {
            Reason::Asked(by) | Reason::Tree(by) | Reason::Base(by) => Some(by),
            Reason::Needed { by, .. } | Reason::Command { by, .. } | Reason::ModuleList(by) => {
                Some(by)
            }
            Reason::Parent => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Asked(by) | Reason::Command { by, .. } => f.write_str(by),
            Reason::Tree(by) => write!(f, "in the tree of {by}"),
            Reason::Base(by) => write!(f, "in {by}"),
            Reason::Needed { by, why } => write!(f, "{why}, for {by}"),
            Reason::ModuleList(by) => write!(f, "list of the modules of {by}"),
            Reason::Parent => f.write_str("directory of other entries"),
        }
    }
}

/// A path in the image shown to a person: with a leading slash, odd bytes escaped.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

/// Why a destination is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// Nothing is left after normalisation.
    #[error("it names no file")]
    Empty,
    /// It would leave the image's root, or hide where it leads.
    #[error("it has a `..`")]
    DotDot,
    /// No file system takes it.
    #[error("it has a NUL byte")]
    Nul,
    /// The archive would end there.
    #[error("the name `TRAILER!!!` ends an archive")]
    Trailer,
    /// Linux would drop it without a word.
    #[error("it has a component of {0} bytes, and Linux drops what is over {max}", max = cpio::COMPONENT_MAX)]
    Component(usize),
    /// Linux would drop it without a word.
    #[error("it has {0} bytes, and Linux drops what is over {max}", max = cpio::NAME_MAX)]
    Length(usize),
}

/// Normalises a destination: leading, trailing and double slashes and `.` go; what Linux would not
/// unpack, or would unpack elsewhere, is refused. The root comes out empty.
///
/// # Errors
/// See [`PathProblem`].
pub fn normalize(dest: &[u8]) -> Result<Vec<u8>, PathProblem> {
    let mut path = Vec::with_capacity(dest.len());
    for component in dest.split(|&b| b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(PathProblem::DotDot),
            _ => {}
        }
        if component.len() > cpio::COMPONENT_MAX {
            return Err(PathProblem::Component(component.len()));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.contains(&0) {
        Err(PathProblem::Nul)
    } else if path == cpio::TRAILER {
        Err(PathProblem::Trailer)
    } else if path.len() > cpio::NAME_MAX {
        Err(PathProblem::Length(path.len()))
    } else {
        Ok(path)
    }
}

/// The directory of a normalised path; the root is empty.
pub fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(b"", |slash| &path[..slash])
}

/// The mode that an entry made from a file of the host gets, whatever the umask was when that file
/// was made: 0755 for directories and for files that anybody may execute, 0644 for other files.
/// The set-user-id, set-group-id and sticky bits are kept, and a sticky directory is 1777, since
/// that is what the bit is for.
pub fn normal_mode(mode: u32) -> u32 {
    let special = mode & 0o7000;
    match mode & cpio::S_IFMT {
        cpio::S_IFDIR if mode & 0o1000 != 0 => special | 0o777,
        cpio::S_IFDIR => special | 0o755,
        cpio::S_IFREG if mode & 0o111 != 0 => special | 0o755,
        cpio::S_IFREG => special | 0o644,
        cpio::S_IFLNK => 0o777,
        _ => mode & 0o7777,
    }
}

/// One member of the image.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) reason: Reason,
}

/// What an entry is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its content.
        body: Body,
        /// Entries with the same number are names of one file.
        link: Option<u32>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text, any bytes but NUL.
        target: Vec<u8>,
    },
    /// A device node, a named pipe or a socket.
    Node {
        /// Which of them.
        node: Node,
        /// Major and minor number; zero for pipes and sockets.
        rdev: (u32, u32),
    },
}

/// Kinds of special files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Node {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
    /// Socket: read from base archives only.
    Socket,
}

impl Entry {
    /// Normalised path: no slash at either end.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Permission bits with set-id and sticky, without the type.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// Owner and group.
    pub fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Why it is there.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Bytes of content: a file's data or a link's text.
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File { body, .. } => body.size(),
            Kind::Symlink { target } => target.len() as u64,
            Kind::Directory | Kind::Node { .. } => 0,
        }
    }

    /// Type bits and permissions, as in a cpio header.
    pub fn type_and_mode(&self) -> u32 {
        let kind = match &self.kind {
            Kind::Directory => cpio::S_IFDIR,
            Kind::File { .. } => cpio::S_IFREG,
            Kind::Symlink { .. } => cpio::S_IFLNK,
            Kind::Node { node: Node::Char, .. } => cpio::S_IFCHR,
            Kind::Node { node: Node::Block, .. } => cpio::S_IFBLK,
            Kind::Node { node: Node::Fifo, .. } => cpio::S_IFIFO,
            Kind::Node { node: Node::Socket, .. } => cpio::S_IFSOCK,
        };
        kind | self.mode
    }
}

/// Where a file's bytes come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Body {
    /// Memory.
    Bytes(Arc<[u8]>),
    /// A file of the host.
    Host(HostFile),
    /// Part of an open file.
    Range {
        /// The file, opened for reading.
        file: Arc<File>,
        /// Where the part begins.
        offset: u64,
        /// Its length.
        size: u64,
        /// The archive that it is from.
        stamp: Stamp,
        /// Where it was there: segment, and offset of the body in the unpacked segment.
        origin: (usize, u64),
    },
}

impl Body {
    /// Bytes it has.
    pub fn size(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Host(file) => file.size,
            Body::Range { size, .. } => *size,
        }
    }
}

/// A regular file of the host, as it was when the image was planned.
#[derive(Clone, Debug)]
pub struct HostFile {
    pub(crate) path: HostPath,
    pub(crate) size: u64,
    pub(crate) stamp: Stamp,
    /// Everybody may read it.
    pub(crate) public: bool,
}

impl HostFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.path.get()
    }
}

/// A path of the host. Those in a tree share its root and take their end from the entry's path, so
/// that a million of them cost little.
#[derive(Clone, Debug)]
pub(crate) struct HostPath {
    root: Arc<Path>,
    rest: Box<[u8]>,
}

impl HostPath {
    pub(crate) fn whole(path: &Path) -> HostPath {
        HostPath { root: path.into(), rest: Box::default() }
    }

    pub(crate) fn below(root: &Arc<Path>, rest: &[u8]) -> HostPath {
        HostPath { root: root.clone(), rest: rest.into() }
    }

    /// The two parts, without putting them together.
    pub(crate) fn parts(&self) -> (&Path, &[u8]) {
        (&self.root, &self.rest)
    }

    pub(crate) fn get(&self) -> PathBuf {
        if self.rest.is_empty() {
            self.root.to_path_buf()
        } else {
            self.root.join(OsStr::from_bytes(&self.rest))
        }
    }
}

/// Identity and times of a file: equal ones mean that it did not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) mtime_ns: i128,
    /// When the inode changed: whoever sets the other time back changes this one.
    pub(crate) ctime_ns: i128,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            dev: metadata.dev(),
            ino: metadata.ino(),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            ctime_ns: i128::from(metadata.ctime()) * 1_000_000_000
                + i128::from(metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_normalised_or_refused() {
        for (given, expected) in [
            ("a/./b//c", Ok("a/b/c")),
            ("/etc/passwd/", Ok("etc/passwd")),
            ("", Ok("")),
            (".", Ok("")),
            ("../../x", Err(PathProblem::DotDot)),
            ("a/../b", Err(PathProblem::DotDot)),
            ("a\0b", Err(PathProblem::Nul)),
            ("/TRAILER!!!", Err(PathProblem::Trailer)),
        ] {
            let expected = expected.map(|path| path.as_bytes().to_vec());
            assert_eq!(normalize(given.as_bytes()), expected, "{given:?}");
        }
        assert_eq!(normalize(b"x/TRAILER!!!").unwrap(), b"x/TRAILER!!!");
        assert!(normalize(&[b'x'; 255]).is_ok());
        assert_eq!(normalize(&[b'x'; 256]), Err(PathProblem::Component(256)));
        let long = "abcdefg/".repeat(512);
        assert_eq!(normalize(long.as_bytes()).unwrap().len(), 4095);
        assert_eq!(normalize(format!("{long}x").as_bytes()), Err(PathProblem::Length(4097)));
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        for (host, image) in [
            (0o100_600, 0o644),
            (0o100_700, 0o755),
            (0o100_654, 0o755),
            (0o104_711, 0o4755),
            (0o040_700, 0o755),
            (0o041_777, 0o1777),
            (0o042_775, 0o2755),
            (0o020_600, 0o600),
        ] {
            assert_eq!(normal_mode(host), image, "{host:o}");
        }
    }

    #[test]
    fn paths_are_shown_on_one_line() {
        assert_eq!(Shown(b"a\nb\xffc \xc3\xa4").to_string(), "/a\\nb\\xffc \u{e4}");
    }
}
