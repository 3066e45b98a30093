//! poll(2), and what a read that must not block brings.

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;
use std::io::{ErrorKind, Read};
use std::time::Duration;

/// Waits until one of `fds` is ready, at most for `wait`.
pub(crate) fn wait(fds: &mut [PollFd<'_>], wait: Option<Duration>) {
    let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
    // Nothing but an interruption can go wrong with valid descriptors; the callers look again anyway.
    while poll(fds, wait.as_ref()) == Err(Errno::INTR) {}
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Some(usize),
    NothingNow,
    End,
}

/// Reads from a pipe or a terminal's master side that does not block.
pub(crate) fn read_some(mut file: impl Read, buffer: &mut [u8]) -> Progress {
    // EIO is how a terminal says that nobody has its other side open any more. The kernel looks for
    // data first and for the other side then, so data written in between are behind the first EIO
    // (seen with Linux 6.12); behind a second one there is nothing.
    let mut closed = false;
    loop {
        match file.read(buffer) {
            Ok(0) => return Progress::End,
            Ok(count) => return Progress::Some(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::NothingNow,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) && !closed => {
                closed = true;
            }
            Err(_) => return Progress::End,
        }
    }
}
