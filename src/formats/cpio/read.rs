//! Archives to members, as Linux reads them.

use std::io::{self, BufRead, Read};

use super::{HEADER_LEN, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, TRAILER, align4};

/// Longest name that is read, with its NUL. Linux skips members whose name is longer (`PATH_MAX`).
const NAME_LEN_MAX: u32 = 4096;

/// Where an archive is read from.
pub trait Input: BufRead {
    /// Passes over `count` bytes and tells how many of them there were.
    ///
    /// # Errors
    /// Those of reading.
    fn skip(&mut self, count: u64) -> io::Result<u64>
    where
        Self: Sized,
    {
        io::copy(&mut self.by_ref().take(count), &mut io::sink())
    }

    /// Says that what follows will be read without a gap.
    fn expect_all(&mut self) {}
}

impl Input for &[u8] {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.len());
        *self = &self[count..];
        Ok(count as u64)
    }
}

/// Any buffered reader as [`Input`].
#[derive(Debug)]
pub struct Streaming<R>(pub R);

impl<R: BufRead> Read for Streaming<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: BufRead> BufRead for Streaming<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl<R: BufRead> Input for Streaming<R> {}

/// What members that are links to one file have in common: archive, device and inode number.
pub type LinkKey = (u32, (u32, u32), u32);

/// A member's header and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where the header begins, counted from the reader's start.
    pub offset: u64,
    /// Where the body begins.
    pub body_offset: u64,
    /// Which of the archives that follow each other it is in, from 0.
    pub segment: u32,
    /// Name up to its first NUL, as written: it may begin with `/` or `./`.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Length of the body.
    pub size: u32,
    /// Device of the file system (major, minor); part of a hard link's identity.
    pub dev: (u32, u32),
    /// Device numbers of a device node.
    pub rdev: (u32, u32),
    /// Sum of the body's bytes where the magic is `070702`.
    pub checksum: Option<u32>,
}

impl Member {
    /// The type bits of the mode.
    pub fn file_type(&self) -> u32 {
        self.mode & S_IFMT
    }

    /// What members that are links to one file have in common. `None` for a file with one name.
    pub fn link_key(&self) -> Option<LinkKey> {
        (self.nlink > 1 && self.file_type() != S_IFDIR).then_some((
            self.segment,
            self.dev,
            self.ino,
        ))
    }

    /// Why Linux passes over this member without a word, where it does.
    pub fn ignored_by_linux(&self) -> Option<&'static str> {
        match self.file_type() {
            S_IFREG => None,
            S_IFLNK if self.size > 4096 => Some("the link's target is longer than 4096 bytes"),
            S_IFLNK if self.size == 0 => Some("the link has no target"),
            S_IFLNK => None,
            _ if self.size > 0 => Some("only files and links may have a body"),
            _ => None,
        }
    }
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The archive ends within a member.
    #[error("the archive is cut off: it ends at offset {end} within the member at offset {offset}")]
    Truncated {
        /// Where the member begins.
        offset: u64,
        /// Where the input ends.
        end: u64,
    },
    /// One of the forms that Linux does not read.
    #[error("old cpio format at offset {offset}")]
    OldFormat {
        /// Where.
        offset: u64,
    },
    /// Something else than a member.
    #[error("no cpio magic at offset {offset}, found `{}`", found.escape_ascii())]
    Magic {
        /// Where.
        offset: u64,
        /// The bytes there.
        found: Vec<u8>,
    },
    /// A number with other characters than hexadecimal digits.
    #[error("header at offset {offset} has the field {field} `{}`", value.escape_ascii())]
    Field {
        /// Where the header begins.
        offset: u64,
        /// Name of the field.
        field: &'static str,
        /// Its characters.
        value: [u8; 8],
    },
    /// Linux skips such a member.
    #[error(
        "member at offset {offset} has a name of {length} bytes; Linux takes 1 to {NAME_LEN_MAX} with the NUL"
    )]
    NameLength {
        /// Where the header begins.
        offset: u64,
        /// The length in the header.
        length: u32,
    },
    /// The name's last byte is not NUL.
    #[error("member at offset {offset} has a name that does not end in NUL")]
    NameEnd {
        /// Where the header begins.
        offset: u64,
    },
    /// The body's bytes do not add up to the header's sum.
    #[error("member at offset {offset} has the checksum {found:#x} instead of {expected:#x}")]
    Checksum {
        /// Where the header begins.
        offset: u64,
        /// What the header says.
        expected: u32,
        /// What the body has.
        found: u32,
    },
    /// The input failed.
    #[error("cannot read the archive at offset {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// How to fix it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ReadError::OldFormat { .. } => Some("make it with `cpio -H newc`"),
            _ => None,
        }
    }
}

/// Reads archives that follow each other, member by member, in bounded memory.
///
/// It ends where Linux ends the uncompressed part: at the end of the input, or at the first byte
/// after a trailer that is neither zero nor the beginning of an aligned header ([`Reader::rest`]).
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Offset of the input's next byte.
    position: u64,
    segment: u32,
    /// End of the present member's body, with its padding.
    member_end: u64,
    body_end: u64,
    member_offset: u64,
    /// Members were read since the last trailer.
    in_segment: bool,
    checksum: Option<(u32, u32)>,
}

impl<R: Input> Reader<R> {
    /// A reader whose input begins with a header or with zeros.
    pub fn new(input: R) -> Reader<R> {
        Reader::at(input, 0, 0)
    }

    /// A reader whose input begins at `position` of some larger file, after `segment` archives.
    /// The alignment of headers and the offsets in errors are counted from that file's start.
    pub fn at(input: R, position: u64, segment: u32) -> Reader<R> {
        Reader {
            input,
            position,
            segment,
            member_end: position,
            body_end: position,
            member_offset: position,
            in_segment: false,
            checksum: None,
        }
    }

    /// The next member, or `None` at the end.
    ///
    /// What is left of the present member's body is passed over.
    ///
    /// # Errors
    /// See [`ReadError`]. Reading cannot go on after one.
    pub fn next_member(&mut self) -> Result<Option<Member>, ReadError> {
        self.skip_to(self.member_end)?;
        loop {
            if !self.find_header()? {
                // Linux takes an archive without trailer.
                self.segment += u32::from(std::mem::take(&mut self.in_segment));
                return Ok(None);
            }
            let member = self.header()?;
            if member.name != TRAILER {
                self.in_segment = true;
                return Ok(Some(member));
            }
            self.skip_to(self.member_end)?;
            self.in_segment = false;
            self.segment += 1;
        }
    }

    /// The target of the symbolic link whose member was returned last, without the NUL that some
    /// writers end it with.
    ///
    /// # Errors
    /// A cut off archive, and those of the input.
    pub fn link_target(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut target = Vec::new();
        let limit = (self.body_end - self.position.min(self.body_end)).min(4096);
        let offset = self.position;
        self.body()
            .take(limit)
            .read_to_end(&mut target)
            .map_err(|source| ReadError::Io { offset, source })?;
        if (target.len() as u64) < limit {
            return Err(self.truncated());
        }
        if let Some(end) = target.iter().position(|&b| b == 0) {
            target.truncate(end);
        }
        Ok(target)
    }

    /// The body of the member returned last. Its reader ends early where the archive is cut off:
    /// the next call of [`Reader::next_member`] says so.
    pub fn body(&mut self) -> impl Read + '_ {
        Body { reader: self }
    }

    /// Where the reader stands: after the last member, the offset of what follows the archives.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number of archives read to their end.
    pub fn segments(&self) -> u32 {
        self.segment
    }

    /// The input, at [`Reader::position`], after the last member.
    pub fn rest(self) -> R {
        self.input
    }

    fn peek(&mut self) -> Result<&[u8], ReadError> {
        let offset = self.position;
        self.input.fill_buf().map_err(|source| ReadError::Io { offset, source })
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.position += count as u64;
    }

    /// Passes zeros, which Linux takes before any header; tells whether an aligned one follows.
    fn find_header(&mut self) -> Result<bool, ReadError> {
        loop {
            let buffer = self.peek()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            match buffer.iter().position(|&b| b != 0) {
                None => {
                    let zeros = buffer.len();
                    self.consume(zeros);
                }
                Some(zeros) => {
                    let first = buffer[zeros];
                    self.consume(zeros);
                    return Ok(first == b'0' && self.position.is_multiple_of(4));
                }
            }
        }
    }

    fn truncated(&self) -> ReadError {
        ReadError::Truncated { offset: self.member_offset, end: self.position }
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let available = self.peek()?;
            if available.is_empty() {
                return Err(self.truncated());
            }
            let count = available.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&available[..count]);
            self.consume(count);
            filled += count;
        }
        Ok(())
    }

    fn skip_to(&mut self, end: u64) -> Result<(), ReadError> {
        if let Some((expected, found)) = self.checksum.take()
            && self.position == self.body_end
            && expected != found
        {
            return Err(ReadError::Checksum { offset: self.member_offset, expected, found });
        }
        let count = end.saturating_sub(self.position);
        if count > 0 {
            let offset = self.position;
            let skipped =
                self.input.skip(count).map_err(|source| ReadError::Io { offset, source })?;
            self.position += skipped;
            // The padding after the last body may be missing: Linux does not need it.
            if self.position < self.body_end {
                return Err(self.truncated());
            }
        }
        Ok(())
    }

    fn header(&mut self) -> Result<Member, ReadError> {
        let offset = self.position;
        self.member_offset = offset;
        let mut raw = [0; HEADER_LEN];
        let mut magic = [0; 6];
        self.exact(&mut magic)?;
        let checked = match &magic {
            b"070701" => false,
            b"070702" => true,
            b"070707" => return Err(ReadError::OldFormat { offset }),
            _ => return Err(ReadError::Magic { offset, found: magic.to_vec() }),
        };
        self.exact(&mut raw[6..])?;
        let mut words = [0u32; 13];
        const NAMES: [&str; 13] = [
            "ino",
            "mode",
            "uid",
            "gid",
            "nlink",
            "mtime",
            "size",
            "device major",
            "device minor",
            "rdev major",
            "rdev minor",
            "name length",
            "checksum",
        ];
        for (i, word) in words.iter_mut().enumerate() {
            let value: [u8; 8] = std::array::from_fn(|k| raw[6 + 8 * i + k]);
            *word = hex(&value).ok_or(ReadError::Field { offset, field: NAMES[i], value })?;
        }
        let [ino, mode, uid, gid, nlink, mtime, size, dev0, dev1, rdev0, rdev1, length, sum] =
            words;
        if !(1..=NAME_LEN_MAX).contains(&length) {
            return Err(ReadError::NameLength { offset, length });
        }
        let mut name = vec![0; length as usize];
        self.exact(&mut name)?;
        let Some(end) = name.iter().position(|&b| b == 0) else {
            return Err(ReadError::NameEnd { offset });
        };
        if name.last() != Some(&0) {
            return Err(ReadError::NameEnd { offset });
        }
        name.truncate(end);
        let body_offset = align4(self.position);
        if size > 0 {
            self.body_end = self.position;
            self.skip_to(body_offset)?;
            if self.position < body_offset {
                return Err(self.truncated());
            }
        }
        self.body_end = if size > 0 { body_offset + u64::from(size) } else { self.position };
        self.member_end = align4(body_offset + u64::from(size));
        let checksum = checked.then_some(sum);
        self.checksum = checksum.map(|sum| (sum, 0));
        Ok(Member {
            offset,
            body_offset,
            segment: self.segment,
            name,
            ino,
            mode,
            uid,
            gid,
            nlink,
            mtime,
            size,
            dev: (dev0, dev1),
            rdev: (rdev0, rdev1),
            checksum,
        })
    }
}

/// Eight hexadecimal digits of either case. Linux reads what it can and ignores the rest; a sign or
/// a blank there has only ever been damage.
fn hex(digits: &[u8; 8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, &digit| Some(value << 4 | (digit as char).to_digit(16)?))
}

struct Body<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Input> Read for Body<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let reader = &mut *self.reader;
        let left = reader.body_end.saturating_sub(reader.position);
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let count = reader.input.read(&mut buf[..limit])?;
        reader.position += count as u64;
        if let Some((_, found)) = &mut reader.checksum {
            for &byte in &buf[..count] {
                *found = found.wrapping_add(u32::from(byte));
            }
        }
        Ok(count)
    }
}
