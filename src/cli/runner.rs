//! `vmtest runner`: what `cargo test`, `go test -exec`, CTest and others hand a program to.
//!
//! As if the program ran here: streams, status, signals, directory and paths are its own, and nothing is said
//! unless the guest is to blame.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, stderr, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpgrp, getpid, kill_process, setrlimit};
use vmtest::arch::Arch;
use vmtest::configure::{all, device, with_image, with_library_dir, with_vm_timeout};
use vmtest::options::Environment;
use vmtest::quote;
use vmtest::run_record::RunRecord;
use vmtest::runner::{self, Decision, Job, Request};
use vmtest::session::{Conduct, Prepared, Variable};
use vmtest::vm::{CommandHandle, Progress, Streams, Verdict};
use vmtest_guest::proto::ExitStatus;

use super::diagnosis;
use super::error::{Failure, UNAVAILABLE};
use super::interrupt::Interrupts;
use super::options::RunnerArgs;
use super::run::{self, conclude, dry_run, forget_record, note_failure, repeatable};
use super::ui::{self, MessageFormat};

/// Tools have limits of their own: the run has none that anybody meets.
const NO_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a program may take to end after a signal that asks for it. cargo-nextest kills after ten.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: RunnerArgs, environment: &Environment) -> Result<u8, Failure> {
    let request = Given::read(&args)?;
    match request.decide(&args, environment)? {
        Decision::Host { why } => {
            if args.machine.verbose {
                ui::note(&format!("`{}` runs on the host: {why}", args.command[0].display()));
            }
            Err(replace_ourselves(&args.command))
        }
        Decision::Guest(job) => {
            let artifacts = args.machine.record_dir();
            forget_record(artifacts.as_deref());
            run_in_guest(args, *job, environment)
                .inspect_err(|failure| note_failure(artifacts.as_deref(), failure))
        }
    }
}

/// What the process was given.
struct Given {
    cwd: PathBuf,
    env: Vec<(OsString, OsString)>,
    projects: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl Given {
    fn read(args: &RunnerArgs) -> Result<Given, Failure> {
        let cwd = std::env::current_dir().map_err(|error| Failure::unavailable(&error, None))?;
        let absolute = |dirs: &[PathBuf]| dirs.iter().map(|dir| normal(&cwd.join(dir))).collect();
        Ok(Given {
            projects: absolute(&args.project),
            write: absolute(&args.write),
            env: std::env::vars_os().collect(),
            cwd,
        })
    }

    fn decide(&self, args: &RunnerArgs, environment: &Environment) -> Result<Decision, Failure> {
        let request = Request {
            argv: &args.command,
            arch: args.machine.arch,
            default_arch: environment.arch,
            host: Arch::host(),
            cwd: &self.cwd,
            env: &self.env,
            projects: &self.projects,
            write: &self.write,
            pass: &args.pass_env,
        };
        runner::decide(&request).map_err(|error| {
            let hint = error.hint();
            match error {
                runner::Error::OtherArch { .. } | runner::Error::Directory { .. } => {
                    Failure::usage(&error, hint)
                }
                error => Failure::unavailable(&error, hint),
            }
        })
    }
}

/// A path without `.` and, where there is no link to go back from, without `..`.
fn normal(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.components().collect())
}

/// Runs a program of the host's in our place; comes back only if it cannot be run.
fn replace_ourselves(argv: &[OsString]) -> Failure {
    let error = std::process::Command::new(&argv[0]).args(&argv[1..]).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Failure { code, text: format!("cannot run `{}`: {error}", argv[0].display()), hint: None }
}

fn run_in_guest(args: RunnerArgs, job: Job, environment: &Environment) -> Result<u8, Failure> {
    let interrupts = Interrupts::listen()?;
    let stdin = wants_stdin();
    let prepared = prepare(&args, job, stdin, environment)?;
    if args.machine.dry_run {
        return dry_run(&prepared.plan);
    }
    let streams = Streams {
        stdin: stdin.then(|| Box::new(std::io::stdin()) as Box<dyn Read + Send>),
        stdout: Box::new(stdout()),
        stderr: Box::new(stderr()),
    };
    let record = conduct(prepared, streams, args.machine.verbose, interrupts)?;
    Ok(finish(&record, args.machine.verbose))
}

/// Whether the program may want to read. A terminal belongs to whoever is in its foreground.
fn wants_stdin() -> bool {
    let stdin = stdin();
    if stdin.is_terminal() {
        return rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == getpgrp());
    }
    // What reads as nothing need not be asked.
    let same = |a: rustix::fs::Stat, b: rustix::fs::Stat| a.st_rdev == b.st_rdev;
    let null = rustix::fs::stat("/dev/null");
    let given = rustix::fs::fstat(&stdin);
    !matches!((given, null), (Ok(given), Ok(null)) if same(given, null))
}

fn prepare(
    args: &RunnerArgs,
    job: Job,
    stdin: bool,
    environment: &Environment,
) -> Result<Prepared, Failure> {
    let Job { arch, argv, cwd, env, mirrors, program_shared, programs, library_dirs, sysroot } =
        job;
    let mut machine = args.machine.clone();
    machine.arch = Some(arch);
    machine.sysroot = machine.sysroot.or(sysroot);
    machine.cwd.get_or_insert(cwd.into());
    // What flags say of the environment comes last, and wins.
    let given = std::mem::take(&mut machine.env);
    let passed = env.into_iter().map(|(name, value)| Variable { name, value });
    machine.env = passed.chain(given).collect();
    let command = machine.command(&argv, stdin);
    let needs = with_image(move |image| {
        for program in &programs {
            image.by("a program that tests may start");
            image.needs_of(program, program.as_os_str());
        }
    });
    let limit = args.timeout.or(environment.timeout).unwrap_or(NO_LIMIT);
    let more = (
        with_vm_timeout(limit),
        all(mirrors.into_iter().map(device)),
        all(library_dirs.into_iter().map(with_library_dir)),
        needs,
    );
    let command = command.map(|command| command.in_place(program_shared));
    run::prepare(&machine, environment, command, more)
}

/// Runs what was prepared.
fn conduct(
    mut prepared: Prepared,
    streams: Streams,
    verbose: bool,
    mut interrupts: Interrupts,
) -> Result<RunRecord, Failure> {
    if let Some(collecting) = &prepared.coverage {
        interrupts.remove_unfinished(collecting.dir().to_owned());
    }
    if verbose {
        prepared.resources.console_sinks.push(Box::new(stderr()));
    }
    let announcement = format!("{} guest, {}", prepared.plan.arch(), prepared.accel);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(&error, None))?;
    let conduct =
        Conduct { streams, terminal: None, repeat: quote::join(repeatable(std::env::args_os())) };
    let starter = interrupts.starter();
    let command: Arc<Mutex<Option<CommandHandle>>> = Arc::default();
    let running = Arc::clone(&command);
    let record = runtime.block_on(prepared.conduct(
        conduct,
        interrupted(&mut interrupts, &command),
        |step| match step {
            Progress::Starting => {
                starter.guest_starts();
                if verbose {
                    ui::status(&announcement);
                }
            }
            Progress::Running(handle) => *lock(&running) = Some(handle.clone()),
            Progress::Notice(text) if verbose => ui::note(text),
            _ => {}
        },
    ));
    // Threads may still sit in a read of stdin or a write to a full pipe; nobody waits for them.
    runtime.shutdown_background();
    let record = record?;
    interrupts.guest_is_over();
    Ok(record)
}

/// Passes signals on to the command. Completes when the run is to be ended all the same: nothing runs yet, it
/// does not end, or there is a second signal.
async fn interrupted(
    interrupts: &mut Interrupts,
    command: &Mutex<Option<CommandHandle>>,
) -> &'static str {
    let signal = interrupts.interrupted(None).await;
    let running = lock(command).clone();
    if let Some(running) = running {
        running.signal(number(signal));
        tokio::select! {
            () = tokio::time::sleep(PATIENCE) => {}
            _ = interrupts.interrupted(None) => {}
        }
    }
    signal
}

/// Numbers of the signals that ask for an end; the same on all five architectures (`signal(7)`).
fn number(signal: &str) -> i32 {
    match signal {
        "SIGHUP" => 1,
        "SIGINT" => 2,
        _ => 15,
    }
}

fn lock(
    command: &Mutex<Option<CommandHandle>>,
) -> std::sync::MutexGuard<'_, Option<CommandHandle>> {
    // A panic elsewhere does not make it wrong.
    command.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what only the guest's end explains, and ends as the program did.
fn finish(record: &RunRecord, verbose: bool) -> u8 {
    let verdict = &record.outcome.verdict;
    if let Some((text, hint)) = &record.coverage_lost {
        Failure::missing(text, hint).print();
        if verdict.passed() {
            return UNAVAILABLE;
        }
    }
    let by_itself = matches!(verdict, Verdict::Exited(_));
    if verbose || !by_itself {
        conclude(record, MessageFormat::Text, verbose);
    } else {
        // A kernel that reports a fault may be why.
        diagnosis::say(record);
    }
    if let Verdict::Exited(ExitStatus::Signal(signal)) = verdict {
        end_by(*signal);
    }
    verdict.exit_code()
}

/// Ends by a signal, as the program did: tools tell a crash from a failure by it. Comes back for signals that
/// this process ignores or has a handler for; then the exit code says it, as a shell does.
fn end_by(signal: u8) {
    // The core would be ours.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let Some(signal) = Signal::from_named_raw(i32::from(signal)) else { return };
    // Rust's handler for faults goes away at the first one that is none.
    for _ in 0..2 {
        let _ = kill_process(getpid(), signal);
    }
}
