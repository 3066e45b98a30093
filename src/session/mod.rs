//! From a [`Config`] to a machine that can be started: finds kernel, QEMU and guest program, chooses
//! the accelerator, computes the plan, builds the image.
//!
//! The command line and the library go through [`prepare`], so that both boot the same machine.

mod base;
mod command;
mod coverage;
mod error;
mod kernel;
mod run;

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use vmtest_guest::proto::{self, Exec};

use crate::accel::{Accel, AccelChoice};
use crate::arch::Arch;
use crate::assets::{self, Assets, FirmwareAsset, GuestAssets};
use crate::configure::{Config, Coverage, ImagePart};
use crate::initramfs::{Hash, ImageSpec};
use crate::options::{Boot, Environment, Initramfs, QemuCommand};
use crate::plan::Plan;
use crate::qemu::Firmware;
use crate::report::{ImageIdentity, KernelIdentity};
use crate::vm::accel::KvmProbe;
use crate::vm::{Job, Resources, StartError, Vm};

pub use base::{Base, BaseError};
pub use command::{Command, destination, on_host};
pub use coverage::{Collected, Collecting};
pub use error::Error;
use kernel::{FoundKernel, readable};
pub use run::{Finished, NotPassed, configure, run, start};

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
    /// The guest's memory.
    pub memory_bytes: u64,
    /// Remarks of the image's builder.
    pub notices: Vec<String>,
    /// What the machine gets besides its plan.
    pub resources: Resources,
    /// The run's coverage, if it is wanted.
    pub coverage: Option<Collecting>,
    image: Option<Image>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// An image that is still to be built.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Image {
    Ready(PathBuf),
    Build {
        base: Base,
        sysroot: Option<PathBuf>,
        parts: Vec<ImagePart>,
        command: Option<(PathBuf, std::ffi::OsString)>,
        before: Option<PathBuf>,
    },
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
    let (guest, nowhere) = find_assets(arch, environment)?;
    let missing = |error: Error| match nowhere {
        Some(nowhere) if error.is_missing_asset() => nowhere.into(),
        _ => error,
    };
    let prepared = prepare_with(config, environment, init, &guest);
    prepared.map_err(missing)
}

fn prepare_with(
    config: Config,
    environment: &Environment,
    init: Init,
    guest: &GuestAssets,
) -> Result<Prepared, Error> {
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
        coverage,
        mut resources,
    } = config;
    let arch = options.arch;
    if default_firmware && options.firmware.is_none() {
        let pinned = |firmware: &FirmwareAsset| Firmware {
            code: firmware.code.path.clone(),
            vars: firmware.vars.path.clone(),
        };
        let firmware = environment.firmware().or_else(|| guest.firmware.as_ref().map(pinned));
        options.firmware = Some(firmware.ok_or(Error::NoFirmware { arch })?);
    }
    let uefi = options.firmware.is_some();
    let kernel = kernel::find(arch, &choice, modules, environment, guest, uefi)?;
    let initramfs = initramfs.or_else(|| environment.initramfs.clone());
    if let Some(path) = &initramfs {
        readable("initramfs", path)?;
    }
    if let Some(root) = options.devices.iter().find_map(|device| device.read_only_root())
        && matches!(init, Init::Agent(_))
        && !root.join("dev").is_dir()
    {
        return Err(Error::RootWithoutDev { dir: root.to_owned() });
    }
    if let Some(dir) = sysroot.as_deref().filter(|dir| !dir.is_dir()) {
        return Err(Error::Sysroot { dir: dir.to_owned() });
    }

    let accel = KvmProbe::new(environment.cache_dir.clone()).choose(accel, arch)?;
    options.accel = accel.accel;
    if let (None, None, Some(pinned)) = (&options.qemu, &environment.qemu, &guest.qemu) {
        options.qemu = Some(QemuCommand::new(&pinned.path));
    }
    let agent = matches!(init, Init::Agent(_));
    // An image of ours brings the drivers for a root share, and switches to it.
    let switches_root =
        !agent && initramfs.is_none() && options.devices.iter().any(|device| device.is_root());
    let ours = agent || switches_root;
    if let Some(kernel) = &kernel {
        options.boot = Boot::Kernel {
            image: kernel.path.clone(),
            initramfs: match &initramfs {
                _ if ours => Initramfs::Built,
                Some(path) => Initramfs::Path(path.clone()),
                None => Initramfs::None,
            },
        };
        options.kernel_file.clone_from(&kernel.unpacked);
        options = options.with_environment(environment);
    } else {
        // A disk was asked for: a kernel in the environment does not change that.
        let environment = Environment { kernel: None, ..environment.clone() };
        options = options.with_environment(&environment);
    }
    if agent {
        options.devices.insert(0, std::sync::Arc::new(crate::qemu::AgentPorts));
    }
    if ours {
        options.kernel_args.insert(0, format!("rdinit={}", proto::GUEST_PROGRAM));
    }
    let mut collecting = None;
    // A directory in the environment is for those guests that can be asked.
    let everywhere = environment.coverage.as_ref().filter(|_| agent);
    let coverage =
        coverage.or_else(|| everywhere.map(|dir| Coverage { dir: dir.clone(), name: None }));
    if let Some(wanted) = &coverage {
        let Init::Agent(command) = &init else { return Err(Error::CoverageWithoutAgent) };
        let program = command.as_ref().and_then(Command::program);
        let prepared = Collecting::prepare(wanted, arch, kernel.as_ref(), program, environment)?;
        options.device(prepared.device(&mut resources)?);
        collecting = Some(prepared);
    }
    let plan = options.plan()?;
    for need in plan.needs().iter().filter(|need| !need.directory) {
        readable(need.what, &need.path)?;
    }

    let mut exec = None;
    let mut command_file = None;
    if let Init::Agent(Some(command)) = &init {
        let (resolved, file) = command.resolve(sysroot.as_deref());
        exec = Some(resolved);
        command_file = file;
    }
    if let (Some(exec), Some(_)) = (&mut exec, &collecting) {
        coverage::tell(exec);
    }
    let given = |path: &PathBuf| ImageIdentity {
        path: Some(path.clone()),
        bytes: path.metadata().ok().map(|metadata| metadata.len()),
        blake3: None,
    };
    let mut identity = initramfs.as_ref().map(given);
    let image = match (&environment.initramfs_override, &kernel) {
        (_, None) => None,
        _ if !ours => None,
        (Some(path), _) => {
            readable("initramfs", path)?;
            identity = Some(given(path));
            Some(Image::Ready(path.clone()))
        }
        (None, Some(kernel)) => Some(Image::Build {
            base: base(arch, guest, kernel, &plan)?,
            sysroot,
            parts,
            command: command_file,
            before: initramfs,
        }),
    };
    let (default_boot, default_run) = default_limits(accel.accel);
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
        memory_bytes: options.memory_mib << 20,
        notices: Vec::new(),
        resources,
        coverage: collecting,
        image,
    })
}

impl Prepared {
    /// Builds the image, if one is needed and not yet built.
    ///
    /// # Errors
    /// [`Error`] for what cannot be put into it.
    pub fn build_image(&mut self) -> Result<(), Error> {
        match self.image.take() {
            None => Ok(()),
            Some(Image::Ready(path)) => {
                let read = |source| Error::Read { what: "initramfs", path: path.clone(), source };
                self.resources.initramfs = Some(File::open(&path).map_err(read)?);
                Ok(())
            }
            Some(image) => {
                let (file, identity) = build(image, &mut self.notices, self.coverage.as_mut())?;
                // The archive and what it unpacks to are in memory at the same time, and Linux gives
                // the root file system half of it.
                let memory = self.memory_bytes;
                if let Some(bytes) = identity.bytes.filter(|bytes| 2 * bytes > memory) {
                    self.notices.push(format!(
                        "the image is {} MiB, and the guest has {} MiB to hold and to unpack it: give \
                         it more with --memory",
                        bytes >> 20,
                        memory >> 20
                    ));
                }
                self.resources.initramfs = Some(file);
                self.initramfs = Some(identity);
                Ok(())
            }
        }
    }

    /// What the agent is to do, and for how long.
    pub fn job(&self) -> Job {
        Job {
            exec: self.exec.clone(),
            boot_limit: self.boot_limit,
            run_limit: Some(self.run_limit),
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
        Vm::start(self.plan, self.resources).map_err(|error: StartError| error.into())
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

/// Puts the image together: the base, the user's parts, the command.
fn build(
    image: Image,
    notices: &mut Vec<String>,
    collecting: Option<&mut Collecting>,
) -> Result<(File, ImageIdentity), Error> {
    let Image::Build { base, sysroot, parts, command, before } = image else {
        unreachable!("only images that are to be built come here")
    };
    let mut builder = ImageSpec::new(base.arch);
    base.add_to(&mut builder)?;
    if let Some(sysroot) = &sysroot {
        builder.sysroot(sysroot);
    }
    if base.shell.is_some() {
        // The guest program links these to its shell where nothing else is there.
        builder.provided(["/bin/sh", "/usr/bin/env"]);
    }
    for part in parts {
        part(&mut builder);
    }
    if let Some((path, dest)) = &command {
        builder.by("the command");
        builder.binary_os(path, Some(dest));
    }
    let image = builder.finish()?;
    notices.extend_from_slice(image.notices());
    if let Some(collecting) = collecting {
        collecting.note_objects(&image);
    }

    let mut file = tempfile::tempfile().map_err(Error::Temporary)?;
    let hash = match &before {
        None => image.write_to_file(&file)?.blake3,
        Some(path) => {
            let read = |source| Error::Read { what: "initramfs", path: path.clone(), source };
            let mut first = File::open(path).map_err(read)?;
            io::copy(&mut first, &mut file).map_err(Error::Temporary)?;
            pad(&mut file).map_err(Error::Temporary)?;
            image.write_to(&mut file)?;
            file.rewind().map_err(Error::Temporary)?;
            Hash::of(&file).map_err(Error::Temporary)?
        }
    };
    file.rewind().map_err(Error::Temporary)?;
    let bytes = file.metadata().map_err(Error::Temporary)?.len();
    Ok((file, ImageIdentity { path: None, bytes: Some(bytes), blake3: Some(hash.to_string()) }))
}

/// Zeros up to a boundary of 4 bytes, and 4 more: the kernel wants a segment to be aligned, and its
/// lz4 needs zeros behind its data (tried with Linux 6.12).
fn pad(file: &mut File) -> io::Result<()> {
    let len = file.stream_position()?;
    file.write_all(&[0; 8][..4 + (4 - len as usize % 4) % 4])
}
