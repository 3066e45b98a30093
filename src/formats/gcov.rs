//! What the heads of `.gcno` and `.gcda` files say, and whether a `.gcda` file is whole.
//!
//! Both begin with a magic number, the compiler's version and a stamp that the two files of an object
//! share; records of a tag, a length and data follow. Lengths are in words up to gcc 11 and in
//! bytes since gcc 12; clang writes the format of gcc 4.8. gcov itself reads a file that was cut at a
//! record without a word, and clang's gives up on all files after a bad one: so they are looked at
//! first. References: `gcov-io.h` of gcc, `GCOV.h` of LLVM.

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Counters or notes.
    pub kind: FileKind,
    /// Which compiler wrote it.
    pub writer: Writer,
    /// Equal in an object's notes and its counters.
    pub stamp: u32,
    big_endian: bool,
}

/// Counters or notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `.gcda`: how often what ran.
    Counters,
    /// `.gcno`: what the counters mean.
    Notes,
}

/// The compiler that wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writer {
    /// gcc, with its major version.
    Gcc(u32),
    /// clang, which calls itself gcc 4.
    Clang,
}

impl std::fmt::Display for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Writer::Gcc(major) => write!(f, "gcc {major}"),
            Writer::Clang => f.write_str("clang"),
        }
    }
}

/// How a file of counters ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the mark that programs write; a kernel writes none.
    Marked,
    /// After a record.
    Unmarked,
    /// Inside a record.
    Cut,
}

/// Reads the first 12 bytes; `None` if they are not gcov's.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let (kind, big_endian) = match bytes.get(..4)? {
        b"adcg" => (FileKind::Counters, false),
        b"gcda" => (FileKind::Counters, true),
        b"oncg" => (FileKind::Notes, false),
        b"gcno" => (FileKind::Notes, true),
        _ => return None,
    };
    let version = word(bytes, 4, big_endian)?.to_be_bytes();
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let writer = match version[0] {
        b'0'..=b'9' => Writer::Clang,
        tens @ b'A'..=b'Z' => Writer::Gcc(u32::from(tens - b'A') * 10 + digit(version[1])?),
        _ => return None,
    };
    Some(Head { kind, writer, stamp: word(bytes, 8, big_endian)?, big_endian })
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
}

impl Head {
    /// How a file of counters with this head ends.
    pub fn end(&self, bytes: &[u8]) -> End {
        let bytes_long = matches!(self.writer, Writer::Gcc(12..));
        // gcc 12 has the object's checksum after the stamp.
        let mut at = if bytes_long { 16 } else { 12 };
        while at < bytes.len() {
            let Some(tag) = word(bytes, at, self.big_endian) else { return End::Cut };
            if tag == 0 {
                return End::Marked;
            }
            let Some(length) = word(bytes, at + 4, self.big_endian) else { return End::Cut };
            // A negative length: so many counters, all of them zero and not written.
            let length = if length.cast_signed() < 0 { 0 } else { length as usize };
            let length = if bytes_long { length } else { length.saturating_mul(4) };
            at = match at.checked_add(8 + length) {
                Some(next) if next <= bytes.len() => next,
                _ => return End::Cut,
            };
        }
        if at == bytes.len() { End::Unmarked } else { End::Cut }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of gcc 12: head, one function, two counters, the mark.
    fn gcc12() -> Vec<u8> {
        let mut bytes = b"adcg*22B".to_vec();
        let words = [7u32, 0, 0x0100_0000, 12, 1, 2, 3, 0x01a1_0000, 16, 9, 0, 8, 0, 0];
        words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes
    }

    #[test]
    fn heads_tell_compiler_and_stamp() {
        let bytes = gcc12();
        let head = head(&bytes).unwrap();
        assert_eq!((head.kind, head.writer), (FileKind::Counters, Writer::Gcc(12)));
        assert_eq!(head.stamp, 7);
        let clang = super::head(b"oncg*804\x01\0\0\0").unwrap();
        assert_eq!((clang.kind, clang.writer), (FileKind::Notes, Writer::Clang));
        let big = super::head(b"gcdaA93*\0\0\0\x05").unwrap();
        assert_eq!((big.writer, big.stamp), (Writer::Gcc(9), 5));
        for foreign in [&b""[..], b"\x7fELF*22B\0\0\0\0", b"adcg*22B", b"adcg\0\0\0\0\0\0\0\0"] {
            assert_eq!(super::head(foreign), None);
        }
    }

    #[test]
    fn a_cut_file_is_noticed() {
        let bytes = gcc12();
        let head = head(&bytes).unwrap();
        assert_eq!(head.end(&bytes), End::Marked);
        for length in 12..bytes.len() {
            let end = head.end(&bytes[..length]);
            assert_ne!(end, End::Marked, "{length}");
            // After the head, the function, and the counters.
            assert_eq!(end == End::Unmarked, [16, 36, 60].contains(&length), "{length}");
        }
    }

    #[test]
    fn counters_that_are_zero_are_not_there() {
        let mut bytes = b"adcg*22B".to_vec();
        for word in [7u32, 0, 0x01a1_0000, (-16i32).cast_unsigned(), 0] {
            bytes.extend(word.to_le_bytes());
        }
        assert_eq!(head(&bytes).unwrap().end(&bytes), End::Marked);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(head) = head(&bytes) {
                head.end(&bytes);
            }
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"adcg*22B");
                if let Some(head) = head(&bytes) {
                    head.end(&bytes);
                }
            }
        }
    }
}
