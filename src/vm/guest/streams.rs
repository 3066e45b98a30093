//! The streams of a command between the link and the host side.
//!
//! Each has a thread of its own that writes (or reads), in the simplest possible way. One that blocks
//! (a slow reader, a full disk's retry) slows down that stream only, through the link's windows down to
//! the program in the guest, and neither limits nor other streams. Output threads start with the first
//! byte: most commands write to one stream or to none.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;
use vmtest_guest::proto::frame::{self, Kind, MAX_DATA_BYTES, WINDOW_BYTES};

/// Where a command's streams come from and go to.
pub struct Streams {
    /// Read until its end and given to the command; without it, stdin is `/dev/null`.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// Gets the command's stdout.
    pub stdout: Box<dyn Write + Send>,
    /// Gets the command's stderr.
    pub stderr: Box<dyn Write + Send>,
}

impl Streams {
    /// Nothing goes in, and what comes out is thrown away.
    pub fn none() -> Streams {
        Streams { stdin: None, stdout: Box::new(io::sink()), stderr: Box::new(io::sink()) }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// How far a stream from the guest has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Bytes that have arrived.
    pub(crate) arrived: u64,
    /// Bytes that were written, or given up because of `failed`.
    pub(crate) passed_on: u64,
    /// The writer's error: nothing more is written, the rest is dropped.
    pub(crate) failed: Option<(ErrorKind, String)>,
    /// All that arrived has been passed on, and nothing more will come.
    pub(crate) closed: bool,
}

/// What goes to the guest, for the thread that writes it.
pub(super) type Outgoing = Sender<Vec<u8>>;

/// An output stream of a command, as the link's reader feeds it.
pub(super) struct Outlet {
    kind: Kind,
    id: u32,
    outgoing: Outgoing,
    flow: watch::Sender<Flow>,
    /// Until the first byte.
    writer: Option<Box<dyn Write + Send>>,
    thread: Option<Sender<Vec<u8>>>,
}

impl Outlet {
    pub(super) fn new(
        kind: Kind,
        id: u32,
        writer: Box<dyn Write + Send>,
        outgoing: Outgoing,
    ) -> (Outlet, watch::Receiver<Flow>) {
        let (flow, watcher) = watch::channel(Flow::default());
        (Outlet { kind, id, outgoing, flow, writer: Some(writer), thread: None }, watcher)
    }

    /// Takes bytes of the stream; never waits.
    ///
    /// # Errors
    /// The guest has sent more than it may.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut on_their_way = 0;
        self.flow.send_modify(|flow| {
            flow.arrived += bytes.len() as u64;
            on_their_way = flow.arrived - flow.passed_on;
        });
        if on_their_way > WINDOW_BYTES {
            return Err(format!("it sends more {:?} than there is room for", self.kind));
        }
        if let Some(writer) = self.writer.take() {
            self.start(writer);
        }
        match &self.thread {
            Some(thread) => drop(thread.send(bytes.to_vec())),
            // There is no thread to be had: the stream has failed, and its command goes on.
            None => {
                self.flow.send_modify(|flow| flow.passed_on = flow.arrived);
                let _ = self.outgoing.send(frame::credit(self.kind, self.id, bytes.len() as u32));
            }
        }
        Ok(())
    }

    fn start(&mut self, writer: Box<dyn Write + Send>) {
        let (sender, chunks) = channel();
        let (kind, id) = (self.kind, self.id);
        let (outgoing, flow) = (self.outgoing.clone(), self.flow.clone());
        let name = format!("vmtest-{kind:?}-{id}");
        let started = thread::Builder::new()
            .name(name)
            .spawn(move || write_all(&chunks, writer, kind, id, &outgoing, &flow));
        match started {
            Ok(_) => self.thread = Some(sender),
            Err(error) => self.flow.send_modify(|flow| {
                flow.failed = Some((error.kind(), error.to_string()));
            }),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // The thread says so itself, when it is through.
        if self.thread.take().is_none() {
            self.flow.send_modify(|flow| flow.closed = true);
        }
    }
}

/// Writes chunks as they come, and gives room back for each.
fn write_all(
    chunks: &Receiver<Vec<u8>>,
    mut writer: Box<dyn Write + Send>,
    kind: Kind,
    id: u32,
    outgoing: &Outgoing,
    flow: &watch::Sender<Flow>,
) {
    let mut failed = false;
    for chunk in chunks {
        let written =
            if failed { Ok(()) } else { writer.write_all(&chunk).and_then(|()| writer.flush()) };
        failed |= written.is_err();
        flow.send_modify(|flow| {
            flow.passed_on += chunk.len() as u64;
            if let Err(error) = written {
                flow.failed = Some((error.kind(), error.to_string()));
            }
        });
        let _ = outgoing.send(frame::credit(kind, id, chunk.len() as u32));
    }
    // Before the end is told: a writer may do something when it is dropped.
    drop(writer);
    flow.send_modify(|flow| flow.closed = true);
}

/// How much the guest has room for. Shared between the thread that sends and the link's reader.
#[derive(Debug, Default)]
pub(super) struct Window {
    state: Mutex<WindowState>,
    changed: Condvar,
}

#[derive(Debug)]
struct WindowState {
    room: u64,
    closed: bool,
}

impl Default for WindowState {
    fn default() -> WindowState {
        WindowState { room: WINDOW_BYTES, closed: false }
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest has room for more.
    pub(super) fn credit(&self, bytes: u32) {
        let mut state = self.lock();
        state.room = state.room.saturating_add(bytes.into()).min(WINDOW_BYTES);
        self.changed.notify_all();
    }

    /// Nobody will take any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for room; takes at most `most` of it. `None` when nobody will take any more.
    fn take(&self, most: usize) -> Option<usize> {
        let mut state = self.lock();
        while state.room == 0 && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        let taken = state.room.min(most as u64);
        state.room -= taken;
        Some(taken as usize)
    }
}

/// Starts to send a reader's bytes as the stdin of `id`, and its end.
///
/// The thread ends with the reader or the command; one that waits for a terminal ends with the process.
/// `failed` is told of a reader's error, after which the command sees the end of its stdin.
pub(super) fn send_stdin(
    mut reader: Box<dyn Read + Send>,
    id: u32,
    window: Arc<Window>,
    outgoing: Outgoing,
    failed: impl FnOnce(io::Error) + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(format!("vmtest-stdin-{id}")).spawn(move || {
        let mut buffer = vec![0; MAX_DATA_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    failed(error);
                    break;
                }
            };
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let Some(taken) = window.take(rest.len()) else { return };
                let (now, later) = rest.split_at(taken);
                if outgoing.send(frame::encode(Kind::Stdin, id, now)).is_err() {
                    return;
                }
                rest = later;
            }
        }
        let _ = outgoing.send(frame::encode(Kind::End, id, &[]));
    })?;
    Ok(())
}

/// A writer that keeps what is written.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    /// What was written since the last call.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
