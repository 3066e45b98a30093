//! Command lines as text for a POSIX shell, and the way back.
//!
//! [`join`] writes what a person can paste into `sh` to run the same command again; [`split`] reads
//! values such as `VMTEST_QEMU`, where a program with arguments is given in one string. Both work on
//! bytes, since paths need not be UTF-8.
//!
//! The crate shlex is not used: it makes an empty word of a backslash at the end of a line, which is
//! how people fold long values in YAML.
//!
//! Absent on purpose: `$'…'`, which would show control characters readably but is unknown to the
//! `sh` of Debian and to POSIX before 2024; expansion of variables, `~` and globs in [`split`].

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Words that start a compound command when they stand first and unquoted (POSIX.1-2017, XCU 2.4,
/// with those bash and zsh add).
const RESERVED: [&[u8]; 20] = [
    b"case",
    b"coproc",
    b"do",
    b"done",
    b"elif",
    b"else",
    b"esac",
    b"fi",
    b"for",
    b"foreach",
    b"function",
    b"if",
    b"in",
    b"namespace",
    b"repeat",
    b"select",
    b"then",
    b"time",
    b"until",
    b"while",
];

/// The text has a quote that is never closed, or ends in a backslash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced quotes in `{}`", .given.display())]
pub struct UnbalancedQuotes {
    /// The text that was given.
    pub given: OsString,
}

impl UnbalancedQuotes {
    /// How to fix it.
    pub fn hint(&self) -> String {
        "close the quote, or write a backslash before a quote or backslash that is meant literally"
            .to_owned()
    }
}

/// One word quoted for a POSIX shell, unchanged where it needs no quotes.
///
/// A word in the place of the command needs more care (`A=b`, `if`): [`join`] takes it. NUL bytes,
/// which no argument of a process can hold, are not looked at.
pub fn word(word: &OsStr) -> Cow<'_, OsStr> {
    if !word.is_empty() && word.as_bytes().iter().all(|byte| is_plain(*byte)) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(quoted(word))
    }
}

/// A command line, program first, as text a POSIX shell splits into exactly these words.
///
/// ```
/// let argv = ["qemu-system-arm", "-append", "quiet panic=-1", "it's"];
/// assert_eq!(vmtest::quote::join(argv), r"qemu-system-arm -append 'quiet panic=-1' 'it'\''s'");
/// ```
pub fn join<W: AsRef<OsStr>>(argv: impl IntoIterator<Item = W>) -> OsString {
    let mut line = OsString::new();
    for (i, arg) in argv.into_iter().enumerate() {
        let arg = arg.as_ref();
        let bytes = arg.as_bytes();
        if i > 0 {
            line.push(" ");
        }
        if i == 0 && (bytes.contains(&b'=') || RESERVED.contains(&bytes)) {
            line.push(quoted(arg));
        } else {
            line.push(word(arg));
        }
    }
    line
}

/// Splits a text into words the way a POSIX shell does, without expanding anything.
///
/// Blanks and newlines separate; `'…'`, `"…"` and `\` quote; a `#` that begins a word begins a
/// comment that ends with the line. A blank text has no words.
///
/// # Errors
/// [`UnbalancedQuotes`].
pub fn split(text: &OsStr) -> Result<Vec<OsString>, UnbalancedQuotes> {
    let unbalanced = || UnbalancedQuotes { given: text.to_owned() };
    let mut words = Vec::new();
    // `Some` inside a word, so that `''` is a word and a joined line is none.
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take().map(OsString::from_vec)),
            b'#' if word.is_none() => {
                bytes.find(|byte| *byte == b'\n');
            }
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next().ok_or_else(unbalanced)? {
                        b'\'' => break,
                        byte => word.push(byte),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next().ok_or_else(unbalanced)? {
                        b'"' => break,
                        b'\\' => match bytes.next().ok_or_else(unbalanced)? {
                            b'\n' => {}
                            byte @ (b'$' | b'`' | b'"' | b'\\') => word.push(byte),
                            byte => word.extend([b'\\', byte]),
                        },
                        byte => word.push(byte),
                    }
                }
            }
            b'\\' => match bytes.next().ok_or_else(unbalanced)? {
                b'\n' => {}
                byte => word.get_or_insert_default().push(byte),
            },
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

/// Whether a byte means itself in every position of a word. ASCII only: which other bytes are
/// letters and which are blanks depends on the shell's locale.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&byte)
}

/// `word` in single quotes, inside which only the single quote itself is special.
fn quoted(word: &OsStr) -> OsString {
    let mut out = Vec::with_capacity(word.len() + 2);
    out.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend_from_slice(br"'\''"),
            _ => out.push(byte),
        }
    }
    out.push(b'\'');
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// The words the system's `sh` makes of a text; `None` when it refuses the text.
    fn sh_splits(text: &OsStr) -> Option<Vec<OsString>> {
        let mut script = OsString::from(r"printf '%s\0' - ");
        script.push(text);
        let out = Command::new("sh").arg("-c").arg(script).output().expect("`sh` is in every PATH");
        if !out.status.success() {
            return None;
        }
        let mut words: Vec<OsString> =
            out.stdout.split(|b| *b == 0).map(|w| OsString::from_vec(w.to_vec())).collect();
        assert_eq!(words.pop().as_deref(), Some(OsStr::new("")), "ends in NUL");
        words.remove(0);
        Some(words)
    }

    /// The words `sh` makes of `words` after [`join`].
    fn through_sh(words: &[OsString]) -> Vec<OsString> {
        let line =
            join(std::iter::once(OsStr::new("-")).chain(words.iter().map(|w| w.as_os_str())));
        let mut words = sh_splits(&line).expect("what `join` writes is correct");
        words.remove(0);
        words
    }

    #[test]
    fn quotes_appear_only_where_they_are_needed() {
        for (given, quoted) in [
            ("", "''"),
            ("plain", "plain"),
            ("-netdev", "-netdev"),
            (
                "user,id=net0,hostfwd=tcp:127.0.0.1:80-:80",
                "user,id=net0,hostfwd=tcp:127.0.0.1:80-:80",
            ),
            ("/srv/a,,b@1+2%_", "/srv/a,,b@1+2%_"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("'", r"''\'''"),
            ("a\nb", "'a\nb'"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
            ("*", "'*'"),
            ("#x", "'#x'"),
            ("{a,b}", "'{a,b}'"),
            ("\\", "'\\'"),
            ("!", "'!'"),
            ("é", "'é'"),
        ] {
            assert_eq!(word(OsStr::new(given)), OsStr::new(quoted));
        }
    }

    #[test]
    fn a_program_with_a_name_that_means_something_to_the_shell_is_quoted() {
        assert_eq!(join(["a=b", "a=b"]), "'a=b' a=b");
        assert_eq!(join(["if", "if"]), "'if' if");
        assert_eq!(join(Vec::<OsString>::new()), "");
    }

    #[test]
    fn every_single_byte_and_every_pair_survives_sh() {
        let bytes = 1u8..=255;
        let single: Vec<_> = bytes.clone().map(|b| OsString::from_vec(vec![b])).collect();
        assert_eq!(through_sh(&single), single);
        // All pairs are 65,025 words: a script of 128 KiB, the limit of one argument, holds some.
        for first in [b'\'', b'\\', b'$', b'"', b'\n', b'a', 0x81, 0x88, 0xc3, 0xff] {
            let pairs: Vec<_> =
                bytes.clone().map(|second| OsString::from_vec(vec![first, second])).collect();
            assert_eq!(through_sh(&pairs), pairs);
        }
    }

    #[test]
    fn values_are_split_as_a_shell_would() {
        let words = |text: &str| {
            split(OsStr::new(text))
                .map(|w| w.into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("", &[][..]),
            (" \t\n", &[]),
            ("qemu-system-x86_64 -enable-kvm", &["qemu-system-x86_64", "-enable-kvm"]),
            ("'/opt/my qemu/bin/q' -m 1G", &["/opt/my qemu/bin/q", "-m", "1G"]),
            (
                r#"/opt/my\ qemu "-append" "a \"b\" \$c \d""#,
                &["/opt/my qemu", "-append", r#"a "b" $c \d"#],
            ),
            ("a''b '' \"\"", &["ab", "", ""]),
            ("a 'b\nc'", &["a", "b\nc"]),
            ("a \\\n b", &["a", "b"]),
            ("$HOME ~ *", &["$HOME", "~", "*"]),
            ("a#b #c d\ne", &["a#b", "e"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text:?}");
        }
        for text in ["'", "a \"b", "a\\", "\"\\\""] {
            let err = split(OsStr::new(text)).unwrap_err();
            assert_eq!(err.to_string(), format!("unbalanced quotes in `{text}`"));
            assert!(err.hint().contains("close the quote"));
        }
        let odd = OsStr::from_bytes(b"/q\xff 'a \xfe'");
        assert_eq!(
            split(odd).unwrap(),
            [OsStr::from_bytes(b"/q\xff"), OsStr::from_bytes(b"a \xfe")]
        );
    }

    fn any_word() -> impl Strategy<Value = OsString> {
        prop_oneof![
            prop::collection::vec(1u8..=255, 0..24),
            prop::collection::vec(
                prop::sample::select(&b"ab'\"\\$`!#~*?[]{}()<>|&; \t\n=-"[..]),
                0..12
            ),
        ]
        .prop_map(OsString::from_vec)
    }

    proptest! {
        #[test]
        fn joined_and_split_is_the_same(words in prop::collection::vec(any_word(), 0..8)) {
            prop_assert_eq!(split(&join(&words)), Ok(words));
        }

        #[test]
        fn splitting_never_panics(text in any_word()) {
            let _ = split(&text);
        }
    }

    proptest! {
        // Each case starts a process.
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn splitting_is_what_sh_does(
            // A backslash only with what it quotes: a bare newline would end the command for `sh`.
            pieces in prop::collection::vec(
                prop::sample::select(&[
                    "a", "b", " ", "\t", "'", "\"", "#", "=", "\\a", "\\ ", "\\'", "\\\"", "\\\\", "\\\n", "\\$",
                ][..]),
                0..16,
            )
        ) {
            let mut text = pieces.concat();
            // A comment ends with its line, also where a backslash stands before the end: what
            // follows would be another command.
            if text.contains('#') {
                text = text.replace("\\\n", "");
            }
            let text = OsString::from(text);
            prop_assert_eq!(split(&text).ok(), sh_splits(&text));
        }

        #[test]
        fn any_words_survive_sh(words in prop::collection::vec(any_word(), 0..64)) {
            prop_assert_eq!(through_sh(&words), words);
        }
    }
}
