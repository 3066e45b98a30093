//! One run: boot, mount, execute, collect, switch off. Ends in exactly one [`Verdict`].

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use vmtest_guest::proto::{self, Exec, Hello, Message, Request};

use super::agent::{Agent, AgentError, Requests};
use super::streams::{Flow, Streams, from_guest, to_guest};
use super::{End, KernelCounters, Limit, TaskFailure, Verdict, Vm, into_tokio};
use crate::qemu::HostForward;

/// How long the guest may take to sync, unmount and say goodbye.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// How long a panicked kernel may take to end by itself before QEMU is ended.
const PANIC_GRACE: Duration = Duration::from_millis(500);

/// How long QEMU may take to end when the guest is already gone.
const LOST_GRACE: Duration = Duration::from_secs(1);

/// `ENOENT` and `EACCES` are the same numbers on all Linux architectures.
const ENOENT: i32 = 2;

/// `SIGTERM` is 15 on all Linux architectures.
const SIGTERM: i32 = 15;

/// `SIGPIPE` is 13 on all Linux architectures.
const SIGPIPE: i32 = 13;

/// What to do in the guest, and for how long.
#[derive(Clone, Debug)]
pub struct Job {
    /// The command; `None` only proves that the guest boots.
    pub exec: Option<Exec>,
    /// From QEMU's start until the guest is ready.
    pub boot_limit: Duration,
    /// The whole run; `None` for an interactive one.
    pub run_limit: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What the guest said when it was ready.
    pub hello: Option<Hello>,
    /// How long the parts took.
    pub phases: Phases,
    /// Remarks of the guest and of the run: modules that did not load, output that could not be
    /// written.
    pub notices: Vec<String>,
    /// Bytes of stdout and stderr.
    pub output_bytes: (u64, u64),
    /// Port forwards, with the ports that QEMU listened on.
    pub port_forwards: Vec<HostForward>,
    /// What came of asking for the kernel's gcov counters; `None` if nobody did, because they were not
    /// wanted or because the guest could not be asked any more.
    pub kernel_counters: Option<KernelCounters>,
}

/// How long the parts of a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phases {
    /// From QEMU's start to the guest's hello.
    pub boot: Option<Duration>,
    /// From the hello to the command's start: mounts, network.
    pub setup: Option<Duration>,
    /// From the command's start to its end, all output included.
    pub command: Option<Duration>,
    /// From then until QEMU had ended.
    pub shutdown: Option<Duration>,
    /// From QEMU's start to its end.
    pub total: Duration,
}

/// A step of a run, for those who watch.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The guest is ready.
    Ready(&'a Hello),
    /// QEMU listens on these ports of the host.
    Forwarding(&'a [HostForward]),
    /// The command runs; requests (signals, a new terminal size) can be sent.
    Running(&'a mpsc::UnboundedSender<Request>),
    /// The guest or the run remarks something.
    Notice(&'a str),
}

/// Runs a job in a machine that was just started, and tears the machine down.
///
/// `interrupt` ends the run when it completes, with the name of the signal.
pub async fn run(
    mut vm: Vm,
    job: Job,
    streams: Streams,
    interrupt: impl Future<Output = &'static str>,
    mut watcher: impl FnMut(Progress<'_>),
) -> Outcome {
    let mut outcome = Outcome {
        verdict: Verdict::Ready,
        hello: None,
        phases: Phases::default(),
        notices: vm.notices().to_vec(),
        output_bytes: (0, 0),
        port_forwards: Vec::new(),
        kernel_counters: None,
    };
    for text in vm.notices() {
        watcher(Progress::Notice(text));
    }
    // The dialogue keeps to the limit by itself, and goes on to bring home what the kernel has counted.
    let extra = if vm.wants_counters() { super::counters::LIMIT } else { Duration::ZERO };
    let run_deadline = job.run_limit.map(|limit| (Limit::Run, limit));
    let started = vm.started();
    let console = vm.console().clone();

    let verdict = {
        let conversation = converse(&mut vm, &job, streams, &mut outcome, &mut watcher);
        tokio::select! {
            biased;
            verdict = conversation => Some(verdict),
            signal = interrupt => Some(Verdict::Interrupted { signal }),
            verdict = expired(started + extra, run_deadline) => Some(verdict),
            () = console.panicked() => None,
        }
    };
    // Where we have killed QEMU ourselves, what that did to the guest does not matter.
    let verdict = match vm.stopped_verdict().or(verdict) {
        Some(verdict) => verdict,
        // Let it print its trace and end by itself; that takes longer only if its reboot hangs.
        None => {
            let _ = tokio::time::timeout(PANIC_GRACE, vm.ended()).await;
            vm.kill();
            lost(vm.ended().await, "")
        }
    };
    vm.terminate().await;
    // The console's last words belong to the transcript.
    let _ = tokio::time::timeout(LOST_GRACE, vm.ended()).await;

    let verdict = judge_tasks(vm.finish_tasks().await, verdict, &mut outcome);
    outcome.verdict = verdict;
    outcome.phases.total = started.elapsed();
    let known = [outcome.phases.boot, outcome.phases.setup, outcome.phases.command];
    if let [Some(boot), Some(setup), Some(command)] = known {
        outcome.phases.shutdown = Some(outcome.phases.total.saturating_sub(boot + setup + command));
    }
    outcome
}

/// A failed task fails a run that would have passed; otherwise it is a remark.
fn judge_tasks(failures: Vec<TaskFailure>, verdict: Verdict, outcome: &mut Outcome) -> Verdict {
    let texts: Vec<String> = failures.iter().map(|failure| crate::causes::chain(failure)).collect();
    let failed = verdict.passed() || matches!(verdict, Verdict::TaskFailed { .. });
    match texts.split_first() {
        Some((first, more)) if failed => {
            outcome.notices.extend_from_slice(more);
            Verdict::TaskFailed { error: first.clone() }
        }
        _ => {
            outcome.notices.extend(texts);
            verdict
        }
    }
}

/// Completes when the limit has passed since `started`.
async fn expired(started: Instant, limit: Option<(Limit, Duration)>) -> Verdict {
    match limit {
        None => std::future::pending().await,
        Some((limit, after)) => {
            tokio::time::sleep_until((started + after).into()).await;
            Verdict::TimedOut { limit, after }
        }
    }
}

/// What the machine's end means for a command that had not ended.
fn lost(end: End, doing: &str) -> Verdict {
    match end {
        End::Panicked { text } => Verdict::Panicked { text },
        End::NeverRan { stderr } => Verdict::CouldNotStart {
            error: if stderr.is_empty() {
                "QEMU ended before it had made the machine, without a word".into()
            } else {
                format!("QEMU refused: {stderr}")
            },
            hint: None,
        },
        End::Died { status, stderr } => Verdict::QemuDied { status, stderr },
        End::PoweredOff => Verdict::GuestLost { reason: format!("it switched itself off {doing}") },
        End::Reset => Verdict::GuestLost { reason: format!("it was reset {doing}") },
        End::Killed => Verdict::QemuDied { status: "killed".into(), stderr: String::new() },
        End::Exited => Verdict::QemuDied { status: "status 0".into(), stderr: String::new() },
        End::Quit => Verdict::GuestLost { reason: format!("QEMU was asked to quit {doing}") },
    }
}

async fn converse(
    vm: &mut Vm,
    job: &Job,
    streams: Streams,
    outcome: &mut Outcome,
    watcher: &mut impl FnMut(Progress<'_>),
) -> Verdict {
    if !vm.plan().has_agent() {
        return match vm.ended().await {
            End::PoweredOff => Verdict::PoweredOff,
            // Without an agent a guest says that it is done by either.
            End::Reset => Verdict::PoweredOff,
            end => lost(end, ""),
        };
    }
    let control = vm.take_channel(proto::CONTROL_PORT).expect("a plan with an agent has its ports");
    let mut agent = match into_tokio(control) {
        Ok(stream) => Agent::new(stream),
        Err(error) => {
            return Verdict::CouldNotStart { error: error.to_string(), hint: None };
        }
    };
    let result = dialogue(vm, &mut agent, job, streams, outcome, watcher).await;
    for text in agent.take_notices() {
        watcher(Progress::Notice(&text));
        outcome.notices.push(text);
    }
    match result {
        Ok(verdict) => verdict,
        Err((AgentError::Gone, doing)) => {
            // QEMU may be about to end, or the agent has died and the kernel is about to panic.
            match tokio::time::timeout(LOST_GRACE, vm.ended()).await {
                Ok(end) => lost(end, doing),
                Err(_) => Verdict::GuestLost { reason: format!("it fell silent {doing}") },
            }
        }
        Err((AgentError::Protocol(reason), doing)) => {
            Verdict::GuestLost { reason: format!("{doing}: {reason}") }
        }
        Err((AgentError::Refused { error, .. }, _)) => Verdict::CouldNotStart { error, hint: None },
    }
}

type Doing = &'static str;

async fn dialogue(
    vm: &mut Vm,
    agent: &mut Agent,
    job: &Job,
    streams: Streams,
    outcome: &mut Outcome,
    watcher: &mut impl FnMut(Progress<'_>),
) -> Result<Verdict, (AgentError, Doing)> {
    let started = vm.started();
    let booting = "while it booted";
    let deadline = job.run_limit.map(|limit| (Limit::Run, limit));
    let hello = tokio::select! {
        hello = agent.hello() => hello.map_err(|error| (error, booting))?,
        verdict = expired(started, Some((Limit::Boot, job.boot_limit))) => return Ok(verdict),
        verdict = expired(started, deadline) => return Ok(verdict),
        // Without this, a QEMU that refuses its arguments would be noticed only by its silence.
        end = vm.ended() => return Ok(lost(end, booting)),
    };
    let ready = Instant::now();
    outcome.phases.boot = Some(ready - started);
    watcher(Progress::Ready(&hello));
    outcome.hello = Some(hello);

    let work = work(vm, agent, job, streams, outcome, watcher);
    let verdict = tokio::select! {
        biased;
        verdict = work => verdict?,
        verdict = expired(started, deadline) => {
            if vm.wants_counters() {
                // A program may want to write what it knows before it goes.
                let _ = agent.requests().send(Request::Signal { signal: SIGTERM });
                outcome.kernel_counters = vm.collect_counters(agent).await;
            }
            return Ok(verdict);
        }
    };
    for channel in vm.settle_events().await {
        outcome.notices.push(format!("nobody reads the events of `{channel}`: some are lost"));
    }
    outcome.kernel_counters = vm.collect_counters(agent).await;
    let _ = agent.requests().send(Request::Shutdown);
    let goodbye = async {
        loop {
            match agent.next().await {
                Ok(Message::Bye) | Err(AgentError::Gone) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    if !matches!(tokio::time::timeout(SHUTDOWN_LIMIT, goodbye).await, Ok(true)) {
        outcome.notices.push(format!(
            "the guest did not say goodbye within {}: what it wrote last may be lost",
            crate::duration::display(SHUTDOWN_LIMIT)
        ));
    }
    Ok(verdict)
}

/// Sets the guest up and runs the command.
async fn work(
    vm: &mut Vm,
    agent: &mut Agent,
    job: &Job,
    streams: Streams,
    outcome: &mut Outcome,
    watcher: &mut impl FnMut(Progress<'_>),
) -> Result<Verdict, (AgentError, Doing)> {
    if !vm.plan().port_forwards().is_empty() {
        match vm.port_forwards().await {
            Ok(forwards) => {
                watcher(Progress::Forwarding(&forwards));
                outcome.port_forwards = forwards;
            }
            Err(error) => {
                outcome.notices.push(format!("the forwarded ports are not known: {error}"))
            }
        }
    }
    let ready = Instant::now();
    let mounting = "while it was set up";
    let alone = vm.plan().networks().len() == 1;
    for network in vm.plan().networks() {
        let mut network = network.clone();
        if alone {
            // The only card is the right one, whatever its address.
            network.interface = None;
        }
        let request = |id| Request::Network { id, network };
        agent.call(request).await.map_err(|error| (error, mounting))?;
    }
    for mount in vm.plan().mounts() {
        let request = |id| Request::Mount { id, mount: mount.clone() };
        agent.call(request).await.map_err(|error| (error, mounting))?;
    }
    let running = Instant::now();
    outcome.phases.setup = Some(running - ready);

    let Some(exec) = &job.exec else { return Ok(Verdict::Ready) };
    let verdict = command(vm, agent, exec, streams, outcome, watcher).await;
    outcome.phases.command = Some(running.elapsed());
    verdict.map_err(|error| (error, "while the command ran"))
}

async fn command(
    vm: &mut Vm,
    agent: &mut Agent,
    exec: &Exec,
    streams: Streams,
    outcome: &mut Outcome,
    watcher: &mut impl FnMut(Progress<'_>),
) -> Result<Verdict, AgentError> {
    let failed = |error: std::io::Error| {
        AgentError::Protocol(format!("cannot connect the command's streams: {error}"))
    };
    let mut port = |name: &str| vm.take_channel(name).expect("a plan with an agent has its ports");
    let mut stdout =
        from_guest("stdout", port(proto::STDOUT_PORT), streams.stdout).map_err(failed)?;
    let mut stderr =
        from_guest("stderr", port(proto::STDERR_PORT), streams.stderr).map_err(failed)?;
    let stdin = port(proto::STDIN_PORT);

    let request = |id| Request::Exec { id, exec: Box::new(exec.clone()) };
    match agent.call(request).await {
        Ok(_) => {}
        Err(AgentError::Refused { error, errno }) => {
            let code = if errno == Some(ENOENT) { 127 } else { 126 };
            return Ok(Verdict::NotStarted { error, code });
        }
        Err(error) => return Err(error),
    }
    let requests = agent.requests();
    watcher(Progress::Running(&requests));
    let (sender, mut stdin_end) = mpsc::unbounded_channel();
    // Held until the end when there is nothing to send, or closing it would be an end of file.
    let _stdin = match streams.stdin {
        Some(reader) => {
            to_guest(reader, stdin, sender).map_err(failed)?;
            None
        }
        None => Some(stdin),
    };

    let mut stdin_open = true;
    let mut pipes = [(stdout.clone(), true), (stderr.clone(), true)];
    let (status, stdout_bytes, stderr_bytes) = loop {
        let [(out, out_open), (err, err_open)] = &mut pipes;
        tokio::select! {
            message = agent.next() => match message? {
                Message::Exited { status, stdout_bytes, stderr_bytes } => {
                    break (status, stdout_bytes, stderr_bytes);
                }
                other => return Err(AgentError::Protocol(format!("{other:?} from a command"))),
            },
            bytes = stdin_end.recv(), if stdin_open => {
                stdin_open = false;
                if let Some(bytes) = bytes {
                    let _ = requests.send(Request::StdinEnd { bytes });
                }
            }
            () = reader_left(out, &requests), if *out_open => *out_open = false,
            () = reader_left(err, &requests), if *err_open => *err_open = false,
        }
    };
    for (name, flow, expected) in
        [("stdout", &mut stdout, stdout_bytes), ("stderr", &mut stderr, stderr_bytes)]
    {
        let arrived = flow.wait_for(|flow| flow.bytes >= expected || flow.closed).await;
        let flow = arrived.map(|flow| flow.clone()).unwrap_or_default();
        if flow.bytes < expected {
            return Err(AgentError::Protocol(format!(
                "{} of {expected} bytes of {name} arrived",
                flow.bytes
            )));
        }
        // A reader that has enough (`| head`) is everyday; a full disk is not.
        if let Some((kind, error)) = flow.failed
            && kind != ErrorKind::BrokenPipe
        {
            let text = format!("{name} is incomplete: {error}");
            watcher(Progress::Notice(&text));
            outcome.notices.push(text);
        }
    }
    outcome.output_bytes = (stdout_bytes, stderr_bytes);
    Ok(Verdict::Exited(status))
}

/// Waits until nobody wants a stream any more, and tells the command as a pipe would: by SIGPIPE.
async fn reader_left(flow: &mut watch::Receiver<Flow>, requests: &Requests) {
    let gone = flow.wait_for(|flow| flow.failed.is_some() || flow.closed).await;
    if gone.is_ok_and(|flow| matches!(&flow.failed, Some((ErrorKind::BrokenPipe, _)))) {
        let _ = requests.send(Request::Signal { signal: SIGPIPE });
    }
}

#[cfg(test)]
mod tests {
    use vmtest_guest::proto::ExitStatus;

    use super::*;

    #[test]
    fn what_the_machines_end_means() {
        let doing = "while the command ran";
        let text = || "x".to_owned();
        assert_eq!(
            lost(End::PoweredOff, doing),
            Verdict::GuestLost { reason: "it switched itself off while the command ran".into() }
        );
        assert_eq!(lost(End::Panicked { text: text() }, doing).exit_code(), 70);
        assert_eq!(lost(End::NeverRan { stderr: text() }, doing).exit_code(), 69);
        let died = lost(End::Died { status: text(), stderr: text() }, doing);
        assert_eq!(died.exit_code(), 71);
        assert_ne!(lost(End::Reset, doing), Verdict::Exited(ExitStatus::Code(0)));
    }
}
