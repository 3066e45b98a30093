//! FAT file systems with long names (Linux' `vfat`), written in one pass.
//!
//! A [`Tree`] says what the image holds; [`Image::plan`] lays everything out before the first byte
//! is written, so that [`Image::write`] only goes forward and can feed a pipe. The image has no free
//! space: it is meant to be mounted read-only.
//!
//! ```text
//! MBR │ zeros │ boot sector … │ FAT │ FAT │ root │ directories │ files in the order of their paths
//! 0     512     1 MiB: the partition, `/dev/sda1`  └ chain of clusters on FAT32
//! ```
//!
//! The format is that of Microsoft's *FAT: General Overview of On-Disk Format*, version 1.03
//! (`fatgen103`), called "the specification" here, as Linux reads it (`fs/fat/`).
//!
//! | kind | clusters | used for trees of about |
//! |---|---|---|
//! | FAT12 | up to 4,084 | 16 MiB |
//! | FAT16 | up to 65,524 | 256 MiB |
//! | FAT32 | more | 2 TiB |
//!
//! The bytes depend on the tree alone: directories are sorted, the volume's serial number and label
//! are constants, and times are those given. They are stored as UTC, which is what a Linux guest
//! takes them for unless it is told a time zone.
//!
//! # Limits
//! Names are compared without case, may not contain `" * / : < > ? \ |` or control characters nor
//! end in a dot or blank, and have at most 255 UTF-16 units; files are smaller than 4 GiB; a
//! directory has at most 65,536 records (a file takes two or more). Whatever cannot be stored is
//! reported, all of it at once. Names such as `aux` and `con` are fine: only DOS and Windows
//! reserve them, Linux does not. Owners, permission bits and links have no place in this format; the
//! guest's mount options decide who may execute what.
//!
//! Mount with `utf8` (or a kernel with `CONFIG_FAT_DEFAULT_UTF8`), else names outside of ASCII do not
//! look the same in the guest.

mod layout;
mod names;
mod time;
mod write;

use std::fmt;

pub use layout::{FatKind, Image};
pub use write::WriteError;

/// Bytes of a sector. Every device QEMU shows has sectors of this size unless told otherwise.
const SECTOR: u64 = 512;

/// The greatest size of a file: its length is stored in 32 bits.
pub const MAX_FILE_BYTES: u64 = u32::MAX as u64;

/// The greatest number of 32-byte records of a directory (the specification's 2 MiB; Linux'
/// `FAT_MAX_DIR_ENTRIES`).
pub const MAX_DIR_RECORDS: u64 = 65_536;

/// The greatest image: the number of its sectors is stored in 32 bits.
const MAX_BYTES: u64 = u32::MAX as u64 * SECTOR;

/// The greatest length of a long name in UTF-16 units.
const MAX_UNITS: usize = 255;

/// The label of the volume, padded with blanks.
const LABEL: [u8; 11] = *b"VMTEST     ";

/// The volume's serial number, and the disk's in the partition table.
const SERIAL: u32 = u32::from_be_bytes(*b"vmt1");

/// Whether the file system is the whole disk or a partition of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// An MBR partition table with one partition that begins at 1 MiB: the guest's `/dev/sda1`.
    #[default]
    Partitioned,
    /// The file system begins at the first byte: the guest's `/dev/sda`.
    Whole,
}

/// A directory tree to be stored. `B` is whatever leads to the bytes of a file: they are asked for
/// when the image is written.
///
/// ```
/// use vmtest::formats::fat::{DirId, Disk, Image, Tree};
///
/// let mut tree = Tree::new();
/// let etc = tree.add_dir(DirId::ROOT, "etc", 0);
/// tree.add_file(etc, "motd", 0, 6, &b"hello\n"[..]);
/// let image = Image::plan(tree, Disk::Partitioned)?;
/// let mut bytes = Vec::new();
/// image.write(&mut bytes, |body| Ok(*body))?;
/// assert_eq!(bytes.len() as u64, image.bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tree<B> {
    /// The root first; parents always come before their children.
    nodes: Vec<Node<B>>,
}

/// A directory of the [`Tree`] that handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(u32);

impl DirId {
    /// The directory that every tree has from the start.
    pub const ROOT: DirId = DirId(0);
}

#[derive(Clone, Debug)]
struct Node<B> {
    parent: u32,
    name: Box<[u8]>,
    modified: i64,
    kind: Kind<B>,
}

#[derive(Clone, Debug)]
enum Kind<B> {
    Dir,
    File { size: u64, body: B },
}

impl<B> Default for Tree<B> {
    fn default() -> Tree<B> {
        Tree::new()
    }
}

impl<B> Tree<B> {
    /// A tree with an empty root.
    pub fn new() -> Tree<B> {
        let root = Node { parent: 0, name: Box::default(), modified: 0, kind: Kind::Dir };
        Tree { nodes: vec![root] }
    }

    /// Adds a directory to `parent`, which must come from the same tree. `name` is one component,
    /// `modified` is in seconds since 1970, UTC; times outside of 1980 to 2107 are clamped.
    ///
    /// Names are not looked at here: [`Image::plan`] reports everything that is wrong at once.
    ///
    /// # Panics
    /// When `parent` is of another tree that has more nodes than this one.
    pub fn add_dir(&mut self, parent: DirId, name: impl Into<Vec<u8>>, modified: i64) -> DirId {
        self.add(parent, name.into(), modified, Kind::Dir)
    }

    /// Adds a file of `size` bytes to `parent`; otherwise like [`Tree::add_dir`].
    pub fn add_file(
        &mut self,
        parent: DirId,
        name: impl Into<Vec<u8>>,
        modified: i64,
        size: u64,
        body: B,
    ) {
        self.add(parent, name.into(), modified, Kind::File { size, body });
    }

    fn add(&mut self, parent: DirId, name: Vec<u8>, modified: i64, kind: Kind<B>) -> DirId {
        let id = u32::try_from(self.nodes.len()).expect("2^32 nodes do not fit in memory");
        assert!(parent.0 < id, "the directory is of another tree");
        self.nodes.push(Node { parent: parent.0, name: name.into(), modified, kind });
        DirId(id)
    }

    /// The path of a node below the root, without a slash in front.
    fn path(&self, mut node: u32) -> Vec<u8> {
        let mut components: Vec<&[u8]> = Vec::new();
        while node != 0 {
            components.push(&self.nodes[node as usize].name);
            node = self.nodes[node as usize].parent;
        }
        components.reverse();
        components.join(&b'/')
    }
}

/// A tree that does not fit into a FAT file system, with every reason there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unstorable {
    /// At least one, sorted by path.
    pub problems: Vec<Problem>,
}

/// One thing that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path below the root of the tree; empty for the tree as a whole.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Why something cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The name is empty, `.` or `..`.
    #[error("is no name")]
    NoName,
    /// The name is not UTF-8, so it has no UTF-16 form.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// The name contains a character that FAT reserves.
    #[error("the name contains {}, which vfat reserves", Shown(.0.encode_utf8(&mut [0; 4]).as_bytes()))]
    Reserved(char),
    /// The name ends in a dot or blank, which vfat ignores when it looks for a name.
    #[error("the name ends in {}", if *.0 == '.' { "a dot" } else { "a blank" })]
    BadEnd(char),
    /// The name is longer than 255 UTF-16 units.
    #[error("the name has {0} UTF-16 units; vfat allows {max}", max = MAX_UNITS)]
    NameTooLong(usize),
    /// The name is that of another entry of the directory, case aside.
    #[error("is the same name as {} without regard to case", Shown(.0))]
    SameName(Vec<u8>),
    /// The file has 4 GiB or more.
    #[error("the file has {0} bytes; vfat allows {MAX_FILE_BYTES}")]
    FileTooLarge(u64),
    /// The directory has too many entries, or too long names.
    #[error("the directory needs {records} records for its {entries} names; vfat allows {limit}")]
    DirTooLarge {
        /// Number of entries.
        entries: u64,
        /// Number of 32-byte records they need.
        records: u64,
        /// The greatest number.
        limit: u64,
    },
    /// All together is more than a disk with 2^32 sectors holds.
    #[error("the tree needs {0} bytes; a partition table allows {max}", max = MAX_BYTES)]
    TotalTooLarge(u64),
}

impl Unstorable {
    /// How to fix it.
    pub fn hint(&self) -> String {
        "rename or leave out what is listed, or share the directory by 9p (`--share`), which has none of these limits"
            .to_owned()
    }
}

impl fmt::Display for Unstorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [problem] => write!(f, "cannot be stored on vfat: {problem}"),
            problems => {
                write!(f, "{} things cannot be stored on vfat:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.fault)
        } else {
            write!(f, "{}: {}", Shown(&self.path), self.fault)
        }
    }
}

/// A path in backticks, safe for a terminal: control characters and what is not UTF-8 escaped.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("`")
    }
}

#[cfg(test)]
mod tests;
