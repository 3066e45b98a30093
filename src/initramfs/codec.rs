//! Compression in the forms that kernels unpack.
//!
//! | name | form | kernel option |
//! |---|---|---|
//! | gzip | one member | `CONFIG_RD_GZIP` |
//! | zstd | one frame, window of at most 8 MiB | `CONFIG_RD_ZSTD` |
//! | lz4 | legacy form ([`crate::formats::lz4`]) | `CONFIG_RD_LZ4` |
//! | xz | one stream, CRC32 | `CONFIG_RD_XZ` |
//! | bzip2, lzma | read only | `CONFIG_RD_BZIP2`, `CONFIG_RD_LZMA` |
//!
//! lzop is recognised and refused: nothing maintained reads it.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::str::FromStr;

use crate::formats::lz4;

/// How a segment of an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// LZ4, legacy form.
    Lz4,
    /// xz.
    Xz,
    /// LZMA alone, the form before xz.
    Lzma,
    /// bzip2.
    Bzip2,
    /// lzop.
    Lzo,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 8] = [
        Codec::None,
        Codec::Gzip,
        Codec::Zstd,
        Codec::Lz4,
        Codec::Xz,
        Codec::Lzma,
        Codec::Bzip2,
        Codec::Lzo,
    ];
    /// Those that images can be written in.
    pub const WRITABLE: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Zstd, Codec::Lz4, Codec::Xz];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
            Codec::Xz => "xz",
            Codec::Lzma => "lzma",
            Codec::Bzip2 => "bzip2",
            Codec::Lzo => "lzo",
        }
    }

    /// The kernel's option for it; `None` for uncompressed, which every kernel unpacks.
    pub fn kernel_option(self) -> Option<&'static str> {
        Some(match self {
            Codec::None => return None,
            Codec::Gzip => "CONFIG_RD_GZIP",
            Codec::Zstd => "CONFIG_RD_ZSTD",
            Codec::Lz4 => "CONFIG_RD_LZ4",
            Codec::Xz => "CONFIG_RD_XZ",
            Codec::Lzma => "CONFIG_RD_LZMA",
            Codec::Bzip2 => "CONFIG_RD_BZIP2",
            Codec::Lzo => "CONFIG_RD_LZO",
        })
    }

    /// What a segment that begins with these bytes is compressed with: the kernel's own table
    /// (`lib/decompress.c`). One byte is enough to tell them apart. `None` for something else.
    pub fn detect(start: &[u8]) -> Option<Codec> {
        Some(match start {
            [b'0', ..] => Codec::None,
            [0x1f] | [0x1f, 0x8b | 0x9e, ..] => Codec::Gzip,
            [0x28] | [0x28, 0xb5, ..] => Codec::Zstd,
            [0x02] | [0x02, 0x21, ..] => Codec::Lz4,
            [0xfd] | [0xfd, b'7', ..] => Codec::Xz,
            [0x5d] | [0x5d, 0x00, ..] => Codec::Lzma,
            [b'B'] | [b'B', b'Z', ..] => Codec::Bzip2,
            [0x89] | [0x89, b'L', ..] => Codec::Lzo,
            _ => return None,
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(text: &str) -> Result<Codec, UnknownCodec> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| UnknownCodec { given: text.to_owned() })
    }
}

/// A name that is no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression `{given}`")]
pub struct UnknownCodec {
    /// The name.
    pub given: String,
}

/// Decompresses exactly one member, frame or stream: Linux takes no more in one segment.
pub(crate) struct Decoder<R: BufRead>(Inner<R>);

enum Inner<R: BufRead> {
    Gzip(Box<flate2::bufread::GzDecoder<R>>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
    Lz4(lz4::Decoder<R>),
    Xz(liblzma::bufread::XzDecoder<R>),
    Bzip2(bzip2::bufread::BzDecoder<R>),
}

/// Memory that a foreign xz or lzma file may ask for. The kernel's own limit is what is free.
const LZMA_MEMORY_BYTES: u64 = 1 << 30;

impl<R: BufRead> Decoder<R> {
    /// A decoder for input that begins with the codec's magic. Uncompressed input and lzop have
    /// none.
    pub(crate) fn new(codec: Codec, input: R) -> io::Result<Option<Decoder<R>>> {
        use liblzma::{bufread::XzDecoder, stream::Stream};
        Ok(Some(Decoder(match codec {
            Codec::None | Codec::Lzo => return Ok(None),
            Codec::Gzip => Inner::Gzip(Box::new(flate2::bufread::GzDecoder::new(input))),
            Codec::Zstd => {
                Inner::Zstd(zstd::stream::read::Decoder::with_buffer(input)?.single_frame())
            }
            Codec::Lz4 => Inner::Lz4(lz4::Decoder::new(input)),
            Codec::Xz => Inner::Xz(XzDecoder::new_stream(
                input,
                Stream::new_stream_decoder(LZMA_MEMORY_BYTES, 0)?,
            )),
            Codec::Lzma => Inner::Xz(XzDecoder::new_stream(
                input,
                Stream::new_lzma_decoder(LZMA_MEMORY_BYTES)?,
            )),
            Codec::Bzip2 => Inner::Bzip2(bzip2::bufread::BzDecoder::new(input)),
        })))
    }

    /// The input, at the first byte that is not the decoder's.
    pub(crate) fn into_inner(self) -> R {
        match self.0 {
            Inner::Gzip(decoder) => decoder.into_inner(),
            Inner::Zstd(decoder) => decoder.finish(),
            Inner::Lz4(decoder) => decoder.into_inner(),
            Inner::Xz(decoder) => decoder.into_inner(),
            Inner::Bzip2(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Gzip(decoder) => decoder.read(buf),
            Inner::Zstd(decoder) => decoder.read(buf),
            Inner::Lz4(decoder) => decoder.read(buf),
            Inner::Xz(decoder) => decoder.read(buf),
            Inner::Bzip2(decoder) => decoder.read(buf),
        }
    }
}
