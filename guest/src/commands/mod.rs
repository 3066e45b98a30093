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
use std::process::ExitCode;

use common::USAGE;

type Main = fn(&[OsString]) -> ExitCode;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_name() {
        assert!(find(OsStr::new("vmmount")).is_some());
        assert!(find(OsStr::new("dance")).is_none());
    }
}
