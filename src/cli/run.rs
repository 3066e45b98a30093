//! `vmtest run`: flags to options, the image, the machine, the verdict.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use vmtest::configure::{Config, Coverage, Kernel};
use vmtest::initramfs::Hash;
use vmtest::options::{Environment, Options, QemuCommand};
use vmtest::plan::{Plan, Spelling};
use vmtest::qemu::{EventPort, Firmware, KernelLog, Ownership, P9Root, P9Share, ReadOnlyDir};
use vmtest::report::{self, Context};
use vmtest::session::{self, Collecting, Command, Init};
use vmtest::vm::{Outcome, Progress, Sink, Streams, Verdict};
use vmtest::{assets, duration, quote};
use vmtest_guest::proto::{Exec, WindowSize};

use super::artifacts::Artifacts;
use super::error::Failure;
use super::image;
use super::interrupt::Interrupts;
use super::options::{MachineArgs, RunArgs};
use super::terminal::{self, Raw};
use super::ui::{self, MessageFormat};
use super::{events, words};

/// A machine that can be started, and where its events go.
pub(crate) struct Prepared {
    pub(crate) machine: session::Prepared,
    pub(crate) events: Vec<(String, PathBuf)>,
}

pub(crate) fn run(args: RunArgs, environment: &Environment) -> Result<u8, Failure> {
    let mut command = Command::from_argv(&args.command);
    if let Some(command) = &mut command {
        command.stdin(args.stdin);
    }
    let interrupts = Interrupts::listen()?;
    let prepared = prepare(&args.machine, environment, command, args.timeout)?;
    if args.machine.dry_run {
        return dry_run(&prepared.machine.plan);
    }
    let streams = Streams {
        stdin: args.stdin.then(|| Box::new(stdin()) as Box<dyn Read + Send>),
        stdout: Box::new(stdout()),
        stderr: Box::new(stderr()),
    };
    execute(prepared, &args.machine, streams, args.message_format, None, interrupts)
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
    timeout: Option<Duration>,
) -> Result<Prepared, Failure> {
    let arch = session::guest_arch(args.arch, environment)?;
    let mut config = Config::new(arch);
    config.accel = args.accel;
    config.kernel = args.kernel.clone().map_or(Kernel::Default, Kernel::from_word);
    config.modules = args.modules.clone();
    config.initramfs = args.initramfs.clone();
    config.sysroot = args.sysroot.clone();
    config.image.push(image::part(args)?);
    config.boot_timeout = args.boot_timeout;
    config.coverage = coverage(args, environment)?;

    let options = &mut config.options;
    options.memory_mib = args.memory.0 >> 20;
    options.cpus = args.cpus;
    options.kernel_log = KernelLog::Full;
    options.timeout = timeout;
    options.qemu = qemu_command(args)?;
    match firmware(args)? {
        FirmwareFlag::None => {}
        FirmwareFlag::Default => config.default_firmware = true,
        FirmwareFlag::Given(firmware) => options.firmware = Some(firmware),
    }
    let events = add_devices(options, args)?;
    let variables = variables(args)?;
    options.kernel_args.extend(args.append.iter().cloned());
    options.qemu_args.extend(args.qemu_arg.iter().cloned());

    // An image of the user's own with nothing to run in it: its own init decides.
    let has_initramfs = args.initramfs.is_some() || environment.initramfs.is_some();
    let init = match command {
        Some(mut command) => {
            for (name, value) in variables {
                command.env(name, value);
            }
            if let Some(cwd) = &args.cwd {
                command.cwd(cwd);
            }
            Init::Agent(Some(command))
        }
        None if has_initramfs || args.root.is_some() => Init::Own,
        None => Init::Agent(None),
    };
    let machine = session::prepare(config, environment, init)?;
    Ok(Prepared { machine, events })
}

/// Reads a byte, to say before the start that a file cannot be read.
fn readable(what: &str, path: &Path) -> Result<(), Failure> {
    vmtest::named_file::open(path).and_then(|mut file| file.read(&mut [0]).map(drop)).map_err(
        |error| {
            Failure::missing(
                format!("cannot read the {what} `{}`: {error}", path.display()),
                format!("--{what} names it"),
            )
        },
    )
}

/// `--firmware`.
enum FirmwareFlag {
    None,
    Default,
    Given(Firmware),
}

fn firmware(args: &MachineArgs) -> Result<FirmwareFlag, Failure> {
    let Some(text) = &args.firmware else { return Ok(FirmwareFlag::None) };
    if text == "default" {
        return Ok(FirmwareFlag::Default);
    }
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|at| *at > 0);
    match colon.filter(|at| at + 1 < bytes.len()) {
        Some(at) => Ok(FirmwareFlag::Given(Firmware {
            code: PathBuf::from(OsStr::from_bytes(&bytes[..at])),
            vars: PathBuf::from(OsStr::from_bytes(&bytes[at + 1..])),
        })),
        None => Err(Failure::wrong(
            format!("--firmware {}: two files are needed", text.display()),
            "write it as `--firmware CODE:VARS`, or `--firmware default`",
        )),
    }
}

fn qemu_command(args: &MachineArgs) -> Result<Option<QemuCommand>, Failure> {
    let Some(text) = &args.qemu else { return Ok(None) };
    let words = quote::split(text).map_err(|error| Failure::usage(&error, Some(error.hint())))?;
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Ok(Some(QemuCommand { program, args: words.collect() })),
        None => Err(Failure::wrong("--qemu is empty", "name QEMU's program")),
    }
}

/// Adds the devices that flags ask for; returns event channels with their files.
fn add_devices(
    options: &mut Options,
    args: &MachineArgs,
) -> Result<Vec<(String, PathBuf)>, Failure> {
    if let Some(root) = &args.root {
        let bytes = root.as_bytes();
        let (dir, read_only) = match bytes.strip_suffix(b":ro") {
            Some(rest) if !Path::new(root).is_dir() => (rest, true),
            _ => (bytes, false),
        };
        let dir = PathBuf::from(OsStr::from_bytes(dir));
        directory("--root", &dir)?;
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        options.device(P9Root { dir, read_only, ownership: Ownership::Host });
    }
    for share in &args.share {
        options.device(parse_share(share)?);
    }
    for dir in &args.ro_dir {
        directory("--ro-dir", dir)?;
        options.device(ReadOnlyDir { dir: dir.clone() });
    }
    for drive in &args.drive {
        readable("drive", &drive.file)?;
        options.devices.push(std::sync::Arc::new(drive.clone()));
    }
    for net in &args.net {
        options.device(net.clone());
    }
    let mut events = Vec::new();
    for event in &args.event {
        let bytes = event.as_bytes();
        let (name, file) = bytes
            .iter()
            .position(|byte| *byte == b'=')
            .map(|at| (&bytes[..at], &bytes[at + 1..]))
            .filter(|(name, file)| !name.is_empty() && !file.is_empty())
            .ok_or_else(|| {
                Failure::wrong(
                    format!("--event {}: a name and a file are needed", event.display()),
                    "write it as `--event NAME=FILE`",
                )
            })?;
        let name = String::from_utf8_lossy(name).into_owned();
        options.device(EventPort { name: name.clone() });
        events.push((name, PathBuf::from(OsStr::from_bytes(file))));
    }
    Ok(events)
}

fn directory(flag: &str, dir: &Path) -> Result<(), Failure> {
    match dir.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::missing(
            format!("{flag} {}: this is no directory", dir.display()),
            "only directories can be shared; --file puts a file into the image",
        )),
        Err(error) => Err(Failure::missing(
            format!("{flag} {}: {error}", dir.display()),
            "name a directory of the host",
        )),
    }
}

/// `DIR[:TAG][:ro]`; the tag is the directory's name when it is not given.
fn parse_share(text: &OsStr) -> Result<P9Share, Failure> {
    let wrong = |what: &str| {
        Failure::wrong(
            format!("`--share {}` {what}", text.display()),
            "write it as `--share DIR[:TAG][:ro]`, and `\\:` for a colon that belongs to a name",
        )
    };
    let mut parts = words::split(text);
    let read_only = parts.len() > 1 && parts.last().is_some_and(|part| part == "ro");
    parts.truncate(parts.len() - usize::from(read_only));
    let mut parts = parts.into_iter();
    let dir = PathBuf::from(parts.next().unwrap_or_default());
    let tag = parts.next();
    if parts.next().is_some() {
        return Err(wrong("has too many parts"));
    }
    if dir.as_os_str().is_empty() {
        return Err(wrong("names no directory"));
    }
    directory("--share", &dir)?;
    // QEMU's working directory is ours, but a report should say which directory it was.
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let tag = tag.or_else(|| dir.file_name().map(OsStr::to_owned));
    let tag = tag.map_or_else(|| "root".into(), |tag| tag.to_string_lossy().into_owned());
    Ok(P9Share { dir, tag, read_only, ownership: Ownership::Host })
}

/// `--env`: names with values.
fn variables(args: &MachineArgs) -> Result<Vec<(&OsStr, &OsStr)>, Failure> {
    let mut variables = Vec::new();
    for pair in &args.env {
        let bytes = pair.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else {
            return Err(Failure::wrong(
                format!("--env {}: a name and a value are needed", pair.display()),
                "write it as `--env NAME=VALUE`",
            ));
        };
        variables.push((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])));
    }
    Ok(variables)
}

/// Runs what was prepared and reports.
pub(crate) fn execute(
    prepared: Prepared,
    args: &MachineArgs,
    streams: Streams,
    format: MessageFormat,
    terminal: Option<(WindowSize, Option<mpsc::UnboundedReceiver<()>>)>,
    mut interrupts: Interrupts,
) -> Result<u8, Failure> {
    let Prepared { machine: mut prepared, events: event_paths } = prepared;
    if let Some(collecting) = &prepared.coverage {
        interrupts.remove_unfinished(collecting.dir().to_owned());
    }
    let mut artifacts = Artifacts::create(args.artifacts.as_deref())?;
    let event_files = create_event_files(&event_paths)?;
    prepared.build_image()?;
    for notice in &prepared.notices {
        ui::note(notice);
    }
    let mut coverage = prepared.coverage.take();
    let no_kernel = coverage.as_ref().and_then(Collecting::no_kernel).map(str::to_owned);
    if let Some(why) = &no_kernel {
        ui::note(&format!("no coverage of the kernel: {why}"));
    }
    let has_agent = prepared.plan.has_agent();

    let mut sinks: Vec<Sink> = Vec::new();
    if let Some(file) = artifacts.file("console", "console.log")? {
        sinks.push(Box::new(file));
    }
    if args.verbose || !has_agent {
        sinks.push(Box::new(stderr()));
    }
    let streams = Streams {
        stdin: streams.stdin,
        stdout: artifacts.tee("stdout", streams.stdout)?,
        stderr: artifacts.tee("stderr", streams.stderr)?,
    };

    if format == MessageFormat::Json {
        ui::line(
            &json!({
                "type": "start", "arch": prepared.plan.arch().name(),
                "accelerator": prepared.accel.accel.to_string(),
                "reason": prepared.accel.reason.to_string(),
            })
            .to_string(),
        );
    } else {
        ui::status(&format!("{} guest, {}", prepared.plan.arch(), prepared.accel));
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(&error, None))?;
    let mut context = Context {
        arch: prepared.plan.arch(),
        argv: std::iter::once(prepared.plan.program().to_owned())
            .chain(prepared.plan.args(Spelling::Executed))
            .collect(),
        repeat: quote::join(repeatable(std::env::args_os())),
        qemu_version: None,
        kernel: prepared.kernel.clone(),
        cmdline: prepared.plan.cmdline().map(str::to_owned),
        initramfs: prepared.initramfs.clone(),
        mounts: prepared
            .plan
            .mounts()
            .iter()
            .map(|mount| (mount.source.clone(), mount.target.clone()))
            .collect(),
        accel: prepared.accel.clone(),
        artifacts: Vec::new(),
        console_tail: Vec::new(),
        coverage: None,
    };
    if artifacts.wanted()
        && let (None, Some(path)) = (&context.kernel.sha256, &context.kernel.path)
    {
        context.kernel.sha256 = assets::sha256(path).ok();
    }
    if artifacts.wanted()
        && let Some(image) = &mut context.initramfs
        && let (None, Some(path)) = (&image.blake3, &image.path)
    {
        let hash = File::open(path).and_then(Hash::of);
        image.blake3 = hash.ok().map(|hash| hash.to_string());
    }
    let (tty, quit) = terminal.unzip();
    let interactive = tty.is_some();
    let mut job = prepared.job();
    if interactive {
        job.run_limit = None;
        job.exec = job.exec.map(|exec| Exec { tty, ..exec });
    }
    prepared.resources.console_sinks.extend(sinks);

    interrupts.guest_starts();
    let outcome = runtime.block_on(async {
        let mut vm = prepared.start()?;
        if let Some(collecting) = &mut coverage {
            collecting.started();
        }
        let collectors = events::collect(&mut vm, event_files);
        let console = vm.console().clone();
        let version = vm.qemu_version_watch();
        let restore = Raw::new(interactive);
        let interrupt = interrupts.interrupted(quit.flatten());
        let outcome = vmtest::vm::run(vm, job, streams, interrupt, |progress| {
            watch(&progress, args.verbose, format);
            if let (true, Progress::Running(requests)) = (interactive, &progress) {
                terminal::follow_size((*requests).clone());
            }
        })
        .await;
        drop(restore);
        context.console_tail = match outcome.verdict {
            Verdict::Panicked { .. } => console.panic_lines(20),
            _ => console.last_lines(20),
        };
        context.qemu_version = version.borrow().clone();
        let mut outcome = outcome;
        for problem in collectors.finish().await {
            watch(&Progress::Notice(&problem), args.verbose, format);
            outcome.notices.push(problem);
        }
        Ok::<Outcome, Failure>(outcome)
    })?;
    // Threads may still sit in a read of stdin or a write to a full pipe; nobody waits for them.
    runtime.shutdown_background();

    // What the command did is told all the same.
    let finished = coverage.map(|collecting| collecting.finish(&outcome)).transpose();
    let (collected, lost) = match finished {
        Ok(collected) => (collected, None),
        Err(error) => (None, Some(Failure::unavailable(&error, Some(error.hint().to_owned())))),
    };
    context.coverage = collected.as_ref().map(|c| (c.dir.clone(), c.record.clone()));
    let context = artifacts.finish(context, &outcome)?;
    interrupts.guest_is_over();
    if format != MessageFormat::Json {
        for line in collected.iter().flat_map(|found| found.lines(no_kernel.as_deref())) {
            ui::note(&line);
        }
    }
    if outcome.verdict == Verdict::Ready {
        // A reader that left is no failure of the guest.
        let _ = stdout().write_all(findings(&context, &outcome).as_bytes());
    }
    if interactive && matches!(outcome.verdict, Verdict::Exited(_)) {
        // The user typed `exit` and knows; a status is theirs to ask for.
        return Ok(outcome.verdict.exit_code());
    }
    conclude(&context, &outcome, format, args.verbose || !has_agent);
    match (outcome.verdict.exit_code(), lost) {
        (0, Some(lost)) => Err(lost),
        (code, lost) => {
            lost.iter().for_each(Failure::print);
            Ok(code)
        }
    }
}

/// Where coverage goes, as far as flags say so. Without them the environment may, for guests that can be asked.
fn coverage(args: &MachineArgs, environment: &Environment) -> Result<Option<Coverage>, Failure> {
    let name = args.coverage_name.clone();
    let dir = match &name {
        Some(_) => args.coverage.as_ref().or(environment.coverage.as_ref()),
        None => args.coverage.as_ref(),
    };
    match dir {
        Some(dir) => Ok(Some(Coverage { dir: dir.clone(), name })),
        None if name.is_none() => Ok(None),
        None => Err(Failure::wrong(
            "`--coverage-name` names a run in a directory, and there is none",
            "give one with --coverage DIR, or with VMTEST_COVERAGE",
        )),
    }
}

/// The words that do the same again: the name of a run's coverage is taken now.
fn repeatable(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
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

/// Opens the events' files before anything is started.
fn create_event_files(events: &[(String, PathBuf)]) -> Result<Vec<(String, File)>, Failure> {
    events
        .iter()
        .map(|(name, path)| match File::create(path) {
            Ok(file) => Ok((name.clone(), file)),
            Err(error) => Err(Failure::missing(
                format!("cannot write the events of `{name}` to `{}`: {error}", path.display()),
                "--event NAME=FILE names a file that vmtest may write to",
            )),
        })
        .collect()
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
fn conclude(context: &Context, outcome: &Outcome, format: MessageFormat, seen_console: bool) {
    if format == MessageFormat::Json {
        let mut report = report::to_json(context, outcome);
        report["type"] = "verdict".into();
        ui::line(&report.to_string());
        return;
    }
    let verdict = &outcome.verdict;
    let took = duration::display(Duration::from_millis(outcome.phases.total.as_millis() as u64));
    if verdict.passed() {
        ui::status(&format!("{verdict} in {took}"));
        return;
    }
    ui::failed(&format!("{verdict} ({took})"));
    // The command's own failure explains itself; everything else is explained by the console.
    if !matches!(
        verdict,
        Verdict::Exited(_) | Verdict::NotStarted { .. } | Verdict::Interrupted { .. }
    ) {
        if !seen_console && !context.console_tail.is_empty() {
            ui::note(match verdict {
                Verdict::Panicked { .. } => "the console around the panic:",
                _ => "the console's last lines:",
            });
            ui::excerpt(&context.console_tail);
        }
        if outcome.hello.is_none() && context.console_tail.is_empty() {
            ui::note("the guest's console said nothing");
        }
    }
    if let Verdict::CouldNotStart { hint: Some(hint), .. } = verdict {
        ui::hint(hint);
    }
    if let Verdict::NotStarted { code: 127, .. } = verdict {
        ui::hint("a program of the host is named with a slash: `/usr/bin/git`, `./my-test`");
    }
    match context.artifacts.first().and_then(|(_, path)| path.parent()) {
        Some(dir) => ui::note(&format!("artifacts: {}", dir.display())),
        None => ui::hint(
            "`--artifacts DIR` keeps the console, both streams and run.json; `-v` shows the console",
        ),
    }
    ui::note(&format!("repeat it: {}", context.repeat.display()));
}

/// What a run without a command found.
fn findings(context: &Context, outcome: &Outcome) -> String {
    let Some(hello) = &outcome.hello else { return String::new() };
    let mut text = String::new();
    let mut row = |name: &str, value: String| text.push_str(&format!("{name:12} {value}\n"));
    row("guest", format!("{} ({})", context.arch, hello.machine));
    row("kernel", format!("Linux {}", hello.kernel_release));
    row("accelerator", context.accel.to_string());
    if let Some(version) = &context.qemu_version {
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
    for (source, target) in &context.mounts {
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
