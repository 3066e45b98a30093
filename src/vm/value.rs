//! A machine as a value: QEMU with everything around it that must be torn down.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::de::DeserializeOwned;

use super::console::{Console, Sink};
use super::counters::CounterSink;
use super::events::EventChannel;
use super::host_load::{HostLoad, HostWatch};
use super::machine::{Given, Machine, Services};
use super::process::Process;
use super::pump::Pump;
use super::qmp::{Monitor, StopReason};
use super::resources::{EventConsumer, Resources};
use super::saved;
use super::start_error::StartError;
use super::stop::{self, Cause, Stopped, Stopper};
use super::tasks::{self, CancelToken};
use crate::plan::{Channel, ChannelKind, Plan, Spelling};
use crate::qemu::HostForward;

/// How long the console may still speak after QEMU has ended.
const CONSOLE_GRACE: Duration = Duration::from_secs(1);

/// A running machine.
///
/// Dropped, it kills QEMU and everything QEMU started.
#[derive(Debug)]
#[must_use = "dropped, it kills QEMU"]
pub struct Vm {
    pub(super) plan: Plan,
    pub(super) process: Process,
    pub(super) console: Console,
    pub(super) monitor: Monitor,
    pub(super) channels: BTreeMap<String, UnixStream>,
    pub(super) kernel_coverage: CounterSink,
    pub(super) pumps: Vec<Pump>,
    pub(super) notices: Vec<String>,
    pub(super) started: Instant,
    pub(super) tasks: tasks::Running,
    pub(super) stopped: Stopped,
    pub(super) host: HostWatch,
    pub(super) template_files: Option<saved::Files>,
    pub(super) _services: Services,
}

/// What belongs to a machine besides QEMU.
pub(super) struct Around {
    pub(super) console_sinks: Vec<Sink>,
    pub(super) tasks: tasks::Running,
    pub(super) event_consumers: Vec<EventConsumer>,
    pub(super) kernel_coverage: Option<Box<dyn Write + Send>>,
    pub(super) cancel: Option<CancelToken>,
    pub(super) timeout: Option<Duration>,
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
    /// The guest's kernel stopped for good without switching off, and we ended QEMU.
    Halted,
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
    /// Asks QEMU's monitor: a command of QMP with its arguments, and what it answers.
    ///
    /// # Errors
    /// QEMU's own words when it refuses; that it is gone; that it did not answer in time.
    pub async fn qmp(
        &self,
        command: &str,
        arguments: serde_json::Value,
    ) -> io::Result<serde_json::Value> {
        self.monitor.execute(command, arguments).await
    }

    /// Starts QEMU. Returns when it is a process, not when the guest has booted.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(plan: Plan, resources: Resources) -> Result<Vm, StartError> {
        let Resources {
            initramfs,
            console_sinks,
            tasks,
            event_consumers,
            kernel_coverage,
            cancel,
            timeout,
        } = resources;
        // Before QEMU. If that cannot be started, dropping them tells them: clean-ups run.
        let tasks = tasks::Running::start(tasks);
        let machine = Machine::spawn(plan, Given { initramfs, saved: None })?;
        let around =
            Around { console_sinks, tasks, event_consumers, kernel_coverage, cancel, timeout };
        Vm::assemble(machine, around)
    }

    /// Puts around QEMU what belongs to a machine.
    pub(super) fn assemble(machine: Machine, around: Around) -> Result<Vm, StartError> {
        let Machine {
            plan,
            process,
            monitor,
            mut channels,
            console: (output, input),
            notices,
            started,
            template_files,
            services,
        } = machine;
        let Around { console_sinks, mut tasks, event_consumers, kernel_coverage, cancel, timeout } =
            around;
        let mut pumps = Vec::new();
        for EventConsumer { channel, start } in event_consumers {
            let Some(stream) = channels.remove(&channel) else {
                return Err(StartError::NoChannel { channel });
            };
            let (stream, pump) = Pump::start(&channel, stream).map_err(StartError::Streams)?;
            pumps.push(pump);
            tasks.add(start(stream));
        }
        let console = Console::new(output, input, console_sinks).map_err(StartError::Streams)?;
        tasks.follow(process.exit_watch());
        let host = HostWatch::start(&process);
        let stopped = Stopped::default();
        stop::watch(&Stopper::new(&process, &monitor, &stopped), tasks.failed(), cancel, timeout);
        Ok(Vm {
            plan,
            process,
            console,
            monitor,
            channels,
            kernel_coverage: CounterSink::new(kernel_coverage),
            pumps,
            notices,
            started,
            tasks,
            stopped,
            host,
            template_files,
            _services: services,
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

    /// What QEMU got of the host's processors so far.
    pub fn host_load(&self) -> HostLoad {
        self.host.so_far()
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
        self.stopped.by(Cause::Kill);
        self.process.kill();
    }

    /// Ends QEMU in an orderly way: asks, waits a second, kills.
    pub async fn terminate(&mut self) {
        self.stopper().end().await;
    }

    /// To end QEMU from elsewhere.
    pub(super) fn stopper(&self) -> Stopper {
        Stopper::new(&self.process, &self.monitor, &self.stopped)
    }

    /// Waits for QEMU's end and says how it came about. Has no deadline of its own.
    pub async fn ended(&self) -> End {
        let mut exit = self.process.exit_watch();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        let _ = tokio::time::timeout(CONSOLE_GRACE, self.console.closed()).await;
        let stderr = self.process.output().text();
        let panicked = || End::Panicked {
            text: self
                .console
                .panic_text()
                .unwrap_or_else(|| "the kernel told of a panic and printed no reason".into()),
        };
        match (self.monitor.stop_reason(), self.stopped.cause()) {
            (Some(StopReason::GuestPanic), _) | (_, Some(Cause::Panicked)) => panicked(),
            // `panic=-1` is a reset, and not every kernel has a driver for pvpanic.
            (Some(StopReason::GuestReset), _) if self.console.panic_text().is_some() => panicked(),
            (_, Some(Cause::Halted)) => End::Halted,
            (_, Some(Cause::Stopped { state, registers })) => End::Died {
                status: format!("it stopped the machine: {state}"),
                stderr: [stderr, registers].join("\n").trim().to_owned(),
            },
            (Some(StopReason::GuestShutdown), _) => End::PoweredOff,
            (Some(StopReason::GuestReset), _) => End::Reset,
            (Some(StopReason::HostQuit), _) => End::Quit,
            // Whatever comes after it: a machine that had died by then has died.
            (_, Some(Cause::Kill)) if status.is_none_or(was_killed) => End::Killed,
            _ if !self.monitor.made_machine() => End::NeverRan { stderr },
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

/// Whether the status is that of [`Vm::kill`].
fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
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
