//! What the user wants, typed.
//!
//! [`Options`] is a value: making one touches nothing, and two equal ones give the same argv. What
//! the environment says (`VMTEST_QEMU`, …) is read once, at the edge, into an [`Environment`] that
//! is applied with [`Options::with_environment`].

mod environment;

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::accel::Accel;
use crate::arch::Arch;
use crate::argv::{FIRST_FD, QemuOpt};
use crate::fields::UnknownWord;
use crate::plan::{Device, FileSource, Need, Plan, PlanError, Planner};
use crate::qemu::{Firmware, KernelLog, Machine, own};
use crate::quote;

pub use environment::{Environment, EnvironmentError};

/// Bytes of memory a guest gets when nothing is said: 512 MiB.
pub const DEFAULT_MEMORY_MIB: u64 = 512;

/// Whether saved guests are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarmMode {
    /// Where it is safe: a guest that cannot be saved boots each time.
    #[default]
    Auto,
    /// Always: where it is not safe, nothing is started.
    On,
    /// Never: nothing is saved, and each guest boots.
    Off,
}

impl WarmMode {
    /// Understands `auto`, `on` and `off`.
    ///
    /// # Errors
    /// [`UnknownWord`].
    pub fn parse(text: &str) -> Result<WarmMode, UnknownWord> {
        match text {
            "auto" => Ok(WarmMode::Auto),
            "on" => Ok(WarmMode::On),
            "off" => Ok(WarmMode::Off),
            _ => Err(UnknownWord { given: text.to_owned(), known: "auto, on, off" }),
        }
    }
}

/// Everything a machine is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Guest architecture.
    pub arch: Arch,
    /// QEMU's program and first arguments. Default: `VMTEST_QEMU`, else the architecture's program
    /// ([`Arch::qemu_program`]) from `PATH`; [`crate::session`] takes the pinned one before that.
    pub qemu: Option<QemuCommand>,
    /// What is booted. Default: a disk, that is nothing of ours.
    pub boot: Boot,
    /// How guest code is executed. Default: [`Accel::Tcg`], which works everywhere.
    pub accel: Accel,
    /// Memory in MiB. Default: [`DEFAULT_MEMORY_MIB`]. Range: 1 to 4,194,304 (4 TiB).
    pub memory_mib: u64,
    /// Processors. Default: 1. Range: 1 to 255 on amd64 and i386, to 512 on riscv64, to 8 on arm and,
    /// emulated, on arm64; with KVM an arm64 guest can have as many as the host's interrupt controller
    /// has place for, 512 at most.
    pub cpus: u32,
    /// End the run when the guest's kernel panics or reboots (`panic=-1`, `-no-reboot`). Default: yes.
    pub halt_on_kernel_panic: bool,
    /// How much the kernel says on its console. Default: [`KernelLog::Full`].
    pub kernel_log: KernelLog,
    /// UEFI firmware. Default: none; a kernel is started directly or by the machine's own firmware
    /// (SeaBIOS, OpenSBI).
    pub firmware: Option<Firmware>,
    /// Devices, in the order in which they are added.
    pub devices: Vec<Arc<dyn Device>>,
    /// Parameters for the kernel's cmdline, after those of the machine and its devices.
    pub kernel_args: Vec<String>,
    /// Arguments for QEMU, after all others.
    pub qemu_args: Vec<OsString>,
    /// Limit for QEMU's whole life. Default: none here; the command line sets one.
    pub timeout: Option<Duration>,
    /// What QEMU gets as kernel in place of [`Boot::Kernel`]'s image: the same, unpacked.
    pub(crate) kernel_file: Option<Arc<OwnedFd>>,
    pub(crate) extra_files: Vec<Arc<OwnedFd>>,
    pub(crate) env_kernel_args: Vec<String>,
    pub(crate) env_qemu_args: Vec<OsString>,
}

/// QEMU's program with its first arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuCommand {
    /// A name to look up in `PATH`, or a path.
    pub program: OsString,
    /// Arguments that come first.
    pub args: Vec<OsString>,
}

/// What is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Boot {
    /// A kernel that QEMU loads itself.
    Kernel {
        /// The kernel image.
        image: PathBuf,
        /// Its initramfs.
        initramfs: Initramfs,
    },
    /// Whatever the firmware finds on the machine's drives.
    Disk,
}

/// Where the initramfs comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Initramfs {
    /// There is none: the root file system is a drive or a share.
    None,
    /// This file, as it is.
    Path(PathBuf),
    /// One built for this run and handed over when the machine is started.
    Built,
}

impl Options {
    /// A machine of this architecture with the defaults named at each field.
    pub fn new(arch: Arch) -> Options {
        Options {
            arch,
            qemu: None,
            boot: Boot::Disk,
            accel: Accel::Tcg,
            memory_mib: DEFAULT_MEMORY_MIB,
            cpus: 1,
            halt_on_kernel_panic: true,
            kernel_log: KernelLog::Full,
            firmware: None,
            devices: Vec::new(),
            kernel_args: Vec::new(),
            qemu_args: Vec::new(),
            timeout: None,
            kernel_file: None,
            extra_files: Vec::new(),
            env_kernel_args: Vec::new(),
            env_qemu_args: Vec::new(),
        }
    }

    /// Adds a device.
    pub fn device(&mut self, device: impl Device + 'static) -> &mut Options {
        self.devices.push(Arc::new(device));
        self
    }

    /// Adds an open file that QEMU inherits, and returns its descriptor in QEMU.
    pub fn add_file(&mut self, file: impl Into<OwnedFd>) -> i32 {
        self.extra_files.push(Arc::new(file.into()));
        FIRST_FD + self.extra_files.len() as i32 - 1
    }

    /// Applies what the environment says: fills what was not set, adds what is additive.
    ///
    /// `VMTEST_KERNEL_APPEND` goes before all other kernel parameters, `VMTEST_QEMU_APPEND` after all
    /// other arguments, as in `hugelgupf/vmtest`.
    #[must_use]
    pub fn with_environment(mut self, environment: &Environment) -> Options {
        if self.qemu.is_none() {
            self.qemu.clone_from(&environment.qemu);
        }
        if let (Boot::Disk, Some(image)) = (&self.boot, &environment.kernel) {
            self.boot = Boot::Kernel { image: image.clone(), initramfs: Initramfs::None };
        }
        if let (Boot::Kernel { initramfs: initramfs @ Initramfs::None, .. }, Some(path)) =
            (&mut self.boot, &environment.initramfs)
        {
            *initramfs = Initramfs::Path(path.clone());
        }
        if self.timeout.is_none() {
            self.timeout = environment.timeout;
        }
        self.env_kernel_args.extend(environment.kernel_append.iter().cloned());
        self.env_qemu_args.extend(environment.qemu_append.iter().cloned());
        self
    }

    /// The files and directories of the host that the devices need. A device that cannot be says so when the
    /// machine is planned.
    pub(crate) fn needs(&self) -> Vec<Need> {
        let mut planner = Planner::new(self.arch, &self.extra_files);
        for device in &self.devices {
            let _ = device.plan(&mut planner);
        }
        planner.into_needs()
    }

    /// What will be done for these options: a pure function of them.
    ///
    /// # Errors
    /// [`PlanError`] for options that contradict each other or the architecture.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let mut planner = Planner::new(self.arch, &self.extra_files);
        let qemu = self.qemu.clone();
        let qemu = qemu.unwrap_or_else(|| QemuCommand::new(self.arch.qemu_program()));
        let machine = self.machine(&qemu.args)?;
        qemu.args.into_iter().for_each(|argument| planner.argument(argument));
        for parameters in &self.env_kernel_args {
            planner.kernel(parameters)?;
        }
        machine.plan(&mut planner)?;
        if let Boot::Kernel { image, initramfs } = &self.boot {
            match &self.kernel_file {
                None => planner.qemu("-kernel", QemuOpt::verbatim(image)),
                Some(file) => {
                    let file = planner.file("kernel.unpacked", FileSource::Given(file.clone()));
                    planner.qemu("-kernel", QemuOpt::file(file));
                }
            }
            initramfs.plan(&mut planner);
        }
        if let Some(firmware) = &self.firmware {
            firmware.plan(&mut planner)?;
        }
        for device in &self.devices {
            device.plan(&mut planner)?;
        }
        let cmdline = match (&self.boot, self.kernel_args.first()) {
            (Boot::Kernel { .. }, _) => {
                for parameters in &self.kernel_args {
                    planner.kernel(parameters)?;
                }
                Some(planner.append_cmdline()?)
            }
            (Boot::Disk, Some(argument)) => {
                return Err(PlanError::KernelRequiredForArgs { argument: argument.clone() });
            }
            (Boot::Disk, None) => None,
        };
        for argument in self.qemu_args.iter().chain(&self.env_qemu_args) {
            planner.argument(argument.clone());
        }
        let cold = self.why_cold();
        Ok(planner.finish(qemu.program, cmdline, self.memory_mib, cold))
    }

    /// Why a guest of this machine has to boot each time, if it has to.
    fn why_cold(&self) -> Option<&'static str> {
        if self.accel == Accel::Kvm {
            return Some("guests are saved and resumed under emulation only: KVM is untested");
        }
        if self.firmware.is_some() || self.boot == Boot::Disk {
            return Some("it is started by firmware");
        }
        if !self.extra_files.is_empty()
            || !self.qemu_args.is_empty()
            || !self.env_qemu_args.is_empty()
        {
            return Some("QEMU gets arguments or files of which vmtest knows nothing");
        }
        self.devices.iter().find_map(|device| device.resumable().err())
    }

    /// What `first` says, QEMU's first arguments, goes before our defaults; but not before what was
    /// set.
    fn machine(&self, first: &[OsString]) -> Result<Machine, PlanError> {
        let all = first.iter().chain(&self.qemu_args).chain(&self.env_qemu_args);
        let accel_said = own::accelerator(all, self.accel)?;
        Ok(Machine {
            own: own::Arguments {
                memory: own::says(first, "m") && self.memory_mib == DEFAULT_MEMORY_MIB,
                cpus: own::says(first, "smp") && self.cpus == 1,
                cpu: own::says(first, "cpu"),
                accel: accel_said,
            },
            accel: self.accel,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            halt_on_kernel_panic: self.halt_on_kernel_panic,
            kernel_log: self.kernel_log,
            direct_kernel: matches!(self.boot, Boot::Kernel { .. }),
            firmware: self.firmware.is_some(),
        })
    }
}

impl Initramfs {
    fn plan(&self, planner: &mut Planner) {
        match self {
            Initramfs::None => {}
            Initramfs::Path(path) => planner.qemu("-initrd", QemuOpt::verbatim(path)),
            Initramfs::Built => {
                let file = planner.file("initramfs.cpio", FileSource::Initramfs);
                planner.qemu("-initrd", QemuOpt::file(file));
            }
        }
    }
}

impl QemuCommand {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> QemuCommand {
        QemuCommand { program: program.as_ref().to_owned(), args: Vec::new() }
    }

    /// Parses program and first arguments, quoted as for a shell: `'/opt/my qemu/qemu' -m 1G`.
    ///
    /// # Errors
    /// [`ParseQemuCommandError`] when it is empty or has a quote that is not closed.
    pub fn parse(text: &OsStr) -> Result<QemuCommand, ParseQemuCommandError> {
        let words = quote::split(text).map_err(ParseQemuCommandError::Quotes)?;
        let mut words = words.into_iter();
        match words.next().filter(|program| !program.is_empty()) {
            Some(program) => Ok(QemuCommand { program, args: words.collect() }),
            None => Err(ParseQemuCommandError::Empty),
        }
    }
}

/// A command of QEMU that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseQemuCommandError {
    /// It has quotes that are not closed.
    #[error(transparent)]
    Quotes(quote::UnbalancedQuotes),
    /// It names no program.
    #[error("no program is named")]
    Empty,
}

impl ParseQemuCommandError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            ParseQemuCommandError::Quotes(error) => error.hint(),
            ParseQemuCommandError::Empty => "name QEMU's program".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
