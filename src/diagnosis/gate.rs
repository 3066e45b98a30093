//! Which reports count.

use regex::RegexSet;

use super::splat::Splat;
use crate::fields::UnknownWord;

/// What a report that counts does to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The run fails.
    #[default]
    Fail,
    /// It is shown.
    Warn,
    /// Nobody looks.
    Off,
}

impl Mode {
    /// Understands `fail`, `warn` and `off`.
    ///
    /// # Errors
    /// [`UnknownWord`].
    pub fn parse(text: &str) -> Result<Mode, UnknownWord> {
        match text {
            "fail" => Ok(Mode::Fail),
            "warn" => Ok(Mode::Warn),
            "off" => Ok(Mode::Off),
            _ => Err(UnknownWord { given: text.to_owned(), known: "fail, warn, off" }),
        }
    }
}

/// A report with what a gate says of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ruled {
    /// Whether it counts.
    pub counts: bool,
    /// The pattern that allows it, or why nothing is to be made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
    /// The report.
    #[serde(flatten)]
    pub splat: Splat,
}

/// The reports of a log, in its order, each with what a gate says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Judged {
    /// What one that counts does.
    pub mode: Mode,
    /// Those that were kept.
    pub reports: Vec<Ruled>,
    /// How many more there were.
    pub more: u64,
}

impl Judged {
    /// Those that count.
    pub fn counting(&self) -> impl Iterator<Item = &Splat> {
        self.reports.iter().filter(|report| report.counts).map(|report| &report.splat)
    }

    /// Of stalls and lockups nothing is to be made, for this reason: time was not the guest's.
    pub fn excuse_hangs(&mut self, reason: &str) {
        for report in self.reports.iter_mut().filter(|report| report.splat.kind.is_hang()) {
            report.counts = false;
            report.allowed_by.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// How many count. Reports that were not kept do: nobody has looked at them.
    pub fn count(&self) -> u64 {
        self.counting().count() as u64 + self.more
    }
}

/// Whether a report counts, and why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling<'a> {
    /// It counts.
    Counts,
    /// This pattern allows it.
    Allowed(&'a str),
}

/// Which reports count. A pattern is matched against the title and against each line.
///
/// Patterns are regular expressions in the syntax of the `regex` crate, whose matching time is linear
/// in the text, whatever the pattern is.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    mode: Mode,
    allow: Option<RegexSet>,
    deny: Option<RegexSet>,
}

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is no regular expression")]
pub struct PatternError {
    /// What was given.
    pub pattern: String,
    /// What is wrong with it.
    #[source]
    pub source: Box<regex::Error>,
}

impl PatternError {
    /// How to fix it.
    pub fn hint(&self) -> &'static str {
        match *self.source {
            regex::Error::CompiledTooBig(_) => "repeat less: a pattern takes at most 10 MB",
            _ => "put \\ before characters that are to be taken as they are: \\( \\[ \\+ \\.",
        }
    }
}

impl Gate {
    /// A gate that lets everything count.
    pub fn new(mode: Mode) -> Gate {
        Gate { mode, ..Gate::default() }
    }

    /// What matches one of these does not count, unless [`Gate::deny`] names it.
    ///
    /// # Errors
    /// One is no regular expression, or too large.
    pub fn allow(mut self, patterns: &[String]) -> Result<Gate, PatternError> {
        self.allow = compile(patterns)?;
        Ok(self)
    }

    /// What matches one of these counts, whatever is allowed.
    ///
    /// # Errors
    /// One is no regular expression, or too large.
    pub fn deny(mut self, patterns: &[String]) -> Result<Gate, PatternError> {
        self.deny = compile(patterns)?;
        Ok(self)
    }

    /// What a report that counts does.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Rules on the reports of a log; `more` were not kept. With [`Mode::Off`] there are none.
    pub fn judge(&self, splats: Vec<Splat>, more: u64) -> Judged {
        if self.mode == Mode::Off {
            return Judged { mode: Mode::Off, ..Judged::default() };
        }
        let reports = splats.into_iter().map(|splat| self.ruled(splat)).collect();
        Judged { mode: self.mode, reports, more }
    }

    /// A report with what is to be said of it.
    pub fn ruled(&self, splat: Splat) -> Ruled {
        let allowed_by = match self.rule(&splat) {
            Ruling::Counts => None,
            Ruling::Allowed(pattern) => Some(pattern.to_owned()),
        };
        Ruled { counts: allowed_by.is_none(), allowed_by, splat }
    }

    /// Whether a report counts. With [`Mode::Off`] the caller need not ask.
    pub fn rule(&self, splat: &Splat) -> Ruling<'_> {
        if self.deny.as_ref().is_some_and(|deny| first(deny, splat).is_some()) {
            return Ruling::Counts;
        }
        match self.allow.as_ref().and_then(|allow| first(allow, splat)) {
            Some(pattern) => Ruling::Allowed(pattern),
            None => Ruling::Counts,
        }
    }
}

fn compile(patterns: &[String]) -> Result<Option<RegexSet>, PatternError> {
    // Each by itself, to name the one that is wrong.
    for pattern in patterns {
        regex::Regex::new(pattern).map_err(|source| PatternError {
            pattern: pattern.clone(),
            source: Box::new(source),
        })?;
    }
    if patterns.is_empty() {
        return Ok(None);
    }
    let set = RegexSet::new(patterns)
        .map_err(|source| PatternError { pattern: patterns.join("|"), source: Box::new(source) })?;
    Ok(Some(set))
}

fn first<'a>(set: &'a RegexSet, splat: &Splat) -> Option<&'a str> {
    let texts =
        std::iter::once(&splat.title).chain(std::iter::once(&splat.message)).chain(&splat.lines);
    let index = texts.filter_map(|text| set.matches(text).iter().next()).next()?;
    set.patterns().get(index).map(String::as_str)
}

/// The patterns in a list's text: one on each line, without empty lines and those that begin with `#`.
pub fn patterns(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}
