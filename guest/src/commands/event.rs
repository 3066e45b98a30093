//! `event NAME JSON...`: a shell script tells the host things on event channel NAME.
//!
//! The last call says that the channel is complete: `event NAME --done`, after which nothing may
//! follow. A script need not say it when it runs as the command of a host: then whoever started the
//! script (`/init`, `shutdownafter`) says it when the script has ended with status 0, for all the
//! channels it used. A script that failed half-way leaves its channel incomplete, and the host
//! reports that: this is what `done` is for. A file in [`USED_DIR`] notes the channels in use.

use super::common::{USAGE, fail};
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use vmtest_guest::events::{Error, serial_event_channel};

const USED_DIR: &str = "/run/vmtest/events";

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let text: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    match text.as_deref() {
        Some([name, "--done"]) => answer(done(name)),
        Some([name, events @ ..]) if !events.is_empty() => answer(send(name, events)),
        _ => {
            eprintln!("usage: event NAME JSON... | event NAME --done");
            ExitCode::from(USAGE)
        }
    }
}

fn answer(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = std::error::Error::source(&error);
            let source = source.map(|source| format!(": {source}")).unwrap_or_default();
            fail("event", format!("{error}{source}"))
        }
    }
}

fn send(name: &str, events: &[&str]) -> Result<(), Error> {
    let channel = serial_event_channel::<()>(name)?;
    for event in events {
        channel.emit_json(event)?;
    }
    note(name);
    Ok(())
}

fn done(name: &str) -> Result<(), Error> {
    let _ = fs::remove_file(note_of(name));
    serial_event_channel::<()>(name)?.close()
}

/// A name may have slashes; a port's name is at most some dozen bytes, so hex always fits.
fn note_of(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{USED_DIR}/{hex}")
}

/// Without the note the host reports a missing `done`, which is a hint enough.
fn note(name: &str) {
    let _ = fs::create_dir_all(USED_DIR);
    let _ = fs::write(note_of(name), name);
}

/// Says `done` on the channels that calls of `event` have used and left open; the text is for the
/// user, one line for each that failed.
pub(crate) fn close_used() -> Vec<String> {
    let mut failures = Vec::new();
    for entry in fs::read_dir(USED_DIR).into_iter().flatten().flatten() {
        let Ok(name) = fs::read_to_string(entry.path()) else { continue };
        if let Err(error) = done(&name) {
            failures.push(format!("event channel `{name}`: {error}"));
        }
    }
    failures
}

/// Whether there is a channel that was used and left open.
pub(crate) fn any_used() -> bool {
    fs::read_dir(USED_DIR).is_ok_and(|mut entries| entries.next().is_some())
}

/// Forgets what was used: the next command starts afresh.
pub(crate) fn forget_used() {
    let _ = fs::remove_dir_all(USED_DIR);
}
