//! Console bytes as lines, whatever the chunks are, in bounded memory.

use super::prefix::{self, Prefix};
use super::text;

/// The longest piece of a line that is held, in bytes; a longer line comes in pieces.
pub const MAX_LINE_BYTES: usize = 4 << 10;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where its first byte is in everything that was fed.
    pub begin: u64,
    /// Where the byte behind its last one is.
    pub end: u64,
    /// The line's number, from 1.
    pub number: u64,
    /// What was before the message.
    pub prefix: Prefix,
    /// The message: no control characters but tabs, its indentation kept.
    pub text: String,
    /// Another message begins in the middle of this one, or its line was too long: what is behind is
    /// lost or elsewhere.
    pub torn: bool,
}

/// Cuts chunks into lines. A line feed ends one, and so does a carriage return: what a terminal would
/// overwrite was said, too.
#[derive(Clone, Debug, Default)]
pub struct LineReader {
    held: Vec<u8>,
    /// Bytes that were fed before `held`.
    position: u64,
    /// Lines that have ended.
    ended: u64,
}

impl LineReader {
    /// Takes a chunk and calls `each` for every line that ends in it.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Line)) {
        while let Some(at) = memchr::memchr2(b'\n', b'\r', bytes) {
            let is_feed = bytes[at] == b'\n';
            self.take(&bytes[..at], each);
            self.emit(false, each);
            self.position += 1;
            self.ended += u64::from(is_feed);
            bytes = &bytes[at + 1..];
        }
        self.take(bytes, each);
    }

    /// The last line, if no line break ended it.
    pub fn finish(&mut self, each: &mut impl FnMut(Line)) {
        self.emit(false, each);
    }

    fn take(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Line)) {
        while self.held.len() + bytes.len() > MAX_LINE_BYTES {
            let (now, later) = bytes.split_at(MAX_LINE_BYTES - self.held.len());
            self.held.extend_from_slice(now);
            self.emit(true, each);
            bytes = later;
        }
        self.held.extend_from_slice(bytes);
    }

    /// Gives what is held: as one message, or several where writers shared the line.
    fn emit(&mut self, torn: bool, each: &mut impl FnMut(Line)) {
        if self.held.is_empty() {
            return;
        }
        let begin = self.position;
        self.position += self.held.len() as u64;
        let cleaned = text::clean(&self.held);
        self.held.clear();
        let mut rest = cleaned.as_str();
        loop {
            let (prefix, message) = prefix::parse(rest);
            let inner = prefix::embedded(message);
            let (now, later) = message.split_at(inner.unwrap_or(message.len()));
            each(Line {
                begin,
                end: self.position,
                number: self.ended + 1,
                prefix,
                text: now.trim_end().to_owned(),
                torn: torn || inner.is_some(),
            });
            if later.is_empty() {
                break;
            }
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Line> {
        let mut reader = LineReader::default();
        let mut found = Vec::new();
        for chunk in chunks {
            reader.feed(chunk, &mut |line| found.push(line));
        }
        reader.finish(&mut |line| found.push(line));
        found
    }

    #[test]
    fn chunks_make_no_difference() {
        let log = b"one\r\n[    1.000000] two\n\nlast";
        let whole = lines(&[log]);
        let bytes: Vec<&[u8]> = log.chunks(1).collect();
        assert_eq!(lines(&bytes), whole);
        let texts: Vec<_> = whole.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(texts, [(1, "one"), (2, "two"), (4, "last")]);
        assert_eq!((whole[1].begin, whole[1].end), (5, 23));
    }

    #[test]
    fn a_kernel_message_behind_a_program_s_text_is_a_line_of_its_own() {
        let found = lines(&[b"login: [    1.000000][    T1] BUG: x\n"]);
        assert_eq!(found.len(), 2);
        assert!(!found[0].prefix.is_kernel() && found[0].torn);
        assert_eq!((found[1].text.as_str(), found[1].torn), ("BUG: x", false));
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let long = vec![b'x'; 10 << 20];
        let mut reader = LineReader::default();
        let (mut pieces, mut bytes) = (0, 0);
        reader.feed(&long, &mut |line| {
            pieces += 1;
            bytes += line.text.len();
            assert!(line.torn && line.text.len() <= MAX_LINE_BYTES);
        });
        assert!(pieces > 2000 && reader.held.capacity() <= 2 * MAX_LINE_BYTES);
        reader.finish(&mut |line| bytes += line.text.len());
        assert_eq!(bytes, 10 << 20);
    }
}
