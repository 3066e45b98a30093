//! Serves the host's requests: the main loop of process 1.
//!
//! It never blocks on anything but its channel of events and, when the host does not read, the
//! control port. One command runs at a time; when it has ended the next may start, in the same
//! guest.

use super::control::{Control, PortWriter, read_requests};
use super::exec::{self, Failure, Started, Stream, Streams};
use super::reaper::Reaper;
use super::stdin::Stdin;
use super::wait_ports::Ports;
use super::{log, network, power, seconds_since_boot};
use crate::commands::event;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use vmtest_guest::coverage::{self, Archived};
use vmtest_guest::proto::{
    self, ExitStatus, Hello, Message, Request, STDERR_PORT, STDIN_PORT, STDOUT_PORT, WindowSize,
};

/// How long what still runs at the end has to react to SIGTERM.
const TERM_GRACE: Duration = Duration::from_millis(200);
/// How long to wait for SIGKILL's effect; only a process stuck in the kernel takes longer.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How long a host may take to read the rest of the output of a command that the end has killed.
const REPORT_GRACE: Duration = Duration::from_millis(500);

/// What the threads tell the main loop.
pub(crate) enum Event {
    /// The host wants something.
    Request(Request),
    /// The host is gone or talks nonsense: why.
    ControlEnded(String),
    /// A process ended: the command or an orphan.
    Reaped { pid: Pid, status: ExitStatus },
    /// No process is left.
    NoChildren,
    /// A stream of the command of this number is relayed completely.
    StreamDone { command: u64, stream: Stream, bytes: u64 },
    /// The kernel's counters are sent, or cannot be.
    CoverageDone { id: u64, result: Result<Archived, Failure> },
}

/// What the boot sequence found.
pub(crate) struct Start {
    pub(crate) ports: Ports,
    pub(crate) notices: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) init_secs: f64,
    pub(crate) reaper: Reaper,
    pub(crate) events: Receiver<Event>,
    pub(crate) sender: Sender<Event>,
}

struct Agent {
    /// `None` once the host is gone.
    control: Option<Control>,
    stdin: Option<Stdin>,
    stdout: Option<File>,
    stderr: Option<File>,
    coverage: Option<File>,
    reaper: Reaper,
    sender: Sender<Event>,
    /// Directories to unmount at the end, in the order of mounting.
    mounted: Vec<String>,
    running: Option<Running>,
    /// Numbers the commands, so that what a thread says of an earlier one is not taken for news.
    commands: u64,
}

/// The command, until the host is told how it ended.
struct Running {
    command: u64,
    started: Started,
    status: Option<ExitStatus>,
    stdout_bytes: Option<u64>,
    stderr_bytes: Option<u64>,
}

/// Whether to go on.
enum Next {
    Event,
    End,
}

pub(crate) fn run(start: Start) -> ! {
    let Start { ports, notices, modules, init_secs, reaper, events, sender } = start;
    let shared = Control::new(ports.control)
        .and_then(|control| Ok((control.reader()?, control)))
        .unwrap_or_else(|error| panic!("cannot use the control port: {error}"));
    let (requests, control) = shared;
    let stdin = ports.stdin.and_then(|port| Stdin::start(port).ok());
    let mut agent = Agent {
        control: Some(control),
        stdin,
        stdout: ports.stdout,
        stderr: ports.stderr,
        coverage: ports.coverage,
        reaper,
        sender: sender.clone(),
        mounted: Vec::new(),
        running: None,
        commands: 0,
    };
    if let Some(control) = &agent.control {
        control.wait_for_host();
    }
    agent.send(&Message::Hello(hello(ports.names, modules, init_secs)));
    for text in notices {
        log(&text);
        agent.notice(text);
    }
    // Reading nothing means that the host is gone: it was there for hello.
    std::thread::spawn(move || read_requests(requests, &sender));

    while let Ok(event) = events.recv() {
        if let Next::End = agent.handle(event) {
            break;
        }
    }
    agent.shut_down(&events)
}

fn hello(ports: Vec<String>, modules: Vec<String>, init_secs: f64) -> Hello {
    let uname = rustix::system::uname();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    Hello {
        protocol: proto::VERSION,
        guest_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        cpus,
        memory_bytes: memory_bytes(&meminfo).unwrap_or(0),
        init_secs,
        ready_secs: seconds_since_boot(),
        ports,
        modules,
    }
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

impl Agent {
    /// A host that cannot be written to is gone; the thread that reads says so as well.
    fn send(&mut self, message: &Message) {
        if let Some(Err(error)) = self.control.as_mut().map(|control| control.send(message)) {
            log(&format!("cannot write to the control port: {error}"));
            self.control = None;
        }
    }

    fn notice(&mut self, text: String) {
        self.send(&Message::Notice { text });
    }

    fn answer(&mut self, id: u64, result: Result<Option<u32>, Failure>) {
        self.send(&match result {
            Ok(pid) => Message::Done { id, pid },
            Err(Failure { text, errno }) => Message::Failed { id, error: text, errno },
        });
    }

    fn handle(&mut self, event: Event) -> Next {
        match event {
            Event::Request(request) => return self.serve(request),
            Event::ControlEnded(why) => {
                log(&format!("{why}; powering off"));
                self.notice(why);
                return Next::End;
            }
            Event::Reaped { pid, status } => self.reaped(pid, status),
            Event::NoChildren => {}
            Event::StreamDone { command, stream, bytes } => {
                if let Some(running) = self.running.as_mut().filter(|r| r.command == command) {
                    match stream {
                        Stream::Stdout => running.stdout_bytes = Some(bytes),
                        Stream::Stderr => running.stderr_bytes = Some(bytes),
                    }
                }
                self.report_if_complete();
            }
            Event::CoverageDone { id, result: Ok(Archived { files, bytes }) } => {
                self.send(&Message::KernelCoverage { id, files, bytes });
            }
            Event::CoverageDone { id, result: Err(failure) } => self.answer(id, Err(failure)),
        }
        Next::Event
    }

    fn serve(&mut self, request: Request) -> Next {
        match request {
            Request::Mount { id, mount } => {
                let result = vmtest_guest::mount::mount_fs(&mount);
                let result = match result {
                    Ok(()) => {
                        self.mounted.push(mount.target);
                        Ok(None)
                    }
                    Err(error) => Err(Failure { errno: error.errno(), text: chain(&error) }),
                };
                self.answer(id, result);
            }
            Request::Network { id, network } => {
                let result = network::set_up(&network).map(|()| None);
                self.answer(id, result);
            }
            Request::Exec { id, exec } => {
                let result = self.start(&exec).map(Some);
                self.answer(id, result);
                // Its end may have been seen before the answer, by nobody: `running` is set now.
                self.report_if_complete();
            }
            Request::StdinEnd { bytes } => {
                if let Some(stdin) = &self.stdin {
                    stdin.end(bytes);
                }
            }
            Request::Signal { signal } => self.signal(signal),
            Request::Resize { size } => self.resize(size),
            Request::KernelCoverage { id } => {
                if let Err(failure) = self.send_coverage(id) {
                    self.answer(id, Err(failure));
                }
            }
            Request::Shutdown => return Next::End,
            _ => self.notice("this guest does not know the host's request".to_owned()),
        }
        Next::Event
    }

    /// In a thread: there may be thousands of files, and the host may read slowly.
    fn send_coverage(&self, id: u64) -> Result<(), Failure> {
        let missing = "the machine has no virtio-serial port for coverage";
        let port = self.coverage.as_ref().ok_or_else(|| Failure::new(missing, Errno::NODEV))?;
        let port = port.try_clone().map_err(|error| Failure {
            text: format!("cannot use the port for coverage: {error}"),
            errno: error.raw_os_error(),
        })?;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let result =
                coverage::collect_kernel(Path::new(coverage::KERNEL_DIR), PortWriter(port));
            let failed =
                |error: coverage::Error| Failure { errno: error.errno(), text: chain(&error) };
            let _ = sender.send(Event::CoverageDone { id, result: result.map_err(failed) });
        });
        Ok(())
    }

    fn start(&mut self, exec: &proto::Exec) -> Result<u32, Failure> {
        if self.running.is_some() {
            return Err(Failure::new("a command is still running", Errno::BUSY));
        }
        let missing = |port: &str| {
            Failure::new(format!("the machine has no virtio-serial port `{port}`"), Errno::NODEV)
        };
        let stdout = self.stdout.as_ref().ok_or_else(|| missing(STDOUT_PORT))?;
        let stderr = self.stderr.as_ref().ok_or_else(|| missing(STDERR_PORT))?;
        if exec.stdin {
            let stdin = self.stdin.as_ref().ok_or_else(|| missing(STDIN_PORT))?;
            if stdin.awaits_end() {
                let text = "the end of the last command's stdin was not told";
                return Err(Failure::new(text, Errno::BUSY));
            }
        }
        event::forget_used();
        self.commands += 1;
        let command = self.commands;
        let sender = self.sender.clone();
        let streams = Streams { stdin: self.stdin.as_ref(), stdout, stderr };
        let started = exec::start(exec, &self.reaper, &streams, move |stream, bytes| {
            let _ = sender.send(Event::StreamDone { command, stream, bytes });
        })?;
        let pid = started.pid.as_raw_nonzero().get() as u32;
        self.running = Some(Running {
            command,
            started,
            status: None,
            stdout_bytes: None,
            stderr_bytes: None,
        });
        Ok(pid)
    }

    fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        // Anything else is an orphan, and now it is gone.
        if let Some(running) = &mut self.running
            && running.started.pid == pid
            && running.status.is_none()
        {
            running.status = Some(status);
            running.started.ended.tell();
            if let Some(stdin) = &self.stdin {
                stdin.nobody_reads();
            }
            self.report_if_complete();
        }
    }

    fn report_if_complete(&mut self) {
        if let Some(running) = &self.running
            && let (Some(status), Some(stdout_bytes), Some(stderr_bytes)) =
                (running.status, running.stdout_bytes, running.stderr_bytes)
        {
            self.running = None;
            if status == ExitStatus::Code(0) {
                for failure in event::close_used() {
                    self.notice(failure);
                }
            }
            self.send(&Message::Exited { status, stdout_bytes, stderr_bytes });
        }
    }

    fn signal(&mut self, number: i32) {
        // The command may just have ended: no error.
        let Some(running) = &self.running else { return };
        let Some(signal) = Signal::from_named_raw(number) else {
            return self.notice(format!("there is no signal {number}"));
        };
        let terminal = running.started.terminal.as_ref();
        let foreground = terminal.and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
        let group = foreground.unwrap_or(running.started.pid);
        match kill_process_group(group, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => self.notice(format!("cannot send signal {number}: {errno}")),
        }
    }

    fn resize(&mut self, size: WindowSize) {
        let terminal = self.running.as_ref().and_then(|running| running.started.terminal.as_ref());
        if let Some(Err(error)) = terminal.map(|terminal| exec::set_size(terminal, size)) {
            self.notice(format!("cannot resize the terminal: {error}"));
        }
    }

    fn shut_down(mut self, events: &Receiver<Event>) -> ! {
        self.end_processes(events);
        rustix::fs::sync();
        for target in std::mem::take(&mut self.mounted).into_iter().rev() {
            if let Err(errno) = unmount(&*target, UnmountFlags::empty()) {
                self.notice(format!("cannot unmount {target}: {errno}"));
                let _ = unmount(&*target, UnmountFlags::DETACH);
            }
        }
        rustix::fs::sync();
        self.send(&Message::Bye);
        power::off()
    }

    /// Ends what still runs: asks, waits a moment, kills. A command that was running is reported with
    /// what it had written.
    fn end_processes(&mut self, events: &Receiver<Event>) {
        // The usual case.
        if no_children() && self.running.is_none() {
            return;
        }
        // Process 1 as a group is every process but itself.
        let _ = kill_process_group(Pid::INIT, Signal::TERM);
        let _ = kill_process_group(Pid::INIT, Signal::CONT);
        if !self.handle_until(events, TERM_GRACE, |_| no_children()) {
            let programs = running_programs();
            self.notice(format!(
                "killed what still ran {} ms after SIGTERM: {programs}",
                TERM_GRACE.as_millis(),
            ));
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
            if !self.handle_until(events, KILL_GRACE, |_| no_children()) {
                let programs = running_programs();
                self.notice(format!("could not kill: {programs}"));
            }
        }
        self.handle_until(events, REPORT_GRACE, |agent| agent.running.is_none());
    }

    /// Handles what the threads say until `reached`, at most for `most`; whether it was reached.
    fn handle_until(
        &mut self,
        events: &Receiver<Event>,
        most: Duration,
        reached: impl Fn(&Agent) -> bool,
    ) -> bool {
        let deadline = Instant::now() + most;
        while !reached(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match events.recv_timeout(left) {
                // The end goes on whatever the host still asks for.
                Ok(Event::Request(_) | Event::ControlEnded(_)) => {}
                Ok(event) => {
                    self.handle(event);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}

/// Every process is a descendant of process 1, so no child is no process.
fn no_children() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::All, options).is_err_and(|errno| errno == Errno::CHILD)
}

/// Names and numbers of all processes that are programs; kernel threads have no command line.
fn running_programs() -> String {
    let mut programs = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let program = cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
        if pid != 1 && !program.is_empty() {
            programs.push(format!("{} ({pid})", String::from_utf8_lossy(program)));
        }
    }
    programs.join(", ")
}

/// An error with its reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        let meminfo = "MemTotal:         501120 kB\nMemFree:  1 kB\n";
        assert_eq!(memory_bytes(meminfo), Some(501_120 * 1024));
        assert_eq!(memory_bytes(""), None);
    }
}
