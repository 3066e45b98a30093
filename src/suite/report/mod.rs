//! Reports of a run: what is written for whom.
//!
//! | form | for |
//! |---|---|
//! | [`Form::Junit`] | Jenkins, GitLab: retries as surefire writes them, architecture and kernel in `classname` |
//! | [`Form::Ktap`] | the kernel's tools: an entry of the suite with its tests below it |
//! | [`Form::Json`] | programs: the lines of [`super::Line`] |
//! | [`Form::Html`] | people: one file, without scripts and without anything from a network |
//! | [`Form::Trace`] | <https://ui.perfetto.dev> and Chrome: who ran where and when |
//! | [`github`] | a job of GitHub: annotations and a summary |
//!
//! Tests print anything: what a form forbids is taken out of what they have printed.

pub mod github;
mod html;
mod junit;
mod ktap;
mod text;
mod trace;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::PathBuf;

use super::record::{Line, Run, SCHEMA};
use crate::fields::BadValue;

pub use text::{duration, time_of_day};

/// A form of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JUnit's XML.
    Junit,
    /// KTAP 1.
    Ktap,
    /// JSON lines.
    Json,
    /// One page.
    Html,
    /// A trace of Chrome's.
    Trace,
}

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file; `-` is stdout.
    File(Form, PathBuf),
    /// Annotations on stdout, and the summary of the job.
    Github,
}

impl Wanted {
    /// `FORM=FILE`, or `github`.
    ///
    /// # Errors
    /// [`BadValue`] when it is neither.
    pub fn parse(text: &OsStr) -> Result<Wanted, BadValue> {
        use std::os::unix::ffi::OsStrExt;
        let wrong = || {
            BadValue::new(
                text,
                "names no report",
                "junit=FILE, ktap=FILE, json=FILE, html=FILE, trace=FILE, or github",
            )
        };
        let bytes = text.as_bytes();
        if bytes == b"github" {
            return Ok(Wanted::Github);
        }
        let at = bytes.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (form, file) = (&bytes[..at], &bytes[at + 1..]);
        let form = match form {
            b"junit" | b"gitlab" => Form::Junit,
            b"ktap" => Form::Ktap,
            b"json" => Form::Json,
            b"html" => Form::Html,
            b"trace" => Form::Trace,
            _ => return Err(wrong()),
        };
        if file.is_empty() {
            return Err(wrong());
        }
        Ok(Wanted::File(form, PathBuf::from(OsStr::from_bytes(file))))
    }
}

impl Form {
    /// The form that a file's name says: `.xml`, `.html`, `.jsonl`, `.trace.json`, `.tap`.
    pub fn of_file(path: &std::path::Path) -> Option<Form> {
        let name = path.file_name()?.to_str()?;
        [
            (".trace.json", Form::Trace),
            (".xml", Form::Junit),
            (".html", Form::Html),
            (".jsonl", Form::Json),
            (".ktap", Form::Ktap),
            (".tap", Form::Ktap),
        ]
        .into_iter()
        .find(|(end, _)| name.ends_with(end))
        .map(|(_, form)| form)
    }
}

/// Writes a report.
///
/// # Errors
/// The writer's.
pub fn write(form: Form, run: &Run, out: &mut dyn Write) -> io::Result<()> {
    match form {
        Form::Junit => junit::write(run, out),
        Form::Ktap => ktap::write(run, out),
        Form::Json => lines(run, out),
        Form::Html => html::write(run, out),
        Form::Trace => trace::write(run, out),
    }
}

/// The run as it would have been written line by line.
fn lines(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let begin = Line::Suite {
        schema: SCHEMA,
        vmtest_version: env!("CARGO_PKG_VERSION").into(),
        started_secs: run.started_secs,
        jobs: run.jobs,
    };
    out.write_all(begin.to_text().as_bytes())?;
    for (cell, suite) in &run.planned {
        let planned = Line::Planned { cell: cell.clone(), suite: suite.clone() };
        out.write_all(planned.to_text().as_bytes())?;
    }
    for test in &run.tests {
        for attempt in &test.attempts {
            let line = Line::Result { names: test.names.clone(), attempt: attempt.clone() };
            out.write_all(line.to_text().as_bytes())?;
        }
    }
    let end = Line::End { secs: run.secs, interrupted: run.incomplete };
    out.write_all(end.to_text().as_bytes())
}
