//! The one place that needs `unsafe`: what a child must do between `fork` and `exec`.
#![expect(unsafe_code, reason = "`setsid` and TIOCSCTTY only work in the child, before its exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Whether the command's stdin becomes the terminal that controls its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controlling {
    /// No terminal controls the session.
    None,
    /// Stdin does; it is an error when it cannot.
    Stdin,
    /// Stdin does where it can: a console need not be a terminal.
    StdinIfPossible,
}

/// Makes `command` run as leader of a session, and so of a process group, of its own: a signal to
/// the group reaches all of the command and nobody else.
pub(crate) fn in_own_session(command: &mut Command, controlling: Controlling) {
    let in_child = move || {
        rustix::process::setsid()?;
        if controlling != Controlling::None {
            match rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()) {
                Err(_) if controlling == Controlling::StdinIfPossible => {}
                result => result?,
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs in the child of a fork in a process with several threads, where only
    // async-signal-safe things are allowed. It makes two system calls; it neither allocates nor
    // takes a lock, and its error is made from an errno, which does not allocate either.
    unsafe { command.pre_exec(in_child) };
}
