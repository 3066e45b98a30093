//! Values with several parts, as people write them on a command line: `DIR:TAG:ro`, `FILE,if=scsi`.
//!
//! One rule holds everywhere: a backslash before a colon, a comma or a backslash takes it as it is. A
//! backslash before anything else is a backslash. So `a\:b` is one part, `a:b` two.
//!
//! The grammar of a value is the `parse` of its type (`P9Share::parse`, `Drive::parse`, …), which both
//! the command line and files of options go through.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A value that is not of the form that it should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` {what}", .given.display())]
pub struct BadValue {
    /// The value.
    pub given: OsString,
    /// What is wrong with it, as a sentence that goes on from the value.
    pub what: String,
    /// How to write it.
    pub hint: String,
}

impl BadValue {
    /// `what` goes on from the value; `hint` says how to write it.
    pub fn new(given: &OsStr, what: impl Into<String>, hint: impl Into<String>) -> BadValue {
        BadValue { given: given.to_owned(), what: what.into(), hint: hint.into() }
    }

    /// How to fix it.
    pub fn hint(&self) -> String {
        self.hint.clone()
    }
}

/// A word that is none of those that are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is none of {known}")]
pub struct UnknownWord {
    /// The word.
    pub given: String,
    /// The words that are known, as a list.
    pub known: &'static str,
}

/// Whether a backslash takes this byte as it is.
fn special(byte: u8) -> bool {
    matches!(byte, b':' | b',' | b'\\')
}

/// The parts of a value, still escaped.
fn pieces(value: &OsStr, separator: u8) -> Vec<&OsStr> {
    let bytes = value.as_bytes();
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at] == b'\\' && bytes.get(at + 1).copied().is_some_and(special) {
            at += 2;
            continue;
        }
        if bytes[at] == separator {
            pieces.push(OsStr::from_bytes(&bytes[start..at]));
            start = at + 1;
        }
        at += 1;
    }
    pieces.push(OsStr::from_bytes(&bytes[start..]));
    pieces
}

/// A part with its backslashes taken away.
fn unescape(piece: &OsStr) -> OsString {
    let mut bytes = piece.as_bytes().iter().copied().peekable();
    let mut part = Vec::with_capacity(piece.len());
    while let Some(byte) = bytes.next() {
        part.push(match bytes.peek() {
            Some(&next) if byte == b'\\' && special(next) => {
                bytes.next();
                next
            }
            _ => byte,
        });
    }
    OsString::from_vec(part)
}

/// The parts of a value between its colons. There is always one.
pub fn colons(value: &OsStr) -> Vec<OsString> {
    pieces(value, b':').into_iter().map(unescape).collect()
}

/// The parts of a value between its commas. There is always one.
pub fn commas(value: &OsStr) -> Vec<OsString> {
    pieces(value, b',').into_iter().map(unescape).collect()
}

/// `A:B,C…`: what stands before the colon, and the parts behind it.
pub(crate) fn colon_then_commas(value: &OsStr) -> Option<(OsString, Vec<OsString>)> {
    match pieces(value, b':')[..] {
        [first, rest] => Some((unescape(first), commas(rest))),
        _ => None,
    }
}

/// A part as it is written in a value, so that it stays one part.
///
/// ```
/// use vmtest::fields::{colons, escape};
///
/// assert_eq!(colons(&escape("a:b".as_ref())), ["a:b"]);
/// ```
pub fn escape(part: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(part.len());
    for &byte in part.as_bytes() {
        if special(byte) {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

/// `NAME=VALUE`: both sides of the first `=`, taken as they are. `None` without one, or without a name.
pub fn assignment(text: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

/// `A[:B]`.
///
/// # Errors
/// [`BadValue`] when a part is empty or there are more than two.
pub(crate) fn one_or_two(value: &OsStr) -> Result<(OsString, Option<OsString>), BadValue> {
    let mut parts = colons(value).into_iter();
    let (first, second, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let empty = first.is_empty() || second.as_ref().is_some_and(|part| part.is_empty());
    let what = match (value.is_empty(), empty, more.is_some()) {
        (true, ..) => "is empty",
        (_, true, _) => "has an empty part",
        (.., true) => "has more than two parts",
        _ => return Ok((first, second)),
    };
    let hint = match value.is_empty() {
        true => "did a variable or a pattern of the shell come out empty?",
        false => "write `\\:` for a colon that belongs to a name",
    };
    Err(BadValue::new(value, what, hint))
}

/// `A:B`, of the form that `form` shows.
///
/// # Errors
/// As those of [`one_or_two`], and for a value without a colon.
pub(crate) fn two(value: &OsStr, form: &str) -> Result<(OsString, OsString), BadValue> {
    match one_or_two(value)? {
        (first, Some(second)) => Ok((first, second)),
        (_, None) => Err(BadValue::new(value, "has no colon", format!("write it as `{form}`"))),
    }
}

/// Which settings were said: what is said again would silently win or lose.
#[derive(Default)]
pub(crate) struct Once(BTreeSet<OsString>);

impl Once {
    /// The key, if it was said before.
    pub(crate) fn again(&mut self, key: &OsStr) -> Option<String> {
        let new = self.0.insert(key.to_owned());
        (!new).then(|| key.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backslash_takes_a_separator_as_it_is() {
        for (value, parts) in [
            ("a:b", &["a", "b"][..]),
            ("a\\:b", &["a:b"]),
            ("a\\\\:b", &["a\\", "b"]),
            ("a\\,b", &["a,b"]),
            ("a\\b", &["a\\b"]),
            ("a\\", &["a\\"]),
            ("a:b:c", &["a", "b", "c"]),
            ("", &[""]),
            (":", &["", ""]),
        ] {
            assert_eq!(colons(OsStr::new(value)), parts, "{value}");
        }
        assert_eq!(commas(OsStr::new("a\\,b,c:d,,e")), ["a,b", "c:d", "", "e"]);
    }

    #[test]
    fn names_with_commas_can_stand_in_a_list_behind_a_colon() {
        let (file, names) = colon_then_commas(OsStr::new("bb:ls,a\\,b")).unwrap();
        assert_eq!((file, names), ("bb".into(), vec!["ls".into(), "a,b".into()]));
        assert_eq!(colon_then_commas(OsStr::new("bb")), None);
    }

    #[test]
    fn empty_parts_are_refused() {
        for value in ["", ":a", "a:", "a:b:c"] {
            assert!(one_or_two(OsStr::new(value)).is_err(), "{value}");
        }
    }

    #[test]
    fn a_value_may_have_an_equals_sign() {
        let pair = assignment(OsStr::new("A=b=c"));
        assert_eq!(pair, Some((OsStr::new("A"), OsStr::new("b=c"))));
        assert_eq!(assignment(OsStr::new("A")), None);
        assert_eq!(assignment(OsStr::new("=b")), None);
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_one_part(
            parts in prop::collection::vec(prop::collection::vec(
                prop_oneof![prop::sample::select(&b":,\\a"[..]), 1u8..=255], 0..12), 1..5),
        ) {
            let parts: Vec<OsString> = parts.into_iter().map(OsString::from_vec).collect();
            for (separator, split) in [(":", colons as fn(&OsStr) -> _), (",", commas)] {
                let escaped: Vec<OsString> = parts.iter().map(|part| escape(part)).collect();
                let value = escaped.join(OsStr::new(separator));
                prop_assert_eq!(&split(&value), &parts);
            }
        }
    }
}
