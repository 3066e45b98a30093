//! Text of which beginning and end are kept, however much there is.

use std::collections::VecDeque;

/// Keeps the first and the last bytes of what it is given, and counts those between.
#[derive(Clone, Debug)]
pub struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    omitted: u64,
}

/// 16 KiB of the beginning, 48 KiB of the end.
impl Default for Capture {
    fn default() -> Capture {
        Capture::new(16 << 10, 48 << 10)
    }
}

impl Capture {
    /// Keeps this many bytes of the beginning and of the end.
    pub fn new(head_max: usize, tail_max: usize) -> Capture {
        Capture { head: Vec::new(), tail: VecDeque::new(), head_max, tail_max, omitted: 0 }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = (self.head_max - self.head.len()).min(bytes.len());
        let (first, rest) = match self.tail.is_empty() && self.omitted == 0 {
            true => bytes.split_at(room),
            false => (&[][..], bytes),
        };
        self.head.extend_from_slice(first);
        let (skipped, last) = rest.split_at(rest.len().saturating_sub(self.tail_max));
        let over = (self.tail.len() + last.len()).saturating_sub(self.tail_max);
        self.tail.drain(..over);
        self.tail.extend(last);
        self.omitted += (skipped.len() + over) as u64;
    }

    /// Adds a line.
    pub fn push_line(&mut self, line: &str) {
        self.push(line.as_bytes());
        self.push(b"\n");
    }

    /// Counts bytes that are not given to it.
    pub fn omit(&mut self, bytes: u64) {
        self.omitted += bytes;
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// How many bytes it was given, those that are left out included.
    pub fn total(&self) -> u64 {
        self.held() as u64 + self.omitted
    }

    /// Keeps less from now on.
    pub fn shrink(&mut self, head_max: usize, tail_max: usize) {
        if self.omitted == 0 && self.held() <= head_max + tail_max {
            return;
        }
        let mut small = Capture::new(head_max, tail_max);
        small.push(&self.head);
        small.omit(self.omitted);
        small.push(self.tail.make_contiguous());
        *self = small;
    }

    /// The text, as well as it can be read; a line says how much of the middle is left out.
    pub fn text(mut self) -> String {
        if self.omitted == 0 {
            self.head.extend(self.tail);
            return String::from_utf8_lossy(&self.head).into_owned();
        }
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(self.tail.make_contiguous());
        let newline = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
        format!("{head}{newline}[… {} bytes left out …]\n{tail}", self.omitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let mut capture = Capture::new(3, 4);
        for byte in b"abcdefghijklm" {
            capture.push(&[*byte]);
        }
        assert_eq!((capture.total(), capture.held()), (13, 7));
        assert_eq!(capture.text(), "abc\n[… 6 bytes left out …]\njklm");
        let mut whole = Capture::new(3, 4);
        whole.push(b"abcdefg");
        assert_eq!(whole.clone().text(), "abcdefg");
        whole.shrink(1, 1);
        assert_eq!(whole.text(), "a\n[… 5 bytes left out …]\ng");
    }
}
