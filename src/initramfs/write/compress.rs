//! Writes compressed images, in forms that kernels unpack, the same on every machine.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use super::blocks::Blocks;
use crate::formats::lz4;
use crate::initramfs::codec::Codec;

/// A compression with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    codec: Codec,
    level: u32,
}

/// Why a compression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// No such name.
    #[error("unknown compression `{given}`")]
    Unknown {
        /// The name.
        given: String,
    },
    /// A form that is only read.
    #[error("images are not written in {0}")]
    ReadOnly(Codec),
    /// No such level.
    #[error("{codec} has no level `{given}`")]
    Level {
        /// The compression.
        codec: Codec,
        /// The level.
        given: String,
    },
}

impl CompressionError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            CompressionError::Level { codec, .. } => match levels(*codec) {
                Some((first, last, default)) => {
                    format!("its levels are {first} to {last}; without one it is {default}")
                }
                None => format!("{codec} has no levels"),
            },
            _ => {
                let names: Vec<_> = Codec::WRITABLE.iter().map(|codec| codec.name()).collect();
                format!("use one of {}", names.join(", "))
            }
        }
    }
}

/// First, last and default level. zstd's levels above 19 need a window that the kernel does not
/// allocate.
fn levels(codec: Codec) -> Option<(u32, u32, u32)> {
    match codec {
        Codec::Gzip => Some((1, 9, 6)),
        Codec::Zstd => Some((1, 19, 3)),
        Codec::Xz => Some((0, 9, 6)),
        _ => None,
    }
}

impl Compression {
    /// No compression: best for an image that is booted where it was made.
    pub const NONE: Compression = Compression { codec: Codec::None, level: 0 };

    /// A compression; `None` takes its default level.
    ///
    /// # Errors
    /// A form that is only read, or a level that it does not have.
    pub fn new(codec: Codec, level: Option<u32>) -> Result<Compression, CompressionError> {
        if !Codec::WRITABLE.contains(&codec) {
            return Err(CompressionError::ReadOnly(codec));
        }
        let level = match (levels(codec), level) {
            (None, None) => 0,
            (Some((.., default)), None) => default,
            (Some((first, last, _)), Some(level)) if (first..=last).contains(&level) => level,
            (_, Some(level)) => {
                return Err(CompressionError::Level { codec, given: level.to_string() });
            }
        };
        Ok(Compression { codec, level })
    }

    /// How it compresses.
    pub fn codec(self) -> Codec {
        self.codec
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match levels(self.codec) {
            Some(_) => write!(f, "{}:{}", self.codec, self.level),
            None => write!(f, "{}", self.codec),
        }
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    /// `zstd`, `zstd:19`.
    fn from_str(text: &str) -> Result<Compression, CompressionError> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let codec =
            name.parse().map_err(|_| CompressionError::Unknown { given: name.to_owned() })?;
        let parse = |level: &str| {
            let error = CompressionError::Level { codec, given: level.to_owned() };
            level.parse().map_err(|_| error)
        };
        Compression::new(codec, level.map(parse).transpose()?)
    }
}

/// Bytes of a gzip block: large enough that the threads' hand-over does not show.
const GZIP_BLOCK_BYTES: usize = 512 << 10;
/// How far back deflate refers.
const DEFLATE_WINDOW_BYTES: usize = 32 << 10;
/// Uncompressed bytes that one thread compresses with xz: as `xz -T` at level 6.
const XZ_BLOCK_BYTES: u64 = 24 << 20;

/// Compresses what is written to it.
pub struct Encoder<W: Write>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(Blocks<W, flate2::Crc>, Arc<Mutex<flate2::Crc>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Lz4(Blocks<W, ()>),
    Xz(liblzma::write::XzEncoder<W>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// An encoder with as many threads as the machine has processors.
    ///
    /// # Errors
    /// Those of the sink, and lack of memory.
    pub fn new(compression: Compression, out: W) -> io::Result<Encoder<W>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Encoder::with_threads(compression, out, threads)
    }

    /// An encoder with this many threads. The result does not depend on their number.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn with_threads(
        compression: Compression,
        mut out: W,
        threads: usize,
    ) -> io::Result<Encoder<W>> {
        let threads = threads.max(1);
        let level = compression.level;
        Ok(Encoder(match compression.codec {
            Codec::Gzip => {
                // Deflate, no name, no time, made under Unix.
                out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])?;
                let crc = Arc::new(Mutex::new(flate2::Crc::new()));
                let total = crc.clone();
                let blocks = Blocks::new(
                    out,
                    GZIP_BLOCK_BYTES,
                    DEFLATE_WINDOW_BYTES,
                    threads,
                    move |job| deflate(&job.before, &job.data, job.last, level),
                    move |block| {
                        total.lock().unwrap_or_else(PoisonError::into_inner).combine(block);
                    },
                );
                Inner::Gzip(blocks, crc)
            }
            Codec::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level as i32)?;
                // Also with one thread: the form differs from that without threads.
                encoder.multithread(threads as u32)?;
                Inner::Zstd(encoder)
            }
            Codec::Lz4 => {
                lz4::write_magic(&mut out)?;
                let work = |job: &super::blocks::Job| Ok((lz4::compress_block(&job.data), ()));
                Inner::Lz4(Blocks::new(out, lz4::BLOCK_BYTES, 0, threads, work, |()| {}))
            }
            Codec::Xz => {
                let stream = liblzma::stream::MtStreamBuilder::new()
                    .threads(threads as u32)
                    .preset(level)
                    .check(liblzma::stream::Check::Crc32)
                    .block_size(XZ_BLOCK_BYTES)
                    .encoder()?;
                Inner::Xz(liblzma::write::XzEncoder::new_stream(out, stream))
            }
            _ => Inner::None(out),
        }))
    }

    /// Writes what is left and gives the sink back.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::None(out) => Ok(out),
            Inner::Gzip(blocks, crc) => {
                let mut out = blocks.finish(true)?;
                let crc = crc.lock().unwrap_or_else(PoisonError::into_inner);
                out.write_all(&crc.sum().to_le_bytes())?;
                out.write_all(&crc.amount().to_le_bytes())?;
                Ok(out)
            }
            Inner::Zstd(encoder) => encoder.finish(),
            Inner::Lz4(blocks) => blocks.finish(false),
            Inner::Xz(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(out) => out.write(buf),
            Inner::Gzip(blocks, _) => blocks.write(buf),
            Inner::Zstd(encoder) => encoder.write(buf),
            Inner::Lz4(blocks) => blocks.write(buf),
            Inner::Xz(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::None(out) => out.flush(),
            Inner::Gzip(blocks, _) => blocks.flush(),
            Inner::Zstd(encoder) => encoder.flush(),
            Inner::Lz4(blocks) => blocks.flush(),
            Inner::Xz(encoder) => encoder.flush(),
        }
    }
}

/// One block of a gzip member: it ends at a byte, so that the next one can be appended.
fn deflate(
    before: &[u8],
    data: &[u8],
    last: bool,
    level: u32,
) -> io::Result<(Vec<u8>, flate2::Crc)> {
    let mut compress = flate2::Compress::new(flate2::Compression::new(level), false);
    if !before.is_empty() {
        compress.set_dictionary(before).map_err(io::Error::other)?;
    }
    let flush = if last { flate2::FlushCompress::Finish } else { flate2::FlushCompress::Sync };
    let mut out = Vec::with_capacity(data.len() / 2 + 64);
    loop {
        let taken = compress.total_in() as usize;
        let status = compress.compress_vec(&data[taken..], &mut out, flush);
        let status = status.map_err(io::Error::other)?;
        let all = compress.total_in() as usize == data.len();
        let room = out.len() < out.capacity();
        // Room that is left after a flush means that nothing is left inside.
        if status == flate2::Status::StreamEnd || (!last && all && room) {
            break;
        }
        out.reserve(data.len() / 4 + 64);
    }
    let mut crc = flate2::Crc::new();
    crc.update(data);
    Ok((out, crc))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::initramfs::codec::Decoder;

    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..len)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i % 3 == 0 { (state >> 24) as u8 } else { (i / 1000) as u8 }
            })
            .collect()
    }

    fn pack(compression: Compression, data: &[u8], threads: usize) -> Vec<u8> {
        let mut encoder = Encoder::with_threads(compression, Vec::new(), threads).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_is_read_back_and_does_not_depend_on_the_number_of_threads() {
        for codec in Codec::WRITABLE.into_iter().filter(|codec| *codec != Codec::None) {
            let compression = Compression::new(codec, None).unwrap();
            for len in [0, 1, 100, GZIP_BLOCK_BYTES, GZIP_BLOCK_BYTES + 1, 9 << 20] {
                let data = sample(len);
                let packed = pack(compression, &data, 1);
                assert!(packed == pack(compression, &data, 3), "{codec}, {len} bytes");
                assert_eq!(Codec::detect(&packed), Some(codec));
                let mut decoder = Decoder::new(codec, &packed[..]).unwrap().unwrap();
                let mut unpacked = Vec::new();
                decoder.read_to_end(&mut unpacked).unwrap();
                assert!(unpacked == data, "{codec}, {len} bytes");
            }
        }
    }

    #[test]
    fn a_sink_that_fails_is_an_error_each_time_and_no_reason_to_wait() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for codec in [Codec::Gzip, Codec::Lz4] {
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let compression = Compression::new(codec, None).unwrap();
                let mut encoder = Encoder::with_threads(compression, Full(64), 2).unwrap();
                let data = sample(9 << 20);
                // Whoever does not look at the errors must not be caught here.
                let errors = (0..9).filter(|_| encoder.write_all(&data).is_err()).count();
                let _ = sender.send((errors, encoder.finish().is_err()));
            });
            let (errors, at_end) =
                receiver.recv_timeout(std::time::Duration::from_secs(300)).expect("it hangs");
            assert!(errors > 2 && at_end, "{codec}: {errors}");
        }
    }

    #[test]
    fn names_and_levels_are_checked() {
        assert_eq!("zstd".parse::<Compression>().unwrap().to_string(), "zstd:3");
        assert_eq!("xz:0".parse::<Compression>().unwrap().to_string(), "xz:0");
        assert_eq!("none".parse::<Compression>().unwrap(), Compression::NONE);
        for wrong in ["zst", "zstd:20", "zstd:", "lz4:9", "gzip:0", "bzip2", "none:1"] {
            assert!(!wrong.parse::<Compression>().unwrap_err().hint().is_empty(), "{wrong}");
        }
    }
}
