//! A shell script in a guest: a line that fails ends it, and the error says which line it was.

use std::sync::Arc;

use vmtest_guest::proto::ExitStatus;

use crate::arch::Arch;
use crate::blocking;
use crate::configure::{Configure, with_image};
use crate::session::{self, Command, Finished};
use crate::vm::Verdict;

/// Where the script lies in the guest.
const PATH: &str = "/.vmtest/script";

/// Begins the line on stderr that says where the script ended.
const MARK: &str = "vmtest: the script ended at line ";

/// Runs a script with the guest's `sh`, under `set -e`: the first command that fails ends it, and its
/// status is the run's.
///
/// The line is found with a trap for `EXIT` and `LINENO` (busybox 1.37, dash); a script that sets this
/// trap itself is run all the same, but the error then knows no line. In a function it is the line of
/// the outermost call.
///
/// # Errors
/// [`Error`].
pub fn run(arch: Arch, configurator: impl Configure, script: &str) -> Result<Finished, Error> {
    // On the first line, so that the numbers are those of the script.
    let prelude = format!("trap '[ $? = 0 ] || echo \"{MARK}$LINENO\" >&2' EXIT; set -e; ");
    let text: Arc<[u8]> = format!("{prelude}{script}").into_bytes().into();
    let image = with_image(move |builder| {
        builder.by("the script").bytes(PATH, 0o755, text.to_vec());
    });
    let command = Command::new("sh").arg(PATH);
    let finished = blocking::run(arch, (configurator, image), command)?;
    judge(finished, script)
}

fn judge(mut finished: Finished, script: &str) -> Result<Finished, Error> {
    let stderr = finished.stderr_text();
    let marked = stderr.lines().rev().find_map(|line| line.strip_prefix(MARK)?.parse().ok());
    // Ours, not the script's.
    if marked.is_some() {
        let kept = stderr.lines().filter(|line| !line.starts_with(MARK));
        finished.stderr = kept.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes();
    }
    let status = match finished.record.outcome.verdict {
        Verdict::Exited(ExitStatus::Code(0)) => return Ok(finished),
        Verdict::Exited(status) => status,
        _ => return Err(Error::NotEnded { finished: Box::new(finished) }),
    };
    // The shell tells of a syntax error itself and runs no trap.
    let line = marked.or_else(|| {
        let (_, rest) = stderr.split_once(&format!("{PATH}: line "))?;
        rest.split(':').next()?.parse().ok()
    });
    let text = line.and_then(|line: usize| script.lines().nth(line.checked_sub(1)?));
    let text = text.unwrap_or_default().trim().to_owned();
    Err(Error::Failed { line, text, status, finished: Box::new(finished) })
}

/// A script did not end with status 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was started.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A line failed.
    #[error("{}", failed(*.line, .text, *.status, .finished))]
    Failed {
        /// Its number, from 1; `None` where it is not known.
        line: Option<usize>,
        /// The line.
        text: String,
        /// The failed command's status.
        status: ExitStatus,
        /// The run.
        finished: Box<Finished>,
    },
    /// The guest did not run it to its end.
    #[error("the script did not end: {}", .finished.record.outcome.verdict)]
    NotEnded {
        /// The run.
        finished: Box<Finished>,
    },
}

fn failed(line: Option<usize>, text: &str, status: ExitStatus, finished: &Finished) -> String {
    let place = match line {
        Some(line) => format!("line {line} of the script"),
        None => "the script".into(),
    };
    let mut message = format!("{place} failed with status {}", status.shell_code());
    if !text.is_empty() {
        message.push_str(&format!(": {text}"));
    }
    for line in crate::vm::last_lines(&finished.stderr, 10) {
        message.push_str(&format!("\n  {line}"));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(verdict: Verdict, stderr: &str) -> Finished {
        Finished {
            record: crate::run_record::of(verdict),
            stdout: Vec::new(),
            stderr: stderr.into(),
            console: Vec::new(),
            cmdline: Default::default(),
        }
    }

    #[test]
    fn an_error_names_the_line() {
        let stderr = format!("no such file\n{MARK}2\n");
        let ended = finished(Verdict::Exited(ExitStatus::Code(3)), &stderr);
        let error = judge(ended, "echo a\n  cat /nothing\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2 of the script failed with status 3: cat /nothing\n  no such file"
        );
        let stderr = format!("{PATH}: line 3: syntax error: unexpected \"then\"");
        let ended = finished(Verdict::Exited(ExitStatus::Code(2)), &stderr);
        let error = judge(ended, "a\nb\nif then").unwrap_err();
        assert!(matches!(error, Error::Failed { line: Some(3), .. }), "{error}");
        let ended = finished(Verdict::Exited(ExitStatus::Signal(9)), "");
        let error = judge(ended, "a").unwrap_err();
        assert_eq!(error.to_string(), "the script failed with status 137");
    }

    #[test]
    fn a_script_that_did_not_end_has_no_line() {
        let ended = finished(Verdict::Panicked { text: "x".into() }, "");
        assert!(matches!(judge(ended, "a"), Err(Error::NotEnded { .. })));
    }
}
