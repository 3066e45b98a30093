//! Numbers and names as other tools write them.
//!
//! A count that cannot be read is none that the line may do without: a line that dropped out would
//! make what is covered look like more. It counts as not run, and somebody is told.

use std::borrow::Cow;

/// A count, and what was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// How often; 0 where that cannot be read.
    pub(crate) value: u64,
    /// Fits after `a line's count`.
    pub(crate) wrong: Option<&'static str>,
}

const NEGATIVE: &str = "is negative; it counts as not run";
const NO_NUMBER: &str = "is no number; it counts as not run";

/// Reads a count. Large ones, which some tools write as floating point, end at the largest there is.
pub(crate) fn count(text: &str) -> Count {
    let good = |value| Count { value, wrong: None };
    match text.parse::<u64>() {
        Ok(value) => return good(value),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => {
            return good(u64::MAX);
        }
        Err(_) => {}
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => of_float(number),
        _ => Count { value: 0, wrong: Some(NO_NUMBER) },
    }
}

/// The same of a number.
pub(crate) fn of_float(number: f64) -> Count {
    match number {
        number if number < 0.0 => Count { value: 0, wrong: Some(NEGATIVE) },
        number if number.is_nan() => Count { value: 0, wrong: Some(NO_NUMBER) },
        number => Count { value: number as u64, wrong: None },
    }
}

/// A line's number, from 1.
pub(crate) fn line(text: &str) -> Option<u32> {
    text.parse().ok().filter(|line| *line > 0)
}

/// Bytes as text: those that are no UTF-8 become `\xNN`, so that two odd names stay two.
pub(crate) fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    with_escapes(bytes, "\\x")
}

/// The same of a JSON document, whose strings then have `\xNN` in them.
pub(crate) fn escaped_json(bytes: &[u8]) -> Cow<'_, str> {
    with_escapes(bytes, "\\\\x")
}

fn with_escapes<'a>(bytes: &'a [u8], mark: &str) -> Cow<'a, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("{mark}{byte:02x}"));
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_cannot_be_read_counts_as_not_run() {
        for (text, value, wrong) in [
            ("7", 7, None),
            ("1e3", 1000, None),
            ("18446744073709551616", u64::MAX, None),
            ("1e300", u64::MAX, None),
            ("-1", 0, Some(NEGATIVE)),
            ("-0.5", 0, Some(NEGATIVE)),
            ("x", 0, Some(NO_NUMBER)),
            ("", 0, Some(NO_NUMBER)),
            ("nan", 0, Some(NO_NUMBER)),
            ("inf", 0, Some(NO_NUMBER)),
        ] {
            assert_eq!(count(text), Count { value, wrong }, "{text}");
        }
    }

    #[test]
    fn odd_names_stay_apart() {
        assert_eq!(escaped(b"a\xff\xfe.c"), "a\\xff\\xfe.c");
        assert_ne!(escaped(b"a\xff.c"), escaped(b"a\xfe.c"));
        assert_eq!(escaped("ä.c".as_bytes()), "ä.c");
        let text = escaped_json(b"\"a\xff.c\"").into_owned();
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a\\xff.c");
    }
}
