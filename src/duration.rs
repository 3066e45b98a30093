//! Durations in Go's syntax, `1m20s` for instance, to [`Duration`] and back.
//!
//! The syntax is exactly that of Go's `time.ParseDuration`, because `VMTEST_TIMEOUT` and its users
//! come from there: numbers with an optional fraction, each followed by its unit, summed.
//!
//! | unit | written |
//! |---|---|
//! | nanosecond | `ns` |
//! | microsecond | `us`, `µs` (U+00B5), `μs` (U+03BC) |
//! | millisecond | `ms` |
//! | second, minute, hour | `s`, `m`, `h` |
//!
//! A number without a unit is an error, except for a plain `0`. Absent on purpose: negative
//! durations (a timeout of −5 s is a mistake, not a request), days and weeks (Go has none).

use std::fmt;
use std::time::Duration;

/// Two valid durations, for hints and help texts.
pub const EXAMPLES: [&str; 2] = ["1m20s", "300ms"];

/// The longest duration that can be written: 2^63 − 1 ns, about 292 years, as in Go.
pub const MAX: Duration = Duration::from_nanos(i64::MAX as u64);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Empty text, a missing number, or something that is neither number nor unit.
    #[error("invalid duration `{given}`")]
    Malformed {
        /// The text that was given.
        given: String,
    },
    /// A number is followed by nothing: `900`, `1m20`.
    #[error("missing unit after `{number}` in duration `{given}`")]
    MissingUnit {
        /// The text that was given.
        given: String,
        /// The number that lacks a unit.
        number: String,
    },
    /// A number is followed by a word that is no unit: `3d`, `1h 30m`.
    #[error("unknown unit `{unit}` in duration `{given}`")]
    UnknownUnit {
        /// The text that was given.
        given: String,
        /// The word in the unit's place.
        unit: String,
    },
    /// Less than zero.
    #[error("duration `{given}` is negative")]
    Negative {
        /// The text that was given.
        given: String,
    },
    /// A limit that nothing can keep.
    #[error("a limit of `{given}` leaves no time at all")]
    NoTime {
        /// The text that was given.
        given: String,
    },
    /// More than [`MAX`].
    #[error("duration `{given}` is longer than {}", display(MAX))]
    TooLong {
        /// The text that was given.
        given: String,
    },
}

impl Error {
    /// How to fix it; shows two valid examples.
    pub fn hint(&self) -> String {
        let [first, second] = EXAMPLES;
        let plain = format!(
            "write each number with its unit (h, m, s, ms, us or ns) and no blanks, `{first}` or `{second}` for instance"
        );
        match self {
            Error::NoTime { .. } => {
                "leave it out for the default; a long one, `24h` for instance, is next to none"
                    .into()
            }
            Error::MissingUnit { given, number } if given == number => {
                format!("did you mean `{number}s`? {plain}")
            }
            _ => plain,
        }
    }
}

/// Parses a limit in Go's syntax: more than 0, up to [`MAX`].
///
/// # Errors
/// Those of [`parse`], and [`Error::NoTime`].
pub fn parse_limit(given: &str) -> Result<Duration, Error> {
    match parse(given)? {
        Duration::ZERO => Err(Error::NoTime { given: given.into() }),
        limit => Ok(limit),
    }
}

/// Parses a duration in Go's syntax, from 0 to [`MAX`].
///
/// The arithmetic is Go's to the last nanosecond, including how it rounds long fractions.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(vmtest::duration::parse("1h2m3.5s"), Ok(Duration::from_millis(3_723_500)));
/// assert!(vmtest::duration::parse("900").is_err());
/// ```
///
/// # Errors
/// One variant of [`Error`] for each way to get it wrong; all name the text that was given.
pub fn parse(given: &str) -> Result<Duration, Error> {
    let malformed = || Error::Malformed { given: given.into() };
    let too_long = || Error::TooLong { given: given.into() };

    let (negative, mut rest) = match given.as_bytes().first() {
        Some(b'-') => (true, &given[1..]),
        Some(b'+') => (false, &given[1..]),
        _ => (false, given),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }

    // Go allows 2^63 in the sum so that the least negative value can be written; for us, 2^63 is
    // only reachable with a minus sign and then an error anyway.
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let start = rest;
        if !rest.starts_with(|c: char| c == '.' || c.is_ascii_digit()) {
            return Err(malformed());
        }

        let (whole, digits) = leading_int(rest).ok_or_else(too_long)?;
        rest = &rest[digits..];
        let mut fraction = Fraction::NONE;
        let mut fraction_digits = 0;
        if let Some(after) = rest.strip_prefix('.') {
            (fraction, fraction_digits) = leading_fraction(after);
            rest = &after[fraction_digits..];
        }
        if digits == 0 && fraction_digits == 0 {
            return Err(malformed());
        }

        let number = &start[..start.len() - rest.len()];
        let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(unit_len);
        if unit.is_empty() {
            return Err(Error::MissingUnit { given: given.into(), number: number.into() });
        }
        let unit_ns = unit_nanos(unit)
            .ok_or_else(|| Error::UnknownUnit { given: given.into(), unit: unit.into() })?;
        rest = after;

        let mut value = whole.checked_mul(unit_ns).filter(|v| *v <= LIMIT).ok_or_else(too_long)?;
        value += fraction.of(unit_ns);
        total = total.checked_add(value).filter(|t| *t <= LIMIT).ok_or_else(too_long)?;
    }
    match (negative, total) {
        (_, 0) => Ok(Duration::ZERO),
        (true, _) => Err(Error::Negative { given: given.into() }),
        (false, LIMIT) => Err(too_long()),
        (false, nanos) => Ok(Duration::from_nanos(nanos)),
    }
}

/// 2^63, the bound Go checks its intermediate results against.
const LIMIT: u64 = 1 << 63;

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    })
}

/// The integer at the start of `text` (0 when there is none) and how many digits it has; `None`
/// when it exceeds [`LIMIT`].
fn leading_int(text: &str) -> Option<(u64, usize)> {
    let mut value: u64 = 0;
    let mut digits = 0;
    for digit in text.bytes().take_while(u8::is_ascii_digit) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        if value > LIMIT {
            return None;
        }
        digits += 1;
    }
    Some((value, digits))
}

/// `value / scale`, the part after a decimal point.
#[derive(Clone, Copy)]
struct Fraction {
    value: u64,
    scale: f64,
}

impl Fraction {
    const NONE: Fraction = Fraction { value: 0, scale: 1.0 };

    /// This fraction of `unit_ns`, rounded down the way Go does it, in floating point.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the result has to be Go's, and Go computes it in float64"
    )]
    fn of(self, unit_ns: u64) -> u64 {
        (self.value as f64 * (unit_ns as f64 / self.scale)) as u64
    }
}

/// The digits at the start of `text` as a fraction, and how many there are. Digits beyond what
/// fits in 63 bits are consumed and do not count, as in Go.
fn leading_fraction(text: &str) -> (Fraction, usize) {
    let mut fraction = Fraction::NONE;
    let mut digits = 0;
    let mut full = false;
    for digit in text.bytes().take_while(u8::is_ascii_digit) {
        digits += 1;
        if full || fraction.value > (LIMIT - 1) / 10 {
            full = true;
            continue;
        }
        let next = fraction.value * 10 + u64::from(digit - b'0');
        if next > LIMIT {
            full = true;
            continue;
        }
        fraction = Fraction { value: next, scale: fraction.scale * 10.0 };
    }
    (fraction, digits)
}

/// Shows a duration the way Go's `Duration.String` does: `1h2m3.5s`, `1m20s`, `300ms`, `0s`.
///
/// [`parse`] reads every duration up to [`MAX`] back to the same value.
pub fn display(duration: Duration) -> impl fmt::Display {
    GoStyle(duration)
}

struct GoStyle(Duration);

impl fmt::Display for GoStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let text = match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
            _ => {
                const MINUTE: u128 = 60_000_000_000;
                let minutes = nanos / MINUTE;
                let seconds = decimal(nanos % MINUTE, 1_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => format!("{seconds}s"),
                    (0, minutes) => format!("{minutes}m{seconds}s"),
                    (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
                }
            }
        };
        f.pad(&text)
    }
}

/// `value / unit` in decimal, without trailing zeros; `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{fraction:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Go's own table (`src/time/time_test.go`, `parseDurationTests`), the negative ones apart.
    #[test]
    fn what_go_accepts_is_accepted_with_the_same_value() {
        const S: u64 = 1_000_000_000;
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("-0s", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("1478s", 1478 * S),
            ("+5s", 5 * S),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600_000_000),
            ("5.s", 5 * S),
            (".5s", 500_000_000),
            ("1.0s", S),
            ("1.00s", S),
            ("1.004s", S + 4_000_000),
            ("1.0040s", S + 4_000_000),
            ("100.00100s", 100 * S + 1_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("13ms", 13_000_000),
            ("14s", 14 * S),
            ("15m", 900 * S),
            ("16h", 57_600 * S),
            ("3h30m", 12_600 * S),
            ("10.5s4m", 250 * S + 500_000_000),
            ("1h2m3s4ms5us6ns", 3_723 * S + 4_005_006),
            ("39h9m14.425s", 140_954 * S + 425_000_000),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1_200 * S),
            ("9007199254740993ns", (1 << 53) + 1),
            ("9223372036854775807ns", i64::MAX as u64),
            ("9223372036854775.807us", i64::MAX as u64),
            ("9223372036s854ms775us807ns", i64::MAX as u64),
            ("0.100000000000000000000h", 360 * S),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("1.5h", 5_400 * S),
            ("1m20s", 80 * S),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "3",
            "-",
            "+",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "1h ",
            " 1h",
            "1h 30m",
            "\u{85}\u{85}",
            "\u{ff}\u{ff}",
            "hello \u{ff}\u{ff} world",
            "\u{fffd}",
            "9223372036854775810ns",
            "9223372036854775808ns",
            "-9223372036854775809ns",
            "9223372036854775.808us",
            "9223372036s854ms775us808ns",
            "9223372036854ms775us808ns",
            "3000000h",
            "900",
            "1e3s",
            "١s",
            "--1s",
            "+-1s",
            "0x5s",
            "1,5s",
            "99999999999999999999999s",
            "1s2",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_text_and_the_hint_two_examples() {
        for (given, text) in [
            ("", "invalid duration ``"),
            ("soon", "invalid duration `soon`"),
            ("900", "missing unit after `900` in duration `900`"),
            ("1m20", "missing unit after `20` in duration `1m20`"),
            ("3d", "unknown unit `d` in duration `3d`"),
            ("1h 30m", "unknown unit `h ` in duration `1h 30m`"),
            ("-5s", "duration `-5s` is negative"),
            ("3000000h", "duration `3000000h` is longer than 2562047h47m16.854775807s"),
        ] {
            let err = parse(given).unwrap_err();
            assert_eq!(err.to_string(), text);
            for example in EXAMPLES {
                assert!(err.hint().contains(example), "{}", err.hint());
            }
        }
        assert!(parse("900").unwrap_err().hint().starts_with("did you mean `900s`?"));
        for example in EXAMPLES {
            parse(example).unwrap();
        }
    }

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (80_000_000_000, "1m20s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
            (i64::MAX as u64, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(display(Duration::from_nanos(nanos)).to_string(), text);
        }
        assert_eq!(format!("{:>8}|", display(Duration::from_secs(80))), "   1m20s|");
        // Longer than Go knows: shown all the same.
        assert!(display(Duration::MAX).to_string().ends_with('s'));
    }

    proptest! {
        #[test]
        fn shown_and_parsed_is_the_same(nanos in prop_oneof![0..=i64::MAX as u64, 0..=u64::from(u32::MAX)]) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&display(duration).to_string()), Ok(duration));
        }

        #[test]
        fn a_sum_of_whole_units_is_their_sum(parts in prop::collection::vec((0u32..100_000, 0usize..6), 1..6)) {
            let units = [("ns", 1u64), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
            let text: String = parts.iter().map(|(n, u)| format!("{n}{}", units[*u].0)).collect();
            let nanos: u64 = parts.iter().map(|(n, u)| u64::from(*n) * units[*u].1).sum();
            prop_assert_eq!(parse(&text), Ok(Duration::from_nanos(nanos)));
        }

        #[test]
        fn any_text_is_a_duration_or_an_error_that_shows_it(text in "\\PC{0,24}|[-+]?[0-9.]{0,24}(ns|us|µs|ms|s|m|h|d)?[0-9.hms]{0,8}") {
            match parse(&text) {
                Ok(duration) => prop_assert!(duration <= MAX),
                Err(err) => prop_assert!(err.to_string().contains(&text)),
            }
        }
    }
}
