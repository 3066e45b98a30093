//! Feeds the command's stdin from its port.
//!
//! One thread for all commands. It always takes what the host sends, so that the host never blocks
//! on a command that does not read: without a reader the bytes are dropped. The host counts a
//! command's stdin from its start and says in `StdinEnd` how long it was; so the bytes of one
//! command cannot reach the next, however late they come.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const BUFFER_BYTES: usize = 64 << 10;
/// While the host has its end closed a port is always "ready" with nothing to read.
const HOST_AWAY: Duration = Duration::from_millis(20);
/// Ctrl-D.
const END_OF_FILE: &[u8] = b"\x04";

/// Where the bytes go. Non-blocking, so that a command that does not read blocks nobody else.
#[derive(Clone)]
pub(crate) enum Sink {
    Pipe(Arc<File>),
    /// The master side of the command's terminal: its end of file is a Ctrl-D.
    Terminal(Arc<File>),
}

/// The stdin of one command.
struct Session {
    /// `None` once nobody reads any more.
    sink: Option<Sink>,
    received: u64,
    end: Option<u64>,
}

pub(crate) struct Stdin {
    shared: Arc<Shared>,
}

struct Shared {
    /// The first is being fed; more than one only while the first is drained.
    sessions: Mutex<VecDeque<Session>>,
    wake: OwnedFd,
}

impl Stdin {
    pub(crate) fn start(port: File) -> Result<Stdin, Errno> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { sessions: Mutex::default(), wake });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || for_thread.feed(port));
        Ok(Stdin { shared })
    }

    /// Whether the last command's stdin has no end yet; the next bytes would still be that command's.
    pub(crate) fn awaits_end(&self) -> bool {
        self.shared.lock().back().is_some_and(|session| session.end.is_none())
    }

    /// The bytes that follow belong to a new command.
    pub(crate) fn begin(&self, sink: Sink) {
        self.shared.lock().push_back(Session { sink: Some(sink), received: 0, end: None });
        self.shared.wake();
    }

    /// The last command's stdin is this long. Without a command that awaits its end: nothing.
    pub(crate) fn end(&self, bytes: u64) {
        if let Some(session) = self.shared.lock().back_mut()
            && session.end.is_none()
        {
            session.end = Some(bytes);
        }
        self.shared.wake();
    }

    /// The command has ended: drop what still comes for it.
    pub(crate) fn nobody_reads(&self) {
        for session in self.shared.lock().iter_mut() {
            session.sink = None;
        }
        self.shared.wake();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn feed(&self, mut port: File) {
        let mut buffer = vec![0; BUFFER_BYTES];
        // Received and not yet passed on.
        let mut pending = 0..0;
        let mut last_byte = b'\n';
        let wake = (self.wake.as_fd(), PollFlags::IN);
        loop {
            let mut want = 0;
            let mut sink = None;
            {
                let mut sessions = self.lock();
                if let Some(session) = sessions.front_mut() {
                    if session.sink.is_none() {
                        pending = 0..0;
                    }
                    let left =
                        session.end.map_or(u64::MAX, |end| end.saturating_sub(session.received));
                    if !pending.is_empty() {
                        sink = session.sink.clone();
                    } else if left == 0 {
                        if let Some(Session { sink: Some(Sink::Terminal(master)), .. }) =
                            sessions.pop_front()
                        {
                            say_end_of_file(&master, last_byte);
                        }
                        last_byte = b'\n';
                        continue;
                    }
                    want = left.min(buffer.len() as u64) as usize;
                }
            }
            let ready = match &sink {
                Some(Sink::Pipe(file) | Sink::Terminal(file)) => {
                    wait_any(&[wake, (file.as_fd(), PollFlags::OUT)], None)
                }
                None if want > 0 => wait_any(&[wake, (port.as_fd(), PollFlags::IN)], None),
                None => wait_any(&[wake], None),
            };
            if !ready[0].is_empty() {
                let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
            }
            let Some(ready) = ready.get(1).filter(|ready| !ready.is_empty()) else { continue };
            match sink {
                Some(Sink::Pipe(file) | Sink::Terminal(file)) => {
                    match (&*file).write(&buffer[pending.clone()]) {
                        Ok(count) => pending.start += count,
                        Err(error) if is_passing(error.kind()) => {}
                        Err(_) => self.drop_sink(),
                    }
                }
                None => match port.read(&mut buffer[..want]) {
                    Ok(0) => std::thread::sleep(HOST_AWAY),
                    Ok(count) => {
                        last_byte = buffer[count - 1];
                        pending = 0..count;
                        if let Some(session) = self.lock().front_mut() {
                            session.received += count as u64;
                        }
                    }
                    Err(error) if is_passing(error.kind()) => {}
                    // Unplugged: nothing will ever come.
                    Err(_) if ready.contains(PollFlags::HUP) => return,
                    Err(_) => std::thread::sleep(HOST_AWAY),
                },
            }
        }
    }

    fn drop_sink(&self) {
        if let Some(session) = self.lock().front_mut() {
            session.sink = None;
        }
    }
}

pub(crate) fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Within a line the first Ctrl-D only hands over the line so far.
fn say_end_of_file(mut master: &File, last_byte: u8) {
    let _ = master.write(END_OF_FILE);
    if last_byte != b'\n' && last_byte != b'\r' {
        let _ = master.write(END_OF_FILE);
    }
}

/// Waits until one of `files` is ready, at most for `wait`; what each is ready for.
pub(crate) fn wait_any(
    files: &[(BorrowedFd<'_>, PollFlags)],
    wait: Option<Duration>,
) -> Vec<PollFlags> {
    let mut fds: Vec<_> =
        files.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
    loop {
        match poll(&mut fds, wait.as_ref()) {
            Err(Errno::INTR) => {}
            // Nothing else can go wrong with valid descriptors; the callers look again anyway.
            _ => return fds.iter().map(PollFd::revents).collect(),
        }
    }
}
