//! A command that runs, or has run: its streams and its end.
//!
//! Output goes from the command's pipe (or terminal) into frames as long as the host gives room; what
//! the host does not take stays in the pipe, and the command waits, as it would at any slow terminal.
//! Once the command has ended, what is in the pipe already counts as its output; what a process that it
//! left behind writes later belongs to no command and is thrown away ([`Job::leftovers`]), so that such
//! a process neither blocks nor dies of SIGPIPE.
//!
//! Stdin is kept until the command takes it; the host sends no more than a window of it.

use super::link::Link;
use super::poll::{self, Progress};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmtest_guest::proto::ExitStatus;
use vmtest_guest::proto::frame::{self, Kind, WINDOW_BYTES};

/// After its session's leader has ended, a terminal hangs up as soon as it is drained; this is for
/// the case that it does not.
const TERMINAL_GRACE: Duration = Duration::from_millis(500);
/// Ctrl-D.
const END_OF_FILE: &[u8] = b"\x04";

/// A command.
pub(crate) struct Job {
    /// The number of its Exec.
    pub(crate) id: u32,
    pub(crate) pid: Pid,
    /// The master side of its terminal.
    pub(crate) terminal: Option<Arc<File>>,
    /// Once it has ended.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) outlets: [Outlet; 2],
    pub(crate) inlet: Inlet,
}

impl Job {
    /// It has ended: what is in its streams now still counts.
    pub(crate) fn ended(&mut self, status: ExitStatus) {
        self.status = Some(status);
        for outlet in &mut self.outlets {
            outlet.command_ended();
        }
    }

    /// Its status and the sizes of its outputs, once all is sent.
    pub(crate) fn complete(&self) -> Option<(ExitStatus, [u64; 2])> {
        let done = self.outlets.iter().all(|outlet| outlet.done);
        let sizes = self.outlets.each_ref().map(|outlet| outlet.sent);
        self.status.filter(|_| done).map(|status| (status, sizes))
    }

    /// The pipes that processes which it left behind may still write to.
    pub(crate) fn leftovers(self) -> impl Iterator<Item = File> {
        self.outlets
            .into_iter()
            .filter(|outlet| !outlet.terminal)
            .filter_map(|outlet| outlet.source)
    }

    /// When something has to be done although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.outlets.iter().filter_map(|outlet| outlet.deadline).min()
    }
}

/// One output stream.
pub(crate) struct Outlet {
    kind: Kind,
    /// Does not block. `None` at its end.
    source: Option<File>,
    terminal: bool,
    /// How much more the host has room for.
    window: u64,
    sent: u64,
    /// Once the command has ended: how much of what is in the pipe still counts.
    left: Option<u64>,
    /// Once the command has ended: until when to wait for a terminal's end.
    deadline: Option<Instant>,
    /// Everything that counts is sent.
    done: bool,
}

impl Outlet {
    /// A stream that is read from `source`; `None` for one that the command does not have.
    pub(crate) fn new(kind: Kind, source: Option<File>, terminal: bool) -> Outlet {
        let done = source.is_none();
        let (window, sent) = (WINDOW_BYTES, 0);
        Outlet { kind, source, terminal, window, sent, left: None, deadline: None, done }
    }

    /// The host has passed bytes on.
    pub(crate) fn credit(&mut self, kind: Kind, bytes: u32) {
        if self.kind == kind {
            self.window = self.window.saturating_add(bytes.into()).min(WINDOW_BYTES);
        }
    }

    /// For `poll`: where something may come that can be sent on, or thrown away.
    pub(crate) fn poll_fd(&self, link_has_room: bool) -> Option<PollFd<'_>> {
        // One that is not asked for must be left out: its hang-up would be told all the time.
        let wanted = self.done || (self.window > 0 && link_has_room);
        let source = self.source.as_ref().filter(|_| wanted)?;
        Some(PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN))
    }

    fn command_ended(&mut self) {
        let Some(source) = &self.source else { return };
        if self.terminal {
            self.deadline = Some(Instant::now() + TERMINAL_GRACE);
        } else {
            let left = rustix::io::ioctl_fionread(source).unwrap_or(0);
            self.left = Some(left);
            self.done = left == 0;
        }
    }

    /// Sends on what has come, one frame of it.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn relay(&mut self, id: u32, link: &mut Link) -> io::Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        if self.done {
            if poll::read_some(source, &mut [0; 4096]) == Progress::End {
                self.source = None;
            }
            return Ok(());
        }
        let most = self.left.map_or(self.window, |left| self.window.min(left)) as usize;
        let read = |buffer: &mut [u8]| poll::read_some(source, buffer);
        match link.relay(self.kind, id, most, read)? {
            Progress::Some(count) => {
                let count = count as u64;
                self.window -= count;
                self.sent += count;
                if let Some(left) = &mut self.left {
                    *left -= count;
                    self.done = *left == 0;
                }
            }
            Progress::End => self.close(),
            Progress::NothingNow => self.done = self.left.is_some(),
        }
        Ok(())
    }

    /// Closing a terminal's master hangs up what is left on it.
    fn close(&mut self) {
        self.done = true;
        self.source = None;
        self.deadline = None;
    }

    /// Ends a terminal that has outlived its command for too long.
    pub(crate) fn check_deadline(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.close();
        }
    }
}

/// Where stdin goes. Does not block.
pub(crate) enum Sink {
    Pipe(File),
    /// The master side of the command's terminal: its end of file is a Ctrl-D.
    Terminal(Arc<File>),
}

impl Sink {
    fn file(&self) -> &File {
        match self {
            Sink::Pipe(file) => file,
            Sink::Terminal(file) => file,
        }
    }
}

/// Stdin.
pub(crate) struct Inlet {
    /// `None` when nobody reads.
    sink: Option<Sink>,
    waiting: VecDeque<u8>,
    at_end: bool,
    last_byte: u8,
}

impl Inlet {
    pub(crate) fn new(sink: Option<Sink>) -> Inlet {
        Inlet { sink, waiting: VecDeque::new(), at_end: false, last_byte: b'\n' }
    }

    /// For `poll`: where there is something to write.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let sink = self.sink.as_ref().filter(|_| !self.waiting.is_empty())?;
        Some(PollFd::from_borrowed_fd(sink.file().as_fd(), PollFlags::OUT))
    }

    /// Takes what the host has sent, and passes on what the command takes. Returns how many bytes there
    /// is room for again.
    ///
    /// # Errors
    /// The host has sent more than it may.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<u32, String> {
        if (self.waiting.len() + bytes.len()) as u64 > WINDOW_BYTES {
            return Err("the host sends more stdin than there is room for".to_owned());
        }
        self.last_byte = *bytes.last().unwrap_or(&self.last_byte);
        self.waiting.extend(bytes);
        Ok(self.feed())
    }

    /// The host has sent all.
    pub(crate) fn end(&mut self) {
        self.at_end = true;
        self.feed();
    }

    /// Passes on what the command takes. Returns how many bytes there is room for again.
    pub(crate) fn feed(&mut self) -> u32 {
        let before = self.waiting.len();
        while let (Some(sink), (bytes @ [_, ..], _)) = (&self.sink, self.waiting.as_slices()) {
            match sink.file().write(bytes) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.sink = None,
            }
        }
        if self.sink.is_none() {
            self.waiting.clear();
        }
        if self.at_end
            && self.waiting.is_empty()
            && let Some(Sink::Terminal(master)) = self.sink.take()
        {
            say_end_of_file(&master, self.last_byte);
        }
        (before - self.waiting.len()) as u32
    }
}

/// Within a line the first Ctrl-D only hands over the line so far.
fn say_end_of_file(mut master: &File, last_byte: u8) {
    let _ = master.write(END_OF_FILE);
    if last_byte != b'\n' && last_byte != b'\r' {
        let _ = master.write(END_OF_FILE);
    }
}

/// The frame that tells the host of room for stdin.
pub(crate) fn stdin_credit(id: u32, bytes: u32) -> Option<Vec<u8>> {
    (bytes > 0).then(|| frame::credit(Kind::Stdin, id, bytes))
}
