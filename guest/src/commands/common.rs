//! What the commands have in common: words, statuses, the way they fail.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

/// Wrong usage, as in sysexits.h.
pub(super) const USAGE: u8 = 64;

pub(super) fn fail(command: &str, why: impl std::fmt::Display) -> ExitCode {
    eprintln!("{command}: {why}");
    ExitCode::FAILURE
}

/// The words of the command to run; a leading `--` only ends the options.
pub(super) fn command_words(args: &[OsString]) -> &[OsString] {
    match args {
        [first, rest @ ..] if first == "--" => rest,
        all => all,
    }
}

/// Runs a program to its end with our streams; its status as a shell gives it.
pub(super) fn run(command: &str, words: &[OsString]) -> u8 {
    let Some((program, args)) = words.split_first() else { return 0 };
    match Command::new(program).args(args).status() {
        Ok(status) => shell_status(status),
        Err(error) => {
            eprintln!("{command}: cannot run `{}`: {error}", program.display());
            if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
        }
    }
}

pub(super) fn shell_status(status: ExitStatus) -> u8 {
    let signal = || status.signal().map_or(255, |signal| 128 + signal);
    status.code().unwrap_or_else(signal) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        let sh = |script: &str| run("test", &["sh".into(), "-c".into(), script.into()]);
        assert_eq!(sh("exit 3"), 3);
        assert_eq!(sh("kill -9 $$"), 137);
        assert_eq!(run("test", &["/nonexistent/program".into()]), 127);
        assert_eq!(run("test", &["/".into()]), 126);
        assert_eq!(run("test", &[]), 0);
    }

    #[test]
    fn two_dashes_end_the_options_once() {
        let words = ["--".into(), "a".into(), "--".into()];
        assert_eq!(command_words(&words), ["a", "--"]);
    }
}
