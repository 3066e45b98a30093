//! One run: boot, set up, execute, collect, switch off. Ends in exactly one [`Verdict`].
//!
//! [`run`] is a few calls of [`Guest`], and who ends it otherwise: a signal, a limit, a kernel that has
//! said its last words. All of those end QEMU ([`super::stop`]) and leave the rest to the same path that
//! a guest takes which goes by itself; so nothing is cancelled half-way, and what left the guest is
//! delivered.

use std::pin::pin;
use std::time::{Duration, Instant};

use vmtest_guest::proto::{Exec, Hello};

use super::console::LastWords;
use super::counters::LIMIT as COUNTERS_LIMIT;
use super::evidence::{self, Evidence};
use super::explain::{self, Explanation};
use super::guest::{Incomplete, Running};
use super::hang::{self, HangLimit, Hung};
use super::scene::{Scene, Stage};
use super::stop::{Cause, Stopper};
use super::{
    CommandHandle, Console, End, Guest, GuestError, HostLoad, Job, KernelCounters, Limit, NotReady,
    SaveRequest, Start, Streams, TaskFailure, Verdict, Vm,
};
use crate::qemu::HostForward;

/// How long a kernel that has said its last words may take to end by itself before its guest is asked
/// whether it lives.
const LAST_WORDS_GRACE: Duration = Duration::from_millis(500);

/// How long a guest may take to show that it lives all the same.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// How much later than the dialogue itself somebody ends QEMU.
const RESERVE: Duration = Duration::from_millis(500);

/// `ENOENT` is the same number on all Linux architectures.
const ENOENT: i32 = 2;

/// `SIGTERM` is 15 on all Linux architectures.
const SIGTERM: i32 = 15;

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// What QEMU got of the host's processors.
    pub host_load: HostLoad,
    /// What was found in a guest that hangs or took too long, before QEMU was ended.
    pub evidence: Option<Box<Evidence>>,
    /// What may help a guest that was lost while it booted.
    pub hint: Option<String>,
}

impl Default for Outcome {
    /// Nothing has happened yet.
    fn default() -> Outcome {
        Outcome {
            verdict: Verdict::Ready,
            hello: None,
            phases: Phases::default(),
            notices: Vec::new(),
            output_bytes: (0, 0),
            port_forwards: Vec::new(),
            kernel_counters: None,
            host_load: HostLoad::default(),
            evidence: None,
            hint: None,
        }
    }
}

/// How long the parts of a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
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
    /// A machine is about to be started. May come twice: a saved guest may not live again.
    Starting,
    /// The guest is ready.
    Ready(&'a Hello),
    /// QEMU listens on these ports of the host.
    Forwarding(&'a [HostForward]),
    /// The command runs; signals and a new terminal size can be sent.
    Running(&'a CommandHandle),
    /// The guest or the run remarks something.
    Notice(&'a str),
}

/// Runs a job in a machine that was just started, and tears the machine down.
///
/// `interrupt` ends the run when it completes, with the name of the signal.
pub async fn run(
    start: impl Into<Start>,
    mut job: Job,
    streams: Streams,
    interrupt: impl Future<Output = &'static str>,
    mut watcher: impl FnMut(Progress<'_>),
) -> Outcome {
    let start = start.into();
    let vm = start.vm();
    let scene = Scene::of(vm);
    let outcome = Outcome::default();
    let mut run = Run { outcome, watcher: &mut watcher, running: None, scene: scene.clone() };
    let (started, stopper, console) = (vm.started(), vm.stopper(), vm.console().clone());
    // The dialogue keeps to the limit by itself, and goes on to bring home what there is.
    let counters = if vm.wants_counters() { COUNTERS_LIMIT } else { Duration::ZERO };
    let too_long = expired(started + evidence::LIMIT + counters + RESERVE, job.run_limit);
    let hang = job.hang;
    let mut found = None;

    let (mut vm, verdict) = {
        let mut work = pin!(run.work(start, &mut job, streams));
        let done = tokio::select! {
            biased;
            done = &mut work => Some(done),
            signal = interrupt => {
                stopper.stop(Cause::Interrupted(signal));
                None
            }
            limit = too_long => {
                stopper.stop(Cause::Timeout(limit));
                None
            }
            (hung, evidence) = hangs(&scene, hang) => {
                found = Some(Box::new(evidence));
                stopper.stop(Cause::Hung { why: hung.why, silent: hung.silent });
                None
            }
            () = last_words(&console, &scene, &stopper) => None,
        };
        // QEMU is being ended, and with it the work.
        match done {
            Some(done) => done,
            None => work.await,
        }
    };
    let verdict = vm.stopped_verdict().unwrap_or(verdict);
    vm.terminate().await;
    // The console's last words belong to the transcript.
    vm.ended().await;
    let verdict = run.explained(verdict, &console.transcript());
    run.conclude(&mut vm, verdict).await;
    let mut outcome = run.outcome;
    outcome.host_load = vm.host_load();
    outcome.evidence = found.or(outcome.evidence);
    outcome.phases.total = started.elapsed();
    let known = [outcome.phases.boot, outcome.phases.setup, outcome.phases.command];
    if let [Some(boot), Some(setup), Some(command)] = known {
        outcome.phases.shutdown = Some(outcome.phases.total.saturating_sub(boot + setup + command));
    }
    outcome
}

/// Completes when the guest hangs, with what there is of it.
async fn hangs(scene: &Scene, limit: Option<HangLimit>) -> (Hung, Evidence) {
    let hung = hang::watch(scene, limit).await;
    let evidence = evidence::collect(scene).await;
    (hung, evidence)
}

/// Completes when the limit has passed since `started`.
async fn expired(started: Instant, limit: Option<Duration>) -> Duration {
    match limit {
        None => std::future::pending().await,
        Some(limit) => {
            tokio::time::sleep_until((started + limit).into()).await;
            limit
        }
    }
}

/// Ends QEMU when the guest's kernel has said its last words and nothing lives any more. Text alone is
/// no panic: anybody may write it to the console.
async fn last_words(console: &Console, scene: &Scene, stopper: &Stopper) {
    let mut heard = 0;
    loop {
        let (words, count) = console.last_words(heard).await;
        heard = count;
        tokio::time::sleep(LAST_WORDS_GRACE).await;
        let lives = match scene.probe() {
            Some(probe) => probe.answers(SIGN_OF_LIFE).await,
            None => console.speaks_within(SIGN_OF_LIFE).await,
        };
        if !lives {
            stopper.stop(match words {
                LastWords::Panic => Cause::Panicked,
                LastWords::Halt => Cause::Halted,
            });
            return;
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
            hint: explain::refusal_hint(&stderr),
        },
        End::Died { status, stderr } => Verdict::QemuDied { status, stderr },
        End::PoweredOff => Verdict::GuestLost { reason: format!("it switched itself off {doing}") },
        End::Reset => Verdict::GuestLost { reason: format!("it was reset {doing}") },
        End::Halted => {
            Verdict::GuestLost { reason: format!("its kernel halted the system {doing}") }
        }
        End::Killed => Verdict::QemuDied { status: "killed".into(), stderr: String::new() },
        End::Exited => Verdict::QemuDied { status: "status 0".into(), stderr: String::new() },
        End::Quit => Verdict::GuestLost { reason: format!("QEMU was asked to quit {doing}") },
    }
}

type Doing = &'static str;

/// A run under way.
struct Run<'a, W> {
    outcome: Outcome,
    watcher: &'a mut W,
    /// The command, until all of its output is delivered.
    running: Option<Running>,
    scene: Scene,
}

impl<W: FnMut(Progress<'_>)> Run<'_, W> {
    fn notice(&mut self, text: String) {
        (self.watcher)(Progress::Notice(&text));
        self.outcome.notices.push(text);
    }

    /// Everything up to the guest's end; the machine may still run.
    async fn work(&mut self, start: Start, job: &mut Job, streams: Streams) -> (Vm, Verdict) {
        for text in start.vm().notices().to_vec() {
            self.notice(text);
        }
        let started = start.vm().started();
        let mut guest = match start {
            Start::Ready(guest) => *guest,
            Start::Booting(vm) if !vm.plan().has_agent() => {
                self.scene.enter(Stage::OwnInit);
                let end = tokio::select! {
                    biased;
                    end = vm.ended() => Ok(end),
                    after = expired(started, job.run_limit) => Err(after),
                };
                let verdict = match end {
                    // Without an agent a guest says that it is done by either.
                    Ok(End::PoweredOff | End::Reset) => Verdict::PoweredOff,
                    Ok(end) => lost(end, ""),
                    Err(after) => {
                        self.collect().await;
                        Verdict::TimedOut { limit: Limit::Run, after }
                    }
                };
                return (*vm, verdict);
            }
            Start::Booting(vm) => match boot(*vm, job.boot_limit, job.run_limit).await {
                Ok(guest) => guest,
                Err((vm, verdict)) => {
                    if let Verdict::TimedOut { .. } = verdict {
                        self.collect().await;
                    }
                    return (vm, verdict);
                }
            },
        };
        self.scene.ready(guest.probe());
        self.outcome.phases.boot = Some(guest.ready_after());
        (self.watcher)(Progress::Ready(guest.hello()));
        self.outcome.hello = Some(guest.hello().clone());

        let run_limit = job.run_limit;
        let result = tokio::select! {
            biased;
            result = self.in_guest(&guest, job, streams) => result,
            after = expired(started, run_limit) => {
                self.collect().await;
                if guest.vm().wants_counters() {
                    // A program may want to write what it knows before it goes.
                    self.running.iter().for_each(|running| running.signal(SIGTERM));
                    self.outcome.kernel_counters = guest.counters().await;
                }
                let verdict = Verdict::TimedOut { limit: Limit::Run, after };
                return (self.leave(guest), verdict);
            }
        };
        self.scene.enter(Stage::Ending);
        match result {
            Ok(verdict) => {
                self.outcome.kernel_counters = guest.counters().await;
                let (vm, notices) = guest.shutdown().await;
                notices.into_iter().for_each(|text| self.notice(text));
                (vm, verdict)
            }
            Err((error, doing)) => {
                let verdict = match error {
                    // QEMU may be about to end, or the agent has died and the kernel is about to panic.
                    GuestError::Gone => match guest.lost().await {
                        Some(end) => lost(end, doing),
                        None => Verdict::GuestLost { reason: format!("it fell silent {doing}") },
                    },
                    error => failed(error, doing),
                };
                (self.leave(guest), verdict)
            }
        }
    }

    /// Collects what there is of a guest that is about to be ended.
    async fn collect(&mut self) {
        self.outcome.evidence = Some(Box::new(evidence::collect(&self.scene).await));
        self.scene.enter(Stage::Ending);
    }

    fn leave(&mut self, guest: Guest) -> Vm {
        guest.take_notices().into_iter().for_each(|text| self.notice(text));
        guest.into_vm()
    }

    /// Sets the guest up and runs the command.
    async fn in_guest(
        &mut self,
        guest: &Guest,
        job: &mut Job,
        streams: Streams,
    ) -> Result<Verdict, (GuestError, Doing)> {
        // A guest can be ready although the kernel has dropped what came late in its image.
        let console = guest.vm().console().transcript();
        if let Some(Explanation { error, hint }) = explain::failed_boot(&console) {
            return Ok(Verdict::CouldNotStart { error, hint });
        }
        if let Some(SaveRequest { memory, state, done }) = job.save.take() {
            let saved = guest.save(&memory, &state).await;
            drop((memory, state));
            let remark = done(guest.hello(), guest.vm().qemu_version(), saved);
            remark.into_iter().for_each(|text| self.notice(text));
        }
        if !guest.vm().plan().port_forwards().is_empty() {
            match guest.vm().port_forwards().await {
                Ok(forwards) => {
                    (self.watcher)(Progress::Forwarding(&forwards));
                    self.outcome.port_forwards = forwards;
                }
                Err(error) => self.notice(format!("the forwarded ports are not known: {error}")),
            }
        }
        let ready = Instant::now();
        let setting_up = "while it was set up";
        if let Some(files) = job.files.take() {
            guest.put_files(files).await.map_err(|error| (error, setting_up))?;
        }
        guest.set_up().await.map_err(|error| (error, setting_up))?;
        let running = Instant::now();
        self.outcome.phases.setup = Some(running - ready);

        let Some(exec) = &job.exec else { return Ok(Verdict::Ready) };
        let verdict = self.command(guest, exec.clone(), streams).await;
        self.outcome.phases.command = Some(running.elapsed());
        verdict.map_err(|error| (error, "while the command ran"))
    }

    async fn command(
        &mut self,
        guest: &Guest,
        exec: Exec,
        streams: Streams,
    ) -> Result<Verdict, GuestError> {
        let name = exec.argv.first().map(|word| word.as_os_str().to_string_lossy().into_owned());
        let running = match guest.exec(exec, streams).await {
            Ok(running) => self.running.insert(running),
            Err(GuestError::Refused { error, errno }) => {
                let code = if errno == Some(ENOENT) { 127 } else { 126 };
                return Ok(Verdict::NotStarted { error, code });
            }
            Err(error) => return Err(error),
        };
        self.scene.runs(name.unwrap_or_default(), running.pid());
        (self.watcher)(Progress::Running(&running.handle()));
        let exited = running.wait().await?;
        self.running = None;
        self.outcome.output_bytes = exited.output_bytes;
        let verdict = Verdict::Exited(exited.status);
        Ok(match self.undelivered(exited.incomplete) {
            Some(what) if verdict.passed() => Verdict::OutputLost { what },
            _ => verdict,
        })
    }

    /// Remarks what did not reach its reader. A reader that has enough (`| head`) is everyday; a full disk
    /// is not.
    fn undelivered(&mut self, incomplete: Vec<Incomplete>) -> Option<String> {
        let mut first = None;
        for Incomplete { stream, why, .. } in incomplete.into_iter().filter(|i| !i.reader_left) {
            let text = format!("{stream} is incomplete: {why}");
            self.notice(text.clone());
            first.get_or_insert(text);
        }
        first
    }

    /// The verdict of a guest that did not get ready, in the words of its kernel where it has said why.
    fn explained(&mut self, verdict: Verdict, console: &[u8]) -> Verdict {
        if self.outcome.hello.is_some()
            || !matches!(
                verdict,
                Verdict::Panicked { .. }
                    | Verdict::GuestLost { .. }
                    | Verdict::PoweredOff
                    | Verdict::TimedOut { .. }
            )
        {
            return verdict;
        }
        match explain::failed_boot(console) {
            Some(Explanation { error, hint }) => Verdict::CouldNotStart { error, hint },
            None => {
                if !verdict.passed() {
                    self.outcome.hint = explain::lost_boot_hint(console);
                }
                verdict
            }
        }
    }

    /// The machine has ended: what had left the guest is delivered, and what ran beside it is done.
    async fn conclude(&mut self, vm: &mut Vm, verdict: Verdict) {
        if let Some(mut running) = self.running.take() {
            // The user wants to be gone; everybody else wants what there is.
            if !matches!(verdict, Verdict::Interrupted { .. }) {
                let (bytes, incomplete) = running.drain().await;
                self.outcome.output_bytes = bytes;
                self.undelivered(incomplete);
            }
        }
        let failures = vm.finish_tasks().await;
        self.outcome.verdict = judge_tasks(failures, verdict, &mut self.outcome.notices);
    }
}

/// Waits for a guest that boots; or the machine, and how it ended.
async fn boot(
    vm: Vm,
    boot_limit: Duration,
    run_limit: Option<Duration>,
) -> Result<Guest, (Vm, Verdict)> {
    let doing = "while it booted";
    let limit = run_limit.map_or(boot_limit, |limit| limit.min(boot_limit));
    match vm.ready(limit).await {
        Ok(guest) => Ok(guest),
        Err(NotReady { vm, why }) => {
            let verdict = match why {
                GuestError::NotReady { .. } if Some(limit) == run_limit => {
                    Verdict::TimedOut { limit: Limit::Run, after: limit }
                }
                GuestError::NotReady { limit } => {
                    Verdict::TimedOut { limit: Limit::Boot, after: limit }
                }
                GuestError::Gone => lost(vm.ended().await, doing),
                why => failed(why, doing),
            };
            Err((*vm, verdict))
        }
    }
}

fn failed(error: GuestError, doing: &str) -> Verdict {
    match error {
        GuestError::Refused { error, .. } | GuestError::Host(error) => {
            Verdict::CouldNotStart { error, hint: None }
        }
        GuestError::Protocol(reason) => Verdict::GuestLost { reason: format!("{doing}: {reason}") },
        other => Verdict::GuestLost { reason: format!("{doing}: {other}") },
    }
}

/// A failed task fails a run that would have passed; otherwise it is a remark.
fn judge_tasks(failures: Vec<TaskFailure>, verdict: Verdict, notices: &mut Vec<String>) -> Verdict {
    let texts: Vec<String> = failures.iter().map(|failure| crate::causes::chain(failure)).collect();
    let failed = verdict.passed() || matches!(verdict, Verdict::TaskFailed { .. });
    match texts.split_first() {
        Some((first, more)) if failed => {
            notices.extend_from_slice(more);
            Verdict::TaskFailed { error: first.clone() }
        }
        _ => {
            notices.extend(texts);
            verdict
        }
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
