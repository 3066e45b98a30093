//! What stands before a kernel's message: time, level, who printed it, what a logger added.
//!
//! | form | from |
//! |---|---|
//! | `[   12.345678] ` | `CONFIG_PRINTK_TIME`, `dmesg` |
//! | `[   12.345678][  T123] `, `[    C0] ` | `CONFIG_PRINTK_CALLER`: a task, or a processor in an interrupt |
//! | `<4>` | a level, `/proc/kmsg` and `dmesg --raw` |
//! | `4,1234,12345678,-,caller=T1;` | `/dev/kmsg` |
//! | `[Mon Sep 23 02:31:17 2024] ` | `dmesg -T` |
//! | `Sep 23 02:31:17 host kernel: `, `2024-09-23T02:31:17+00:00 host kernel: ` | syslog, journalctl |
//! | `** 12 printk messages dropped ** ` | a console that was too slow |
//! | `[  1:  name:  123] ` | kernels of telephones: processor, task |

use serde::Serialize;

/// Who printed a message (`CONFIG_PRINTK_CALLER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caller {
    /// A task, by its id.
    Task(u32),
    /// A processor that was in an interrupt, by its number.
    Processor(u32),
}

/// What was before the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Time since the boot in microseconds.
    pub time: Option<u64>,
    /// Who printed it.
    pub caller: Option<Caller>,
    /// The message's level, 0 (emergency) to 7 (debug).
    pub level: Option<u8>,
    /// How many messages before this one were lost.
    pub dropped: u64,
    /// A logger says which program wrote this.
    pub source: Source,
}

/// What a logger's prefix says about the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// There is no logger's prefix.
    #[default]
    Direct,
    /// The logger names the kernel.
    LoggedKernel,
    /// The logger names another program.
    LoggedProgram,
}

impl Prefix {
    /// Whether something proves that the kernel printed it.
    pub fn is_kernel(&self) -> bool {
        self.source != Source::LoggedProgram
            && (self.time.is_some()
                || self.level.is_some()
                || self.caller.is_some()
                || self.source == Source::LoggedKernel)
    }
}

/// Splits a line into its prefix and the message, which keeps its indentation.
pub fn parse(line: &str) -> (Prefix, &str) {
    let mut prefix = Prefix::default();
    let mut rest = line;
    // Each form at most a few times, in any order: loggers nest.
    for _ in 0..8 {
        let Some(after) = step(rest, &mut prefix) else { break };
        rest = after;
    }
    // One space belongs to the last bracket.
    let message = match rest.len() < line.len() {
        true => rest.strip_prefix(' ').unwrap_or(rest),
        false => rest,
    };
    (prefix, message)
}

fn step<'a>(rest: &'a str, prefix: &mut Prefix) -> Option<&'a str> {
    let trimmed = rest.trim_start_matches(' ');
    match trimmed.as_bytes().first()? {
        b'[' => bracket(trimmed, prefix),
        b'<' => level(trimmed, prefix),
        b'*' => dropped(trimmed, prefix),
        b'0'..=b'9' => kmsg(trimmed, prefix).or_else(|| logger(trimmed, prefix)),
        b'A'..=b'Z' => logger(trimmed, prefix),
        _ => None,
    }
}

/// Where in `line`, behind its beginning, another message with a time begins: two writers shared the
/// console.
pub fn embedded(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    memchr::memchr_iter(b'[', bytes)
        .filter(|&at| at > 0)
        .find(|&at| matches!(time(&line[at..]), Some((_, digits, _)) if digits == 6))
}

fn bracket<'a>(text: &'a str, prefix: &mut Prefix) -> Option<&'a str> {
    if let Some((time, _, rest)) = time(text) {
        if prefix.time.is_some() && prefix.source == Source::Direct {
            return None;
        }
        prefix.time = Some(time);
        return Some(rest);
    }
    if let Some((caller, rest)) = caller(text) {
        prefix.caller = Some(caller);
        return Some(rest);
    }
    if prefix.time.is_none() {
        return wall_clock(text);
    }
    if prefix.caller.is_none()
        && let Some((caller, rest)) = telephone(text)
    {
        prefix.caller = Some(caller);
        return Some(rest);
    }
    None
}

/// `[   12.345678]`: microseconds, how many digits were behind the point, and the rest.
fn time(text: &str) -> Option<(u64, usize, &str)> {
    let inner = text.strip_prefix('[')?.trim_start_matches(' ');
    let (seconds, inner) = digits(inner)?;
    let inner = inner.strip_prefix('.')?;
    let (_, rest) = digits(inner)?;
    let fraction = &inner[..inner.len() - rest.len()];
    let rest = rest.strip_prefix(']')?;
    if !(3..=9).contains(&fraction.len()) {
        return None;
    }
    let mut micros = seconds.checked_mul(1_000_000)?;
    let mut unit = 100_000;
    for digit in fraction.bytes() {
        micros = micros.checked_add(u64::from(digit - b'0') * unit)?;
        unit /= 10;
    }
    Some((micros, fraction.len(), rest))
}

/// `[  T123]` or `[    C0]`.
fn caller(text: &str) -> Option<(Caller, &str)> {
    let inner = text.strip_prefix('[')?.trim_start_matches(' ');
    let (kind, inner) = (inner.chars().next()?, inner.get(1..)?);
    let (number, rest) = digits(inner)?;
    let rest = rest.strip_prefix(']')?;
    let number = u32::try_from(number).ok()?;
    match kind {
        'T' => Some((Caller::Task(number), rest)),
        'C' => Some((Caller::Processor(number), rest)),
        _ => None,
    }
}

/// `[  1:   name:  123]`.
fn telephone(text: &str) -> Option<(Caller, &str)> {
    let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
    let mut parts = inner.split(':').map(str::trim);
    parts.next()?.parse::<u32>().ok()?;
    let pid = parts.next_back()?.parse().ok()?;
    parts.next()?;
    Some((Caller::Task(pid), rest))
}

/// `[Mon Sep 23 02:31:17 2024]`.
fn wall_clock(text: &str) -> Option<&str> {
    let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
    let mut words = inner.split_ascii_whitespace();
    let day = words.next()?;
    let month = words.next()?;
    let clock = words.nth(1)?;
    let year = words.next()?;
    let is_word = |word: &str| word.len() == 3 && word.bytes().all(|b| b.is_ascii_alphabetic());
    let fits = is_word(day)
        && is_word(month)
        && is_clock(clock)
        && year.len() == 4
        && words.next().is_none();
    fits.then_some(rest)
}

fn level<'a>(text: &'a str, prefix: &mut Prefix) -> Option<&'a str> {
    let (number, rest) = digits(text.strip_prefix('<')?)?;
    let rest = rest.strip_prefix('>')?;
    // The upper bits are a facility (3: daemons, 1: user programs).
    prefix.level = u8::try_from(number).ok().map(|number| number & 7);
    prefix.level.map(|_| rest)
}

fn dropped<'a>(text: &'a str, prefix: &mut Prefix) -> Option<&'a str> {
    let (number, rest) = digits(text.strip_prefix("** ")?)?;
    let rest = rest.strip_prefix(" printk messages dropped **")?;
    prefix.dropped = prefix.dropped.saturating_add(number.max(1));
    Some(rest)
}

/// `4,1234,12345678,-;text`.
fn kmsg<'a>(text: &'a str, prefix: &mut Prefix) -> Option<&'a str> {
    let (level, rest) = digits(text)?;
    let (_, rest) = digits(rest.strip_prefix(',')?)?;
    let (time, rest) = digits(rest.strip_prefix(',')?)?;
    let (flags, rest) = rest.strip_prefix(',')?.split_once(';')?;
    if flags.len() > 64 || flags.contains(' ') {
        return None;
    }
    prefix.level = Some((level & 7) as u8);
    prefix.time = Some(time);
    if let Some((_, id)) = flags.split_once("caller=") {
        prefix.caller = caller(&format!("[{id}]")).map(|(caller, _)| caller).or(prefix.caller);
    }
    Some(rest)
}

/// `Sep 23 02:31:17 host kernel:` or `2024-09-23T02:31:17+00:00 host kernel:`.
fn logger<'a>(text: &'a str, prefix: &mut Prefix) -> Option<&'a str> {
    if prefix.source != Source::Direct {
        return None;
    }
    let rest = iso_date(text).or_else(|| syslog_date(text))?;
    let (tag, after) = rest.split_once(':')?;
    if tag.len() > 100 || tag.contains('[') && tag.contains(' ') && !tag.ends_with(']') {
        return None;
    }
    let program = tag.split_ascii_whitespace().next_back()?;
    let is_kernel = program.eq_ignore_ascii_case("kernel");
    prefix.source = if is_kernel { Source::LoggedKernel } else { Source::LoggedProgram };
    Some(after)
}

fn syslog_date(text: &str) -> Option<&str> {
    let month = text.get(..3)?;
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    if !MONTHS.iter().any(|known| known.eq_ignore_ascii_case(month)) {
        return None;
    }
    let rest = text[3..].strip_prefix(' ')?.trim_start_matches(' ');
    let (day, rest) = digits(rest)?;
    let rest = rest.strip_prefix(' ')?;
    let (clock, rest) = rest.split_once(' ')?;
    ((1..=31).contains(&day) && is_clock(clock)).then_some(rest)
}

fn iso_date(text: &str) -> Option<&str> {
    let (stamp, rest) = text.split_once(' ')?;
    let (date, clock) = stamp.split_once('T')?;
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    (is_date && clock.get(..8).is_some_and(is_clock)).then_some(rest)
}

/// `02:31:17`.
fn is_clock(text: &str) -> bool {
    text.len() == 8
        && text.bytes().enumerate().all(|(at, byte)| match at {
            2 | 5 => byte == b':',
            _ => byte.is_ascii_digit(),
        })
}

/// A decimal number at the beginning, and what follows.
fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_told_apart() {
        let task = Some(Caller::Task(123));
        let cases = [
            ("[   12.345678] text", Some(12_345_678), None, None, "text"),
            ("[   12.345678][  T123]  text", Some(12_345_678), task, None, " text"),
            ("[   12.345678] [    C1] x", Some(12_345_678), Some(Caller::Processor(1)), None, "x"),
            ("<4>[    1.5000] x", Some(1_500_000), None, Some(4), "x"),
            ("<14>text", None, None, Some(6), "text"),
            ("4,77,12345,-,caller=T123;text", Some(12_345), task, Some(4), "text"),
            ("[    5.000001] [1:   a b:  123] x", Some(5_000_001), task, None, "x"),
            ("[Mon Sep 23 02:31:17 2024] x", None, None, None, "x"),
            ("** 12 printk messages dropped ** [    1.000000] x", Some(1_000_000), None, None, "x"),
            ("plain [text]", None, None, None, "plain [text]"),
            ("[drm] loaded", None, None, None, "[drm] loaded"),
            ("  indented", None, None, None, "  indented"),
        ];
        for (line, time, caller, level, message) in cases {
            let (prefix, rest) = parse(line);
            assert_eq!(
                (prefix.time, prefix.caller, prefix.level, rest),
                (time, caller, level, message),
                "{line}"
            );
        }
    }

    #[test]
    fn a_logger_says_who_wrote_it() {
        let (prefix, rest) = parse("Sep  3 02:31:17 host kern.err kernel: [   1.000000] text");
        assert_eq!(
            (prefix.source, prefix.time, rest),
            (Source::LoggedKernel, Some(1_000_000), "text")
        );
        let (prefix, rest) = parse("2024-09-23T02:31:17.123+00:00 host kernel: BUG: x");
        assert_eq!((prefix.source, rest), (Source::LoggedKernel, "BUG: x"));
        assert!(prefix.is_kernel());
        let (prefix, _) = parse("Sep 23 02:31:17 host dhcpcd[5651]: BUG: x");
        assert_eq!(prefix.source, Source::LoggedProgram);
        assert!(!prefix.is_kernel());
    }

    #[test]
    fn a_second_message_on_the_line_is_found() {
        assert_eq!(embedded("login: [   12.345678][ T1] text"), Some(7));
        assert_eq!(embedded("[   12.345678] text"), None);
        assert_eq!(embedded("version [1.234] of x[2]"), None);
    }

    #[test]
    fn absurd_numbers_are_no_prefix() {
        let (prefix, _) = parse("[99999999999999999999.123456] x");
        assert_eq!(prefix, Prefix::default());
        assert_eq!(parse("[").1, "[");
        assert_eq!(parse("").1, "");
    }
}
