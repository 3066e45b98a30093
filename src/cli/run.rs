//! `vmtest run`: flags to options, the image, the machine, the verdict.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use vmtest::accel::{Accel, AccelChoice};
use vmtest::arch::Arch;
use vmtest::assets::{Assets, GuestAssets};
use vmtest::formats::kernel;
use vmtest::initramfs::base::Base;
use vmtest::options::{Boot, Environment, Initramfs, KernelLog, Options, QemuCommand};
use vmtest::plan::{Plan, Spelling};
use vmtest::qemu::{AgentPorts, EventPort, Ownership, P9Share, ReadOnlyDir};
use vmtest::report::{self, Context, FileIdentity};
use vmtest::vm::accel::KvmProbe;
use vmtest::vm::{Job, Outcome, Progress, Resources, Sink, Streams, Verdict, Vm};
use vmtest::{assets, duration, quote};
use vmtest_guest::proto::{Bytes, Exec, WindowSize};

use super::artifacts::Artifacts;
use super::error::{Failure, UNAVAILABLE, chain};
use super::image::{self, Built, Command};
use super::options::{MachineArgs, RunArgs};
use super::terminal::{self, Raw};
use super::ui::{self, MessageFormat};
use super::{events, interrupt};

/// `cli.md`: scaled for emulation where not given.
fn default_limits(accel: Accel) -> (Duration, Duration) {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    match accel {
        Accel::Kvm => (Duration::from_secs(20), minutes(5)),
        Accel::Tcg => (minutes(2), minutes(15)),
    }
}

/// What a run is made of, once all flags are understood.
pub(crate) struct Prepared {
    pub(crate) arch: Arch,
    pub(crate) accel: AccelChoice,
    pub(crate) plan: Plan,
    pub(crate) image: Option<Built>,
    pub(crate) initramfs: Option<FileIdentity>,
    pub(crate) kernel: FileIdentity,
    pub(crate) exec: Option<Exec>,
    pub(crate) boot_limit: Duration,
    pub(crate) run_limit: Duration,
    pub(crate) events: Vec<(String, PathBuf)>,
}

/// The guest's architecture.
pub(crate) fn guest_arch(given: Option<Arch>, environment: &Environment) -> Result<Arch, Failure> {
    given.or(environment.arch).or_else(Arch::host).ok_or_else(|| {
        Failure::wrong(
            format!("this host's architecture, {}, is none of vmtest's", std::env::consts::ARCH),
            "name the guest's with --arch",
        )
    })
}

pub(crate) fn run(args: RunArgs, environment: &Environment) -> Result<u8, Failure> {
    let command = Command::new(&args.command, args.machine.sysroot.as_deref());
    let mut prepared = prepare(&args.machine, environment, &command, args.timeout)?;
    if let Some(exec) = &mut prepared.exec {
        exec.stdin = args.stdin;
    }
    if args.machine.dry_run {
        return dry_run(&prepared.plan);
    }
    let streams = Streams {
        stdin: args.stdin.then(|| Box::new(stdin()) as Box<dyn Read + Send>),
        stdout: Box::new(stdout()),
        stderr: Box::new(stderr()),
    };
    execute(prepared, &args.machine, streams, args.message_format, None)
}

pub(crate) fn dry_run(plan: &Plan) -> Result<u8, Failure> {
    let mut line = plan.quoted(Spelling::Typed).into_vec();
    line.push(b'\n');
    stdout().write_all(&line).map_err(|error| Failure::unavailable(&error, None))?;
    Ok(0)
}

/// Turns flags into a plan and an image.
pub(crate) fn prepare(
    args: &MachineArgs,
    environment: &Environment,
    command: &Command,
    timeout: Option<Duration>,
) -> Result<Prepared, Failure> {
    let arch = guest_arch(args.arch, environment)?;
    let exec = exec(args, command)?;
    let guest = find_assets(arch, environment)?;
    let kernel = find_kernel(arch, args, environment, &guest)?;
    let initramfs = args.initramfs.clone().or_else(|| environment.initramfs.clone());
    if let Some(path) = &initramfs {
        readable("initramfs", path)?;
    }
    // An image of the user's own with nothing to run in it: its own init decides.
    let watched_only = initramfs.is_some() && command.argv.is_empty();

    let accel = KvmProbe::new(environment.cache_dir.clone())
        .choose(args.accel, arch)
        .map_err(|error| Failure::unavailable(&error, Some(error.hint())))?;
    let (default_boot, default_run) = default_limits(accel.accel);

    let mut options = Options::new(arch);
    options.accel = accel.accel;
    options.memory_mib = args.memory.0 >> 20;
    options.cpus = args.cpus;
    options.kernel_log = KernelLog::Full;
    if let Some(qemu) = qemu_command(args)? {
        options.qemu = qemu;
    } else if let (None, Some(pinned)) = (&environment.qemu, &guest.qemu) {
        options.qemu = QemuCommand::new(&pinned.path);
    }
    options.boot = Boot::Kernel {
        image: kernel.path.clone(),
        initramfs: match &initramfs {
            Some(path) if watched_only => Initramfs::Path(path.clone()),
            _ => Initramfs::Built,
        },
    };
    let mut options = options.with_environment(environment);
    let events = add_devices(&mut options, args, watched_only)?;
    if !watched_only {
        options.kernel_args.push(format!("rdinit={}", vmtest_guest::proto::GUEST_PROGRAM));
    }
    options.kernel_args.extend(args.append.iter().cloned());
    options.qemu_args.extend(args.qemu_arg.iter().cloned());
    let plan = Plan::new(&options).map_err(|error| Failure::usage(&error, error.hint()))?;

    let mut image = None;
    let mut initramfs_identity = initramfs.as_ref().map(|path| FileIdentity {
        path: Some(path.clone()),
        bytes: path.metadata().ok().map(|metadata| metadata.len()),
        sha256: None,
    });
    if !watched_only && !args.dry_run {
        let base = base(arch, &guest, &kernel, &plan)?;
        let built = image::build(arch, args, &base, command, initramfs.as_deref())?;
        initramfs_identity = Some(built.identity.clone());
        image = Some(built);
    }
    Ok(Prepared {
        arch,
        accel,
        image,
        initramfs: initramfs_identity,
        kernel: FileIdentity { path: Some(kernel.path), bytes: None, sha256: kernel.sha256 },
        exec: (!command.argv.is_empty()).then_some(exec),
        boot_limit: args.boot_timeout.unwrap_or(default_boot),
        run_limit: timeout.or(options.timeout).unwrap_or(default_run),
        events,
        plan,
    })
}

fn find_assets(arch: Arch, environment: &Environment) -> Result<GuestAssets, Failure> {
    match Assets::load(&Assets::location(environment)) {
        Ok(assets) => Ok(assets.guest(arch)),
        // Everything can also be given by flags; what is missing then is said by name.
        Err(assets::Error::NoManifest { .. }) if environment.assets.is_none() => {
            Ok(GuestAssets::default())
        }
        Err(error) => Err(Failure::unavailable(&error, Some(error.hint()))),
    }
}

/// The kernel with what is known of it.
struct Kernel {
    path: PathBuf,
    modules: Option<PathBuf>,
    sha256: Option<String>,
}

fn find_kernel(
    arch: Arch,
    args: &MachineArgs,
    environment: &Environment,
    guest: &GuestAssets,
) -> Result<Kernel, Failure> {
    let given = args.kernel.as_ref().or(environment.kernel.as_ref());
    let mut kernel = match (given, &guest.kernel) {
        (Some(path), _) => Kernel { path: path.clone(), modules: None, sha256: None },
        (None, Some(pinned)) => {
            let image = pinned.to_boot();
            Kernel {
                path: image.path.clone(),
                modules: pinned.modules.clone(),
                sha256: Some(image.sha256.clone()),
            }
        }
        (None, None) => {
            return Err(Failure::missing(
                format!("there is no kernel for {arch}"),
                format!(
                    "`make assets ARCH={arch}` in vmtest's source fetches one; --kernel names another"
                ),
            ));
        }
    };
    let head = readable("kernel", &kernel.path)?;
    let Some(found) = kernel::identify(&head) else {
        return Err(Failure::missing(
            format!("`{}` is no kernel image that vmtest knows", kernel.path.display()),
            "a kernel is a bzImage, an Image, a zImage, a uImage or a vmlinux",
        ));
    };
    if !found.arches.contains(&arch) {
        let names: Vec<&str> = found.arches.iter().map(|arch| arch.name()).collect();
        let names =
            if names.is_empty() { "another architecture".into() } else { names.join(" or ") };
        return Err(Failure::missing(
            format!("the kernel `{}` is for {names}, the guest is {arch}", kernel.path.display()),
            "--arch names the guest's architecture, --kernel its kernel",
        ));
    }
    if given.is_some() {
        let installed = |release: &String| {
            let dir = Path::new("/lib/modules").join(release);
            (Some(arch) == Arch::host() && dir.is_dir()).then_some(dir)
        };
        kernel.modules =
            args.modules.clone().or_else(|| found.release.as_ref().and_then(installed));
    } else if let Some(dir) = &args.modules {
        kernel.modules = Some(dir.clone());
    }
    Ok(kernel)
}

/// Reads a file's beginning, or says why it cannot be read.
fn readable(what: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(kernel::HEAD_BYTES as u64).read_to_end(&mut head))
        .map_err(|error| {
        Failure::missing(
            format!("cannot read the {what} `{}`: {error}", path.display()),
            format!("--{what} or VMTEST_{} names it", what.to_uppercase()),
        )
    })?;
    Ok(head)
}

fn qemu_command(args: &MachineArgs) -> Result<Option<QemuCommand>, Failure> {
    let Some(text) = &args.qemu else { return Ok(None) };
    let words = quote::split(text).map_err(|error| Failure::usage(&error, Some(error.hint())))?;
    let mut words = words.into_iter();
    match words.next() {
        Some(program) => Ok(Some(QemuCommand { program, args: words.collect() })),
        None => Err(Failure::wrong("--qemu is empty", "name QEMU's program")),
    }
}

/// Adds the devices that flags ask for; returns event channels with their files.
fn add_devices(
    options: &mut Options,
    args: &MachineArgs,
    watched_only: bool,
) -> Result<Vec<(String, PathBuf)>, Failure> {
    if !watched_only {
        options.device(AgentPorts);
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

/// `DIR[:TAG][:ro]`. A directory whose whole text exists needs no escape for its colons.
fn parse_share(text: &OsStr) -> Result<P9Share, Failure> {
    let bytes = text.as_bytes();
    let (bytes, read_only) = match bytes.strip_suffix(b":ro") {
        Some(rest) if !Path::new(text).is_dir() => (rest, true),
        _ => (bytes, false),
    };
    let whole = Path::new(OsStr::from_bytes(bytes));
    let colon = bytes.iter().rposition(|byte| *byte == b':');
    let (dir, tag) = match colon {
        Some(at) if !whole.is_dir() => (
            PathBuf::from(OsStr::from_bytes(&bytes[..at])),
            String::from_utf8_lossy(&bytes[at + 1..]).into_owned(),
        ),
        _ => {
            let absolute = std::path::absolute(whole).unwrap_or_else(|_| whole.to_owned());
            let name = absolute.file_name().unwrap_or(OsStr::new("root"));
            (whole.to_owned(), name.to_string_lossy().into_owned())
        }
    };
    if dir.as_os_str().is_empty() {
        return Err(Failure::wrong(
            "--share: no directory is given",
            "write it as `--share DIR[:TAG][:ro]`",
        ));
    }
    directory("--share", &dir)?;
    // QEMU's working directory is ours, but a report should say which directory it was.
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    Ok(P9Share { dir, tag, read_only, ownership: Ownership::Host })
}

fn base(arch: Arch, guest: &GuestAssets, kernel: &Kernel, plan: &Plan) -> Result<Base, Failure> {
    let Some(program) = &guest.guest else {
        return Err(Failure::missing(
            format!("there is no guest program for {arch}"),
            format!("`make assets ARCH={arch}` in vmtest's source builds it"),
        ));
    };
    Ok(Base {
        arch,
        guest: program.path.clone(),
        shell: guest.shell.as_ref().map(|shell| shell.path.clone()),
        modules_dir: kernel.modules.clone(),
        modules: plan.modules().to_vec(),
        optional_modules: plan.optional_modules().to_vec(),
    })
}

fn exec(args: &MachineArgs, command: &Command) -> Result<Exec, Failure> {
    let mut env = Vec::new();
    for pair in &args.env {
        let bytes = pair.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else {
            return Err(Failure::wrong(
                format!("--env {}: a name and a value are needed", pair.display()),
                "write it as `--env NAME=VALUE`",
            ));
        };
        env.push((Bytes(bytes[..at].to_vec()), Bytes(bytes[at + 1..].to_vec())));
    }
    Ok(Exec {
        argv: command.argv.iter().map(|word| Bytes::from(word.as_os_str())).collect(),
        env,
        cwd: args.cwd.as_deref().map(Bytes::from),
        stdin: false,
        tty: None,
    })
}

/// Runs what was prepared and reports.
pub(crate) fn execute(
    prepared: Prepared,
    args: &MachineArgs,
    streams: Streams,
    format: MessageFormat,
    terminal: Option<(WindowSize, Option<mpsc::UnboundedReceiver<()>>)>,
) -> Result<u8, Failure> {
    let mut artifacts = Artifacts::create(args.artifacts.as_deref())?;
    let event_files = create_event_files(&prepared.events)?;
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
                "type": "start", "arch": prepared.arch.name(),
                "accelerator": prepared.accel.accel.to_string(),
                "reason": prepared.accel.reason.to_string(),
            })
            .to_string(),
        );
    } else {
        ui::status(&format!("{} guest, {}", prepared.arch, prepared.accel));
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(&error, None))?;
    let mut context = Context {
        arch: prepared.arch,
        argv: std::iter::once(prepared.plan.program().to_owned())
            .chain(prepared.plan.args(Spelling::Executed))
            .collect(),
        repeat: quote::join(std::env::args_os()),
        qemu_version: None,
        kernel: prepared.kernel.clone(),
        cmdline: prepared.plan.cmdline().map(str::to_owned),
        initramfs: prepared.initramfs.clone(),
        accel: prepared.accel.clone(),
        artifacts: Vec::new(),
        console_tail: Vec::new(),
    };
    if artifacts.wanted()
        && let (None, Some(path)) = (&context.kernel.sha256, &context.kernel.path)
    {
        context.kernel.sha256 = assets::sha256(path).ok();
    }
    let (tty, quit) = terminal.unzip();
    let interactive = tty.is_some();
    let job = Job {
        exec: prepared.exec.map(|exec| Exec { tty, ..exec }),
        boot_limit: prepared.boot_limit,
        run_limit: (!interactive).then_some(prepared.run_limit),
    };
    let resources =
        Resources { initramfs: prepared.image.map(|image| image.file), console_sinks: sinks };

    let outcome = runtime.block_on(async {
        let mut vm = Vm::start(prepared.plan, resources).map_err(|error| Failure {
            code: UNAVAILABLE,
            text: chain(&error),
            hint: error.hint(),
        })?;
        let collectors = events::collect(&mut vm, event_files);
        let console = vm.console().clone();
        let version = vm.qemu_version_watch();
        let restore = Raw::new(interactive);
        let interrupt = interrupt::interrupted(quit.flatten());
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

    let context = artifacts.finish(context, &outcome)?;
    if outcome.verdict == Verdict::Ready {
        // A reader that left is no failure of the guest.
        let _ = stdout().write_all(findings(&context, &outcome).as_bytes());
    }
    conclude(&context, &outcome, format, args.verbose || !has_agent);
    Ok(outcome.verdict.exit_code())
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
