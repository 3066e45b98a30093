//! Pieces of text that several reports have.

/// Seconds as people read them: `0.31s`, `12s`, `3m20s`.
pub fn duration(secs: f64) -> String {
    match secs {
        secs if secs < 10.0 => format!("{secs:.2}s"),
        secs if secs < 60.0 => format!("{secs:.1}s"),
        secs => {
            // Rounded first: 119.7 is 2m0s, not 1m60s.
            let whole = secs.round() as u64;
            match whole / 3600 {
                0 => format!("{}m{}s", whole / 60, whole % 60),
                hours => format!("{hours}h{}m", whole % 3600 / 60),
            }
        }
    }
}

/// Seconds since 1970 as `2026-01-31T23:59:59Z` (RFC 3339).
pub fn time_of_day(secs: f64) -> String {
    let secs = secs.max(0.0) as u64;
    let (days, rest) = (secs / 86400, secs % 86400);
    // Howard Hinnant's civil_from_days, of days since 0000-03-01, by eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// One line of it, without what a terminal would obey.
pub(super) fn one_line(text: &str) -> String {
    let first = text.trim().lines().next().unwrap_or_default();
    first.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Text without ANSI's sequences and control characters, but with its lines.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\n' | '\t' => out.push(c),
            '\r' => {}
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told() {
        assert_eq!(time_of_day(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(time_of_day(951_782_400.5), "2000-02-29T00:00:00Z");
        assert_eq!(time_of_day(1_798_761_599.0), "2026-12-31T23:59:59Z");
        let told = [0.314, 12.0, 59.9, 119.7, 7260.0].map(duration);
        assert_eq!(told, ["0.31s", "12.0s", "59.9s", "2m0s", "2h1m"]);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(printable("a\u{1b}[31mred\u{1b}[0m\r\n\u{7}\u{fffe}"), "ared\n\u{fffd}\u{fffd}");
        assert_eq!(one_line(" a\u{1b}b \nc"), "a\u{fffd}b ");
    }
}
