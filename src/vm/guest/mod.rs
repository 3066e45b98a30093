//! A guest that is ready, as a value: commands run in it, one after the other and beside each other.
//!
//! ```text
//!   Vm ──ready──> Guest ──exec──> Running ──wait──> Exited
//!                   │  ▲            │ signal, resize
//!                   │  └────────────┘ (any number)
//!                   └──shutdown──> Vm, whose QEMU ends
//! ```
//!
//! A [`Guest`] owns its machine: dropped, it kills QEMU. Methods take `&self`; several tasks may share
//! one. Whatever a caller does not wait for goes on: a [`Running`] that is dropped leaves its command
//! running, and [`Guest::shutdown`] ends what still runs.

mod counters;
mod error;
mod link;
mod streams;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use vmtest_guest::proto::{
    self, Exec, ExitStatus, Hello, Message, Mount, Network, Request, WindowSize,
};

pub(crate) use streams::Kept;
pub use streams::Streams;

use super::value::{End, Vm};
pub use error::GuestError;
pub(super) use link::Link;
use streams::Flow;

/// How long the guest may take to sync, unmount and say goodbye.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// How long QEMU may take to end when the guest is already gone.
const LOST_GRACE: Duration = Duration::from_secs(1);

/// A writer that takes nothing for this long is not waited for, once its guest is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// `SIGPIPE` is 13 on all Linux architectures.
const SIGPIPE: i32 = 13;

/// A machine whose guest did not get ready.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotReady {
    /// The machine, which may still run.
    pub vm: Box<Vm>,
    /// Why.
    #[source]
    pub why: GuestError,
}

/// A guest that is ready.
#[derive(Debug)]
#[must_use = "dropped, it kills QEMU"]
pub struct Guest {
    vm: Vm,
    link: Link,
    hello: Hello,
    ready_after: Duration,
}

impl Vm {
    /// Waits until the guest is ready, at most `limit` from QEMU's start.
    ///
    /// # Errors
    /// [`NotReady`] has the machine: it has ended, or was too slow.
    pub async fn ready(mut self, limit: Duration) -> Result<Guest, NotReady> {
        let failed = |vm: Vm, why| NotReady { vm: Box::new(vm), why };
        let Some(control) = self.take_channel(proto::CONTROL_PORT) else {
            return Err(failed(self, GuestError::NoAgent));
        };
        let link = match Link::new(control) {
            Ok(link) => link,
            Err(error) => {
                let why = GuestError::Host(format!("cannot listen to the guest: {error}"));
                return Err(failed(self, why));
            }
        };
        let deadline = tokio::time::Instant::from_std(self.started() + limit);
        let hello = tokio::select! {
            biased;
            hello = link.hello() => hello,
            // Without this, a QEMU that refuses its arguments would be noticed only by its silence.
            _ = self.ended() => Err(GuestError::Gone),
            () = tokio::time::sleep_until(deadline) => Err(GuestError::NotReady { limit }),
        };
        let hello = match hello {
            Ok(hello) if hello.no_clock => set_clock(&link).await.map(|()| hello),
            hello => hello,
        };
        match hello {
            Ok(hello) => {
                let ready_after = self.started().elapsed();
                Ok(Guest { vm: self, link, hello, ready_after })
            }
            Err(why) => Err(failed(self, why)),
        }
    }
}

/// Gives a guest the host's time. One that cannot take it lives on in 1970, which is its own remark.
async fn set_clock(link: &Link) -> Result<(), GuestError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let realtime_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    match link.call(|id| Request::Clock { id, realtime_ns }).await {
        Ok(_) | Err(GuestError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Guest {
    /// A guest that is ready already.
    pub(super) fn of(vm: Vm, link: Link, hello: Hello, ready_after: Duration) -> Guest {
        Guest { vm, link, hello, ready_after }
    }

    /// What it said when it was ready.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// From QEMU's start until it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Its machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Its machine, to take event channels for instance.
    pub fn vm_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// What it has remarked since the last call: modules that did not load, processes that had to be
    /// killed.
    pub fn take_notices(&self) -> Vec<String> {
        self.link.take_notices()
    }

    /// Mounts a file system. The directory is made where it is missing.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn mount(&self, mount: Mount) -> Result<(), GuestError> {
        self.link.call(|id| Request::Mount { id, mount }).await.map(drop)
    }

    /// Gives a network interface its addresses.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn network(&self, network: Network) -> Result<(), GuestError> {
        self.link.call(|id| Request::Network { id, network }).await.map(drop)
    }

    /// Does what the plan says for every command: networks and mounts.
    ///
    /// # Errors
    /// [`GuestError`] of the first that fails.
    pub async fn set_up(&self) -> Result<(), GuestError> {
        let alone = self.vm.plan().networks().len() == 1;
        for network in self.vm.plan().networks() {
            let mut network = network.clone();
            if alone {
                // The only card is the right one, whatever its address.
                network.interface = None;
            }
            self.network(network).await?;
        }
        for mount in self.vm.plan().mounts() {
            self.mount(mount.clone()).await?;
        }
        Ok(())
    }

    /// Puts files into the root file system: a cpio archive ("newc", not compressed), as
    /// [`crate::initramfs`] writes it. What is there already is replaced.
    ///
    /// # Errors
    /// [`GuestError`]; files before the one that failed are in place.
    pub async fn put_files(&self, archive: impl Read + Send + 'static) -> Result<(), GuestError> {
        self.link.files(Box::new(archive)).await
    }

    /// Waits until it has sent all it had to say, and waits for the next request.
    pub(super) async fn settle(&self) -> Result<(), GuestError> {
        let keys = String::new();
        match self.link.call(|id| Request::Sysrq { id, keys }).await {
            // That it cannot do anything is an answer, too.
            Ok(_) | Err(GuestError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Starts a command. Any number may run beside each other.
    ///
    /// # Errors
    /// [`GuestError::Refused`] when there is no such program or it cannot be executed; `errno` is 2
    /// (`ENOENT`) for a missing one.
    pub async fn exec(&self, exec: Exec, streams: Streams) -> Result<Running, GuestError> {
        Running::start(&self.link, exec, streams).await
    }

    /// Runs a command to its end and keeps what it writes. Has no limit of its own.
    ///
    /// # Errors
    /// [`GuestError`]; [`GuestError::Refused`] where it cannot be started.
    pub async fn output(&self, exec: Exec) -> Result<Output, GuestError> {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let streams = Streams {
            stdin: None,
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
        };
        let exited = self.exec(exec, streams).await?.wait().await?;
        Ok(Output { status: exited.status, stdout: stdout.take(), stderr: stderr.take() })
    }

    /// Has the kernel write stacks to its console: those of all tasks, of all processors, of tasks that
    /// are stuck. Empty where the kernel has no CONFIG_MAGIC_SYSRQ.
    ///
    /// # Errors
    /// [`GuestError`], when the guest does not answer within `limit`.
    pub async fn stacks(&self, limit: Duration) -> Result<Vec<u8>, GuestError> {
        self.sysrq("tlw", limit).await
    }

    /// Presses "magic" keys of the kernel's; what it says on the console until it is silent for a moment.
    ///
    /// # Errors
    /// [`GuestError`], when the guest does not answer within `limit`.
    pub async fn sysrq(&self, keys: &str, limit: Duration) -> Result<Vec<u8>, GuestError> {
        const SILENCE: Duration = Duration::from_millis(50);
        let before = self.vm.console().transcript().len();
        let deadline = tokio::time::Instant::now() + limit;
        let keys = keys.to_owned();
        let asked = self.link.call(|id| Request::Sysrq { id, keys });
        tokio::time::timeout_at(deadline, asked)
            .await
            .map_err(|_| GuestError::NotReady { limit })??;
        let mut seen = before;
        loop {
            tokio::time::sleep(SILENCE).await;
            let transcript = self.vm.console().transcript();
            if transcript.len() == seen || tokio::time::Instant::now() >= deadline {
                return Ok(transcript[before.min(transcript.len())..].to_vec());
            }
            seen = transcript.len();
        }
    }

    /// The way to its agent.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// To ask from elsewhere whether it lives.
    pub(super) fn probe(&self) -> Probe {
        Probe(self.link.clone())
    }

    /// Has the guest end what still runs, sync and unmount, and QEMU quit. Says what did not go well.
    pub async fn shutdown(self) -> (Vm, Vec<String>) {
        let mut notices = Vec::new();
        for channel in self.vm.settle_events().await {
            notices.push(format!("nobody reads the events of `{channel}`: some are lost"));
        }
        let said = tokio::time::timeout(SHUTDOWN_LIMIT, self.link.bye()).await;
        if !matches!(said, Ok(Ok(()) | Err(GuestError::Gone))) {
            notices.push(format!(
                "the guest did not say goodbye within {}: what it wrote last may be lost",
                crate::duration::display(SHUTDOWN_LIMIT)
            ));
        }
        notices.extend(self.take_notices());
        let mut vm = self.vm;
        vm.terminate().await;
        (vm, notices)
    }

    /// How the machine ended whose guest is gone. `None` when it goes on without its guest.
    pub(super) async fn lost(&self) -> Option<End> {
        tokio::time::timeout(LOST_GRACE, self.vm.ended()).await.ok()
    }

    /// The machine, as it is.
    pub(super) fn into_vm(self) -> Vm {
        self.vm
    }
}

/// Asks a guest whether it lives.
#[derive(Clone, Debug)]
pub(super) struct Probe(Link);

impl Probe {
    /// How much it has said: grows with each frame.
    pub(super) fn heard(&self) -> u64 {
        self.0.heard()
    }

    /// Presses "magic" keys of its kernel's. False when it does not answer, or has none.
    pub(super) async fn press(&self, keys: &str, limit: Duration) -> bool {
        let keys = keys.to_owned();
        let asked = self.0.call(|id| Request::Sysrq { id, keys });
        matches!(tokio::time::timeout(limit, asked).await, Ok(Ok(_)))
    }

    /// Whether the guest's agent answers within `limit`.
    pub(super) async fn answers(&self, limit: Duration) -> bool {
        let keys = String::new();
        let asked = self.0.call(|id| Request::Sysrq { id, keys });
        // That it cannot do anything is an answer, too.
        matches!(
            tokio::time::timeout(limit, asked).await,
            Ok(Ok(_) | Err(GuestError::Refused { .. }))
        )
    }
}

/// A command that runs in a guest.
#[derive(Debug)]
#[must_use = "without `wait`, nobody learns how the command ended"]
pub struct Running {
    link: Link,
    id: u32,
    pid: u32,
    exited: tokio::sync::oneshot::Receiver<link::Exit>,
    flows: [watch::Receiver<Flow>; 2],
    started: Instant,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exited {
    /// Its status.
    pub status: ExitStatus,
    /// Bytes of stdout and stderr that it wrote.
    pub output_bytes: (u64, u64),
    /// From its start to its end, all output included.
    pub took: Duration,
    /// Streams that could not be passed on as they were: name, and why.
    pub incomplete: Vec<Incomplete>,
}

/// A command that has ended, with what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Its status.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: Vec<u8>,
}

/// A stream that did not reach its writer whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incomplete {
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// Why, for a person.
    pub why: String,
    /// The reader has gone away by itself (`| head`), which is everyday.
    pub reader_left: bool,
}

/// Can send to a command from elsewhere.
#[derive(Clone, Debug)]
pub struct CommandHandle {
    link: Link,
    id: u32,
}

impl CommandHandle {
    /// Sends a signal, by Linux's number, to the command's process group; with a terminal, to its
    /// foreground group. A command that has ended is no error.
    pub fn signal(&self, signal: i32) {
        let _ = self.link.send(&Request::Signal { id: self.id.into(), signal });
    }

    /// Tells the command's terminal its new size.
    pub fn resize(&self, size: WindowSize) {
        let _ = self.link.send(&Request::Resize { id: self.id.into(), size });
    }
}

impl Running {
    async fn start(link: &Link, exec: Exec, streams: Streams) -> Result<Running, GuestError> {
        let begun = link.begin(exec, streams)?;
        match link.answer(begun.answer).await {
            Ok(message) => {
                let pid = if let Message::Done { pid, .. } = message { pid } else { None };
                Ok(Running {
                    link: link.clone(),
                    id: begun.id,
                    pid: pid.unwrap_or_default(),
                    exited: begun.exited,
                    flows: begun.flows,
                    started: Instant::now(),
                })
            }
            Err(error) => {
                link.forget(begun.id);
                Err(error)
            }
        }
    }

    /// Its process id in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends to it while somebody waits for it.
    pub fn handle(&self) -> CommandHandle {
        CommandHandle { link: self.link.clone(), id: self.id }
    }

    /// Sends a signal, see [`CommandHandle::signal`].
    pub fn signal(&self, signal: i32) {
        self.handle().signal(signal);
    }

    /// Waits for its end and for all of its output to be written. Has no limit of its own: a writer
    /// that blocks is waited for, as a pipe's reader would be. Nothing is lost when the caller stops
    /// waiting and waits again.
    ///
    /// A writer that says `BrokenPipe` has the command get SIGPIPE, as a pipe would.
    ///
    /// # Errors
    /// [`GuestError`] when the guest is gone before.
    pub async fn wait(&mut self) -> Result<Exited, GuestError> {
        let handle = self.handle();
        let [mut stdout, mut stderr] = self.flows.clone();
        let mut open = [true, true];
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut self.exited => break exit.map_err(|_| self.link.why())?,
                () = reader_left(&mut stdout, &handle), if open[0] => open[0] = false,
                () = reader_left(&mut stderr, &handle), if open[1] => open[1] = false,
            }
        };
        let sizes = [exit.stdout_bytes, exit.stderr_bytes];
        let mut incomplete = Vec::new();
        for ((stream, flow), bytes) in
            ["stdout", "stderr"].into_iter().zip(&mut self.flows).zip(sizes)
        {
            let closed = flow.wait_for(|flow| flow.closed).await;
            let flow = closed.map(|flow| flow.clone()).unwrap_or_default();
            if flow.arrived != bytes {
                return Err(GuestError::Protocol(format!(
                    "{} of {bytes} bytes of {stream} arrived",
                    flow.arrived
                )));
            }
            incomplete.extend(not_whole(stream, &flow));
        }
        let output_bytes = (exit.stdout_bytes, exit.stderr_bytes);
        Ok(Exited { status: exit.status, output_bytes, took: self.started.elapsed(), incomplete })
    }

    /// After the guest's end: waits until what had left it is written, as long as there is progress.
    /// Returns how many bytes there were, and what is incomplete.
    pub async fn drain(&mut self) -> ((u64, u64), Vec<Incomplete>) {
        let mut incomplete = Vec::new();
        let mut sizes = [0, 0];
        for ((stream, flow), size) in
            ["stdout", "stderr"].into_iter().zip(&mut self.flows).zip(&mut sizes)
        {
            loop {
                let seen = flow.borrow_and_update().clone();
                *size = seen.arrived;
                if seen.closed {
                    incomplete.extend(not_whole(stream, &seen));
                    break;
                }
                if !matches!(tokio::time::timeout(PATIENCE, flow.changed()).await, Ok(Ok(()))) {
                    incomplete.push(Incomplete {
                        stream,
                        why: format!(
                            "{} of {} bytes were not taken by its reader within {}",
                            seen.arrived - seen.passed_on,
                            seen.arrived,
                            crate::duration::display(PATIENCE)
                        ),
                        reader_left: false,
                    });
                    break;
                }
            }
        }
        ((sizes[0], sizes[1]), incomplete)
    }
}

fn not_whole(stream: &'static str, flow: &Flow) -> Option<Incomplete> {
    let (kind, error) = flow.failed.as_ref()?;
    let reader_left = *kind == ErrorKind::BrokenPipe;
    Some(Incomplete { stream, why: error.clone(), reader_left })
}

/// Waits until nobody wants a stream any more, and has the command know it as a pipe would: by SIGPIPE.
async fn reader_left(flow: &mut watch::Receiver<Flow>, command: &CommandHandle) {
    let gone = flow.wait_for(|flow| flow.failed.is_some() || flow.closed).await;
    if gone.is_ok_and(|flow| matches!(&flow.failed, Some((ErrorKind::BrokenPipe, _)))) {
        command.signal(SIGPIPE);
    }
}
