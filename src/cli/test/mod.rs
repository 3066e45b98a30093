//! `vmtest test`: a suite of tests, each in a fresh guest.

mod args;
mod guest;
mod jobs;
mod live;
mod programs;
mod state;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;
use vmtest::host::{self, Memory};
use vmtest::options::Environment;
use vmtest::results::Status;
use vmtest::suite::schedule::{self, Event, Limits, Needs};
use vmtest::suite::{Cell, File, Filter, Line, Run, SCHEMA, find};

use super::error::{Failure, INTERRUPTED};
use super::interrupt;
use super::report::{self, Outputs};
use super::ui;

pub(crate) use args::TestArgs;
use jobs::Job;
use live::Live;
use state::State;

/// A test failed.
const FAILED: u8 = 1;

pub(crate) fn run(args: TestArgs, environment: &Environment) -> Result<u8, Failure> {
    let home = std::env::current_dir().map_err(|error| Failure::unavailable(&error, None))?;
    let place = suite_file(&args, &home)?;
    // Reports are the user's, and relative to where the user is; all else is relative to the suite.
    let outputs = Outputs::check(&args.report, &home)?;
    let (mut file, root) = match &place {
        Some(path) => {
            let file = File::read(path).map_err(|error| {
                let hint = error.hint();
                Failure::usage(&error, hint)
            })?;
            (file, path.parent().unwrap_or(&home).to_owned())
        }
        None => (File::default(), home.clone()),
    };
    if args.cargo || !args.rest.is_empty() {
        file = file.with_entries(programs::entries(&args, &home)?);
    }
    std::env::set_current_dir(&root).map_err(|error| Failure::unavailable(&error, None))?;
    let state = State::open(environment, &root);
    let jobs = jobs::plan(&args, &file, environment, &root)?;
    let jobs = choose(jobs, &args, state.earlier())?;
    if args.list {
        return list(&jobs, args.repeat);
    }
    let context = Context { args: &args, environment, place, home, jobs };
    context.run(state, &outputs)
}

/// Where the suite is: named, or found upwards. Programs need none.
fn suite_file(args: &TestArgs, home: &Path) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = &args.suite {
        return Ok(Some(home.join(path)));
    }
    match find(home) {
        Some(path) => Ok(Some(path)),
        None if args.cargo || !args.rest.is_empty() => Ok(None),
        None => Err(Failure::wrong(
            format!("there is no vmtest.toml in `{}`, nor upwards of it", home.display()),
            "docs/testing.md has one to begin with; `vmtest test -- PROGRAM…` runs test programs",
        )),
    }
}

/// The jobs that the command line chooses.
fn choose(jobs: Vec<Job>, args: &TestArgs, earlier: &Run) -> Result<Vec<Job>, Failure> {
    let all = jobs.len();
    let filter = Filter::new(&args.filter);
    let chosen = |job: &Job| {
        filter.chooses(&job.suite)
            && (args.tag.is_empty() || args.tag.iter().any(|tag| job.tags.contains(tag)))
    };
    let jobs: Vec<Job> = jobs.into_iter().filter(chosen).collect();
    if jobs.is_empty() {
        return Err(match all {
            0 => Failure::wrong("the suite has no test for these machines", "`--list` shows all"),
            all => Failure::wrong(
                format!("none of {all} tests is chosen"),
                "a word chooses tests that have it in their names; `vmtest test --list` shows all",
            ),
        });
    }
    let jobs = match args.partition {
        Some(part) => jobs.into_iter().filter(|job| part.has(&job.suite, &job.cell)).collect(),
        None => jobs,
    };
    if !args.rerun_failed {
        return Ok(jobs);
    }
    let again = to_rerun(earlier);
    Ok(jobs.into_iter().filter(|job| again.contains(&(&job.cell, job.suite.as_str()))).collect())
}

/// What the earlier run planned and did not pass.
fn to_rerun(earlier: &Run) -> HashSet<(&Cell, &str)> {
    let mut passed: HashSet<(&Cell, &str)> = HashSet::new();
    let mut failed: HashSet<(&Cell, &str)> = HashSet::new();
    for test in &earlier.tests {
        let key = (&test.names.cell, test.names.suite.as_str());
        if test.status().good() {
            passed.insert(key)
        } else {
            failed.insert(key)
        };
    }
    let planned = earlier.planned.iter().map(|(cell, suite)| (cell, suite.as_str()));
    let missing = planned.filter(|key| !passed.contains(key));
    missing.chain(failed.iter().copied()).collect()
}

fn list(jobs: &[Job], repeat: Option<u32>) -> Result<u8, Failure> {
    let mut text = String::new();
    for job in jobs {
        text.push_str(&format!("{} [{}]\n", job.suite, job.cell));
    }
    if let Some(times) = repeat.filter(|times| *times > 1) {
        ui::note(&format!("each of them {times} times"));
    }
    report::to_stdout(text.as_bytes())
}

/// All that a run of jobs needs to know.
struct Context<'a> {
    args: &'a TestArgs,
    environment: &'a Environment,
    /// The suite's file.
    place: Option<PathBuf>,
    /// Where the user is.
    home: PathBuf,
    jobs: Vec<Job>,
}

impl Context<'_> {
    fn run(&self, mut state: State, outputs: &Outputs) -> Result<u8, Failure> {
        if self.jobs.is_empty() {
            let why =
                if self.args.rerun_failed { "nothing failed" } else { "none is in this part" };
            ui::status(&format!("no test to run: {why}"));
            return Ok(0);
        }
        let started = Instant::now();
        let started_secs = host::unix_secs();
        let processors = || u32::try_from(host::processors()).unwrap_or(u32::MAX);
        let slots = self.args.jobs.unwrap_or_else(processors);
        let bytes = Memory::read().map_or(u64::MAX, Memory::for_guests);
        let limits = Limits { slots, bytes };
        let begin = Line::Suite {
            schema: SCHEMA,
            vmtest_version: env!("CARGO_PKG_VERSION").into(),
            started_secs,
            jobs: slots,
        };
        let mut sinks = state.begin(outputs)?;
        sinks.line(&begin);
        for job in &self.jobs {
            sinks.line(&Line::Planned { cell: job.cell.clone(), suite: job.suite.clone() });
        }
        let stop = Stop::listen()?;
        let mut live = Live::new(state.earlier(), slots);
        let mut run = Run::new(started_secs, slots);
        let rounds = match (self.args.repeat, self.args.until_fail) {
            (Some(times), _) => times,
            (None, true) => u32::MAX,
            (None, false) => 1,
        };
        for round in 1..=rounds {
            if round > 1 && self.args.until_fail {
                // Of rounds that passed nothing is held: there may be any number.
                run = Run::new(started_secs, slots);
            }
            self.round(
                round,
                rounds,
                limits,
                &stop,
                &mut run,
                &mut |line| sinks.line(line),
                &mut live,
            );
            let failed = self.args.until_fail && !run.passed();
            if failed || stop.is_set() {
                break;
            }
        }
        let interrupted = stop.signal().is_some();
        run.secs = started.elapsed().as_secs_f64();
        run.planned = self.jobs.iter().map(|job| (job.cell.clone(), job.suite.clone())).collect();
        if rounds == 1 {
            run.fill();
        }
        run.incomplete = interrupted;
        sinks.line(&Line::End { secs: run.secs, interrupted });
        live.conclude(&run);
        sinks.finish()?;
        let file = self.place.as_deref().unwrap_or(Path::new("vmtest.toml"));
        let file = file.strip_prefix(&self.home).unwrap_or(file).to_string_lossy().into_owned();
        outputs.write(&run, &file)?;
        Ok(match (interrupted, run.passed()) {
            (true, _) => INTERRUPTED,
            (false, true) => 0,
            (false, false) => FAILED,
        })
    }

    /// Runs each job once.
    #[expect(clippy::too_many_arguments, reason = "what a round changes, each a thing of its own")]
    fn round(
        &self,
        round: u32,
        rounds: u32,
        limits: Limits,
        stop: &Stop,
        run: &mut Run,
        line: &mut dyn FnMut(&Line),
        live: &mut Live,
    ) {
        let needs: Vec<Needs> = self.jobs.iter().map(|job| job.needs).collect();
        live.round(self.jobs.len(), round, rounds);
        let work = |at: usize, slot: u32, ready: &(dyn Fn() + Sync)| {
            guest::run(&self.jobs[at], self.environment, slot, &stop.signals, ready)
        };
        schedule::run(&needs, limits, &stop.set, work, |event| match event {
            Event::Started { job, slot } => live.started(&self.jobs[job], slot),
            Event::Ended { job, slot, result } => {
                let job = &self.jobs[job];
                let mut worst = Status::Passed;
                for (mut names, attempt) in result {
                    if round > 1 {
                        names.suite = format!("{} #{round}", names.suite);
                    }
                    worst = worst.min(attempt.status);
                    line(&Line::Result { names: names.clone(), attempt: attempt.clone() });
                    run.add(names, attempt);
                }
                let suite =
                    if round > 1 { format!("{} #{round}", job.suite) } else { job.suite.clone() };
                let failed = live.ended(run, job, &suite, slot);
                if failed && self.args.fail_fast {
                    stop.set.store(true, Ordering::Relaxed);
                }
            }
            Event::Tick => live.tick(),
        });
    }
}

/// What ends a suite before its end.
struct Stop {
    /// No further guest starts.
    set: Arc<AtomicBool>,
    /// The signal, for the guests that run.
    signals: watch::Receiver<Option<&'static str>>,
}

impl Stop {
    /// The first signal ends guests and the suite in good order; a second one ends the program.
    fn listen() -> Result<Stop, Failure> {
        let set = Arc::new(AtomicBool::new(false));
        let (send, signals) = watch::channel(None);
        let ours = set.clone();
        interrupt::listen(move |signal| {
            if send.borrow().is_some() {
                interrupt::exit(signal);
            }
            ours.store(true, Ordering::Relaxed);
            let _ = send.send(Some(signal));
            ui::note(&format!("{signal}: reports are finished; once more ends vmtest at once"));
        })?;
        Ok(Stop { set, signals })
    }

    fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    fn signal(&self) -> Option<&'static str> {
        *self.signals.borrow()
    }
}
