//! One test: its guest, its tries, and what they say.

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use vmtest::configure::with_vm_timeout;
use vmtest::host;
use vmtest::options::Environment;
use vmtest::results::{Case, End, Status};
use vmtest::run_record::RunRecord;
use vmtest::session::Conduct;
use vmtest::suite::{Attempt, Judged, Names, judge};
use vmtest::testing::end_of;
use vmtest::vm::{Progress, Streams, Verdict};

use super::jobs::Job;
use crate::cli::error::{Failure, INTERRUPTED};
use crate::cli::run::prepare;

type Signals = watch::Receiver<Option<&'static str>>;

/// What a guest is run for: one try.
struct Try<'a> {
    job: &'a Job,
    environment: &'a Environment,
    slot: u32,
    signals: &'a Signals,
    number: u32,
}

/// Runs a job until it passes, its tries are used up, or all is to end. `ready` is called once its guest is.
pub(super) fn run(
    job: &Job,
    environment: &Environment,
    slot: u32,
    signals: &Signals,
    ready: &(dyn Fn() + Sync),
) -> Vec<(Names, Attempt)> {
    let mut all: Vec<(Names, Attempt)> = Vec::new();
    for number in 1..=job.retries + 1 {
        let one = Try { job, environment, slot, signals, number }.run(ready);
        let passed = one.iter().all(|(_, attempt)| attempt.status.good());
        let mut more = if passed { absent(&all, &one) } else { Vec::new() };
        all.extend(one);
        all.append(&mut more);
        if passed || signals.borrow().is_some() {
            break;
        }
    }
    all
}

/// What an earlier try has and a good one does not: the whole entry, which failed by itself, and places of
/// tests whose names nobody knew.
fn absent(earlier: &[(Names, Attempt)], good: &[(Names, Attempt)]) -> Vec<(Names, Attempt)> {
    let Some((_, last)) = good.first() else { return Vec::new() };
    let here: std::collections::HashSet<&Names> = good.iter().map(|(names, _)| names).collect();
    let mut seen = std::collections::HashSet::new();
    let missing = earlier.iter().map(|(names, _)| names);
    let missing = missing.filter(|names| !here.contains(names) && seen.insert(*names));
    let mut more = Vec::new();
    for names in missing {
        let (status, reason) = match names.name.as_str() {
            "" => (Status::Passed, None),
            _ => (Status::Skipped, Some("this try has no test of that name".to_owned())),
        };
        let attempt = Attempt { status, reason, output: String::new(), ..last.clone() };
        more.push((names.clone(), attempt));
    }
    more
}

impl Try<'_> {
    fn run(&self, ready: &(dyn Fn() + Sync)) -> Vec<(Names, Attempt)> {
        let (started, started_secs) = (Instant::now(), host::unix_secs());
        let judged = Judged::new(self.job.format, &self.job.expect);
        let judged = Shared(Arc::new(Mutex::new(judged)));
        let conducted = self.conduct(&judged, ready);
        // Whoever still holds it writes to what is thrown away.
        let fresh = Judged::new(self.job.format, &self.job.expect);
        let judged = std::mem::replace(&mut *judged.lock(), fresh);
        let guest_secs = started.elapsed().as_secs_f64();
        let mut console = Vec::new();
        let mut boot_secs = 0.0;
        let cases = match conducted {
            Ok(record) => {
                let phases = &record.outcome.phases;
                let boot = phases.boot.unwrap_or_default() + phases.setup.unwrap_or_default();
                boot_secs = boot.as_secs_f64().min(guest_secs);
                let verdict = &record.outcome.verdict;
                if !matches!(verdict, Verdict::Exited(_) | Verdict::NotStarted { .. }) {
                    console.clone_from(&record.console_tail);
                }
                self.cases(judged, &record)
            }
            Err(failure) if failure.code == INTERRUPTED => {
                vec![Case { reason: Some(failure.text), ..Case::new("", "", Status::NotRun) }]
            }
            Err(failure) => {
                let hint = failure.hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                let reason = Some(format!("could not start: {}{hint}", failure.text));
                vec![Case { reason, ..Case::new("", "", Status::Failed) }]
            }
        };
        let tell = |case: Case| {
            let bad = !case.status.good();
            let name = match (case.group.as_str(), case.name.as_str()) {
                ("", name) => name.to_owned(),
                (group, name) => format!("{group}/{name}"),
            };
            // What the whole guest took says nothing of one of several tests.
            let secs = case.duration.map(|took| took.as_secs_f64());
            let secs = if name.is_empty() { Some(guest_secs) } else { secs };
            let names = Names { cell: self.job.cell.clone(), suite: self.job.suite.clone(), name };
            let attempt = Attempt {
                number: self.number,
                status: case.status,
                started_secs,
                secs,
                guest_secs,
                boot_secs,
                slot: self.slot,
                output: case.output,
                reason: case.reason,
                console: if bad { console.clone() } else { Vec::new() },
                repeat: if bad { self.job.repeat.clone() } else { String::new() },
            };
            (names, attempt)
        };
        cases.into_iter().map(tell).collect()
    }

    /// What a run that ended says.
    fn cases(&self, judged: Judged, record: &RunRecord) -> Vec<Case> {
        let verdict = &record.outcome.verdict;
        let took = Some(record.outcome.phases.total);
        let whole =
            |status, reason: String| Case { reason: Some(reason), ..Case::new("", "", status) };
        match verdict {
            // The command has ended well, and something else has not.
            Verdict::KernelFault { .. }
            | Verdict::OutputLost { .. }
            | Verdict::TaskFailed { .. } => {
                let mut cases = judge(judged, &self.job.expect, &End::Exited(0), took);
                if cases.iter().all(|case| case.status.good()) {
                    cases.retain(|case| !case.name.is_empty());
                    cases.push(whole(Status::Failed, verdict.to_string()));
                }
                cases
            }
            Verdict::NotStarted { .. } | Verdict::CouldNotStart { .. } => {
                vec![whole(Status::Failed, verdict.to_string())]
            }
            verdict => judge(judged, &self.job.expect, &end_of(verdict), took),
        }
    }

    fn conduct(&self, judged: &Shared, ready: &(dyn Fn() + Sync)) -> Result<RunRecord, Failure> {
        let argv: Vec<OsString> = self.job.argv.iter().map(OsString::from).collect();
        let run = &self.job.run;
        let command = run.machine.command(&argv, false);
        let limit = run.timeout.map(with_vm_timeout);
        let prepared = prepare(&run.machine, self.environment, command, limit)?;
        let streams = Streams {
            stdin: None,
            stdout: Box::new(Stdout(judged.clone())),
            stderr: Box::new(Stderr(judged.clone())),
        };
        let conduct = Conduct { repeat: OsString::from(&self.job.repeat), ..Conduct::new(streams) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::unavailable(&error, None))?;
        let mut signals = self.signals.clone();
        let interrupt = async move {
            let signal = signals.wait_for(Option::is_some).await.map(|signal| *signal);
            match signal {
                Ok(Some(signal)) => signal,
                // Nobody is left who could send one.
                _ => std::future::pending().await,
            }
        };
        let record = runtime.block_on(prepared.conduct(conduct, interrupt, |step| {
            if matches!(step, Progress::Running(_)) {
                ready();
            }
        }));
        runtime.shutdown_background();
        Ok(record?)
    }
}

/// What the run's streams are written to.
#[derive(Clone)]
struct Shared(Arc<Mutex<Judged>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Judged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Stdout(Shared);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().stdout(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stderr(Shared);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().stderr(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
