//! What has to happen in a child process between fork and exec.
#![expect(unsafe_code, reason = "a pre_exec hook is unsafe: it runs between fork and exec")]

use std::io;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::process::Command;

/// Makes the kernel kill the child with SIGKILL as soon as the *thread* that spawns it ends, so also
/// when this process is killed with SIGKILL.
///
/// Spawn it from a thread that lives as long as the process ([`crate::vm`] has one).
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let hook = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before that took effect; then nobody would ever tell us.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::other("the parent process is gone"))
        }
    };
    // SAFETY: The hook makes two system calls through rustix, which neither allocate nor take locks;
    // `io::Error::other` allocates, but only when nobody is left to notice a deadlock.
    unsafe {
        command.pre_exec(hook);
    }
}
