//! The guest's console on the user's terminal: text, and nothing that moves a cursor or asks questions.
//!
//! Firmware clears screens, and a guest may be hostile: a terminal answers some sequences as if its user had
//! typed. A file or a pipe gets every byte.

use std::io::{self, Write};

const ESCAPE: u8 = 0x1b;

/// Passes text on, and leaves out escape sequences (ECMA-48) and control characters but newline and tab.
pub(crate) struct Plain<W> {
    inner: W,
    state: State,
}

/// Where in a sequence the last byte has left us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// Behind ESC.
    Escape,
    /// In `ESC [ …`, up to its last byte.
    Control,
    /// In `ESC ] …` and its like, up to BEL or `ESC \\`.
    String,
    /// Behind the first byte of a control character in UTF-8 (U+0080 to U+009F), or of another one.
    Upper,
}

impl<W: Write> Plain<W> {
    pub(crate) fn new(inner: W) -> Plain<W> {
        Plain { inner, state: State::Text }
    }
}

impl State {
    /// The next state, and whether this byte is shown; `Upper` is decided with the byte behind it.
    fn next(self, byte: u8) -> (State, bool) {
        match (self, byte) {
            (State::String, 0x07) => (State::Text, false),
            (_, ESCAPE) => (State::Escape, false),
            (State::String, _) => (State::String, false),
            (State::Escape, b'[') => (State::Control, false),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => (State::String, false),
            // Intermediate bytes, before the one that ends it.
            (State::Escape, 0x20..=0x2f) => (State::Escape, false),
            (State::Escape, _) => (State::Text, false),
            (State::Control, 0x20..=0x3f) => (State::Control, false),
            (State::Control, 0x40..=0x7e) => (State::Text, false),
            (State::Text, 0xc2) => (State::Upper, false),
            (_, b'\n' | b'\t') => (State::Text, true),
            (_, 0..0x20 | 0x7f) => (State::Text, false),
            (State::Upper, 0x80..=0x9f) => (State::Text, false),
            (State::Text | State::Control | State::Upper, _) => (State::Text, true),
        }
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = Vec::with_capacity(bytes.len());
        for byte in bytes {
            let before = self.state;
            let (after, shown) = before.next(*byte);
            self.state = after;
            if shown {
                if before == State::Upper && *byte >= 0x80 {
                    text.push(0xc2);
                }
                text.push(*byte);
            }
        }
        self.inner.write_all(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        // In one piece and byte by byte: a sequence may be cut anywhere.
        let (mut whole, mut pieces) = (Plain::new(Vec::new()), Plain::new(Vec::new()));
        whole.write_all(bytes).unwrap();
        bytes.iter().for_each(|byte| pieces.write_all(&[*byte]).unwrap());
        assert_eq!(whole.inner, pieces.inner);
        String::from_utf8(whole.inner).unwrap()
    }

    #[test]
    fn text_stays_and_what_moves_a_terminal_goes() {
        assert_eq!(shown(b"[ 1.0] a\tb\r\n"), "[ 1.0] a\tb\n");
        assert_eq!(shown("\u{a9} ä \u{20ac}".as_bytes()), "\u{a9} ä \u{20ac}");
        assert_eq!(shown(b"a\x1b[2J\x1b[1;31mb\x1b[0m\x07c\x08\x7f"), "abc");
        assert_eq!(shown(b"\x1b]0;title\x07a\x1b]8;;x\x1b\\b\x1b(Bc\x1bcd"), "abcd");
        assert_eq!(shown("a\u{9b}2Jb".as_bytes()), "a2Jb");
        assert_eq!(shown(b"\x1bP1$r\x1b\\a\n\x1b[6nb"), "a\nb");
    }
}
