//! Every child that ends: the commands, and the orphans that process 1 inherits.

use crate::sys;
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vmtest_guest::proto::ExitStatus;

/// Tells when a child has ended, as something to poll.
///
/// Whoever has one must be the only one that waits for children, in a thread that also starts them: a
/// program that cannot be executed is a child that `Command::spawn` waits for itself.
pub(crate) struct Children {
    ended: OwnedFd,
}

impl Children {
    /// From now on SIGCHLD is blocked in this thread and in those it starts, and comes out here.
    pub(crate) fn watch() -> io::Result<Children> {
        Ok(Children { ended: sys::child_signals()? })
    }

    /// Readable once a child has ended.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Collects one child that has ended.
    pub(crate) fn next(&self) -> Option<(Pid, ExitStatus)> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let status = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitStatus::Code(code as u8),
                (None, Some(signal)) => ExitStatus::Signal(signal as u8),
                (None, None) => continue,
            };
            return Some((pid, status));
        }
        None
    }

    /// Forgets that it was told; [`Children::next`] has to be asked after this, until there is no more.
    pub(crate) fn acknowledge(&self) {
        // One signal may stand for several children.
        let _ = rustix::io::read(&self.ended, &mut [0u8; 1024]);
    }

    /// Whether no process is left: every process is a descendant of process 1.
    pub(crate) fn none_left() -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::All, options).is_err_and(|errno| errno == Errno::CHILD)
    }
}
