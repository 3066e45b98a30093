//! `/init`, the agent and the small commands, in one static program.
//!
//! Which one it is decides the name it was called by, else its first argument. As process 1 it is
//! always `init`: the kernel hands init the words of its command line that it did not understand,
//! so arguments mean nothing there.

mod commands;
mod init;
mod sys;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if std::process::id() == 1 {
        init::main();
    }
    let called = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if let Some(command) = commands::find(called) {
        return command(&args[1..]);
    }
    if args.len() > 1
        && let Some(command) = commands::find(&args[1])
    {
        return command(&args.split_off(2));
    }
    commands::usage(args.get(1).map(OsString::as_os_str))
}
