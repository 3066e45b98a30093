//! Bytes of a guest as text that can be shown: no control characters, no escape sequences.

/// Turns a line's bytes into text: invalid UTF-8 becomes `U+FFFD`, ANSI escape sequences and control
/// characters other than tab vanish, and so do the invisible characters that reorder or hide text on a
/// terminal.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t') {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            // The one-character form of `ESC [`.
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\t' => out.push(c),
            c if c.is_control() || is_invisible(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// The same for text that comes from a file of the guest's.
#[cfg(feature = "symbols")]
pub(super) fn clean_str(text: &str) -> String {
    clean(text.as_bytes())
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips what follows an ESC: a control sequence, a string such as a window's title, or one character.
fn skip_escape(chars: &mut Chars<'_>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            // Ended by BEL or ESC \; a line's end ends it, too, so that nothing is lost for longer.
            while let Some(c) = chars.next() {
                if c == '\x07' || c == '\u{9c}' {
                    break;
                }
                if c == '\x1b' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => {
            chars.next();
            chars.next();
        }
        Some(c) if ('0'..='~').contains(c) => {
            chars.next();
        }
        _ => {}
    }
}

/// Skips parameters up to the final byte (ECMA-48, 5.4).
fn skip_control_sequence(chars: &mut Chars<'_>) {
    while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
    chars.next_if(|c| ('@'..='~').contains(c));
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_gone() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain\ttext", "plain\ttext"),
            (b"\x1b[1;31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]0;title\x1b\\after", "after"),
            (b"\x1b(Bcharset\x1b7saved", "charsetsaved"),
            (b"a\x00b\x07c\x7fd", "abcd"),
            (b"bad \xff byte", "bad \u{fffd} byte"),
            ("bi\u{202e}di \u{9b}2Jé".as_bytes(), "bidi é"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(clean(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_unfinished_escape_ends_with_the_line() {
        for bytes in [&b"x\x1b"[..], b"x\x1b[", b"x\x1b[12", b"x\x1b]never ended", b"x\x1b("] {
            assert_eq!(clean(bytes), "x");
        }
    }
}
