//! A running machine: [`Vm`] owns QEMU, its streams and everything that must be torn down.
//!
//! ```text
//!              start                 QEMU ends
//!   Plan ----------------> Vm ----------------------> End
//!                          |  drop: QEMU is killed
//!                          '-- run: the agent runs a command --> Outcome
//! ```
//!
//! tokio lives in this layer only; [`Vm::start`] has to be called in a runtime.

pub mod accel;
mod agent;
mod console;
mod counters;
mod events;
mod files;
#[cfg(feature = "http")]
mod http;
pub mod lines;
mod link;
mod process;
mod pump;
mod qmp;
mod run;
mod runtime;
mod streams;
mod tasks;
mod verdict;
mod wait;

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::process::Command;

pub(crate) use console::last_lines;
pub use console::{Console, Cursor, ExpectError, Pattern, Sink};
pub use counters::KernelCounters;
pub use events::{EventChannel, EventError, MAX_EVENT_BYTES, read_event_file};
pub use files::FileError;
#[cfg(feature = "http")]
pub use http::{HttpHandler, ServeHttp};
pub use link::InterVm;
pub use run::{Job, Outcome, Phases, Progress, run};
pub use runtime::BlockingRuntime;
pub(crate) use runtime::within;
pub use rustix::process::Signal;
pub use streams::Streams;
pub use tasks::{BoxError, CancelToken, DEFAULT_GRACE, Notifications, Task, TaskFailure};
pub use verdict::{Limit, Verdict};
pub use wait::{MachineError, WaitError};

use crate::plan::{Channel, ChannelKind, FIRST_FD, MONITOR, Plan, Spelling};
use crate::qemu::HostForward;
use process::Process;
use pump::Pump;
use qmp::{Monitor, StopReason};

/// How long the console may still speak after QEMU has ended.
const CONSOLE_GRACE: Duration = Duration::from_secs(1);

/// What a machine gets besides its plan.
#[derive(Default)]
pub struct Resources {
    /// The initramfs, when the plan boots one that is built ([`crate::options::Initramfs::Built`]).
    pub initramfs: Option<File>,
    /// Where the console's bytes also go.
    pub console_sinks: Vec<Sink>,
    /// Work bound to the machine's life.
    pub tasks: Vec<Task>,
    /// Who takes event channels; see [`Resources::on_event`].
    pub event_consumers: Vec<EventConsumer>,
    /// Gets the kernel's gcov counters, a tar archive, from a plan with a
    /// [`crate::qemu::CoverageShare`] that wants them.
    pub kernel_coverage: Option<Box<dyn Write + Send>>,
    /// QEMU is killed when this is thrown.
    pub cancel: Option<CancelToken>,
    /// QEMU is killed when it has lived this long. Default: no limit.
    pub timeout: Option<Duration>,
}

/// Takes an event channel when the machine starts.
pub struct EventConsumer {
    channel: String,
    start: Box<dyn FnOnce(UnixStream) -> Task + Send>,
}

impl std::fmt::Debug for EventConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventConsumer").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Resources {
    /// Calls a function for each event of a channel, in order, on a thread of its own. The plan needs
    /// an [`crate::qemu::EventPort`] of that name.
    ///
    /// A function that takes its time slows down the guest, which loses nothing. An error or a panic of
    /// it, a broken line or a missing `done` is the failure of a task: it ends the machine and comes out
    /// of [`Vm::wait`].
    pub fn on_event<T, E>(
        &mut self,
        channel: impl Into<String>,
        callback: impl FnMut(T) -> Result<(), E> + Send + 'static,
    ) where
        T: DeserializeOwned + 'static,
        E: Into<BoxError>,
    {
        let channel = channel.into();
        let name = channel.clone();
        let start = Box::new(move |stream| events::callback_task(&name, stream, callback));
        self.event_consumers.push(EventConsumer { channel, start });
    }
}

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resources").field("initramfs", &self.initramfs).finish_non_exhaustive()
    }
}

/// A machine could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// QEMU's program is not there.
    #[error("cannot run QEMU: there is no `{}`", .program.display())]
    NoQemu {
        /// As it was asked for.
        program: PathBuf,
    },
    /// QEMU's program cannot be executed.
    #[error("cannot run QEMU `{}`", .program.display())]
    Spawn {
        /// As it was asked for.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file for the guest could not be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// Events of a channel are wanted, and the plan has no such channel, or two want it.
    #[error("there is no event channel `{channel}`, or it is taken twice")]
    NoChannel {
        /// The channel.
        channel: String,
    },
    /// A service of the host's could not be started.
    #[error("cannot start {service} for the guest")]
    Service {
        /// Which one.
        service: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host has no descriptors or no memory left.
    #[error("cannot make the streams between QEMU and vmtest")]
    Streams(#[source] io::Error),
}

impl StartError {
    /// How to mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            StartError::NoQemu { .. } => Some(
                "`make assets` fetches QEMU without root; `--qemu` or VMTEST_QEMU name another one"
                    .into(),
            ),
            StartError::File(FileError::Vfat(error)) => Some(error.hint()),
            StartError::File(FileError::Need { what: "share", source, .. })
                if source.kind() == io::ErrorKind::NotADirectory =>
            {
                Some("only directories can be shared".into())
            }
            StartError::File(FileError::Temporary(_)) => {
                Some("TMPDIR names the directory for temporary files".into())
            }
            _ => None,
        }
    }
}

/// A running machine.
///
/// Dropped, it kills QEMU and everything QEMU started.
#[derive(Debug)]
pub struct Vm {
    plan: Plan,
    process: Process,
    console: Console,
    monitor: Monitor,
    channels: BTreeMap<String, UnixStream>,
    kernel_coverage: counters::Taker,
    pumps: Vec<Pump>,
    notices: Vec<String>,
    started: Instant,
    tasks: tasks::Running,
    stopped: wait::Stopped,
    _services: Services,
}

/// What runs on the host as long as the machine does; dropped after QEMU was told to end.
struct Services(Vec<Box<dyn Any + Send + Sync>>);

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Services").field(&self.0.len()).finish()
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The guest switched the power off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked.
    Panicked {
        /// The kernel's reason.
        text: String,
    },
    /// We asked QEMU to end.
    Quit,
    /// [`Vm::kill`] was called.
    Killed,
    /// QEMU ended with status 0 although nobody asked it to, after [`Vm::signal`] for instance.
    Exited,
    /// QEMU ended by itself before it had made the machine: wrong arguments, an unreadable file.
    NeverRan {
        /// What it said.
        stderr: String,
    },
    /// QEMU ended by itself.
    Died {
        /// How.
        status: String,
        /// What it said.
        stderr: String,
    },
}

impl Vm {
    /// Starts QEMU. Returns when it is a process, not when the guest has booted.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(plan: Plan, resources: Resources) -> Result<Vm, StartError> {
        let mut fds: Vec<OwnedFd> = Vec::new();
        let mut notices = Vec::new();
        for need in plan.needs() {
            files::check(need)?;
        }
        let mut services = Vec::new();
        for service in plan.services() {
            let started = service.start().map_err(|source| StartError::Service {
                service: format!("{service:?}"),
                source,
            })?;
            services.push(started);
        }
        for file in plan.files() {
            fds.push(files::make(file, resources.initramfs.as_ref(), &mut notices)?);
        }
        let mut channels = BTreeMap::new();
        let mut console = None;
        for channel in plan.channels() {
            if channel.kind == ChannelKind::Console {
                let (output, theirs) = std::io::pipe().map_err(StartError::Streams)?;
                fds.push(theirs.into());
                let (theirs, input) = std::io::pipe().map_err(StartError::Streams)?;
                fds.push(theirs.into());
                console = Some((output, input));
                continue;
            }
            let (ours, theirs) = UnixStream::pair().map_err(StartError::Streams)?;
            fds.push(theirs.into());
            channels.insert(channel.name.clone(), ours);
        }

        let Resources {
            console_sinks,
            tasks,
            event_consumers,
            kernel_coverage,
            cancel,
            timeout,
            ..
        } = resources;
        let mut tasks = tasks;
        let mut pumps = Vec::new();
        for EventConsumer { channel, start } in event_consumers {
            match channels.remove(&channel) {
                Some(stream) => {
                    let (stream, pump) =
                        Pump::start(&channel, stream).map_err(StartError::Streams)?;
                    pumps.push(pump);
                    tasks.push(start(stream));
                }
                None => return Err(StartError::NoChannel { channel }),
            }
        }
        // Right before QEMU. If that cannot be started, dropping them tells them.
        let tasks = tasks::Running::start(tasks);

        let program = PathBuf::from(plan.program());
        let mut command = Command::new(&program);
        command.args(plan.args(Spelling::Executed));
        let started = Instant::now();
        let process = Process::spawn(command, FIRST_FD, fds).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                StartError::NoQemu { program: program.clone() }
            } else {
                StartError::Spawn { program: program.clone(), source }
            }
        })?;

        let mut stream = |name: &str| {
            let stream = channels.remove(name).expect("every plan has this channel");
            into_tokio(stream).map_err(StartError::Streams)
        };
        let monitor = Monitor::new(stream(MONITOR)?);
        let (output, input) = console.expect("every plan has a console");
        let console = Console::new(output, input, console_sinks).map_err(StartError::Streams)?;
        tasks.follow(process.exit_watch());
        let stopped = wait::watch(&process, tasks.failed(), cancel, timeout);
        let _services = Services(services);
        Ok(Vm {
            plan,
            process,
            console,
            monitor,
            channels,
            kernel_coverage: counters::Taker::new(kernel_coverage),
            pumps,
            notices,
            started,
            tasks,
            stopped,
            _services,
        })
    }

    /// What it was started from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the user should know of the start: files that a read-only directory cannot hold.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The guest's console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// When QEMU was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw_pid() as u32
    }

    /// QEMU's version, once it has said so.
    pub fn qemu_version(&self) -> Option<String> {
        self.monitor.version()
    }

    /// As [`Vm::qemu_version`], for later: it is known until the machine is gone and after.
    pub fn qemu_version_watch(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.monitor.version_watch()
    }

    /// Takes the host's end of a named virtio port. `None` when there is no such port, or somebody
    /// has it.
    pub fn take_channel(&mut self, name: &str) -> Option<UnixStream> {
        let stream = self.channels.remove(name)?;
        let is = |channel: &&Channel| channel.name == name && channel.kind == ChannelKind::Events;
        if self.plan.channels().iter().find(is).is_none() {
            return Some(stream);
        }
        let (stream, pump) = Pump::start(name, stream).ok()?;
        self.pumps.push(pump);
        Some(stream)
    }

    /// Waits until QEMU has passed on what the guest has written to event channels. Returns the names of
    /// those whose readers do not read.
    pub(crate) async fn settle_events(&self) -> Vec<String> {
        let mut unread = Vec::new();
        for pump in &self.pumps {
            if !pump.settled().await {
                unread.push(pump.name().to_owned());
            }
        }
        unread
    }

    /// Sends a signal to QEMU. One that has ended is no error.
    ///
    /// # Errors
    /// The system's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.signal(signal)
    }

    /// Takes an event channel as a typed stream. Waiting with the next call slows down the guest, which
    /// loses nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such channel, or somebody has it.
    pub fn events<T: DeserializeOwned>(&mut self, name: &str) -> io::Result<EventChannel<T>> {
        let stream = self.take_channel(name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no event channel `{name}`"))
        })?;
        EventChannel::new(name, stream)
    }

    /// QEMU's command line, quoted for a POSIX shell, as a person types it to see the same machine boot
    /// ([`Spelling::Typed`]).
    pub fn cmdline_quoted(&self) -> OsString {
        self.plan.quoted(Spelling::Typed)
    }

    /// Kills QEMU at once. [`Vm::wait`] then gives [`End::Killed`]; [`Vm::ended`] still has to be awaited
    /// for what the console said.
    pub fn kill(&self) {
        self.stopped.by(wait::Cause::Kill);
        self.process.kill();
    }

    /// Ends QEMU in an orderly way: asks, waits a grace period, kills.
    pub async fn terminate(&mut self) {
        self.monitor.quit();
        let mut exit = self.process.exit_watch();
        let asked = exit.wait_for(Option::is_some);
        if tokio::time::timeout(Duration::from_secs(2), asked).await.is_err() {
            self.process.terminate().await;
        }
    }

    /// Waits for QEMU's end and says how it came about. Has no deadline of its own.
    pub async fn ended(&self) -> End {
        let mut exit = self.process.exit_watch();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        let _ = tokio::time::timeout(CONSOLE_GRACE, self.console.closed()).await;
        let stderr = self.process.output().text();
        // A panic that was printed is certain; how QEMU learned of the end is not.
        if let Some(text) = self.console.panic_text() {
            return End::Panicked { text };
        }
        match self.monitor.stop_reason() {
            Some(StopReason::GuestPanic) => {
                End::Panicked { text: "the kernel told of a panic and printed no reason".into() }
            }
            Some(StopReason::GuestShutdown) => End::PoweredOff,
            Some(StopReason::GuestReset) => End::Reset,
            Some(StopReason::HostQuit) => End::Quit,
            _ if self.stopped.cause() == Some(wait::Cause::Kill) => End::Killed,
            _ if self.monitor.version().is_none() => End::NeverRan { stderr },
            _ if status.is_some_and(|status| status.success()) => End::Exited,
            _ => End::Died { status: status_text(status), stderr },
        }
    }

    /// The port forwards of user networks, with the ports that QEMU really listens on.
    ///
    /// # Errors
    /// The monitor's.
    pub async fn port_forwards(&self) -> io::Result<Vec<HostForward>> {
        let arguments = serde_json::json!({ "command-line": "info usernet" });
        let listing = self.monitor.execute("human-monitor-command", arguments).await?;
        let listing = listing.as_str().unwrap_or_default();
        Ok(self
            .plan
            .port_forwards()
            .iter()
            .map(|(netdev, forward)| {
                let host_port = listening_port(listing, netdev, forward);
                HostForward { host_port: host_port.unwrap_or(forward.host_port), ..*forward }
            })
            .collect())
    }
}

/// Finds the port of a forward in what QEMU prints for `info usernet`: below a line with the netdev's
/// id in brackets, lines of protocol with state, descriptor, source address, source port, destination
/// address, destination port and two queue lengths.
fn listening_port(listing: &str, netdev: &str, forward: &HostForward) -> Option<u16> {
    let mut inside = false;
    let state = format!("{}[HOST_FORWARD]", forward.protocol.name().to_ascii_uppercase());
    for line in listing.lines() {
        if line.starts_with("Hub") || line.contains("(#net") || line.ends_with("):") {
            inside = line.contains(&format!("({netdev})"));
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [kind, _, address, port, _, guest_port, ..] = fields[..]
            && inside
            && kind == state
            && address == forward.host_address.to_string()
            && guest_port == forward.guest_port.to_string()
        {
            let port = port.parse().ok()?;
            if forward.host_port == 0 || forward.host_port == port {
                return Some(port);
            }
        }
    }
    None
}

fn status_text(status: Option<ExitStatus>) -> String {
    match status {
        None => "its status is not known".into(),
        Some(status) => match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("status {}", status.code().unwrap_or_default()),
        },
    }
}

fn into_tokio(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
