//! Serves the host's requests: the main loop of process 1.
//!
//! One thread and one `poll`: the control port, the end of children, the streams of every command that
//! runs. Nothing in it blocks. What may take long (mounting waits for a device, counters are thousands
//! of files) is done by a thread of its own that tells the loop when it is through ([`Work`]).

use super::children::Children;
use super::exec;
use super::failure::Failure;
use super::files::Unpacker;
use super::job::{Job, stdin_credit};
use super::link::{Link, excerpt};
use super::log::{log, seconds_since_boot};
use super::poll::{self, Progress};
use super::wait_ports::Ports;
use super::work::{Done, Work};
use super::{fresh, power, shell, sysrq};
use crate::commands::event;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::time::{Duration, Instant};
use vmtest_guest::proto::frame::{Frame, Kind};
use vmtest_guest::proto::{self, ExitStatus, Hello, Message, Request, WindowSize};

/// How long what still runs at the end has to react to SIGTERM.
const TERM_GRACE: Duration = Duration::from_millis(200);
/// How long to wait for SIGKILL's effect; only a process stuck in the kernel takes longer.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// How long a host may take to read the rest of the output of a command that the end has killed.
const REPORT_GRACE: Duration = Duration::from_millis(500);

/// What the boot sequence found.
pub(crate) struct Start {
    pub(crate) ports: Ports,
    pub(crate) notices: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) init_secs: f64,
}

struct Agent {
    link: Link,
    children: Children,
    work: Work,
    coverage: Option<File>,
    /// Directories to unmount at the end, in the order of mounting.
    mounted: Vec<String>,
    jobs: Vec<Job>,
    /// Pipes of commands that have been reported, which somebody may still write to.
    leftovers: Vec<File>,
    /// The archive that is being unpacked, and the number of its request.
    files: Option<(u32, Unpacker)>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The host may ask for anything.
    Serving,
    /// The host has asked for the end, or is gone.
    Ending,
}

/// What `poll` watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Link,
    Children,
    Work,
    Outlet(usize, usize),
    Inlet(usize),
    Leftover(usize),
}

pub(crate) fn run(start: Start) -> ! {
    let Start { ports, notices, modules, init_secs } = start;
    let die = |what: &str, error: std::io::Error| -> ! { panic!("cannot use {what}: {error}") };
    let link = Link::new(ports.control).unwrap_or_else(|error| die("the control port", error));
    let children = Children::watch().unwrap_or_else(|error| die("signals", error));
    let work = Work::new().unwrap_or_else(|error| die("an eventfd", error));
    sysrq::allow();
    let mut agent = Agent {
        link,
        children,
        work,
        coverage: ports.coverage,
        mounted: Vec::new(),
        jobs: Vec::new(),
        leftovers: Vec::new(),
        files: None,
        state: State::Serving,
    };
    agent.link.wait_for_host();
    agent.send(&Message::Hello(hello(ports.names, modules, init_secs)));
    for text in notices {
        log(&text);
        agent.notice(text);
    }
    while agent.state == State::Serving {
        agent.turn(None);
    }
    agent.shut_down()
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
        no_clock: fresh::has_no_clock(),
    }
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

impl Agent {
    /// A host that cannot be written to is gone.
    fn send(&mut self, message: &Message) {
        if let Err(error) = self.link.send(message) {
            self.host_is_gone(&format!("cannot write to the control port: {error}"));
        }
    }

    fn host_is_gone(&mut self, why: &str) {
        if self.state == State::Serving {
            log(&format!("{why}; powering off"));
        }
        self.state = State::Ending;
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

    /// Waits until something happens, at most for `most`, and deals with it.
    fn turn(&mut self, most: Option<Duration>) {
        let ready = self.wait(most);
        let mut ended = Vec::new();
        for (source, flags) in ready {
            match source {
                Source::Link => self.link_ready(flags),
                Source::Children => self.reap(),
                Source::Work => self.collect_work(),
                Source::Outlet(job, outlet) => {
                    // A link that has become full has no room for the next one's frame.
                    if self.link.has_room() {
                        let job = &mut self.jobs[job];
                        let relayed = job.outlets[outlet].relay(job.id, &mut self.link);
                        if let Err(error) = relayed {
                            self.host_is_gone(&format!(
                                "cannot write to the control port: {error}"
                            ));
                        }
                    }
                }
                Source::Inlet(job) => self.feed(job),
                Source::Leftover(pipe) => {
                    if poll::read_some(&self.leftovers[pipe], &mut [0; 4096]) == Progress::End {
                        ended.push(pipe);
                    }
                }
            }
        }
        for pipe in ended.into_iter().rev() {
            self.leftovers.remove(pipe);
        }
        if self.jobs.iter().any(|job| job.deadline().is_some()) {
            let now = Instant::now();
            for outlet in self.jobs.iter_mut().flat_map(|job| &mut job.outlets) {
                outlet.check_deadline(now);
            }
        }
        self.report();
    }

    /// What is ready.
    fn wait(&self, most: Option<Duration>) -> Vec<(Source, PollFlags)> {
        let room = self.link.has_room();
        let mut sources = vec![Source::Link, Source::Children, Source::Work];
        let mut fds = vec![
            self.link.poll_fd(),
            PollFd::from_borrowed_fd(self.children.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.work.fd(), PollFlags::IN),
        ];
        for (n, job) in self.jobs.iter().enumerate() {
            for (m, outlet) in job.outlets.iter().enumerate() {
                if let Some(fd) = outlet.poll_fd(room) {
                    sources.push(Source::Outlet(n, m));
                    fds.push(fd);
                }
            }
            if let Some(fd) = job.inlet.poll_fd() {
                sources.push(Source::Inlet(n));
                fds.push(fd);
            }
        }
        for (n, pipe) in self.leftovers.iter().enumerate() {
            sources.push(Source::Leftover(n));
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        let deadline = self.jobs.iter().filter_map(Job::deadline).min();
        let until = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        poll::wait(&mut fds, most.into_iter().chain(until).min());
        let flags = fds.iter().map(PollFd::revents);
        sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn link_ready(&mut self, flags: PollFlags) {
        if let Err(error) = self.link.flush() {
            return self.host_is_gone(&format!("cannot write to the control port: {error}"));
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match self.link.fill() {
            Ok(_) => {}
            // While the host was never there a port reads like this; it was there for hello.
            Err(why) => return self.host_is_gone(&why),
        }
        // Taken out, so that a frame can lie in it while the agent does what it asks for.
        let mut decoder = std::mem::take(&mut self.link.decoder);
        let wrong = loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    if let Err(why) = self.receive(frame) {
                        break Some(why);
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        self.link.decoder = decoder;
        if let Some(why) = wrong {
            self.notice(why.clone());
            self.host_is_gone(&why);
        }
    }

    /// Takes a frame; the error is the host's.
    fn receive(&mut self, frame: Frame<'_>) -> Result<(), String> {
        let Frame { kind, id, payload } = frame;
        match kind {
            Kind::Message => {
                let request = serde_json::from_slice(payload)
                    .map_err(|error| format!("malformed request: {error}: {}", excerpt(payload)))?;
                // The end goes on whatever the host still asks for.
                if self.state == State::Serving {
                    self.serve(request);
                }
            }
            Kind::Stdin => {
                let room = if let Some((_, unpacker)) = self.files.as_mut().filter(|f| f.0 == id) {
                    unpacker.push(payload);
                    payload.len() as u32
                } else if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
                    job.inlet.push(payload)?
                } else {
                    // For a command that has ended.
                    0
                };
                self.give_room(id, room);
            }
            Kind::End => {
                if let Some((_, unpacker)) = self.files.take_if(|files| files.0 == id) {
                    let result = unpacker.finish().map(|()| None);
                    // The files may have taken the place of where it was linked.
                    let mut notices = Vec::new();
                    shell::link(&mut notices);
                    notices.into_iter().for_each(|text| self.notice(text));
                    self.answer(id.into(), result);
                } else if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
                    job.inlet.end();
                }
            }
            Kind::Credit => {
                let (stream, bytes) = frame.as_credit().ok_or("a credit that is none")?;
                if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
                    job.outlets.iter_mut().for_each(|outlet| outlet.credit(stream, bytes));
                }
            }
            Kind::Stdout | Kind::Stderr => return Err(format!("a frame of kind {kind:?}")),
        }
        Ok(())
    }

    fn give_room(&mut self, id: u32, bytes: u32) {
        if let Some(frame) = stdin_credit(id, bytes)
            && let Err(error) = self.link.send_frame(&frame)
        {
            self.host_is_gone(&format!("cannot write to the control port: {error}"));
        }
    }

    fn feed(&mut self, job: usize) {
        let job = &mut self.jobs[job];
        let (id, room) = (job.id, job.inlet.feed());
        self.give_room(id, room);
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Mount { id, mount } => self.work.mount(id, mount),
            Request::Network { id, network } => self.work.network(id, network),
            Request::Exec { id, exec } => {
                let result = self.start(id, &exec).map(Some);
                self.answer(id, result);
            }
            Request::Signal { id, signal } => self.signal(id, signal),
            Request::Resize { id, size } => self.resize(id, size),
            Request::Files { id } => match (&self.files, u32::try_from(id)) {
                (None, Ok(id)) => self.files = Some((id, Unpacker::new("/"))),
                _ => {
                    let busy = Failure::new("other files are still on their way", Errno::BUSY);
                    self.answer(id, Err(busy));
                }
            },
            Request::Sysrq { id, keys } => {
                let result = sysrq::press(&keys).map(|()| None);
                self.answer(id, result);
            }
            Request::Resumed { id, fresh } => {
                let result = fresh::become_own(&fresh).map(|()| None);
                self.answer(id, result);
            }
            Request::Clock { id, realtime_ns } => {
                let result = fresh::set_clock(realtime_ns).map(|()| None);
                self.answer(id, result);
            }
            Request::KernelCoverage { id } => {
                if let Err(failure) = self.work.kernel_coverage(id, self.coverage.as_ref()) {
                    self.answer(id, Err(failure));
                }
            }
            Request::Shutdown => self.state = State::Ending,
            _ => self.notice("this guest does not know the host's request".to_owned()),
        }
    }

    fn start(&mut self, id: u64, exec: &proto::Exec) -> Result<u32, Failure> {
        let id = u32::try_from(id)
            .map_err(|_| Failure::new("a number above 2^32 for a command", Errno::INVAL))?;
        if self.jobs.is_empty() {
            event::forget_used();
        }
        let job = exec::start(id, exec)?;
        let pid = job.pid.as_raw_nonzero().get() as u32;
        self.jobs.push(job);
        Ok(pid)
    }

    fn reap(&mut self) {
        self.children.acknowledge();
        while let Some((pid, status)) = self.children.next() {
            // Anything else is an orphan, and now it is gone.
            let job = self.jobs.iter_mut().find(|job| job.pid == pid && job.status.is_none());
            if let Some(job) = job {
                job.ended(status);
            }
        }
    }

    /// Tells the host of commands that have ended and whose output is all sent.
    fn report(&mut self) {
        while let Some(n) = self.jobs.iter().position(|job| job.complete().is_some()) {
            let job = self.jobs.remove(n);
            let Some((status, [stdout_bytes, stderr_bytes])) = job.complete() else { return };
            let exited = Message::Exited { id: job.id.into(), status, stdout_bytes, stderr_bytes };
            self.leftovers.extend(job.leftovers());
            // The last one of several that run says that the channels they all used are complete.
            if status == ExitStatus::Code(0) && self.jobs.is_empty() && event::any_used() {
                self.work.close_events(exited);
            } else {
                self.send(&exited);
            }
        }
    }

    fn collect_work(&mut self) {
        while let Some(done) = self.work.next() {
            match done {
                Done::Answer { id, result, mounted } => {
                    self.mounted.extend(mounted);
                    self.answer(id, result.map(|()| None));
                }
                Done::Messages(messages) => messages.iter().for_each(|message| self.send(message)),
            }
        }
    }

    fn signal(&mut self, id: u64, number: i32) {
        // The command may just have ended: no error.
        let Some(job) = self.running(id) else { return };
        let Some(signal) = Signal::from_named_raw(number) else {
            return self.notice(format!("there is no signal {number}"));
        };
        let foreground =
            job.terminal.as_ref().and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
        match kill_process_group(foreground.unwrap_or(job.pid), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => self.notice(format!("cannot send signal {number}: {errno}")),
        }
    }

    fn resize(&mut self, id: u64, size: WindowSize) {
        let terminal = self.running(id).and_then(|job| job.terminal.as_ref());
        if let Some(Err(error)) = terminal.map(|terminal| exec::set_size(terminal, size)) {
            self.notice(format!("cannot resize the terminal: {error}"));
        }
    }

    fn running(&self, id: u64) -> Option<&Job> {
        self.jobs.iter().find(|job| u64::from(job.id) == id && job.status.is_none())
    }

    fn shut_down(mut self) -> ! {
        self.state = State::Ending;
        self.end_processes();
        rustix::fs::sync();
        for target in std::mem::take(&mut self.mounted).into_iter().rev() {
            if let Err(errno) = unmount(&*target, UnmountFlags::empty()) {
                self.notice(format!("cannot unmount {target}: {errno}"));
                let _ = unmount(&*target, UnmountFlags::DETACH);
            }
        }
        rustix::fs::sync();
        self.send(&Message::Bye);
        self.turn_until(REPORT_GRACE, |agent| agent.link.has_room());
        power::off()
    }

    /// Ends what still runs: asks, waits a moment, kills. Commands that were running are reported with
    /// what they had written.
    fn end_processes(&mut self) {
        // The usual case.
        if Children::none_left() && self.jobs.is_empty() && self.work.is_idle() {
            return;
        }
        // Process 1 as a group is every process but itself.
        let _ = kill_process_group(Pid::INIT, Signal::TERM);
        let _ = kill_process_group(Pid::INIT, Signal::CONT);
        if !self.turn_until(TERM_GRACE, |_| Children::none_left()) {
            let programs = running_programs();
            self.notice(format!(
                "killed what still ran {} ms after SIGTERM: {programs}",
                TERM_GRACE.as_millis(),
            ));
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
            if !self.turn_until(KILL_GRACE, |_| Children::none_left()) {
                let programs = running_programs();
                self.notice(format!("could not kill: {programs}"));
            }
        }
        self.turn_until(REPORT_GRACE, |agent| agent.jobs.is_empty() && agent.work.is_idle());
    }

    /// Goes on until `reached`, at most for `most`; whether it was reached.
    fn turn_until(&mut self, most: Duration, reached: impl Fn(&Agent) -> bool) -> bool {
        let deadline = Instant::now() + most;
        while !reached(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.turn(Some(left));
        }
        true
    }
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
