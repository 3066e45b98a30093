//! Reads images, whoever made them: any number of segments, each compressed in its own way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::formats::cpio::{Input, Member, ReadError, Reader, S_IFLNK, Streaming};
use crate::initramfs::codec::{Codec, Decoder};
use crate::initramfs::entry::Stamp;
use crate::named_file;

/// One run of archives in an image that is compressed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the image.
    pub offset: u64,
    /// Bytes that it takes there.
    pub stored_bytes: u64,
    /// Bytes of the archives in it.
    pub bytes: u64,
    /// How it is compressed.
    pub codec: Codec,
    /// Number of members.
    pub members: usize,
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It cannot be opened or read.
    #[error("cannot read the image")]
    Io(#[source] io::Error),
    /// Damage within an uncompressed segment.
    #[error(transparent)]
    Cpio(ReadError),
    /// Damage within a compressed segment.
    #[error("in the {codec} segment at offset {offset}, unpacked")]
    Packed {
        /// Where the segment begins.
        offset: u64,
        /// Its compression.
        codec: Codec,
        /// What is wrong; its offsets are those of the unpacked bytes.
        #[source]
        source: ReadError,
    },
    /// The decompressor gave up.
    #[error("cannot unpack the {codec} segment at offset {offset}")]
    Unpack {
        /// Where the segment begins.
        offset: u64,
        /// Its compression.
        codec: Codec,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A compression that is not read.
    #[error(
        "the segment at offset {offset} is compressed with {codec}, which vmtest does not read"
    )]
    Unsupported {
        /// Where the segment begins.
        offset: u64,
        /// Its compression.
        codec: Codec,
    },
    /// Neither an archive nor a compressed one.
    #[error("no archive at offset {offset}, found `{}`", found.escape_ascii())]
    Junk {
        /// Where.
        offset: u64,
        /// The bytes there.
        found: Vec<u8>,
    },
    /// An uncompressed archive where Linux does not look for one.
    #[error(
        "the archive at offset {offset} does not begin at a multiple of 4, so that Linux ignores it"
    )]
    Unaligned {
        /// Where.
        offset: u64,
    },
    /// Bytes after the archives of a compressed segment.
    #[error("junk after the archive in the {codec} segment at offset {offset}")]
    JunkInside {
        /// Where the segment begins.
        offset: u64,
        /// Its compression.
        codec: Codec,
    },
    /// There is no archive in it.
    #[error("there is no archive in it")]
    Empty,
}

impl ArchiveError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ArchiveError::Cpio(source) | ArchiveError::Packed { source, .. } => {
                source.hint()?.to_owned()
            }
            ArchiveError::Unsupported { .. } => "unpack it with `lzop -d`".into(),
            // The magic of lz4's frames, in little endian.
            ArchiveError::Junk { found, .. } if found.starts_with(&[0x04, 0x22, 0x4d, 0x18]) => {
                "this is lz4's frame format; Linux reads what `lz4 -l` writes".into()
            }
            ArchiveError::Unaligned { .. } => {
                "put zeros between the segments, up to a multiple of 4".into()
            }
            _ => return None,
        })
    }
}

/// Where an image is read from: a file, or memory.
#[derive(Clone, Debug)]
pub enum Source {
    /// A regular file.
    File(Arc<File>),
    /// Memory.
    Bytes(Arc<[u8]>),
}

impl Source {
    /// Opens a file. What is no regular file (a pipe, `/dev/stdin`) is read to its end and kept.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open(path: &Path) -> io::Result<Source> {
        let mut file = named_file::open_stream(path)?;
        if file.metadata()?.is_file() {
            return Ok(Source::File(Arc::new(file)));
        }
        let mut spool = tempfile::tempfile()?;
        io::copy(&mut file, &mut spool)?;
        Ok(Source::File(Arc::new(spool)))
    }

    /// Identity of what is read, for the cache. Bytes in memory are told by their hash.
    pub(crate) fn stamp(&self) -> io::Result<Stamp> {
        match self {
            Source::File(file) => Ok(Stamp::of(&file.metadata()?)),
            Source::Bytes(bytes) => {
                let hash = blake3::hash(bytes);
                let hash = hash.as_bytes();
                let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| hash[at + i]));
                let (mtime_ns, ctime_ns) = (word(16).into(), word(24).into());
                Ok(Stamp { dev: word(0), ino: word(8), mtime_ns, ctime_ns })
            }
        }
    }

    /// Goes through all members in order.
    ///
    /// # Errors
    /// See [`ArchiveError`]; also what `visit` returns.
    pub fn read<E: From<ArchiveError>>(
        &self,
        mut visit: impl FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<Vec<Segment>, E> {
        match self {
            Source::Bytes(bytes) => read(&bytes[..], &mut visit),
            Source::File(file) => {
                let file = file.try_clone().map_err(ArchiveError::Io)?;
                read(FileInput::new(file).map_err(ArchiveError::Io)?, &mut visit)
            }
        }
    }
}

/// A member on its way past.
pub struct Visit<'a> {
    /// Header and name.
    pub member: Member,
    /// Index of the segment, counted by compression ([`Segment`]).
    pub segment: usize,
    /// Whether [`Member::body_offset`] is an offset in the image itself.
    pub in_place: bool,
    /// The text of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// The body; not reading it costs nothing.
    pub body: &'a mut dyn Read,
}

impl std::fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").field("member", &self.member).finish_non_exhaustive()
    }
}

fn read<R: Input, E: From<ArchiveError>>(
    mut input: R,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
) -> Result<Vec<Segment>, E> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut position = 0;
    // Archives seen so far: hard links do not reach from one to another.
    let mut archives = 0;
    loop {
        // The reader passes zeros, reads archives if there are any, and stops at anything else.
        let mut reader = Reader::at(input, position, archives);
        let index = segments.len();
        let mut first = None;
        let mut members = 0;
        while let Some(member) = reader.next_member().map_err(ArchiveError::Cpio)? {
            first.get_or_insert(member.offset);
            members += 1;
            pass(&mut reader, member, index, true, visit, &ArchiveError::Cpio)?;
        }
        let end = reader.position();
        let read_archives = reader.segments() > archives;
        archives = reader.segments();
        input = reader.rest();
        position = end;
        if read_archives {
            let offset = first.unwrap_or(end);
            let bytes = end - offset;
            segments.push(Segment {
                offset,
                stored_bytes: bytes,
                bytes,
                codec: Codec::None,
                members,
            });
        }
        let start = peek(&mut input).map_err(ArchiveError::Io)?;
        if start.is_empty() {
            break;
        }
        let offset = position;
        let codec = match Codec::detect(&start) {
            None => return Err(ArchiveError::Junk { offset, found: start }.into()),
            Some(Codec::None) => return Err(ArchiveError::Unaligned { offset }.into()),
            Some(codec) => codec,
        };
        input.expect_all();
        let unpack = |source| ArchiveError::Unpack { offset, codec, source };
        let Some(decoder) = Decoder::new(codec, Counted { input, count: 0 }).map_err(unpack)?
        else {
            return Err(ArchiveError::Unsupported { offset, codec }.into());
        };
        let unpacked = Streaming(BufReader::with_capacity(64 << 10, decoder));
        let mut reader = Reader::at(unpacked, 0, archives);
        let index = segments.len();
        let mut members = 0;
        let damaged = |source| match source {
            ReadError::Io { source, .. } => unpack(source),
            source => ArchiveError::Packed { offset, codec, source },
        };
        while let Some(member) = reader.next_member().map_err(damaged)? {
            members += 1;
            pass(&mut reader, member, index, false, visit, &damaged)?;
        }
        archives = reader.segments();
        let bytes = reader.position();
        let mut unpacked = reader.rest();
        // The decoder must see its own end, or the input would not stand behind it.
        if io::copy(&mut unpacked, &mut io::sink()).map_err(unpack)? != 0 {
            return Err(ArchiveError::JunkInside { offset, codec }.into());
        }
        let counted = unpacked.0.into_inner().into_inner();
        input = counted.input;
        position += counted.count;
        let stored_bytes = counted.count;
        segments.push(Segment { offset, stored_bytes, bytes, codec, members });
    }
    if segments.is_empty() {
        return Err(ArchiveError::Empty.into());
    }
    Ok(segments)
}

fn pass<R: Input, E: From<ArchiveError>>(
    reader: &mut Reader<R>,
    member: Member,
    segment: usize,
    in_place: bool,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    fail: &dyn Fn(ReadError) -> ArchiveError,
) -> Result<(), E> {
    let target = match member.file_type() {
        S_IFLNK => Some(reader.link_target().map_err(fail)?),
        _ => None,
    };
    visit(Visit { member, segment, in_place, target, body: &mut reader.body() })
}

/// The next bytes, at most 6, without taking them; fewer only at the end or where the buffer ends.
fn peek(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let buffer = input.fill_buf()?;
    Ok(buffer[..buffer.len().min(6)].to_vec())
}

/// Counts what a decoder takes.
struct Counted<R> {
    input: R,
    count: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.count += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        self.count += amount as u64;
        self.input.consume(amount);
    }
}

/// A file from its start, whatever its position. Bodies are passed over without reading them.
#[derive(Debug)]
struct FileInput {
    file: File,
    /// Small: after each body that is passed over it is filled for one header.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Offset of the first byte behind the buffer.
    position: u64,
    length: u64,
}

impl FileInput {
    /// Reads a regular file.
    fn new(file: File) -> io::Result<FileInput> {
        let length = file.metadata()?.len();
        let buffer = vec![0; 1024].into_boxed_slice();
        Ok(FileInput { file, buffer, start: 0, end: 0, position: 0, length })
    }
}

impl Read for FileInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buf.len() >= self.buffer.len() {
            let count = self.file.read_at(buf, self.position)?;
            self.position += count as u64;
            return Ok(count);
        }
        let available = self.fill_buf()?;
        let count = available.len().min(buf.len());
        buf[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for FileInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = self.file.read_at(&mut self.buffer, self.position)?;
            self.position += self.end as u64;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = (self.start + amount).min(self.end);
    }
}

impl Input for FileInput {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let buffered = (self.end - self.start) as u64;
        if count <= buffered {
            self.start += count as usize;
            return Ok(count);
        }
        // No further than the end, or nobody would notice that the archive was cut off.
        let left = self.length.saturating_sub(self.position);
        let beyond = (count - buffered).min(left);
        (self.start, self.end) = (0, 0);
        self.position += beyond;
        Ok(buffered + beyond)
    }

    fn expect_all(&mut self) {
        if self.buffer.len() < 64 << 10 {
            let mut larger = vec![0; 64 << 10];
            let rest = self.end - self.start;
            larger[..rest].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = larger.into_boxed_slice();
            (self.start, self.end) = (0, rest);
        }
    }
}
