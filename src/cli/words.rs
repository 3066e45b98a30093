//! Values of options that have several parts, separated by colons.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use vmtest::initramfs::Node;

use crate::cli::error::Failure;

/// Splits at colons; `\:` is a colon and `\\` a backslash. A backslash before anything else stays.
pub(crate) fn split(value: &OsStr) -> Vec<OsString> {
    let mut parts = vec![Vec::new()];
    let mut bytes = value.as_bytes().iter().peekable();
    while let Some(&byte) = bytes.next() {
        let last = parts.len() - 1;
        match (byte, bytes.peek()) {
            (b'\\', Some(&&next)) if next == b':' || next == b'\\' => {
                parts[last].push(next);
                bytes.next();
            }
            (b':', _) => parts.push(Vec::new()),
            _ => parts[last].push(byte),
        }
    }
    parts.into_iter().map(OsString::from_vec).collect()
}

/// `A[:B]`; what follows a second colon is wrong.
pub(crate) fn one_or_two(
    option: &str,
    value: &OsStr,
) -> Result<(OsString, Option<OsString>), Failure> {
    let mut parts = split(value).into_iter();
    let (first, second, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let empty = first.is_empty() || second.as_ref().is_some_and(|part| part.is_empty());
    if empty || more.is_some() {
        let what = match (value.is_empty(), empty) {
            (true, _) => "is empty",
            (_, true) => "has an empty part",
            _ => "has more than two parts",
        };
        return Err(Failure::wrong(
            format!("`{option} {}` {what}", value.display()),
            if value.is_empty() {
                "did a variable or a pattern of the shell come out empty?"
            } else {
                "write `\\:` for a colon that belongs to a name"
            },
        ));
    }
    Ok((first, second))
}

/// `A:B`; `form` shows it to the user.
pub(crate) fn two(
    option: &str,
    value: &OsStr,
    form: &str,
) -> Result<(OsString, OsString), Failure> {
    match one_or_two(option, value)? {
        (first, Some(second)) => Ok((first, second)),
        (first, None) => Err(Failure::wrong(
            format!("`{option} {}` has no colon", first.display()),
            format!("write `{option} {form}`"),
        )),
    }
}

/// Permissions in octal.
pub(crate) fn mode(text: &OsStr) -> Option<u32> {
    let text = text.to_str().filter(|text| !text.starts_with('+'))?;
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// A node: destination, mode, kind, numbers.
pub(crate) type NodeWord = (OsString, u32, Node, (u32, u32));

/// `DEST:c:MAJOR:MINOR[:MODE]`, the same with `b`, or `DEST:p[:MODE]`.
pub(crate) fn node(value: &OsStr) -> Result<NodeWord, Failure> {
    let wrong = |what: &str, hint: &str| {
        Failure::wrong(format!("`--node {}` {what}", value.display()), hint)
    };
    let fail = || {
        wrong(
            "is no device node",
            "write `--node DEST:c:MAJOR:MINOR[:MODE]`, b for a block device, or `DEST:p[:MODE]` \
             for a named pipe",
        )
    };
    let parts = split(value);
    let text: Vec<&str> = parts.iter().skip(1).map(|part| part.to_str().unwrap_or("")).collect();
    let number = |text: &str| text.parse::<u32>().map_err(|_| fail());
    let (node, rdev, rest) = match text[..] {
        ["c", major, minor, ref rest @ ..] => (Node::Char, (number(major)?, number(minor)?), rest),
        ["b", major, minor, ref rest @ ..] => (Node::Block, (number(major)?, number(minor)?), rest),
        ["p", ref rest @ ..] => (Node::Fifo, (0, 0), rest),
        _ => return Err(fail()),
    };
    let permissions = match rest {
        [] => 0o600,
        [text] => mode(OsStr::new(text)).ok_or_else(|| {
            wrong(&format!("has the mode `{text}`"), "a mode is octal, from 0 to 7777")
        })?,
        _ => return Err(fail()),
    };
    // Twelve bits for the major number, twenty for the minor: `MAJORBITS` of Linux.
    if rdev.0 >= 1 << 12 || rdev.1 >= 1 << 20 {
        return Err(wrong(
            "has a number that Linux does not have",
            "the major number is at most 4095, the minor at most 1048575",
        ));
    }
    Ok((parts.into_iter().next().unwrap_or_default(), permissions, node, rdev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_can_be_escaped() {
        for (value, parts) in [
            ("a:b", &["a", "b"][..]),
            ("a\\:b", &["a:b"]),
            ("a\\\\:b", &["a\\", "b"]),
            ("a\\b", &["a\\b"]),
            ("a\\", &["a\\"]),
            ("a:b:c", &["a", "b", "c"]),
            ("", &[""]),
        ] {
            assert_eq!(split(OsStr::new(value)), parts, "{value}");
        }
    }

    #[test]
    fn empty_parts_are_refused() {
        for value in ["", ":a", "a:", "a:b:c"] {
            assert!(one_or_two("--file", OsStr::new(value)).is_err(), "{value}");
        }
    }

    #[test]
    fn nodes_have_numbers_and_modes() {
        let kmsg = node(OsStr::new("/dev/kmsg:c:1:11:0644")).unwrap();
        assert_eq!(kmsg, ("/dev/kmsg".into(), 0o644, Node::Char, (1, 11)));
        assert_eq!(node(OsStr::new("x:b:259:70000")).unwrap().3, (259, 70000));
        assert_eq!(node(OsStr::new("x:p")).unwrap().2, Node::Fifo);
        for wrong in ["x", "x:c", "x:c:1", "x:c:1:2:9", "x:s", "x:c:4096:0", "x:c:1:2:0644:y"] {
            assert!(node(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }
}
