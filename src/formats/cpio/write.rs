//! Members and whole archives to bytes.

use std::io::{self, Read, Write};

use super::{COMPONENT_MAX, HEADER_LEN, NAME_MAX, S_IFLNK, S_IFMT, SIZE_MAX, TRAILER, align4};

/// What a member's header says, apart from its name and the size of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Inode number: members with the same one and `nlink` over 1 are links to one file.
    pub ino: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links within the archive.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Device numbers (major, minor) of a device node.
    pub rdev: (u32, u32),
}

/// Why a member cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The empty name.
    #[error("a member needs a name")]
    EmptyName,
    /// A NUL byte ends a name early.
    #[error("name `{}` has a NUL byte", name.escape_ascii())]
    NulInName {
        /// The name.
        name: Vec<u8>,
    },
    /// The trailer's name ends the archive.
    #[error("a member must not be named `TRAILER!!!`")]
    TrailerName,
    /// Linux skips such a member.
    #[error("name of {} bytes is longer than the {NAME_MAX} that Linux takes: `{}…`", name.len(), name[..64].escape_ascii())]
    NameTooLong {
        /// The name.
        name: Vec<u8>,
    },
    /// Linux drops such a member.
    #[error("`{}` has a component of {length} bytes; file systems take {COMPONENT_MAX}", name.escape_ascii())]
    ComponentTooLong {
        /// The name.
        name: Vec<u8>,
        /// Length of the component.
        length: usize,
    },
    /// The header has 32 bits for a size.
    #[error("`{}` has {size} bytes; a cpio member holds {SIZE_MAX}", name.escape_ascii())]
    TooLarge {
        /// The name.
        name: Vec<u8>,
        /// Size of the body.
        size: u64,
    },
    /// The target would be cut at the NUL.
    #[error("target of the symbolic link `{}` has a NUL byte", name.escape_ascii())]
    NulInTarget {
        /// The name.
        name: Vec<u8>,
    },
    /// The body ended early.
    #[error("`{}` has {found} bytes instead of {expected}", name.escape_ascii())]
    Short {
        /// The name.
        name: Vec<u8>,
        /// Size in the header.
        expected: u64,
        /// Bytes there were.
        found: u64,
    },
    /// The body went on after its end.
    #[error("`{}` has more than {expected} bytes", name.escape_ascii())]
    Long {
        /// The name.
        name: Vec<u8>,
        /// Size in the header.
        expected: u64,
    },
    /// The sink failed, or the body could not be read.
    #[error("cannot copy `{}`", name.escape_ascii())]
    Io {
        /// The name.
        name: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Checks that Linux will unpack a member of this name.
///
/// # Errors
/// The rule that the name breaks.
pub fn check_name(name: &[u8]) -> Result<(), WriteError> {
    let own = || name.to_vec();
    if name.is_empty() {
        return Err(WriteError::EmptyName);
    }
    if name.contains(&0) {
        return Err(WriteError::NulInName { name: own() });
    }
    if name == TRAILER {
        return Err(WriteError::TrailerName);
    }
    if name.len() > NAME_MAX {
        return Err(WriteError::NameTooLong { name: own() });
    }
    match name.split(|&b| b == b'/').map(<[u8]>::len).max() {
        Some(length) if length > COMPONENT_MAX => {
            Err(WriteError::ComponentTooLong { name: own(), length })
        }
        _ => Ok(()),
    }
}

/// Bytes that a member takes in the archive, padding included.
pub fn member_len(name: &[u8], size: u64) -> u64 {
    align4((HEADER_LEN + name.len() + 1) as u64) + align4(size)
}

/// Appends a member's header, name and padding to `out`; the body is to follow.
///
/// # Errors
/// A name or a size that the archive cannot hold or that Linux would drop.
pub fn encode(
    out: &mut Vec<u8>,
    name: &[u8],
    fields: &Fields,
    size: u64,
) -> Result<(), WriteError> {
    encode_padded(out, name, fields, size, 0)
}

/// [`encode`] with `padding` more zeros behind the name, counted as part of it. Readers end a name at
/// its first NUL, so that this places the body anywhere.
///
/// # Errors
/// As [`encode`]; a name that is too long with its padding.
pub fn encode_padded(
    out: &mut Vec<u8>,
    name: &[u8],
    fields: &Fields,
    size: u64,
    padding: u32,
) -> Result<(), WriteError> {
    check_name(name)?;
    let Ok(size32) = u32::try_from(size) else {
        return Err(WriteError::TooLarge { name: name.to_vec(), size });
    };
    if name.len() + padding as usize > NAME_MAX {
        return Err(WriteError::NameTooLong { name: name.to_vec() });
    }
    put_header(out, name, fields, size32, padding);
    Ok(())
}

/// Appends the trailer to `out`.
pub fn encode_trailer(out: &mut Vec<u8>) {
    put_header(out, TRAILER, &Fields { nlink: 1, ..Fields::default() }, 0, 0);
}

fn put_header(out: &mut Vec<u8>, name: &[u8], fields: &Fields, size: u32, padding: u32) {
    let Fields { ino, mode, uid, gid, nlink, mtime, rdev } = *fields;
    // At most NAME_MAX + 1, so it fits.
    let name_len = name.len() as u32 + 1 + padding;
    out.reserve(HEADER_LEN + name.len() + 4);
    out.extend_from_slice(b"070701");
    // Device numbers of the file system are zero: they would only tell about the host.
    for word in [ino, mode, uid, gid, nlink, mtime, size, 0, 0, rdev.0, rdev.1, name_len, 0] {
        put_hex(out, word);
    }
    out.extend_from_slice(name);
    let zeros = align4(HEADER_LEN as u64 + u64::from(name_len)) as usize - HEADER_LEN - name.len();
    out.resize(out.len() + zeros, 0);
}

fn put_hex(out: &mut Vec<u8>, word: u32) {
    let mut digits = [0; 8];
    for (i, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789ABCDEF"[(word >> (28 - 4 * i) & 0xf) as usize];
    }
    out.extend_from_slice(&digits);
}

/// Writes an archive, member by member.
///
/// Parents must come before what is in them: Linux drops a member whose directory it has not yet
/// seen. The caller keeps that order, and numbers the inodes.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    scratch: Vec<u8>,
    position: u64,
}

impl<W: Write> Writer<W> {
    /// An archive that begins at the sink's present position.
    pub fn new(out: W) -> Writer<W> {
        Writer { out, scratch: Vec::new(), position: 0 }
    }

    /// Writes one member. `body` must have `size` bytes, neither more nor less.
    ///
    /// # Errors
    /// See [`WriteError`]. Names, sizes and targets are checked before anything is written; after
    /// any other error the archive is unusable.
    pub fn append(
        &mut self,
        name: &[u8],
        fields: &Fields,
        size: u64,
        mut body: impl Read,
    ) -> Result<(), WriteError> {
        self.scratch.clear();
        encode(&mut self.scratch, name, fields, size)?;
        let fail = |source| WriteError::Io { name: name.to_vec(), source };
        let mut target = Vec::new();
        if fields.mode & S_IFMT == S_IFLNK {
            body.by_ref().take(size).read_to_end(&mut target).map_err(fail)?;
            if target.contains(&0) {
                return Err(WriteError::NulInTarget { name: name.to_vec() });
            }
        }
        self.out.write_all(&self.scratch).map_err(fail)?;
        let mut rest = body.by_ref().take(size - (target.len() as u64).min(size));
        let copied = io::copy(&mut target.as_slice().chain(&mut rest), &mut self.out);
        let found = copied.map_err(fail)?;
        if found < size {
            return Err(WriteError::Short { name: name.to_vec(), expected: size, found });
        }
        if io::copy(&mut body.take(1), &mut io::sink()).map_err(fail)? != 0 {
            return Err(WriteError::Long { name: name.to_vec(), expected: size });
        }
        let padding = align4(size) - size;
        self.out.write_all(&[0; 3][..padding as usize]).map_err(fail)?;
        self.position += member_len(name, size);
        Ok(())
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes the trailer and gives the sink back.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> io::Result<W> {
        self.scratch.clear();
        encode_trailer(&mut self.scratch);
        self.out.write_all(&self.scratch)?;
        Ok(self.out)
    }
}
