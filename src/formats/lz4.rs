//! The legacy form of LZ4 files, the only one that Linux unpacks as initramfs.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | magic `02 21 4c 18` |
//! | 4 | length of a block, compressed, little endian; again and again |
//! | n | the block: LZ4 data of at most 8 MiB |
//!
//! It has no end mark. Linux takes a length of zero as the end, so that an archive that follows
//! must come after at least four zeros; a length that is the magic begins anew.

use std::io::{self, BufRead, Read, Write};

/// The first bytes.
pub const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Bytes of a block, uncompressed; only the last one is shorter.
pub const BLOCK_BYTES: usize = 8 << 20;

/// Reads a legacy LZ4 file from its magic to its end, and not beyond.
#[derive(Debug)]
pub struct Decoder<R> {
    input: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    position: usize,
    ended: bool,
}

impl<R: BufRead> Decoder<R> {
    /// A decoder for input that begins with the magic.
    pub fn new(input: R) -> Decoder<R> {
        Decoder { input, packed: Vec::new(), block: Vec::new(), position: 0, ended: false }
    }

    /// The input, at the first byte that is not the file's.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn next_block(&mut self) -> io::Result<()> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        self.position = 0;
        self.block.clear();
        loop {
            if self.input.fill_buf()?.is_empty() {
                self.ended = true;
                return Ok(());
            }
            let mut word = [0; 4];
            self.input.read_exact(&mut word)?;
            if word == MAGIC {
                continue;
            }
            let length = u32::from_le_bytes(word) as usize;
            if length == 0 {
                self.ended = true;
                return Ok(());
            }
            if length > lz4_flex::block::get_maximum_output_size(BLOCK_BYTES) {
                return Err(damaged("an LZ4 block is longer than 8 MiB can become"));
            }
            self.packed.clear();
            // The length is foreign: memory grows with what is really there.
            self.input.by_ref().take(length as u64).read_to_end(&mut self.packed)?;
            if self.packed.len() < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.block.resize(BLOCK_BYTES, 0);
            let count = lz4_flex::block::decompress_into(&self.packed, &mut self.block)
                .map_err(|err| damaged(&format!("damaged LZ4 block: {err}")))?;
            self.block.truncate(count);
            if count > 0 {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position == self.block.len() && !self.ended {
            self.next_block()?;
        }
        let count = buf.len().min(self.block.len() - self.position);
        buf[..count].copy_from_slice(&self.block[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// Compresses one block of at most [`BLOCK_BYTES`]; the result begins with its length.
pub fn compress_block(block: &[u8]) -> Vec<u8> {
    debug_assert!(block.len() <= BLOCK_BYTES);
    let mut out = vec![0; 4 + lz4_flex::block::get_maximum_output_size(block.len())];
    // The output is as large as it can become.
    let count = lz4_flex::block::compress_into(block, &mut out[4..]).unwrap_or(0);
    out.truncate(4 + count);
    out[..4].copy_from_slice(&(count as u32).to_le_bytes());
    out
}

/// Writes the magic.
///
/// # Errors
/// Those of the sink.
pub fn write_magic(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&MAGIC)
}
