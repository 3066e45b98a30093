//! The host's end of the control port: who waits for what, and who gets it.
//!
//! Two threads: one reads frames and hands them on without ever waiting, one writes what is queued.
//! So the port is always read, whatever a caller, a writer or the runtime is busy with. Waiting for an
//! answer is async and needs no runtime of any kind.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::{oneshot, watch};
use vmtest_guest::proto::frame::{self, Decoder, Frame, Kind};
use vmtest_guest::proto::{self, ExitStatus, Hello, MAX_MESSAGE_BYTES, Message, Request};

use super::error::GuestError;
use super::streams::{Flow, Outgoing, Outlet, Streams, Window, send_stdin};
use crate::vm::read_line::excerpt;

const READ_BYTES: usize = 128 << 10;

/// A conversation with a guest.
#[derive(Clone)]
pub(in crate::vm) struct Link {
    shared: Arc<Shared>,
    outgoing: Outgoing,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Link").field(&self.shared.lock().ended).finish()
    }
}

struct Shared {
    state: Mutex<State>,
    /// To end the conversation from elsewhere.
    stream: UnixStream,
}

#[derive(Default)]
struct State {
    last_id: u32,
    /// Frames that have come.
    heard: u64,
    hello: Hearing,
    answers: BTreeMap<u32, oneshot::Sender<Message>>,
    commands: BTreeMap<u32, Command>,
    /// The archives that are on their way.
    archives: BTreeMap<u32, Arc<Window>>,
    notices: Vec<String>,
    bye: Option<oneshot::Sender<()>>,
    /// Why the conversation is over.
    ended: Option<GuestError>,
}

/// Who waits for the first message, and the message if nobody has yet.
#[derive(Default)]
enum Hearing {
    #[default]
    Nothing,
    Waiting(oneshot::Sender<Hello>),
    Heard(Box<Hello>),
    Told,
}

/// A command that runs.
struct Command {
    outlets: [Outlet; 2],
    stdin: Arc<Window>,
    exited: oneshot::Sender<Exit>,
}

/// How a command ended, and how much it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    pub(super) stdout_bytes: u64,
    pub(super) stderr_bytes: u64,
}

/// A command whose Exec is on its way.
pub(super) struct Begun {
    pub(super) id: u32,
    pub(super) answer: oneshot::Receiver<Message>,
    pub(super) exited: oneshot::Receiver<Exit>,
    pub(super) flows: [watch::Receiver<Flow>; 2],
}

impl Link {
    /// Starts to listen.
    ///
    /// # Errors
    /// The system's, when there is no thread to be had.
    pub(in crate::vm) fn new(stream: UnixStream) -> std::io::Result<Link> {
        stream.set_nonblocking(false)?;
        let (outgoing, frames) = channel();
        let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
        let shared = Arc::new(Shared { state: Mutex::default(), stream });
        let hearing = Arc::clone(&shared);
        thread::Builder::new()
            .name("vmtest-from-guest".into())
            .spawn(move || hearing.listen(reader))?;
        thread::Builder::new()
            .name("vmtest-to-guest".into())
            .spawn(move || speak(&frames, writer))?;
        Ok(Link { shared, outgoing })
    }

    /// How many frames have come from the guest.
    pub(super) fn heard(&self) -> u64 {
        self.shared.lock().heard
    }

    /// What the guest has remarked since the last call.
    pub(super) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().notices)
    }

    /// Why there is no answer.
    pub(super) fn why(&self) -> GuestError {
        self.shared.lock().ended.clone().unwrap_or(GuestError::Gone)
    }

    /// Waits for the guest to be ready.
    pub(super) async fn hello(&self) -> Result<Hello, GuestError> {
        let (teller, told) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(why) = &state.ended {
                return Err(why.clone());
            }
            match std::mem::replace(&mut state.hello, Hearing::Told) {
                Hearing::Heard(hello) => return Ok(*hello),
                _ => state.hello = Hearing::Waiting(teller),
            }
        }
        told.await.map_err(|_| self.why())
    }

    /// The guest was ready when it was saved: it says no hello any more.
    pub(in crate::vm) fn resumed(&self) {
        self.shared.lock().hello = Hearing::Told;
    }

    /// Makes a request and waits for its answer.
    pub(in crate::vm) async fn call(
        &self,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<Message, GuestError> {
        let (_, answer) = self.ask(request)?;
        self.answer(answer).await
    }

    /// Waits for an answer.
    pub(super) async fn answer(
        &self,
        answer: oneshot::Receiver<Message>,
    ) -> Result<Message, GuestError> {
        match answer.await {
            Ok(Message::Failed { error, errno, .. }) => Err(GuestError::Refused { error, errno }),
            Ok(message) => Ok(message),
            Err(_) => Err(self.why()),
        }
    }

    fn ask(
        &self,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<(u32, oneshot::Receiver<Message>), GuestError> {
        let (teller, answer) = oneshot::channel();
        let id = {
            let mut state = self.shared.lock();
            if let Some(why) = &state.ended {
                return Err(why.clone());
            }
            state.last_id += 1;
            let id = state.last_id;
            state.answers.insert(id, teller);
            id
        };
        self.send(&request(id.into()))?;
        Ok((id, answer))
    }

    /// Sends a request that has no answer, or whose answer somebody waits for.
    pub(super) fn send(&self, request: &Request) -> Result<(), GuestError> {
        let line = serde_json::to_vec(request)
            .map_err(|error| GuestError::Protocol(format!("a request that is no JSON: {error}")))?;
        if line.len() > MAX_MESSAGE_BYTES {
            return Err(GuestError::Refused {
                error: format!(
                    "the command with its environment is {} bytes long; {MAX_MESSAGE_BYTES} fit",
                    line.len()
                ),
                errno: None,
            });
        }
        self.outgoing.send(frame::encode(Kind::Message, 0, &line)).map_err(|_| self.why())
    }

    /// Sends an Exec and connects its streams.
    pub(super) fn begin(&self, exec: proto::Exec, streams: Streams) -> Result<Begun, GuestError> {
        let (teller, exited) = oneshot::channel();
        let window = Arc::new(Window::default());
        let exec = Box::new(proto::Exec { stdin: streams.stdin.is_some(), ..exec });
        let mut flows = None;
        let (id, answer) = self.ask(|id| {
            // Before it is sent: the answer may come at once.
            let id32 = id as u32;
            let outlet = |kind, writer| Outlet::new(kind, id32, writer, self.outgoing.clone());
            let (stdout, out) = outlet(Kind::Stdout, streams.stdout);
            let (stderr, err) = outlet(Kind::Stderr, streams.stderr);
            flows = Some([out, err]);
            let command =
                Command { outlets: [stdout, stderr], stdin: Arc::clone(&window), exited: teller };
            self.shared.lock().commands.insert(id32, command);
            Request::Exec { id, exec }
        })?;
        let flows = flows.ok_or(GuestError::Gone)?;
        if let Some(reader) = streams.stdin {
            let shared = Arc::clone(&self.shared);
            let failed = move |error| {
                shared.lock().notices.push(format!("stdin cannot be read to its end: {error}"));
            };
            send_stdin(reader, id, window, self.outgoing.clone(), failed)
                .map_err(|error| GuestError::Host(format!("cannot read stdin: {error}")))?;
        }
        Ok(Begun { id, answer, exited, flows })
    }

    /// Forgets a command that did not start.
    pub(super) fn forget(&self, id: u32) {
        if let Some(command) = self.shared.lock().commands.remove(&id) {
            command.stdin.close();
        }
    }

    /// Sends an archive of files and waits until they are in place.
    pub(super) async fn files(&self, archive: Box<dyn Read + Send>) -> Result<(), GuestError> {
        let window = Arc::new(Window::default());
        let (id, answer) = self.ask(|id| {
            self.shared.lock().archives.insert(id as u32, Arc::clone(&window));
            Request::Files { id }
        })?;
        let failed = Arc::new(Mutex::new(None));
        let sent = send_stdin(archive, id, window, self.outgoing.clone(), {
            let failed = Arc::clone(&failed);
            move |error| *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error)
        });
        sent.map_err(|error| GuestError::Host(format!("cannot send files: {error}")))?;
        let answer = self.answer(answer).await;
        self.shared.lock().archives.remove(&id);
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(GuestError::Host(format!("cannot read the files for the guest: {error}")));
        }
        answer.map(drop)
    }

    /// Completes when the guest has said goodbye.
    pub(super) async fn bye(&self) -> Result<(), GuestError> {
        let (teller, said) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(why) = &state.ended {
                return Err(why.clone());
            }
            state.bye = Some(teller);
        }
        self.send(&Request::Shutdown)?;
        said.await.map_err(|_| self.why())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The threads hold the stream, too.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: Arc<Shared>, mut stream: UnixStream) {
        // Only while something is handed on, so that the last `Link` ends the conversation.
        let shared = Arc::downgrade(&self);
        drop(self);
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; READ_BYTES];
        let why = 'conversation: loop {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => decoder.push(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                _ => break GuestError::Gone,
            }
            let Some(shared) = shared.upgrade() else { return };
            loop {
                let received = match decoder.next() {
                    Ok(Some(frame)) => shared.lock().receive(frame),
                    Ok(None) => break,
                    Err(error) => Err(foreign(&error.to_string(), &buffer)),
                };
                if let Err(why) = received {
                    let _ = stream.shutdown(Shutdown::Both);
                    break 'conversation GuestError::Protocol(why);
                }
            }
        };
        if let Some(shared) = shared.upgrade() {
            shared.lock().end(why);
        }
    }
}

/// Bytes of something that is no guest of ours, or an older one.
fn foreign(error: &str, bytes: &[u8]) -> String {
    let shown = excerpt(bytes);
    if shown.starts_with("{\"type\":\"hello\"") {
        return format!(
            "its guest program is older than this vmtest; take the one of this vmtest: {shown}"
        );
    }
    format!("{error}: {shown}")
}

impl State {
    /// Hands a frame on. The error says what is wrong with it.
    fn receive(&mut self, frame: Frame<'_>) -> Result<(), String> {
        let Frame { kind, id, payload } = frame;
        self.heard += 1;
        match kind {
            Kind::Message => {
                let message = serde_json::from_slice(payload)
                    .map_err(|error| format!("{error} in the message `{}`", excerpt(payload)))?;
                self.message(message)?;
            }
            Kind::Stdout | Kind::Stderr => {
                let command = self.commands.get_mut(&id);
                let command =
                    command.ok_or_else(|| format!("output of {id}, which does not run"))?;
                command.outlets[usize::from(kind == Kind::Stderr)].push(payload)?;
            }
            Kind::Credit => {
                let (stream, bytes) = frame.as_credit().ok_or("a credit that is none")?;
                if stream != Kind::Stdin {
                    return Err(format!("room for {stream:?}"));
                }
                // A command may have ended meanwhile.
                let window = self.commands.get(&id).map(|command| &command.stdin);
                if let Some(window) = window.or_else(|| self.archives.get(&id)) {
                    window.credit(bytes);
                }
            }
            Kind::Stdin | Kind::End => return Err(format!("a frame of kind {kind:?}")),
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<(), String> {
        match (message, &self.hello) {
            (Message::Notice { text }, _) => self.notices.push(text),
            (Message::Hello(hello), Hearing::Nothing | Hearing::Waiting(_)) => self.hear(hello)?,
            (other, Hearing::Nothing | Hearing::Waiting(_)) => {
                return Err(format!("{other:?} instead of its hello"));
            }
            (Message::Exited { id, status, stdout_bytes, stderr_bytes }, _) => {
                let command = u32::try_from(id).ok().and_then(|id| self.commands.remove(&id));
                let Some(command) = command else {
                    return Err(format!("the end of command {id}, which does not run"));
                };
                command.stdin.close();
                // Whoever asked may have lost interest.
                let _ = command.exited.send(Exit { status, stdout_bytes, stderr_bytes });
            }
            (
                message @ (Message::Done { id, .. }
                | Message::Failed { id, .. }
                | Message::KernelCoverage { id, .. }),
                _,
            ) => {
                let asked = u32::try_from(id).ok().and_then(|id| self.answers.remove(&id));
                let Some(asked) = asked else {
                    return Err(format!("{message:?}, which nobody has asked for"));
                };
                if let Some(window) = self.archives.get(&(id as u32)) {
                    window.close();
                }
                let _ = asked.send(message);
            }
            (Message::Bye, _) => {
                if let Some(waiting) = self.bye.take() {
                    let _ = waiting.send(());
                }
            }
            (other, _) => return Err(format!("{other:?}, which makes no sense here")),
        }
        Ok(())
    }

    fn hear(&mut self, hello: Hello) -> Result<(), String> {
        if hello.protocol != proto::VERSION {
            return Err(format!(
                "it speaks version {} and this vmtest version {}; take the guest program of this vmtest",
                hello.protocol,
                proto::VERSION
            ));
        }
        match std::mem::replace(&mut self.hello, Hearing::Told) {
            Hearing::Waiting(waiting) => drop(waiting.send(hello)),
            _ => self.hello = Hearing::Heard(Box::new(hello)),
        }
        Ok(())
    }

    /// Everybody who waits is told by what is dropped here; [`Link::why`] says the rest.
    fn end(&mut self, why: GuestError) {
        self.ended = Some(why);
        self.answers.clear();
        self.bye = None;
        self.hello = Hearing::Told;
        for (_, command) in std::mem::take(&mut self.commands) {
            command.stdin.close();
        }
        for (_, window) in std::mem::take(&mut self.archives) {
            window.close();
        }
    }
}

/// Writes frames as they are queued. Ends with the guest, or with the last who could queue one.
fn speak(frames: &Receiver<Vec<u8>>, mut stream: UnixStream) {
    let mut batch = Vec::new();
    while let Ok(frame) = frames.recv() {
        batch.clear();
        batch.extend_from_slice(&frame);
        // What is there already goes in the same write.
        while batch.len() < READ_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        if stream.write_all(&batch).is_err() {
            return;
        }
    }
}
