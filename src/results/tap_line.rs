//! One line of TAP and its relatives.

use crate::diagnosis::prefix;

use super::model::Format;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `ok 1 - name # DIRECTIVE reason`
    Result { ok: bool, name: String, outcome: Option<Outcome>, reason: Option<String> },
    /// `1..3`, `1..0 # SKIP reason`
    Plan { count: u64, skip: Option<String> },
    /// `TAP version 14`, `KTAP version 1`
    Version,
    /// `# Subtest: name`
    Subtest(&'a str),
    /// `# selftests: dir: test`: it begins.
    Begins(&'a str),
    /// `Bail out! why`
    Bail(&'a str),
    /// `# anything`
    Comment,
    /// Anything.
    Other(&'a str),
}

/// A directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Skip,
    Todo,
    ExpectedFailure,
    Timeout,
    Error,
}

/// A line's depth and what it says.
pub(super) fn read(format: Format, raw: &str) -> (usize, Line<'_>) {
    let text = match format {
        Format::Kunit => prefix::parse(raw).1,
        _ => raw,
    };
    let (mut indent, mut text) = indentation(text);
    if format == Format::Kselftest {
        if let Some(name) = text.strip_prefix("# selftests: ").filter(|_| indent == 0) {
            return (0, Line::Begins(name.trim_end()));
        }
        // The runner puts `# ` before what its programs print.
        let (mut depth, mut inner) = (indent, text);
        while let Some(rest) = inner.strip_prefix("# ") {
            let (more, rest) = indentation(rest);
            depth += 2 + more;
            inner = rest;
        }
        if !matches!(of(format, inner), Line::Other(_) | Line::Comment) {
            (indent, text) = (depth, inner);
        }
    }
    (indent, of(format, text))
}

/// The width of the blank space before a line, tabs counting four, and the line without it.
fn indentation(text: &str) -> (usize, &str) {
    let rest = text.trim_start_matches([' ', '\t']);
    let blank = &text[..text.len() - rest.len()];
    (blank.chars().map(|c| if c == '\t' { 4 } else { 1 }).sum(), rest)
}

fn of(format: Format, text: &str) -> Line<'_> {
    let text = text.trim_end();
    let result = |ok, rest: &str| result(format, ok, rest);
    if let Some(line) = text.strip_prefix("not ok").and_then(|rest| result(false, rest)) {
        return line;
    }
    if let Some(line) = text.strip_prefix("ok").and_then(|rest| result(true, rest)) {
        return line;
    }
    if let Some(line) = text.strip_prefix("1..").and_then(plan) {
        return line;
    }
    if text.starts_with("TAP version ") || text.starts_with("KTAP version ") {
        return Line::Version;
    }
    if let Some(name) = text.strip_prefix("# Subtest:") {
        return Line::Subtest(name.trim());
    }
    if let Some(why) = text.strip_prefix("Bail out!") {
        return Line::Bail(why.trim());
    }
    if text.starts_with('#') { Line::Comment } else { Line::Other(text) }
}

fn plan(rest: &str) -> Option<Line<'static>> {
    let (count, comment) = match rest.split_once('#') {
        Some((count, comment)) => (count, Some(comment.trim())),
        None => (rest, None),
    };
    let skip = comment.and_then(|text| {
        let word = text.get(..4).filter(|word| word.eq_ignore_ascii_case("skip"));
        word.map(|_| text.split_once(char::is_whitespace).map_or("", |it| it.1).trim().to_owned())
    });
    Some(Line::Plan { count: count.trim().parse().ok()?, skip })
}

/// What is behind `ok`. KTAP has a number there; TAP may leave it out.
fn result(format: Format, ok: bool, rest: &str) -> Option<Line<'static>> {
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let numbered = digits > 0 && rest[digits..].chars().next().is_none_or(char::is_whitespace);
    if !numbered && format != Format::Tap {
        return None;
    }
    let rest = if numbered { rest[digits..].trim_start() } else { rest };
    let rest = rest.strip_prefix("- ").unwrap_or(rest).trim_start();
    let rest = if rest == "-" { "" } else { rest };
    let (name, outcome, reason) = directive(format, rest);
    let name = name.replace("\\#", "#").replace("\\\\", "\\");
    let name = match format {
        Format::Kselftest => name.strip_prefix("selftests: ").unwrap_or(&name).to_owned(),
        _ => name,
    };
    Some(Line::Result { ok, name, outcome, reason })
}

/// The description, the directive and what follows it.
fn directive(format: Format, text: &str) -> (&str, Option<Outcome>, Option<String>) {
    let mut from = 0;
    while let Some(found) = text[from..].find('#') {
        let at = from + found;
        from = at + 1;
        let before = &text[..at];
        if !(before.is_empty() || before.ends_with([' ', '\t'])) {
            continue;
        }
        let after = text[at + 1..].trim_start();
        let (word, reason) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
        let word = word.trim_end_matches(':').to_ascii_uppercase();
        let outcome = match word.as_str() {
            "SKIP" | "SKIPPED" => Some(Outcome::Skip),
            "TODO" => Some(Outcome::Todo),
            "XFAIL" => Some(Outcome::ExpectedFailure),
            "TIMEOUT" => Some(Outcome::Timeout),
            "ERROR" => Some(Outcome::Error),
            _ => None,
        };
        let reason = match outcome {
            Some(Outcome::Timeout) => format!("timed out: {reason}"),
            Some(_) => reason.to_owned(),
            // KTAP allows anything behind the name; in TAP it is part of it.
            None if format != Format::Tap && text[at..].starts_with("# ") => after.to_owned(),
            None => continue,
        };
        let reason = reason.trim().trim_end_matches(':').to_owned();
        return (before.trim_end(), outcome, Some(reason).filter(|text| !text.is_empty()));
    }
    (text.trim_end(), None, None)
}
