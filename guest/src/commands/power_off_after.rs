//! `shutdownafter [--] COMMAND...`: runs the command, then powers off.
//!
//! `hugelgupf/vmtest` swallows the command's status here. When a host started us over the control port it
//! wants the status, and powers off itself once the command has ended: then this only runs the
//! command and exits with its status. With another host the status is printed on stderr, since
//! nothing else reaches anybody, and the machine powers off.

use super::common::{command_words, run};
use super::event;
use crate::init::power;
use std::ffi::OsString;
use std::process::ExitCode;

/// Set by `/init` for the command of a host.
pub(crate) const UNDER_HOST: &str = "VMTEST_UNDER_HOST";

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let status = run("shutdownafter", command_words(args));
    if std::env::var_os(UNDER_HOST).is_some() {
        return ExitCode::from(status);
    }
    if status == 0 {
        for failure in event::close_used() {
            eprintln!("shutdownafter: {failure}");
        }
    }
    eprintln!("shutdownafter: the command ended with status {status}");
    power::off()
}
