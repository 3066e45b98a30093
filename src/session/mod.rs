//! From a [`Config`] to a machine that can be started: finds kernel, QEMU and guest program, chooses
//! the accelerator, computes the plan, builds the image.
//!
//! The command line and the library go through [`prepare`], so that both boot the same machine.

mod artifacts;
mod base;
mod command;
mod conduct;
mod coverage;
mod error;
mod events;
mod explain;
mod front;
mod image;
mod kernel;
mod kernel_dir;
mod preflight;
mod symbols;
mod tail;
mod template;
mod warm;
mod wish;

use std::path::{Path, PathBuf};
use std::time::Duration;

use vmtest_guest::proto::{self, Exec};

use crate::accel::{Accel, AccelChoice};
use crate::arch::Arch;
use crate::assets::{self, Assets, FirmwareAsset, GuestAssets};
use crate::configure::{Config, EventFile, ResourcePart};
use crate::diagnosis::Gate;
use crate::named_file;
use crate::options::{Boot, Environment, Initramfs, Options, QemuCommand};
use crate::plan::{Need, NeedForm, Plan};
use crate::qemu::{AgentPort, EventPort, Firmware};
use crate::run_record::{ImageIdentity, KernelIdentity};
use crate::vm::accel::KvmProbe;
use crate::vm::{HangLimit, Resources, Vm};
use image::{Files, Planned, Remarks};
use kernel::{FoundKernel, readable};
use preflight::Preflight;
use symbols::Symbols;

pub use crate::coverage::Collected;
pub use crate::options::WarmMode;
pub use artifacts::record_failed_start;
pub use base::{Base, BaseError};
use command::Program;
pub use command::{Command, Variable};
pub use conduct::Conduct;
pub use coverage::Collecting;
pub use error::Error;
pub use front::{Finished, NotPassed, boot, prepare_with, run, start};
pub use kernel_dir::is_built_tree;
pub(crate) use template::Recipe;
pub use template::{Original, Template};
pub use warm::Outlook;

/// What process 1 of the guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// vmtest's agent, in an image built for the run (behind the given initramfs, if there is one). It
    /// mounts shares, runs the command and switches off; without a command it only says that it is
    /// ready.
    Agent(Option<Command>),
    /// Whatever the initramfs, the disk or the root share has. vmtest only watches.
    Own,
}

/// A machine that can be started.
#[must_use = "nothing runs until it is started"]
pub struct Prepared {
    /// QEMU's argv and all it needs.
    pub plan: Plan,
    /// The accelerator, and why.
    pub accel: AccelChoice,
    /// The kernel.
    pub kernel: KernelIdentity,
    /// The initramfs; known in full once the image is built.
    pub initramfs: Option<ImageIdentity>,
    /// What the agent will run.
    pub exec: Option<Exec>,
    /// From QEMU's start until the guest is ready. Default: 20 s with KVM, 2 min emulated.
    pub boot_limit: Duration,
    /// The whole run. Default: `VMTEST_TIMEOUT`, else 5 min with KVM, 15 min emulated.
    pub run_limit: Duration,
    /// When a silent guest is looked at; `None` for never. Default: after 1 min with KVM, 3 min emulated.
    pub hang_limit: Option<HangLimit>,
    /// The guest's memory.
    pub memory_bytes: u64,
    /// Remarks of the image's builder.
    pub notices: Vec<String>,
    /// What the machine gets besides its plan.
    pub resources: Resources,
    /// The run's coverage, if it is wanted.
    pub coverage: Option<Collecting>,
    /// Whether a saved guest may be resumed, and this one be saved.
    warm: wish::Wish,
    event_files: Vec<EventFile>,
    /// Which reports of the kernel count.
    gate: Gate,
    boot_budget: Option<Duration>,
    symbols: Symbols,
    preflight: Preflight,
    artifacts: Option<PathBuf>,
    /// What made [`Prepared::resources`], to make them again.
    parts: Vec<ResourcePart>,
    image: Option<Planned>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// The guest's architecture: the given one, else `VMTEST_ARCH`, else the host's.
///
/// # Errors
/// [`Error::ForeignHost`] when it is neither given nor can be the host's.
pub fn guest_arch(given: Option<Arch>, environment: &Environment) -> Result<Arch, Error> {
    given
        .or(environment.arch)
        .or_else(Arch::host)
        .ok_or(Error::ForeignHost { host: std::env::consts::ARCH })
}

/// Prepares a machine. Reads files, starts nothing. With [`Config::coverage`] it makes the run's directory,
/// which goes away again when the machine is not started.
///
/// # Errors
/// [`Error`] names what is missing, unusable or contradictory.
pub fn prepare(config: Config, environment: &Environment, init: Init) -> Result<Prepared, Error> {
    let arch = config.options.arch;
    // What the user names comes before what vmtest looks for.
    check_needs(&config.options.needs())?;
    let (guest, nowhere) = find_assets(arch, environment)?;
    let missing = |error: Error| match nowhere {
        Some(nowhere) if error.is_missing_asset() => nowhere.into(),
        _ => error,
    };
    prepare_from(config, environment, init, &guest).map_err(missing)
}

/// One thing after the other, each by a function of its own: a [`Config`] is taken apart here, so that none of
/// its 21 fields is forgotten, and a [`Prepared`] is put together. That alone is 50 lines.
fn prepare_from(
    config: Config,
    environment: &Environment,
    init: Init,
    guest: &GuestAssets,
) -> Result<Prepared, Error> {
    let mut resources = config.make_resources();
    let Config {
        mut options,
        accel,
        kernel: choice,
        modules,
        initramfs,
        sysroot,
        image: parts,
        default_firmware,
        boot_timeout,
        boot_budget,
        hang_after,
        coverage,
        coverage_name,
        warm,
        event_files,
        splats,
        vmlinux,
        requires,
        artifacts,
        resources: parts_of_machine,
    } = config;
    let arch = options.arch;
    if default_firmware && options.firmware.is_none() {
        options.firmware = Some(pinned_firmware(arch, guest, environment)?);
    }
    let uefi = options.firmware.is_some();
    let kernel = kernel::find(arch, &choice, modules, environment, guest, uefi)?;
    let initramfs = initramfs.or_else(|| environment.initramfs.clone());
    let agent = matches!(init, Init::Agent(_));
    check_places(&options, initramfs.as_deref(), sysroot.as_deref(), agent)?;

    let accel = KvmProbe::new(environment.cache_dir.clone()).choose(accel, arch)?;
    options.accel = accel.accel;
    if let (None, None, Some(pinned)) = (&options.qemu, &environment.qemu, &guest.qemu) {
        options.qemu = Some(QemuCommand::new(&pinned.path));
    }
    // An image of ours brings the drivers for a root share, and switches to it.
    let switches_root =
        !agent && initramfs.is_none() && options.devices.iter().any(|device| device.is_root());
    let ours = agent || switches_root;
    let mut options = boots(options, kernel.as_ref(), initramfs.as_deref(), ours, environment);
    for event in &event_files {
        options.device(EventPort { name: event.channel.clone() });
    }
    let collecting =
        collecting((coverage, coverage_name), &init, arch, kernel.as_ref(), environment)?;
    if let Some(collecting) = &collecting {
        options.device(collecting.device(&mut resources)?);
    }
    if agent {
        options.device(AgentPort);
    }
    let plan = options.plan()?;
    check_needs(plan.needs())?;

    let (exec, command) = what_runs(&init, sysroot.as_deref(), collecting.is_some());
    let files = Files { arch, sysroot, parts, command, has_shell: guest.shell.is_some() };
    let given = initramfs.as_deref().map(given_image);
    let image = match &kernel {
        Some(kernel) if ours => {
            Some(planned_image(environment, guest, kernel, &plan, initramfs, files)?)
        }
        _ => None,
    };
    let identity = match &image {
        Some(Planned::Ready(path)) => Some(given_image(path)),
        _ => given,
    };
    let (default_boot, default_run) = default_limits(accel.accel);
    let hang_limit = HangLimit::of(hang_after, accel.accel);
    let symbols = Symbols::of(vmlinux, kernel.as_ref())?;
    let preflight = Preflight::of(kernel.as_ref(), requires);
    let notices = match preflight.is_required() {
        true => preflight.check(&plan, ours)?,
        false => Vec::new(),
    };
    let kernel =
        kernel.map(|kernel| KernelIdentity { path: Some(kernel.path), sha256: kernel.sha256 });
    Ok(Prepared {
        plan,
        accel,
        kernel: kernel.unwrap_or_default(),
        initramfs: identity,
        exec,
        boot_limit: boot_timeout.unwrap_or(default_boot),
        run_limit: options.timeout.unwrap_or(default_run),
        hang_limit,
        memory_bytes: options.memory_mib << 20,
        notices,
        resources,
        coverage: collecting,
        warm: wish::Wish {
            mode: warm.or(environment.warm).unwrap_or_default(),
            cache_dir: environment.cache_dir.clone(),
        },
        event_files,
        gate: splats,
        boot_budget,
        symbols,
        preflight,
        artifacts,
        parts: parts_of_machine,
        image,
    })
}

/// The command as the guest runs it, and the file of the host's that it is.
fn what_runs(
    init: &Init,
    sysroot: Option<&Path>,
    counted: bool,
) -> (Option<Exec>, Option<Program>) {
    let Init::Agent(Some(command)) = init else { return (None, None) };
    let (mut exec, file) = command.resolve(sysroot);
    if counted {
        coverage::tell(&mut exec);
    }
    (Some(exec), file)
}

/// The image of ours that is booted: the one of the environment, else one that is built.
fn planned_image(
    environment: &Environment,
    guest: &GuestAssets,
    kernel: &FoundKernel,
    plan: &Plan,
    before: Option<PathBuf>,
    files: Files,
) -> Result<Planned, Error> {
    if let Some(path) = &environment.initramfs_override {
        readable("initramfs", path)?;
        return Ok(Planned::Ready(path.clone()));
    }
    let base = Box::new(base(files.arch, guest, kernel, plan)?);
    Ok(Planned::Build { base, before, files: Some(files) })
}

/// Checks that files and directories are what they have to be.
fn check_places(
    options: &Options,
    initramfs: Option<&Path>,
    sysroot: Option<&Path>,
    agent: bool,
) -> Result<(), Error> {
    if let Some(path) = initramfs {
        readable("initramfs", path)?;
    }
    if let Some(root) = options.devices.iter().find_map(|device| device.read_only_root())
        && agent
        && !root.join("dev").is_dir()
    {
        return Err(Error::RootWithoutDev { dir: root.to_owned() });
    }
    match sysroot.filter(|dir| !dir.is_dir()) {
        Some(dir) => Err(Error::Sysroot { dir: dir.to_owned() }),
        None => Ok(()),
    }
}

/// Checks that what devices need is there, and can be used as they do.
fn check_needs(needs: &[Need]) -> Result<(), Error> {
    needs.iter().try_for_each(|need| match need.form {
        NeedForm::Directory => check_directory(need.what, &need.path),
        NeedForm::File | NeedForm::Disk => readable(need.what, &need.path).map(drop),
    })
}

/// Checks that a directory that is shared is one.
fn check_directory(what: &'static str, path: &Path) -> Result<(), Error> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotADirectory { what, path: path.to_owned() }),
        Err(source) => Err(Error::Read { what, path: path.to_owned(), source }),
    }
}

/// The run's coverage, if it is wanted.
fn collecting(
    (dir, name): (Option<PathBuf>, Option<String>),
    init: &Init,
    arch: Arch,
    kernel: Option<&FoundKernel>,
    environment: &Environment,
) -> Result<Option<Collecting>, Error> {
    // A directory in the environment is for those guests that can be asked.
    let everywhere = environment.coverage.as_ref().filter(|_| matches!(init, Init::Agent(_)));
    let Some(dir) = dir.or_else(|| everywhere.cloned()) else {
        return if name.is_none() { Ok(None) } else { Err(Error::CoverageWithoutPlace) };
    };
    let Init::Agent(command) = init else { return Err(Error::CoverageWithoutAgent) };
    let program = command.as_ref().and_then(Command::program);
    Collecting::prepare((&dir, name.as_deref()), arch, kernel, program, environment).map(Some)
}

/// The firmware of the environment, else the pinned one.
fn pinned_firmware(
    arch: Arch,
    guest: &GuestAssets,
    environment: &Environment,
) -> Result<Firmware, Error> {
    let pinned = |firmware: &FirmwareAsset| Firmware {
        code: firmware.code.path.clone(),
        vars: firmware.vars.path.clone(),
    };
    let firmware = environment.firmware().or_else(|| guest.firmware.as_ref().map(pinned));
    firmware.ok_or(Error::NoFirmware { arch })
}

/// What is booted, with what the environment says.
fn boots(
    mut options: Options,
    kernel: Option<&FoundKernel>,
    initramfs: Option<&Path>,
    ours: bool,
    environment: &Environment,
) -> Options {
    if ours {
        options.kernel_args.insert(0, format!("rdinit={}", proto::GUEST_PROGRAM));
    }
    let Some(kernel) = kernel else {
        // A disk was asked for: a kernel in the environment does not change that.
        let environment = Environment { kernel: None, ..environment.clone() };
        return options.with_environment(&environment);
    };
    options.boot = Boot::Kernel {
        image: kernel.path.clone(),
        initramfs: match initramfs {
            _ if ours => Initramfs::Built,
            Some(path) => Initramfs::Path(path.to_owned()),
            None => Initramfs::None,
        },
    };
    options.kernel_file.clone_from(&kernel.unpacked);
    options.with_environment(environment)
}

/// What is known of an image that was given.
fn given_image(path: &Path) -> ImageIdentity {
    ImageIdentity {
        path: Some(path.to_owned()),
        bytes: path.metadata().ok().map(|metadata| metadata.len()),
        blake3: None,
    }
}

impl Prepared {
    /// Builds the image with everything in it, if one is needed and not yet built.
    ///
    /// # Errors
    /// [`Error`] for what cannot be put into it.
    pub fn build_image(&mut self) -> Result<(), Error> {
        self.build(true)
    }

    /// Builds the image, if one is needed and not yet built; `whole` with the user's files, which the
    /// guest gets later otherwise.
    fn build(&mut self, whole: bool) -> Result<(), Error> {
        match &mut self.image {
            None => Ok(()),
            Some(Planned::Ready(path)) => {
                let read = |source| Error::Read { what: "initramfs", path: path.clone(), source };
                self.resources.initramfs = Some(named_file::open(path).map_err(read)?);
                self.image = None;
                Ok(())
            }
            Some(Planned::Build { base, before, files }) => {
                let files = if whole { files.take() } else { None };
                let mut remarks =
                    Remarks { notices: &mut self.notices, collecting: self.coverage.as_mut() };
                let (file, identity) = image::build(base, before.take(), files, &mut remarks)?;
                if whole {
                    self.image = None;
                }
                self.check_size(&identity);
                self.resources.initramfs = Some(file);
                self.initramfs = Some(identity);
                Ok(())
            }
        }
    }

    /// The archive and what it unpacks to are in memory at the same time, and Linux gives the root file
    /// system half of it.
    fn check_size(&mut self, image: &ImageIdentity) {
        let memory = self.memory_bytes;
        if let Some(bytes) = image.bytes.filter(|bytes| 2 * bytes > memory) {
            self.notices.push(format!(
                "the image is {} MiB, and the guest has {} MiB to hold and to unpack it: give it more \
                 with --memory",
                bytes >> 20,
                memory >> 20
            ));
        }
    }

    /// Starts the machine; builds its image before, if that is still to be done.
    ///
    /// # Errors
    /// [`Error::Start`], and those of [`Prepared::build_image`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(mut self) -> Result<Vm, Error> {
        self.build_image()?;
        if let Some(collecting) = &mut self.coverage {
            collecting.started();
        }
        Ok(Vm::start(self.plan, self.resources)?)
    }
}

/// Scaled for emulation where not given.
fn default_limits(accel: Accel) -> (Duration, Duration) {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    match accel {
        Accel::Kvm => (Duration::from_secs(20), minutes(5)),
        Accel::Tcg => (minutes(2), minutes(15)),
    }
}

/// What there is for an architecture, and why there is nothing if no variable says where to look.
fn find_assets(
    arch: Arch,
    environment: &Environment,
) -> Result<(GuestAssets, Option<assets::Error>), Error> {
    match Assets::find(environment) {
        Ok(assets) => Ok((assets.guest(arch), None)),
        // Everything can also be given by options; what is missing then is said by name.
        Err(assets::Error::NoManifest { .. }) if environment.assets.is_none() => {
            Ok((GuestAssets::default(), None))
        }
        Err(error @ assets::Error::NoPlace) => Ok((GuestAssets::default(), Some(error))),
        Err(error) => Err(error.into()),
    }
}

fn base(arch: Arch, guest: &GuestAssets, kernel: &FoundKernel, plan: &Plan) -> Result<Base, Error> {
    let Some(program) = &guest.guest else { return Err(Error::NoGuestProgram { arch }) };
    Ok(Base {
        arch,
        guest: program.path.clone(),
        shell: guest.shell.as_ref().map(|shell| shell.path.clone()),
        modules_dir: kernel.modules.clone(),
        modules: plan.modules().to_vec(),
        optional_modules: plan.optional_modules().to_vec(),
    })
}
