//! The `newc` form of cpio archives, the one that Linux unpacks as initramfs.
//!
//! An archive is a row of members and a trailer:
//!
//! | bytes | content |
//! |---|---|
//! | 6 | magic `070701`, or `070702` with a checksum |
//! | 13 × 8 | hexadecimal: ino, mode, uid, gid, nlink, mtime, size, device major and minor, rdev major and minor, length of the name with its NUL, checksum |
//! | n | name, NUL |
//! | 0–3 | zeros up to a multiple of 4 |
//! | size | body: the file's data, or the link's target |
//! | 0–3 | zeros up to a multiple of 4 |
//!
//! The trailer is a member named `TRAILER!!!`. What Linux makes of an archive is in
//! `init/initramfs.c` and in `docs/images.md`; the reader accepts what Linux accepts, the writer
//! refuses what Linux would drop without a word.
//!
//! Deliberately absent: the old binary and `odc` forms, which Linux does not read, and anything
//! that opens a file.

mod read;
mod write;

pub use read::{Input, LinkKey, Member, ReadError, Reader, Streaming};
pub use write::{
    Fields, WriteError, Writer, check_name, encode, encode_padded, encode_trailer, member_len,
};

/// Length of a member's header.
pub const HEADER_LEN: usize = 110;
/// Name of the last member.
pub const TRAILER: &[u8] = b"TRAILER!!!";
/// Longest path component that file systems take; Linux drops members with a longer one.
pub const COMPONENT_MAX: usize = 255;
/// Longest name, without its NUL; Linux skips members with a longer one (`PATH_MAX` is 4096).
pub const NAME_MAX: usize = 4095;
/// Largest body: the header has 32 bits for it.
pub const SIZE_MAX: u64 = u32::MAX as u64;

/// Bits of a mode that tell the file's type (`S_IFMT`).
pub const S_IFMT: u32 = 0o170_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// A character device.
pub const S_IFCHR: u32 = 0o020_000;
/// A block device.
pub const S_IFBLK: u32 = 0o060_000;
/// A named pipe.
pub const S_IFIFO: u32 = 0o010_000;
/// A socket.
pub const S_IFSOCK: u32 = 0o140_000;

/// `n` rounded up to a multiple of 4.
pub const fn align4(n: u64) -> u64 {
    n.saturating_add(3) & !3
}
