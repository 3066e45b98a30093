//! `vmtest run`: flags to options, the image, the machine, the verdict.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use vmtest::configure::{Config, Configure, with_vm_timeout};
use vmtest::options::Environment;
use vmtest::plan::{Plan, Spelling};
use vmtest::run_record::{self, RunRecord};
use vmtest::session::{self, Command, Conduct, Init};
use vmtest::vm::{Progress, Streams, Verdict};
use vmtest::{duration, quote};
use vmtest_guest::proto::WindowSize;

use super::diagnosis;
use super::error::{Failure, INTERRUPTED};
use super::interrupt::Interrupts;
use super::options::{MachineArgs, RunArgs};
use super::plain::Plain;
use super::profile;
use super::terminal::{self, Raw};
use super::ui::{self, MessageFormat};

pub(crate) fn run(args: RunArgs, environment: &Environment) -> Result<u8, Failure> {
    let artifacts = args.machine.record_dir();
    forget_record(artifacts.as_deref());
    let format = args.message_format;
    let done = run_machine(args, environment);
    match done.inspect_err(|failure| note_failure(artifacts.as_deref(), failure)) {
        Err(failure) if format == MessageFormat::Json => {
            ui::line(&failure.to_json().to_string());
            Ok(failure.code)
        }
        done => done,
    }
}

/// Removes an earlier run's record, which is not this run's. Where that cannot be, this one's cannot be
/// written either, and that is an error of its own.
pub(crate) fn forget_record(artifacts: Option<&Path>) {
    if let Some(dir) = artifacts {
        let _ = std::fs::remove_file(dir.join("run.json"));
    }
}

/// Writes down that nothing was started, where a record is wanted: an earlier run's would tell another
/// story. What cannot be written there has been said already, by what failed.
pub(crate) fn note_failure(artifacts: Option<&Path>, failure: &Failure) {
    // One that ended has its record, whatever failed after it.
    let missing = |dir: &&Path| !dir.join("run.json").exists();
    if let (Some(dir), true) = (artifacts.filter(missing), failure.code != INTERRUPTED) {
        let repeat = quote::join(repeatable(std::env::args_os()));
        let _ = session::record_failed_start(dir, failure.code, &failure.text, &repeat);
    }
}

fn run_machine(mut args: RunArgs, environment: &Environment) -> Result<u8, Failure> {
    let says_nothing = args.command.is_empty() && args.machine.kernel.is_none();
    if says_nothing && environment.kernel.is_none() {
        args.machine.kernel = tree_one_is_in(&args.machine, environment)?;
    }
    let command = args.machine.command(&args.command, args.stdin);
    let interrupts = Interrupts::listen()?;
    let limit = args.timeout.map(with_vm_timeout);
    let prepared = prepare(&args.machine, environment, command, limit)?;
    if args.machine.dry_run {
        return dry_run(&prepared.plan);
    }
    let streams = Streams {
        stdin: args.stdin.then(|| Box::new(stdin()) as Box<dyn Read + Send>),
        stdout: Box::new(stdout()),
        stderr: Box::new(stderr()),
    };
    let look = Look { format: args.message_format, terminal: None, quit: None };
    execute(prepared, &args.machine, streams, look, interrupts)
}

/// Whoever builds kernels and types no more than the program's name means the kernel that they have just built.
/// What runs is a guest; nothing of the tree is executed here.
fn tree_one_is_in(
    args: &MachineArgs,
    environment: &Environment,
) -> Result<Option<PathBuf>, Failure> {
    let own_boot = args.initramfs.is_some() || args.root.is_some() || args.firmware.is_some();
    let Some(dir) = std::env::current_dir().ok().filter(|_| !own_boot) else { return Ok(None) };
    let arch = session::guest_arch(args.arch, environment)?;
    if !session::is_built_tree(&dir, arch) {
        return Ok(None);
    }
    ui::note(&format!(
        "booting the kernel tree here, `{}`; `--kernel @default` boots another",
        dir.display()
    ));
    Ok(Some(dir))
}

pub(crate) fn dry_run(plan: &Plan) -> Result<u8, Failure> {
    let mut line = plan.quoted(Spelling::Typed).into_vec();
    line.push(b'\n');
    stdout().write_all(&line).map_err(|error| Failure::unavailable(&error, None))?;
    Ok(0)
}

/// Turns flags into a machine that can be started.
pub(crate) fn prepare(
    args: &MachineArgs,
    environment: &Environment,
    command: Option<Command>,
    more: impl Configure,
) -> Result<session::Prepared, Failure> {
    let mut config = Config::new(session::guest_arch(args.arch, environment)?);
    let diagnosis = args.diagnosis.configurator()?;
    config.apply((args.clone().configurator(), diagnosis, more)).map_err(session::Error::from)?;
    // An image of the user's own with nothing to run in it: its own init decides.
    let has_initramfs = args.initramfs.is_some() || environment.initramfs.is_some();
    let init = match command {
        None if has_initramfs || args.root.is_some() => Init::Own,
        command => Init::Agent(command),
    };
    Ok(session::prepare(config, environment, init)?)
}

/// How a run looks to who started it.
pub(crate) struct Look {
    pub(crate) format: MessageFormat,
    /// The size of the user's terminal, where the command runs on it.
    pub(crate) terminal: Option<WindowSize>,
    /// The user types, and may type that all is to end.
    pub(crate) quit: Option<mpsc::UnboundedReceiver<()>>,
}

/// Runs what was prepared and reports.
pub(crate) fn execute(
    prepared: session::Prepared,
    args: &MachineArgs,
    streams: Streams,
    look: Look,
    mut interrupts: Interrupts,
) -> Result<u8, Failure> {
    let Look { format, terminal, quit } = look;
    let interactive = terminal.is_some();
    let has_agent = prepared.plan.has_agent();
    let mut prepared = prepared;
    if let Some(collecting) = &prepared.coverage {
        interrupts.remove_unfinished(collecting.dir().to_owned());
    }
    if args.verbose || !has_agent {
        prepared.resources.console_sinks.push(match stderr().is_terminal() {
            true => Box::new(Plain::new(stderr())),
            false => Box::new(stderr()),
        });
    }
    let announcement = announcement(&prepared, format);
    let mut announced = false;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(&error, None))?;
    let conduct =
        Conduct { streams, terminal, repeat: quote::join(repeatable(std::env::args_os())) };
    let raw = Raw::new(interactive);
    let starter = interrupts.starter();
    let record =
        runtime.block_on(prepared.conduct(conduct, interrupts.interrupted(quit), |step| {
            if matches!(step, Progress::Starting) && !std::mem::replace(&mut announced, true) {
                starter.guest_starts();
                announcement.say();
            }
            watch(&step, args.verbose, format);
            if let (true, Progress::Running(command)) = (interactive, &step) {
                terminal::follow_size((*command).clone());
            }
        }));
    drop(raw);
    // Threads may still sit in a read of stdin or a write to a full pipe; nobody waits for them.
    runtime.shutdown_background();
    let record = record?;
    interrupts.guest_is_over();
    if format != MessageFormat::Json {
        let said = record.outcome.notices.iter().find_map(|n| n.strip_prefix(NO_KERNEL_COVERAGE));
        for line in record.coverage.iter().flat_map(|found| found.lines(said)) {
            ui::note(&line);
        }
    }
    if record.outcome.verdict == Verdict::Ready {
        // A reader that left is no failure of the guest.
        let _ = stdout().write_all(findings(&record).as_bytes());
    }
    let code = record.outcome.verdict.exit_code();
    if interactive && matches!(record.outcome.verdict, Verdict::Exited(_)) {
        // The user typed `exit` and knows; a status is theirs to ask for.
        diagnosis::say(&record);
        return Ok(code);
    }
    if args.diagnosis.profile && format != MessageFormat::Json {
        profile::say(&record);
    }
    conclude(&record, format, args.verbose || !has_agent);
    match (&record.coverage_lost, code) {
        (Some((text, hint)), 0) => Err(Failure::missing(text, hint)),
        (lost, code) => {
            if let Some((text, hint)) = lost {
                let failure = Failure::missing(text, hint);
                match format {
                    MessageFormat::Json => ui::line(&failure.to_json().to_string()),
                    MessageFormat::Text => failure.print(),
                }
            }
            Ok(code)
        }
    }
}

/// How a notice begins that says why the kernel's coverage is not there.
const NO_KERNEL_COVERAGE: &str = "no coverage of the kernel: ";

/// What is said of a machine that is about to start.
enum Announcement {
    Status(String),
    Line(String),
}

impl Announcement {
    fn say(&self) {
        match self {
            Announcement::Status(text) => ui::status(text),
            Announcement::Line(text) => ui::line(text),
        }
    }
}

fn announcement(prepared: &session::Prepared, format: MessageFormat) -> Announcement {
    let (arch, accel) = (prepared.plan.arch(), &prepared.accel);
    if format != MessageFormat::Json {
        return Announcement::Status(format!("{arch} guest, {accel}"));
    }
    let line = json!({
        "type": "start", "arch": arch.name(), "accelerator": accel.accel.to_string(),
        "reason": accel.reason.to_string(),
    });
    Announcement::Line(line.to_string())
}

/// The words that do the same again: the name of a run's coverage is taken now.
pub(crate) fn repeatable(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut words = words.peekable();
    let mut ours = true;
    while let Some(word) = words.next() {
        ours &= word != "--";
        if ours && word == "--coverage-name" {
            words.next();
        } else if !(ours && word.as_encoded_bytes().starts_with(b"--coverage-name=")) {
            kept.push(word);
        }
    }
    kept
}

/// Shows a step.
fn watch(progress: &Progress<'_>, verbose: bool, format: MessageFormat) {
    match (progress, format) {
        (Progress::Ready(hello), MessageFormat::Json) => {
            ui::line(&json!({"type": "ready", "guest": hello}).to_string());
        }
        (Progress::Ready(hello), MessageFormat::Text) if verbose => {
            ui::status(&format!(
                "the guest is ready: Linux {}, {:.2} s after its kernel's start",
                hello.kernel_release, hello.ready_secs
            ));
        }
        (Progress::Forwarding(forwards), MessageFormat::Json) => {
            for forward in *forwards {
                ui::line(
                    &json!({"type": "forward", "protocol": forward.protocol.name(),
                    "host_address": forward.host_address, "host_port": forward.host_port,
                    "guest_port": forward.guest_port})
                    .to_string(),
                );
            }
        }
        (Progress::Forwarding(forwards), MessageFormat::Text) => {
            for forward in *forwards {
                ui::status(&format!(
                    "{} port {} of {} is port {} of the guest",
                    forward.protocol.name(),
                    forward.host_port,
                    forward.host_address,
                    forward.guest_port,
                ));
            }
        }
        (Progress::Notice(text), MessageFormat::Json) => {
            ui::line(&json!({"type": "notice", "text": text}).to_string());
        }
        (Progress::Notice(text), MessageFormat::Text) => ui::note(text),
        _ => {}
    }
}

/// Says how it ended.
pub(crate) fn conclude(record: &RunRecord, format: MessageFormat, seen_console: bool) {
    let outcome = &record.outcome;
    if format == MessageFormat::Json {
        let mut report = run_record::to_json(record);
        report["type"] = "verdict".into();
        ui::line(&report.to_string());
        return;
    }
    let verdict = &outcome.verdict;
    let took = duration::display(Duration::from_millis(outcome.phases.total.as_millis() as u64));
    if verdict.passed() {
        ui::status(&format!("{verdict} in {took}{}", diagnosis::aside(record)));
        diagnosis::say(record);
        return;
    }
    ui::failed(&format!("{verdict} ({took})"));
    diagnosis::say_reasons(record);
    diagnosis::say_hang(record);
    // The command's own failure explains itself; everything else is explained by the console.
    if !matches!(
        verdict,
        Verdict::Exited(_)
            | Verdict::NotStarted { .. }
            | Verdict::CouldNotStart { .. }
            | Verdict::KernelFault { .. }
            | Verdict::OverBudget { .. }
            | Verdict::Interrupted { .. }
    ) {
        if !seen_console && !record.console_tail.is_empty() && !diagnosis::explains(record) {
            ui::note(match verdict {
                Verdict::Panicked { .. } => "the console around the panic:",
                _ => "the console's last lines:",
            });
            ui::excerpt(&record.console_tail);
        }
        if outcome.hello.is_none() && record.console_tail.is_empty() {
            ui::note("the guest's console said nothing");
        }
    }
    diagnosis::say(record);
    let refused = match verdict {
        Verdict::CouldNotStart { hint, .. } => hint.as_ref(),
        _ => None,
    };
    if let Some(hint) = refused.or(outcome.hint.as_ref()) {
        ui::hint(hint);
    }
    if let Verdict::NotStarted { code: 127, error } = verdict {
        // Who has written a slash knows; whoever named a directory to work in has no use for it.
        if error.starts_with("no program `") && !error.contains('/') {
            ui::hint("a program of the host is named with a slash: `/usr/bin/git`, `./my-test`");
        }
    }
    match record.artifacts.first().and_then(|(_, path)| path.parent()) {
        Some(dir) => ui::note(&format!("artifacts: {}", dir.display())),
        None => ui::hint(
            "`--artifacts DIR` keeps the console, both streams and run.json; `-v` shows the console",
        ),
    }
    ui::note(&format!("repeat it: {}", record.repeat.display()));
}

/// What a run without a command found.
fn findings(record: &RunRecord) -> String {
    let outcome = &record.outcome;
    let Some(hello) = &outcome.hello else { return String::new() };
    let mut text = String::new();
    let mut row = |name: &str, value: String| text.push_str(&format!("{name:12} {value}\n"));
    row("guest", format!("{} ({})", record.arch, hello.machine));
    row("kernel", format!("Linux {}", hello.kernel_release));
    row("accelerator", record.accel.to_string());
    if let Some(version) = &record.qemu_version {
        row("QEMU", version.clone());
    }
    row("processors", hello.cpus.to_string());
    row("memory", format!("{} MiB usable", hello.memory_bytes >> 20));
    let boot = outcome.phases.boot.unwrap_or_default().as_secs_f64();
    row(
        "userspace",
        format!("{:.2} s after the kernel's start, {boot:.2} s after QEMU's", hello.init_secs),
    );
    if !hello.modules.is_empty() {
        row("modules", hello.modules.join(" "));
    }
    for (source, target) in &record.mounts {
        row("share", format!("{target} ({source})"));
    }
    let channels: Vec<&str> = hello
        .ports
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("vmtest."))
        .collect();
    if !channels.is_empty() {
        row("channels", channels.join(" "));
    }
    text
}
