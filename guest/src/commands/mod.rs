//! The small commands, for scripts and for images made as `hugelgupf/vmtest` makes them.
//!
//! Each takes its arguments without its own name and gives the exit status: 64 for wrong usage, 1
//! when it could not do its work, and for those that run a program that program's status as a shell
//! gives it (128+n after signal n, 127 for a missing program, 126 for one that cannot be executed).

mod common;
pub(crate) mod event;
mod go_events;
mod go_uinit;
pub(crate) mod power_off_after;
mod shell_uinit;
mod vm_mount;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;

use common::USAGE;

type Main = fn(&[OsString]) -> ExitCode;

/// Name, program, arguments, and what it is for.
const COMMANDS: &[(&str, Main, &str, &str)] = &[
    (
        "event",
        event::main,
        "NAME JSON... | NAME --done",
        "sends events; --done: that was all (said for you when the command ends with status 0)",
    ),
    (
        "gouinit",
        go_uinit::main,
        "[-coverprofile FILE] [-test_timeout DURATION]",
        "runs Go test programs of the image",
    ),
    ("shelluinit", shell_uinit::main, "[SCRIPT]", "runs a shell script of the image"),
    ("shutdownafter", power_off_after::main, "[--] COMMAND...", "runs a command, then powers off"),
    ("vmmount", vm_mount::main, "[--] [COMMAND...]", "mounts shares, then runs a command"),
];

pub(crate) fn find(name: &OsStr) -> Option<Main> {
    COMMANDS.iter().find(|(known, ..)| *known == name).map(|(_, main, ..)| *main)
}

/// Says what there is: on stdout where it is asked for, else it is an error.
pub(crate) fn usage(asked: Option<&OsStr>) -> ExitCode {
    let mut text = "vmtest-guest: /init of a guest (as process 1), and the commands\n".to_owned();
    for (name, _, arguments, what) in COMMANDS {
        text.push_str(&format!("  {name} {arguments}\n      {what}\n"));
    }
    if asked.is_some_and(|word| word == "--help" || word == "-h" || word == "help") {
        // A reader that left knows enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    if let Some(wrong) = asked {
        eprintln!("error: no command `{}`", wrong.display());
    }
    eprint!("{text}");
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_name() {
        assert!(find(OsStr::new("vmmount")).is_some());
        assert!(find(OsStr::new("dance")).is_none());
    }
}
