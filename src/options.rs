//! What the user wants, typed.
//!
//! [`Options`] is a value: making one touches nothing, and two equal ones give the same argv. What
//! the environment says (`VMTEST_QEMU`, …) is read once, at the edge, into an [`Environment`] that
//! is applied with [`Options::with_environment`].

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::accel::Accel;
use crate::arch::{Arch, UnsupportedArch};
use crate::argv::{FIRST_FD, QemuOpt};
use crate::duration;
use crate::fields::UnknownWord;
use crate::plan::{Device, FileSource, Need, Plan, PlanError, Planner};
use crate::qemu::{Firmware, KernelLog, Machine, own};
use crate::quote;

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

/// What the environment says, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `VMTEST_ARCH`: the guest's architecture when none is given.
    pub arch: Option<Arch>,
    /// `VMTEST_QEMU`: program and first arguments, shell-quoted; used when the option is unset.
    pub qemu: Option<QemuCommand>,
    /// `VMTEST_QEMU_APPEND`: always added to QEMU's argv, shell-quoted.
    pub qemu_append: Vec<OsString>,
    /// `VMTEST_KERNEL`: used when the option is unset. A file, or `@NAME` for one of the asset manifest
    /// ([`crate::configure::Kernel::from_word`]).
    pub kernel: Option<PathBuf>,
    /// `VMTEST_INITRAMFS`: used when the option is unset.
    pub initramfs: Option<PathBuf>,
    /// `VMTEST_INITRAMFS_OVERRIDE`: used instead of building an initramfs.
    pub initramfs_override: Option<PathBuf>,
    /// `VMTEST_KERNEL_APPEND`: always put before the kernel's parameters.
    pub kernel_append: Option<String>,
    /// `VMTEST_TIMEOUT`: used when the option is unset.
    pub timeout: Option<Duration>,
    /// `VMTEST_OVMF_CODE`: firmware program.
    pub ovmf_code: Option<PathBuf>,
    /// `VMTEST_OVMF_VARS`: firmware variable store.
    pub ovmf_vars: Option<PathBuf>,
    /// `VMTEST_ASSETS`: the asset manifest.
    pub assets: Option<PathBuf>,
    /// `VMTEST_WARM`: whether saved guests are used, when nothing is said.
    pub warm: Option<WarmMode>,
    /// `VMTEST_COVERAGE`: where the coverage of runs goes when no place is given.
    pub coverage: Option<PathBuf>,
    /// `VMTEST_KERNEL_COVERAGE_DIR`: with coverage collected, the kernel's counters are also at
    /// `RUN/0/kernel_coverage.tar` below it.
    pub kernel_coverage_dir: Option<PathBuf>,
    /// `VMTEST_GOCOVERDIR`: with coverage collected, Go's counters are also in this directory.
    pub gocoverdir: Option<PathBuf>,
    /// `VMTEST_GO_PROFILE`: the file that gets the coverage profile of Go test programs
    /// ([`crate::testing::go::run`]), which have to be built with `-cover` then.
    pub go_profile: Option<PathBuf>,
    /// The cache directory: `VMTEST_CACHE`, else `$XDG_CACHE_HOME/vmtest`, else `$HOME/.cache/vmtest`.
    /// The last two count only when they are absolute; `None` if there is none then. In it is the manifest
    /// that says what is executed, so that it must not depend on the current directory.
    pub cache_dir: Option<PathBuf>,
}

impl Environment {
    /// The firmware that `VMTEST_OVMF_CODE` and `VMTEST_OVMF_VARS` name; `None` unless both are set.
    pub fn firmware(&self) -> Option<Firmware> {
        let (code, vars) = (self.ovmf_code.clone()?, self.ovmf_vars.clone()?);
        Some(Firmware { code, vars })
    }

    /// Reads variables from any source; [`Environment::read`] takes the process's. An empty value
    /// counts as unset.
    ///
    /// # Errors
    /// [`EnvironmentError`] names the variable whose value cannot be used.
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Environment, EnvironmentError> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        // "All paths set in these environment variables must be absolute" (XDG Base Directory 0.8).
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        let words = |name: &'static str| match get(name) {
            None => Ok(Vec::new()),
            Some(value) => {
                quote::split(&value).map_err(|source| EnvironmentError::Quoting { name, source })
            }
        };

        let arch = match get("VMTEST_ARCH") {
            None => None,
            Some(value) => Some(value.to_string_lossy().parse().map_err(EnvironmentError::Arch)?),
        };
        let mut qemu = words("VMTEST_QEMU")?.into_iter();
        let timeout = match get("VMTEST_TIMEOUT") {
            None => None,
            Some(value) => Some(
                duration::parse_limit(&value.to_string_lossy())
                    .map_err(EnvironmentError::Timeout)?,
            ),
        };
        let warm = match get("VMTEST_WARM") {
            None => None,
            Some(value) => {
                Some(WarmMode::parse(&value.to_string_lossy()).map_err(EnvironmentError::Warm)?)
            }
        };
        Ok(Environment {
            arch,
            qemu: qemu.next().map(|program| QemuCommand { program, args: qemu.collect() }),
            qemu_append: words("VMTEST_QEMU_APPEND")?,
            kernel: path("VMTEST_KERNEL"),
            initramfs: path("VMTEST_INITRAMFS"),
            initramfs_override: path("VMTEST_INITRAMFS_OVERRIDE"),
            kernel_append: get("VMTEST_KERNEL_APPEND")
                .map(|value| value.to_string_lossy().into_owned()),
            timeout,
            ovmf_code: path("VMTEST_OVMF_CODE"),
            ovmf_vars: path("VMTEST_OVMF_VARS"),
            assets: path("VMTEST_ASSETS"),
            warm,
            coverage: path("VMTEST_COVERAGE"),
            kernel_coverage_dir: path("VMTEST_KERNEL_COVERAGE_DIR"),
            gocoverdir: path("VMTEST_GOCOVERDIR"),
            go_profile: path("VMTEST_GO_PROFILE"),
            cache_dir: path("VMTEST_CACHE")
                .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("vmtest")))
                .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/vmtest"))),
        })
    }
}

/// A variable of the environment that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// `VMTEST_ARCH` names no architecture. Never a silent fallback to the host's.
    #[error("VMTEST_ARCH: {0}")]
    Arch(UnsupportedArch),
    /// `VMTEST_TIMEOUT` is no duration.
    #[error("VMTEST_TIMEOUT: {0}")]
    Timeout(duration::Error),
    /// `VMTEST_WARM` is no mode.
    #[error("VMTEST_WARM: {0}")]
    Warm(UnknownWord),
    /// Quotes are not closed.
    #[error("{name}: {source}")]
    Quoting {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        source: quote::UnbalancedQuotes,
    },
}

impl EnvironmentError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            EnvironmentError::Arch(error) => error.hint(),
            EnvironmentError::Timeout(error) => error.hint(),
            EnvironmentError::Warm(_) => "auto uses saved guests where that is safe".into(),
            EnvironmentError::Quoting { source, .. } => source.hint(),
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
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_relative_home_or_xdg_directory_decides_nothing() {
        let cache = |pairs: &[(&str, &str)]| environment(pairs).unwrap().cache_dir;
        for (pairs, expected) in [
            (&[("HOME", "/h")][..], Some("/h/.cache/vmtest")),
            (&[("HOME", ".")], None),
            (&[("HOME", "")], None),
            (&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")], Some("/h/.cache/vmtest")),
            (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/vmtest")),
            (&[("VMTEST_CACHE", "c"), ("HOME", "/h")], Some("c")),
            (&[], None),
        ] {
            assert_eq!(cache(pairs), expected.map(PathBuf::from), "{pairs:?}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_no_limit_that_anybody_wants() {
        assert!(environment(&[("VMTEST_TIMEOUT", "0")]).is_err());
        assert!(environment(&[("VMTEST_TIMEOUT", "0s")]).is_err());
    }

    /// The values of an option in QEMU's argv.
    fn values(options: &Options, name: &str) -> Vec<String> {
        let args = options.plan().unwrap().args(crate::plan::Spelling::Executed);
        let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
        let mut found = Vec::new();
        while let Some(arg) = args.next() {
            if arg == name {
                found.extend(args.next());
            }
        }
        found
    }

    #[test]
    fn what_vmtest_qemu_says_of_the_machine_goes_before_our_defaults() {
        let env = environment(&[("VMTEST_QEMU", "qemu -m 1G -smp 2 -cpu qemu64")]).unwrap();
        let mut options = Options::new(Arch::Amd64).with_environment(&env);
        for (name, value) in [("-m", "1G"), ("-smp", "2"), ("-cpu", "qemu64")] {
            assert_eq!(values(&options, name), [value]);
        }
        // What was set goes before both: the last one counts.
        options.memory_mib = 2048;
        options.cpus = 4;
        assert_eq!(values(&options, "-m"), ["1G", "2048M"]);
        assert_eq!(values(&options, "-smp"), ["2", "4"]);
    }

    #[test]
    fn an_accelerator_among_qemus_arguments_is_the_chosen_one_or_refused_with_a_way_out() {
        let with = |text: &str| {
            let mut options = Options::new(Arch::Amd64);
            options.qemu_args = quote::split(OsStr::new(text)).unwrap();
            options
        };
        for text in ["-enable-kvm", "-accel kvm", "-machine q35,accel=kvm:tcg", "-M accel=kvm"] {
            let error = with(text).plan().unwrap_err();
            assert!(matches!(error, PlanError::OtherAccelerator { .. }), "{text}: {error}");
            assert!(error.hint().unwrap().contains("`--accel kvm`"), "{text}");
            let mut kvm = with(text);
            kvm.accel = Accel::Kvm;
            assert!(kvm.plan().is_ok(), "{text}");
        }
        assert_eq!(values(&with("-accel tcg,thread=single"), "-accel"), ["tcg,thread=single"]);
    }

    #[test]
    fn the_environment_fills_what_is_unset_and_adds_what_is_additive() {
        let env = environment(&[
            ("VMTEST_QEMU", "'/opt/my qemu/qemu' -L ."),
            ("VMTEST_KERNEL", "/k"),
            ("VMTEST_INITRAMFS", "/i"),
            ("VMTEST_KERNEL_APPEND", "quiet dyndbg=\"file a.c +p\""),
            ("VMTEST_QEMU_APPEND", "-m 1G"),
            ("VMTEST_TIMEOUT", "1m20s"),
        ])
        .unwrap();
        let unset = Options::new(Arch::Amd64).with_environment(&env);
        let qemu = unset.qemu.unwrap();
        assert_eq!(qemu.program, "/opt/my qemu/qemu");
        assert_eq!(qemu.args, ["-L", "."]);
        assert_eq!(
            unset.boot,
            Boot::Kernel { image: "/k".into(), initramfs: Initramfs::Path("/i".into()) }
        );
        assert_eq!(unset.timeout, Some(Duration::from_secs(80)));
        assert_eq!(unset.env_kernel_args, ["quiet dyndbg=\"file a.c +p\""]);
        assert_eq!(unset.env_qemu_args, ["-m", "1G"]);

        let mut set = Options::new(Arch::Amd64);
        set.qemu = Some(QemuCommand::new("q"));
        set.boot = Boot::Kernel { image: "/mine".into(), initramfs: Initramfs::Built };
        set.timeout = Some(Duration::from_secs(1));
        let set = set.with_environment(&env);
        assert_eq!(set.qemu.unwrap().program, "q");
        assert_eq!(set.boot, Boot::Kernel { image: "/mine".into(), initramfs: Initramfs::Built });
        assert_eq!(set.timeout, Some(Duration::from_secs(1)));
        assert_eq!(set.env_qemu_args, ["-m", "1G"]);
    }

    #[test]
    fn values_that_cannot_be_used_are_errors_that_name_the_variable() {
        for (name, value) in
            [("VMTEST_ARCH", "amd46"), ("VMTEST_TIMEOUT", "900"), ("VMTEST_QEMU", "qemu 'x")]
        {
            let error = environment(&[(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let names = ["VMTEST_ARCH", "VMTEST_QEMU", "VMTEST_KERNEL", "VMTEST_TIMEOUT"];
        let env = environment(&names.map(|name| (name, ""))).unwrap();
        assert_eq!(env, Environment::default());
    }

    #[test]
    fn extra_files_get_the_descriptors_that_the_child_will_see() {
        let mut options = Options::new(Arch::Arm);
        let null = || std::fs::File::open("/dev/null").unwrap();
        assert_eq!(options.add_file(null()), 3);
        assert_eq!(options.add_file(null()), 4);
    }
}
