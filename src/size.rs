//! Sizes of memory and disks: a whole number with a suffix, `512M` for instance.
//!
//! | suffix | bytes |
//! |---|---|
//! | none | 1 |
//! | `K`, `KiB` | 2^10 |
//! | `M`, `MiB` | 2^20 |
//! | `G`, `GiB` | 2^30 |
//! | `T`, `TiB` | 2^40 |
//!
//! Lower case is accepted. `KB`, `MB` and the like are refused, because they mean powers of 1000 to
//! some readers; so are fractions. What is too little or too much depends on the use, so bounds come
//! from the caller: [`Bytes::within`], [`Mib::within`].

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Suffixes with the number of bits to shift, the largest first.
const SUFFIXES: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// A number of bytes.
///
/// [`fmt::Display`] takes the largest suffix that loses nothing: `1G`, `1536M`, `1000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A number of mebibytes (2^20 bytes): the unit of QEMU's `-m`.
///
/// [`fmt::Display`] is that of [`Bytes`]: `512M`, `1G`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mib(u64);

/// Why a text is not a size, or not one that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Empty, negative, fractional, or no number at all.
    #[error("invalid size `{given}`")]
    Malformed {
        /// The text that was given.
        given: String,
    },
    /// The number is followed by something that is no suffix.
    #[error("unknown suffix `{suffix}` in size `{given}`")]
    UnknownSuffix {
        /// The text that was given.
        given: String,
        /// What stands in the suffix's place.
        suffix: String,
    },
    /// 2^64 bytes or more.
    #[error("size `{given}` does not fit in 64 bits")]
    TooLarge {
        /// The text that was given.
        given: String,
    },
    /// A size that must be a whole number of MiB is not.
    #[error("size `{size}` ({} bytes) is not a whole number of MiB", .size.0)]
    NotWholeMib {
        /// The size that was given.
        size: Bytes,
    },
    /// A size is below the least or above the greatest the caller can use.
    #[error("size `{size}` is not within {min} to {max}")]
    OutOfRange {
        /// The size that was given.
        size: Bytes,
        /// The least that is accepted.
        min: Bytes,
        /// The greatest that is accepted.
        max: Bytes,
    },
}

impl Error {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            Error::NotWholeMib { size } if size.0 < 1 << 20 => {
                format!("a number without a suffix is bytes: did you mean `{}M`?", size.0)
            }
            Error::NotWholeMib { size } => {
                let mib = size.0 >> 20;
                format!("`{}` and `{}` are the nearest", Bytes(mib << 20), MibText(mib + 1))
            }
            Error::OutOfRange { min, max, .. } => format!("give a size from `{min}` to `{max}`"),
            Error::UnknownSuffix { suffix, .. } if is_decimal_unit(suffix) => {
                let letter = suffix[..1].to_ascii_uppercase();
                format!(
                    "sizes count in powers of 1024: write `{letter}` or `{letter}iB` if that is meant"
                )
            }
            Error::Malformed { .. } | Error::UnknownSuffix { .. } | Error::TooLarge { .. } => {
                "write a whole number with K, M, G or T (powers of 1024), `512M` or `2G` for instance"
                    .to_owned()
            }
        }
    }
}

/// `MB` and the like, in any case.
fn is_decimal_unit(suffix: &str) -> bool {
    matches!(suffix.as_bytes(), [letter, b'B' | b'b'] if b"KMGT".contains(&letter.to_ascii_uppercase()))
}

impl Bytes {
    /// This size, if it is within `range`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn within(self, range: RangeInclusive<Bytes>) -> Result<Bytes, Error> {
        if range.contains(&self) {
            return Ok(self);
        }
        let (min, max) = range.into_inner();
        Err(Error::OutOfRange { size: self, min, max })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix =
            SUFFIXES.iter().find(|(_, bits)| self.0 != 0 && self.0.trailing_zeros() >= *bits);
        match suffix {
            Some((letter, bits)) => f.pad(&format!("{}{letter}", self.0 >> bits)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl FromStr for Bytes {
    type Err = Error;

    /// # Errors
    /// [`Error::Malformed`], [`Error::UnknownSuffix`], [`Error::TooLarge`].
    fn from_str(text: &str) -> Result<Bytes, Error> {
        let given = || text.to_owned();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        if number.is_empty() || suffix.starts_with('.') {
            return Err(Error::Malformed { given: given() });
        }
        let bits = match suffix {
            "" => 0,
            _ => SUFFIXES
                .iter()
                .find(|(letter, _)| {
                    let short = letter.to_string();
                    suffix.eq_ignore_ascii_case(&short)
                        || suffix.eq_ignore_ascii_case(&format!("{short}iB"))
                })
                .map(|(_, bits)| *bits)
                .ok_or_else(|| Error::UnknownSuffix {
                    given: given(),
                    suffix: suffix.to_owned(),
                })?,
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << bits))
            .map(Bytes)
            .ok_or_else(|| Error::TooLarge { given: given() })
    }
}

impl Mib {
    /// `mib` × 2^20 bytes; `None` when that does not fit in 64 bits.
    pub const fn new(mib: u64) -> Option<Mib> {
        if mib > u64::MAX >> 20 { None } else { Some(Mib(mib)) }
    }

    /// The number of MiB.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same in bytes.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0 << 20)
    }

    /// This size, if it is within `range`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn within(self, range: RangeInclusive<Mib>) -> Result<Mib, Error> {
        self.bytes().within(range.start().bytes()..=range.end().bytes()).map(|_| self)
    }
}

impl TryFrom<Bytes> for Mib {
    type Error = Error;

    fn try_from(size: Bytes) -> Result<Mib, Error> {
        if size.0.is_multiple_of(1 << 20) {
            Ok(Mib(size.0 >> 20))
        } else {
            Err(Error::NotWholeMib { size })
        }
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

impl FromStr for Mib {
    type Err = Error;

    /// # Errors
    /// As for [`Bytes`], and [`Error::NotWholeMib`]; so a forgotten suffix is found.
    fn from_str(text: &str) -> Result<Mib, Error> {
        text.parse::<Bytes>()?.try_into()
    }
}

/// A number of MiB that may be one too many for [`Bytes`].
struct MibText(u64);

impl fmt::Display for MibText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Mib::new(self.0) {
            Some(mib) => mib.fmt(f),
            None => write!(f, "{}M", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("1", 1, "1"),
            ("1000", 1000, "1000"),
            ("1024", 1 << 10, "1K"),
            ("4k", 4 << 10, "4K"),
            ("4KiB", 4 << 10, "4K"),
            ("512M", 512 << 20, "512M"),
            ("512MiB", 512 << 20, "512M"),
            ("512mib", 512 << 20, "512M"),
            ("1024M", 1 << 30, "1G"),
            ("1536M", 1536 << 20, "1536M"),
            ("1G", 1 << 30, "1G"),
            ("007G", 7 << 30, "7G"),
            ("2T", 2 << 40, "2T"),
            ("0T", 0, "0"),
            ("18446744073709551615", u64::MAX, "18446744073709551615"),
            ("16777215T", 16_777_215 << 40, "16777215T"),
        ] {
            let size: Bytes = text.parse().unwrap();
            assert_eq!(size, Bytes(bytes), "{text}");
            assert_eq!(size.to_string(), shown);
        }
        assert_eq!(format!("{:>6}|", Bytes(1 << 30)), "    1G|");
    }

    #[test]
    fn each_mistake_has_its_own_text_and_hint() {
        for (text, error, hint) in [
            ("", "invalid size ``", "`512M` or `2G`"),
            ("-1M", "invalid size `-1M`", "`512M`"),
            ("+1M", "invalid size `+1M`", "`512M`"),
            ("M", "invalid size `M`", "`512M`"),
            ("1.5G", "invalid size `1.5G`", "whole number"),
            (" 1G", "invalid size ` 1G`", "`512M`"),
            ("1 G", "unknown suffix ` G` in size `1 G`", "`512M`"),
            ("512MB", "unknown suffix `MB` in size `512MB`", "write `M` or `MiB`"),
            ("512mb", "unknown suffix `mb` in size `512mb`", "write `M` or `MiB`"),
            ("1é", "unknown suffix `é` in size `1é`", "`512M`"),
            ("1E", "unknown suffix `E` in size `1E`", "K, M, G or T"),
            ("1Gi", "unknown suffix `Gi` in size `1Gi`", "`512M`"),
            ("18446744073709551616", "size `18446744073709551616` does not fit in 64 bits", ""),
            ("16777216T", "size `16777216T` does not fit in 64 bits", ""),
        ] {
            let err = text.parse::<Bytes>().unwrap_err();
            assert_eq!(err.to_string(), error);
            assert!(err.hint().contains(hint), "{}", err.hint());
        }
    }

    #[test]
    fn whole_mebibytes_only_where_they_are_asked_for() {
        assert_eq!("2G".parse::<Mib>().map(Mib::get), Ok(2048));
        let err = "512".parse::<Mib>().unwrap_err();
        assert_eq!(err.to_string(), "size `512` (512 bytes) is not a whole number of MiB");
        assert_eq!(err.hint(), "a number without a suffix is bytes: did you mean `512M`?");
        let err = "1025K".parse::<Mib>().unwrap_err();
        assert_eq!(err.to_string(), "size `1025K` (1049600 bytes) is not a whole number of MiB");
        assert_eq!(err.hint(), "`1M` and `2M` are the nearest");
        let err = u64::MAX.to_string().parse::<Mib>().unwrap_err();
        assert_eq!(err.hint(), "`17592186044415M` and `17592186044416M` are the nearest");
        assert_eq!(Mib::new(1 << 44), None);
    }

    #[test]
    fn bounds_are_the_callers() {
        let range = Mib::new(64).unwrap()..=Mib::new(1 << 20).unwrap();
        for (text, error) in [
            ("0", "size `0` is not within 64M to 1T"),
            ("63M", "size `63M` is not within 64M to 1T"),
            ("900T", "size `900T` is not within 64M to 1T"),
        ] {
            let err = text.parse::<Mib>().unwrap().within(range.clone()).unwrap_err();
            assert_eq!(err.to_string(), error);
            assert_eq!(err.hint(), "give a size from `64M` to `1T`");
        }
        assert!("64M".parse::<Mib>().unwrap().within(range).is_ok());
    }

    proptest! {
        #[test]
        fn shown_and_parsed_is_the_same(number: u64, shift in 0u32..64) {
            let size = Bytes(number >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn any_text_is_a_size_or_an_error_that_shows_it(text in "\\PC{0,12}|[0-9]{0,22}[KMGTkmgtiB]{0,4}") {
            if let Err(err) = text.parse::<Bytes>() {
                prop_assert!(err.to_string().contains(&text));
                prop_assert!(!err.hint().is_empty());
            }
            if let Err(err) = text.parse::<Mib>() {
                prop_assert!(!err.hint().is_empty());
            }
        }
    }
}
