//! Times as FAT stores them: 16 bits of date, 16 bits of time of day in steps of two seconds.

/// A date and time of a directory record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Years since 1980, month, day: 7, 4 and 5 bits.
    pub(super) date: u16,
    /// Hours, minutes, seconds halved: 5, 6 and 5 bits.
    pub(super) time: u16,
}

/// 1980-01-01 00:00:00, the first that can be stored.
const FIRST: i64 = 315_532_800;
/// 2107-12-31 23:59:58, the last.
const LAST: i64 = 4_354_819_198;

impl Stamp {
    /// From seconds since 1970, in UTC; rounded down to the even second, clamped to what can be
    /// stored.
    pub(super) fn from_unix(seconds: i64) -> Stamp {
        let seconds = seconds.clamp(FIRST, LAST);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        Stamp {
            date: ((year - 1980) << 9 | month << 5 | day) as u16,
            time: ((second / 3600) << 11 | (second / 60 % 60) << 5 | (second % 60 / 2)) as u16,
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01 (not before).
///
/// Counts in years that begin in March, so that the leap day is the last day of a year: the method
/// of Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days of 400 years
    let days = days + 719_468; // 0000-03-01
    let of_era = days % ERA;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = days / ERA * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(seconds: i64) -> (u16, u16, u16, u16, u16, u16) {
        let Stamp { date, time } = Stamp::from_unix(seconds);
        let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
        (year, month, day, time >> 11, time >> 5 & 63, (time & 31) * 2)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (FIRST, (1980, 1, 1, 0, 0, 0)),
            (951_782_399, (2000, 2, 28, 23, 59, 58)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_700_000_000, (2023, 11, 14, 22, 13, 20)),
            (1_709_251_199, (2024, 2, 29, 23, 59, 58)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
            (LAST, (2107, 12, 31, 23, 59, 58)),
        ] {
            assert_eq!(parts(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_clamped() {
        for seconds in [i64::MIN, -1, 0, FIRST - 1] {
            assert_eq!(Stamp::from_unix(seconds), Stamp::from_unix(FIRST));
        }
        for seconds in [LAST + 1, LAST + 2, i64::MAX] {
            assert_eq!(Stamp::from_unix(seconds), Stamp::from_unix(LAST));
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(FIRST / 86_400);
        for day in FIRST / 86_400 + 1..=LAST / 86_400 {
            let now = civil(day);
            let (y, m, d) = before;
            let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
            let last =
                [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][m as usize - 1];
            let next = match (m, d) {
                (12, 31) => (y + 1, 1, 1),
                _ if d == last => (y, m + 1, 1),
                _ => (y, m, d + 1),
            };
            assert_eq!(now, next);
            before = now;
        }
    }
}
