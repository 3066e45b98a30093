//! Relays one output stream of the command to its port.
//!
//! Each stream has a thread that blocks when the host is slow: then the pipe fills and the command
//! waits, as it would at any slow terminal. Data go through a buffer here rather than by splice(2):
//! `virtio_console` drops what was spliced when its queue has no room, and it waits for a slow host
//! with the pipe's lock held, where not even SIGKILL ends the command.

use super::control::write_port;
use super::stdin::wait_any;
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 128 << 10;

/// After its session's leader has ended, a terminal hangs up as soon as it is drained; this is for
/// the case that it does not.
const TERMINAL_GRACE: Duration = Duration::from_millis(500);

/// Where a stream comes from. Both must be non-blocking.
pub(crate) enum Source {
    Pipe(File),
    /// The master side of the command's terminal.
    Terminal(File),
}

/// Tells the relays of a command that it has ended.
#[derive(Clone)]
pub(crate) struct Ended {
    event: Arc<OwnedFd>,
}

impl Ended {
    pub(crate) fn new() -> Result<Ended, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Ended { event: Arc::new(event) })
    }

    /// From now on only what is in the stream already counts: what a background process of the
    /// command writes later belongs to no command.
    pub(crate) fn tell(&self) {
        // It can only fail when it was told 2^64 times.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

/// Relays until the stream's end, or until the command has ended and what it left in the stream is
/// relayed; calls `done` with the number of bytes the port has taken. Then goes on and throws away
/// what background processes still write, so that they neither block nor die of SIGPIPE.
pub(crate) fn relay(source: Source, mut port: File, ended: &Ended, done: impl FnOnce(u64)) {
    let (mut file, terminal) = match source {
        Source::Pipe(file) => (file, false),
        Source::Terminal(file) => (file, true),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut relayed = 0;
    // Once the command has ended: how many bytes of a pipe still count, until when to wait for a
    // terminal's end.
    let mut left: Option<u64> = None;
    let mut deadline: Option<Instant> = None;
    let at_end = loop {
        let most = left.map_or(buffer.len(), |left| buffer.len().min(left as usize));
        if most == 0 {
            break false;
        }
        match read_some(&mut file, &mut buffer[..most]) {
            Progress::Some(count) => {
                if write_port(&mut port, &buffer[..count]).is_err() {
                    // The host is gone; the control port says so as well.
                    break false;
                }
                relayed += count as u64;
                left = left.map(|left| left - count as u64);
            }
            Progress::End => break true,
            Progress::NothingNow if left.is_some() => break false,
            Progress::NothingNow => {
                let wait = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                if wait == Some(Duration::ZERO) {
                    break false;
                }
                let command_ended = if deadline.is_some() {
                    wait_any(&[(file.as_fd(), PollFlags::IN)], wait);
                    false
                } else {
                    let both =
                        [(file.as_fd(), PollFlags::IN), (ended.event.as_fd(), PollFlags::IN)];
                    !wait_any(&both, None)[1].is_empty()
                };
                if command_ended && terminal {
                    deadline = Some(Instant::now() + TERMINAL_GRACE);
                } else if command_ended {
                    left = Some(rustix::io::ioctl_fionread(&file).unwrap_or(0));
                }
            }
        }
    };
    drop(port);
    done(relayed);
    if !at_end && !terminal {
        discard(&mut file, &mut buffer);
    }
    // Closing a terminal's master hangs up what is left on it.
}

fn discard(file: &mut File, buffer: &mut Vec<u8>) {
    buffer.truncate(4 << 10);
    loop {
        match read_some(file, buffer) {
            Progress::Some(_) => {}
            Progress::End => return,
            Progress::NothingNow => {
                wait_any(&[(file.as_fd(), PollFlags::IN)], None);
            }
        }
    }
}

/// What a read brought.
enum Progress {
    Some(usize),
    NothingNow,
    End,
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> Progress {
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
