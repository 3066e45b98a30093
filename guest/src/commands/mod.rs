//! The small commands, for scripts and for images made as the reference makes them.
//!
//! Each takes its arguments without its own name and gives the exit status: 64 for wrong usage, 1
//! when it could not do its work, and for those that run a program that program's status as a shell
//! gives it (128+n after signal n, 127 for a missing program, 126 for one that cannot be executed).

pub(crate) mod event;
mod go_events;
mod go_uinit;
pub(crate) mod power_off_after;
mod shell_uinit;
mod vm_mount;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

type Main = fn(&[OsString]) -> ExitCode;

/// Wrong usage, as in sysexits.h.
const USAGE: u8 = 64;

const COMMANDS: &[(&str, Main, &str)] = &[
    ("event", event::main, "NAME JSON... | NAME --done"),
    ("gouinit", go_uinit::main, "[-coverprofile FILE] [-test_timeout DURATION]"),
    ("shelluinit", shell_uinit::main, "[SCRIPT]"),
    ("shutdownafter", power_off_after::main, "[--] COMMAND..."),
    ("vmmount", vm_mount::main, "[--] [COMMAND...]"),
];

pub(crate) fn find(name: &OsStr) -> Option<Main> {
    COMMANDS.iter().find(|(known, ..)| *known == name).map(|(_, main, _)| *main)
}

/// Says what there is; an error, since nobody asks for it on purpose in a guest.
pub(crate) fn usage(wrong: Option<&OsStr>) -> ExitCode {
    if let Some(wrong) = wrong {
        eprintln!("error: no command `{}`", wrong.display());
    }
    eprintln!("vmtest-guest: /init of a guest (as process 1), and the commands");
    for (name, _, arguments) in COMMANDS {
        eprintln!("  {name} {arguments}");
    }
    ExitCode::from(USAGE)
}

fn fail(command: &str, why: impl std::fmt::Display) -> ExitCode {
    eprintln!("{command}: {why}");
    ExitCode::FAILURE
}

/// The words of the command to run; a leading `--` only ends the options.
fn command_words(args: &[OsString]) -> &[OsString] {
    match args {
        [first, rest @ ..] if first == "--" => rest,
        all => all,
    }
}

/// Runs a program to its end with our streams; its status as a shell gives it.
fn run(command: &str, words: &[OsString]) -> u8 {
    let Some((program, args)) = words.split_first() else { return 0 };
    match Command::new(program).args(args).status() {
        Ok(status) => shell_status(status),
        Err(error) => {
            eprintln!("{command}: cannot run `{}`: {error}", program.display());
            if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
        }
    }
}

fn shell_status(status: ExitStatus) -> u8 {
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
    fn commands_are_found_by_name() {
        assert!(find(OsStr::new("vmmount")).is_some());
        assert!(find(OsStr::new("dance")).is_none());
        let words = ["--".into(), "a".into(), "--".into()];
        assert_eq!(command_words(&words), ["a", "--"]);
    }
}
