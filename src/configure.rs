//! What the user wants of a machine and of the host beside it: [`Config`], and configurators that
//! fill it.
//!
//! A configurator is anything that implements [`Configure`]: the functions of this module, closures,
//! tuples and lists of configurators, and types of other crates. They are applied in order.
//!
//! ```
//! use vmtest::arch::Arch;
//! use vmtest::configure::*;
//!
//! /// A configurator of one's own is a function that returns one.
//! fn with_two_cpus() -> impl Configure {
//!     |config: &mut Config| {
//!         config.options.cpus = 2;
//!         Ok(())
//!     }
//! }
//!
//! let mut config = Config::new(Arch::Arm64);
//! config.apply((
//!     with_two_cpus(),
//!     virtio_random(),
//!     if_arch(Arch::Riscv64, with_append_kernel(["earlycon"])),
//! ))?;
//! assert_eq!(config.options.cpus, 2);
//! assert!(config.options.kernel_args.is_empty());
//! # Ok::<(), ConfigError>(())
//! ```

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::accel::AccelOption;
use crate::arch::Arch;
use crate::initramfs::ImageSpec;
use crate::options::{Options, QemuCommand, WarmMode};
use crate::qemu::{
    Device, Drive, DriveInterface, Entropy, EventPort, Firmware, Ownership, P9Root, P9Share,
    ReadOnlyDir, TagError,
};
use crate::quote;
use crate::vm::lines::{self, LinePrinter};
use crate::vm::{BoxError, CancelToken, Resources, Sink, Task};

/// Adds something to an image.
pub type ImagePart = Box<dyn FnOnce(&mut ImageSpec) + Send>;

/// A machine's [`Options`], what is looked up for it, and what the host does beside it.
pub struct Config {
    /// The machine. [`Options::boot`] and [`Options::accel`] are set when it is prepared, from the
    /// fields below.
    pub options: Options,
    /// The accelerator. Default: [`AccelOption::Auto`].
    pub accel: AccelOption,
    /// The kernel. Default: [`Kernel::Default`].
    pub kernel: Kernel,
    /// The kernel's modules, `…/lib/modules/RELEASE`. Default: those of the pinned kernel, or those
    /// installed on the host for the release that the kernel says.
    pub modules: Option<PathBuf>,
    /// The initramfs. Default: `VMTEST_INITRAMFS`, else none is given and one is built where the
    /// agent runs.
    pub initramfs: Option<PathBuf>,
    /// Where programs and libraries of the guest's architecture are. Default: `/`.
    pub sysroot: Option<PathBuf>,
    /// What goes into a built image, in this order. Default: nothing but the guest program, a shell,
    /// the kernel modules that are needed, and the command.
    pub image: Vec<ImagePart>,
    /// Start the kernel by UEFI firmware: `VMTEST_OVMF_CODE` and `VMTEST_OVMF_VARS`, else the pinned
    /// one of the asset manifest (amd64, arm64). [`Options::firmware`] goes before. Default: no.
    pub default_firmware: bool,
    /// Collect what ran in the guest. Default: `VMTEST_COVERAGE` names a directory for it, else no.
    pub coverage: Option<Coverage>,
    /// Whether a saved guest is resumed, and this one saved. Default: `VMTEST_WARM`, else
    /// [`WarmMode::Auto`].
    pub warm: Option<WarmMode>,
    /// Event channels whose events go to files, one JSON object a line: name and file.
    pub event_files: Vec<(String, PathBuf)>,
    /// A directory that keeps console, streams and `run.json` of the run. Default: none.
    pub artifacts: Option<PathBuf>,
    /// From QEMU's start until the agent is ready. Default: 20 s with KVM, 2 min emulated.
    pub boot_timeout: Option<Duration>,
    /// What the machine gets besides its plan.
    pub resources: Resources,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Where a run's coverage goes (`docs/coverage.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The directory; each run has one of its own in it.
    pub dir: PathBuf,
    /// The run's name, that of its directory and of the test in reports. It must be new. Default: the
    /// command's name and the architecture, with a number where that is taken.
    pub name: Option<String>,
}

/// Which kernel is booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// `VMTEST_KERNEL`, else the pinned one of the asset manifest.
    #[default]
    Default,
    /// This file.
    File(PathBuf),
    /// A kernel of the asset manifest by name, with its modules: `gcov`, `distribution` or `default`
    /// ([`crate::assets::KernelName`]).
    Named(String),
    /// None: the firmware boots what it finds on the machine's drives.
    None,
}

impl Kernel {
    /// What people write: `@NAME`, else a file's name.
    pub fn from_word(word: impl Into<PathBuf>) -> Kernel {
        let path = word.into();
        match path.to_str().and_then(|text| text.strip_prefix('@')) {
            Some(name) => Kernel::Named(name.to_owned()),
            None => Kernel::File(path),
        }
    }
}

impl Config {
    /// A machine of this architecture with the defaults named at each field.
    pub fn new(arch: Arch) -> Config {
        Config {
            options: Options::new(arch),
            accel: AccelOption::default(),
            kernel: Kernel::default(),
            modules: None,
            initramfs: None,
            sysroot: None,
            image: Vec::new(),
            default_firmware: false,
            boot_timeout: None,
            coverage: None,
            warm: None,
            event_files: Vec::new(),
            artifacts: None,
            resources: Resources::default(),
        }
    }

    /// Applies a configurator.
    ///
    /// # Errors
    /// The configurator's; what it did before stays done.
    pub fn apply(&mut self, configure: impl Configure) -> Result<&mut Config, ConfigError> {
        configure.configure(self)?;
        Ok(self)
    }
}

/// A configurator cannot do what it is for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A directory is to be shared, and its name is empty.
    #[error("no directory to share is given")]
    NoDirectory,
    /// What is to be shared is no directory, or not there.
    #[error("cannot share `{}`: it is no directory", .path.display())]
    NotADirectory {
        /// As given.
        path: PathBuf,
    },
    /// A mount tag that cannot be.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// QEMU's command has quotes that are not closed.
    #[error("QEMU's command `{}`", .command.display())]
    QemuQuotes {
        /// As given.
        command: OsString,
        /// What is wrong.
        #[source]
        source: quote::UnbalancedQuotes,
    },
    /// QEMU's command is empty.
    #[error("QEMU's command is empty")]
    NoQemu,
    /// An error of a configurator from outside this crate.
    #[error(transparent)]
    Other(BoxError),
}

impl ConfigError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::NoDirectory | ConfigError::NotADirectory { .. } => {
                Some("name a directory of the host; single files go into the image".into())
            }
            ConfigError::Tag(error) => Some(error.hint()),
            ConfigError::QemuQuotes { source, .. } => Some(source.hint()),
            ConfigError::NoQemu => Some("name QEMU's program".into()),
            ConfigError::Other(_) => None,
        }
    }
}

/// Something that changes a [`Config`].
///
/// It is used up by that: it may own a task, a sink or a file.
pub trait Configure {
    /// Changes the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be changed as wanted.
    fn configure(self, config: &mut Config) -> Result<(), ConfigError>;

    /// Boxed, for lists of configurators of different types.
    fn boxed<'a>(self) -> Boxed<'a>
    where
        Self: Sized + Send + 'a,
    {
        Box::new(|config| self.configure(config))
    }
}

/// A configurator of any type.
pub type Boxed<'a> = Box<dyn FnOnce(&mut Config) -> Result<(), ConfigError> + Send + 'a>;

impl<F: FnOnce(&mut Config) -> Result<(), ConfigError>> Configure for F {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        self(config)
    }
}

impl<C: Configure> Configure for Vec<C> {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        all(self).configure(config)
    }
}

impl<C: Configure> Configure for Option<C> {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        all(self).configure(config)
    }
}

impl<C: Configure, const N: usize> Configure for [C; N] {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        all(self).configure(config)
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Configure),*> Configure for ($($name,)*) {
            #[expect(non_snake_case, reason = "a tuple's fields are named as their types")]
            #[allow(unused_variables, reason = "the empty tuple changes nothing")]
            fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
                let ($($name,)*) = self;
                $($name.configure(config)?;)*
                Ok(())
            }
        }
    };
}
impl Configure for () {
    fn configure(self, _: &mut Config) -> Result<(), ConfigError> {
        Ok(())
    }
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);

/// All of them, in order, up to the first error. Tuples do the same for different types.
pub fn all<C: Configure>(configurators: impl IntoIterator<Item = C>) -> impl Configure {
    move |config: &mut Config| {
        configurators.into_iter().try_for_each(|configurator| configurator.configure(config))
    }
}

/// Those that are given for the guest's architecture; for an architecture that is not in the list
/// nothing is done.
pub fn by_arch<C: Configure>(choices: impl IntoIterator<Item = (Arch, C)>) -> impl Configure {
    move |config: &mut Config| {
        let arch = config.options.arch;
        let chosen = choices.into_iter().filter(|(of, _)| *of == arch);
        all(chosen.map(|(_, configurator)| configurator)).configure(config)
    }
}

/// Only for this architecture.
pub fn if_arch(arch: Arch, configurator: impl Configure) -> impl Configure {
    move |config: &mut Config| {
        all((config.options.arch == arch).then_some(configurator)).configure(config)
    }
}

/// For all architectures but this one.
pub fn if_not_arch(arch: Arch, configurator: impl Configure) -> impl Configure {
    move |config: &mut Config| {
        all((config.options.arch != arch).then_some(configurator)).configure(config)
    }
}

/// Changes the options directly, where there is no configurator for it: memory, processors, …
pub fn options(change: impl FnOnce(&mut Options)) -> impl Configure {
    |config: &mut Config| {
        change(&mut config.options);
        Ok(())
    }
}

/// Changes what the machine gets besides its options.
fn resources(change: impl FnOnce(&mut Resources)) -> impl Configure {
    |config: &mut Config| {
        change(&mut config.resources);
        Ok(())
    }
}

/// Adds a device: vmtest's own, or one of another crate.
pub fn device(device: impl Device + 'static) -> impl Configure {
    options(|options| {
        options.device(device);
    })
}

/// Adds arguments for QEMU, after those of all devices, as they are.
pub fn with_qemu_args(args: impl IntoIterator<Item = impl Into<OsString>>) -> impl Configure {
    options(|options| options.qemu_args.extend(args.into_iter().map(Into::into)))
}

/// Sets QEMU's program and first arguments, quoted as for a shell: `'/opt/my qemu/qemu' -m 1G`.
///
/// # Errors
/// When applied: [`ConfigError::QemuQuotes`], [`ConfigError::NoQemu`].
pub fn with_qemu_command(command: impl AsRef<OsStr>) -> impl Configure {
    move |config: &mut Config| {
        let command = command.as_ref();
        let words = quote::split(command)
            .map_err(|source| ConfigError::QemuQuotes { command: command.to_owned(), source })?;
        let mut words = words.into_iter();
        let program = words.next().ok_or(ConfigError::NoQemu)?;
        config.options.qemu = Some(QemuCommand { program, args: words.collect() });
        Ok(())
    }
}

/// Sets the kernel: a file, or `@gcov`, `@distribution` or `@default` of the asset manifest. Default:
/// `VMTEST_KERNEL`, which takes the same words, else the pinned one.
pub fn with_kernel(path: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        config.kernel = Kernel::from_word(path);
        Ok(())
    }
}

/// Sets the initramfs. Default: `VMTEST_INITRAMFS`.
pub fn with_initramfs(path: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        config.initramfs = Some(path.into());
        Ok(())
    }
}

/// Adds to the image that is built for a run: programs with their libraries, files, directories.
pub fn with_image(part: impl FnOnce(&mut ImageSpec) + Send + 'static) -> impl Configure {
    |config: &mut Config| {
        config.image.push(Box::new(part));
        Ok(())
    }
}

/// Adds parameters to the kernel's cmdline, as a person writes them.
pub fn with_append_kernel(
    parameters: impl IntoIterator<Item = impl Into<String>>,
) -> impl Configure {
    options(|options| options.kernel_args.extend(parameters.into_iter().map(Into::into)))
}

/// Whether the run ends when the guest's kernel panics (`panic=-1` and `-no-reboot`); Linux alone
/// hangs forever. Default: yes.
pub fn halt_on_kernel_panic(halt: bool) -> impl Configure {
    options(move |options| options.halt_on_kernel_panic = halt)
}

/// Adds a raw disk image on AHCI, `/dev/sda`. Other buses and formats: [`device`] with a [`Drive`].
pub fn ide_block_device(file: impl Into<PathBuf>) -> impl Configure {
    device(Drive { interface: DriveInterface::Ahci, ..Drive::new(file) })
}

/// Shares a directory of the host over 9p, writable, as `/mount/9p/<tag>`. A read-only share, or one
/// that keeps owners: [`device`] with a [`P9Share`].
///
/// # Errors
/// When applied: [`ConfigError::NoDirectory`], [`ConfigError::NotADirectory`], [`ConfigError::Tag`].
pub fn p9_directory(dir: impl Into<PathBuf>, tag: impl Into<String>) -> impl Configure {
    |config: &mut Config| {
        let (dir, tag) = (directory(dir.into())?, tag.into());
        TagError::check(&tag)?;
        let share = P9Share { dir, tag, read_only: false, ownership: Ownership::Host };
        config.apply(device(share)).map(drop)
    }
}

/// Makes a directory of the host the guest's root file system, over 9p, writable.
///
/// # Errors
/// When applied: [`ConfigError::NoDirectory`], [`ConfigError::NotADirectory`].
pub fn p9_boot_directory(dir: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        let dir = directory(dir.into())?;
        let root = P9Root { dir, read_only: false, ownership: Ownership::Host };
        config.apply(device(root)).map(drop)
    }
}

/// Shows a directory of the host as the read-only vfat partition `/dev/sda1`.
///
/// # Errors
/// When applied: [`ConfigError::NoDirectory`], [`ConfigError::NotADirectory`].
pub fn read_only_directory(dir: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        let dir = directory(dir.into())?;
        config.apply(device(ReadOnlyDir { dir })).map(drop)
    }
}

fn directory(path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.as_os_str().is_empty() {
        Err(ConfigError::NoDirectory)
    } else if !path.is_dir() {
        Err(ConfigError::NotADirectory { path })
    } else {
        Ok(std::path::absolute(&path).unwrap_or(path))
    }
}

/// Starts the kernel by UEFI: `VMTEST_OVMF_CODE` and `VMTEST_OVMF_VARS`, else the pinned firmware.
pub fn with_default_ovmf() -> impl Configure {
    |config: &mut Config| {
        config.default_firmware = true;
        Ok(())
    }
}

/// Starts the kernel by this UEFI. Neither file is written to: the variables are a private copy.
pub fn with_ovmf(code: impl Into<PathBuf>, vars: impl Into<PathBuf>) -> impl Configure {
    options(|options| {
        options.firmware = Some(Firmware { code: code.into(), vars: vars.into() });
    })
}

/// Collects what runs in the guest, in a run's own directory below `dir` ([`Config::coverage`]).
pub fn with_coverage(dir: impl Into<PathBuf>) -> impl Configure + Clone {
    let coverage = Coverage { dir: dir.into(), name: None };
    move |config: &mut Config| {
        config.coverage = Some(coverage);
        Ok(())
    }
}

/// Adds a virtio random number generator.
pub fn virtio_random() -> impl Configure {
    device(Entropy)
}

/// Sends the console's bytes also to a writer. One that fails gets no more; one that blocks holds up
/// the guest.
pub fn with_serial_output(sink: impl std::io::Write + Send + 'static) -> impl Configure {
    resources(|resources| resources.console_sinks.push(Box::new(sink) as Sink))
}

/// Calls a printer for each line of the console ([`crate::vm::lines`]).
pub fn log_serial_by_line(printer: impl LinePrinter + 'static) -> impl Configure {
    with_serial_output(lines::sink(printer))
}

/// Adds work that is bound to the machine's life.
pub fn with_task(task: Task) -> impl Configure {
    resources(|resources| resources.tasks.push(task))
}

/// Calls a function for each event of a new event channel; see [`Resources::on_event`].
pub fn event_callback<T, E>(
    name: impl Into<String>,
    callback: impl FnMut(T) -> Result<(), E> + Send + 'static,
) -> impl Configure
where
    T: DeserializeOwned + 'static,
    E: Into<BoxError>,
{
    let name = name.into();
    (
        device(EventPort { name: name.clone() }),
        resources(|resources| resources.on_event(name, callback)),
    )
}

/// Adds an event channel, to be taken with [`crate::vm::Vm::events`].
pub fn event_channel(name: impl Into<String>) -> impl Configure {
    device(EventPort { name: name.into() })
}

/// Limits QEMU's life. Default: `VMTEST_TIMEOUT`, else 5 min with KVM, 15 min emulated.
pub fn with_vm_timeout(limit: Duration) -> impl Configure {
    options(move |options| options.timeout = Some(limit))
}

/// Kills QEMU when the token is thrown.
pub fn with_cancel(token: CancelToken) -> impl Configure {
    resources(|resources| resources.cancel = Some(token))
}

/// Tells programs in the guest that they are in one: `VMTEST_IN_GUEST=1` on the kernel's cmdline, which
/// the kernel hands to init as environment.
pub fn with_vmtest_ident() -> impl Configure {
    with_append_kernel(["VMTEST_IN_GUEST=1"])
}

/// Changes what has a field of its own in [`Config`].
fn config(change: impl FnOnce(&mut Config)) -> impl Configure {
    |config: &mut Config| {
        change(config);
        Ok(())
    }
}

/// Gives the guest this much memory, in MiB. Default: 512. (`--memory`)
pub fn with_memory(mib: u64) -> impl Configure {
    options(move |options| options.memory_mib = mib)
}

/// Gives the guest this many processors. Default: 1. (`--cpus`)
pub fn with_cpus(cpus: u32) -> impl Configure {
    options(move |options| options.cpus = cpus)
}

/// Takes this accelerator. Default: [`AccelOption::Auto`]. (`--accel`)
pub fn with_accel(accel: AccelOption) -> impl Configure {
    config(move |config| config.accel = accel)
}

/// Limits the time from QEMU's start until the guest is ready. Default: 20 s with KVM, 2 min emulated.
/// (`--boot-timeout`)
pub fn with_boot_timeout(limit: Duration) -> impl Configure {
    config(move |config| config.boot_timeout = Some(limit))
}

/// Takes kernel modules from this directory, `…/lib/modules/RELEASE`. (`--modules`)
pub fn with_modules(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    config(|config| config.modules = Some(dir))
}

/// Looks for programs and libraries of the guest's architecture below this directory. (`--sysroot`)
pub fn with_sysroot(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    config(|config| config.sysroot = Some(dir))
}

/// Resumes a saved guest and saves the one that boots, or not. Default: `VMTEST_WARM`, else
/// [`WarmMode::Auto`]. (`--warm`)
pub fn with_warm(mode: WarmMode) -> impl Configure {
    config(move |config| config.warm = Some(mode))
}

/// Keeps console, streams and `run.json` of a run in this directory. (`--artifacts`)
pub fn with_artifacts(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    config(|config| config.artifacts = Some(dir))
}

/// Writes the events of a channel to a file, one JSON object a line. (`--event`)
pub fn with_event_file(channel: impl Into<String>, file: impl Into<PathBuf>) -> impl Configure {
    let event = (channel.into(), file.into());
    config(|config| config.event_files.push(event))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn applied(arch: Arch, configurator: impl Configure) -> Config {
        let mut config = Config::new(arch);
        config.apply(configurator).unwrap();
        config
    }

    fn refused(configurator: impl Configure) -> ConfigError {
        Config::new(Arch::Amd64).apply(configurator).unwrap_err()
    }

    #[test]
    fn combinators_choose_by_architecture() {
        let configurator = || {
            (
                all(["a", "b"].map(|text| with_append_kernel([text]))),
                by_arch([
                    (Arch::Arm, with_append_kernel(["arm"])),
                    (Arch::Arm64, with_append_kernel(["arm64"])),
                ]),
                if_arch(Arch::Arm, with_append_kernel(["only-arm"])),
                if_not_arch(Arch::Arm, with_append_kernel(["not-arm"])),
                vec![with_append_kernel(["listed"]).boxed(), with_vmtest_ident().boxed()],
                None::<Boxed>,
            )
        };
        let args = |arch| applied(arch, configurator()).options.kernel_args;
        let last = ["listed", "VMTEST_IN_GUEST=1"];
        assert_eq!(args(Arch::Arm), [&["a", "b", "arm", "only-arm"][..], &last].concat());
        assert_eq!(args(Arch::Amd64), [&["a", "b", "not-arm"][..], &last].concat());
    }

    #[test]
    fn an_error_ends_the_rest() {
        let mut config = Config::new(Arch::Amd64);
        let failing = |_: &mut Config| Err(ConfigError::Other("no".into()));
        let error = config
            .apply((with_append_kernel(["before"]), failing, with_append_kernel(["after"])))
            .unwrap_err();
        assert_eq!(error.to_string(), "no");
        assert_eq!(config.options.kernel_args, ["before"]);
    }

    #[test]
    fn setters_set() {
        let dir = tempfile::tempdir().unwrap();
        let config = applied(
            Arch::Amd64,
            (
                (with_kernel("/k"), with_initramfs("/i"), with_qemu_command("'my qemu' -m 1G")),
                (with_qemu_args(["-foo", "b,ar"]), with_append_kernel(["x=1", "y"])),
                (halt_on_kernel_panic(false), ide_block_device("/disk"), virtio_random()),
                (p9_directory(dir.path(), "tag"), read_only_directory(dir.path())),
                p9_boot_directory(dir.path()),
                (with_serial_output(Vec::new()), log_serial_by_line(|_: &str| ())),
                with_task(Task::cleanup("tidy", || Ok::<(), BoxError>(()))),
                (with_vm_timeout(Duration::from_secs(1)), with_cancel(CancelToken::new())),
                (event_channel("a"), event_callback("b", |_: u8| Ok::<(), BoxError>(()))),
                with_image(|builder| {
                    builder.dir("/x", 0o755);
                }),
                (with_default_ovmf(), with_ovmf("/code", "/vars")),
            ),
        );
        assert_eq!(config.kernel, Kernel::File("/k".into()));
        assert_eq!(config.initramfs.as_deref(), Some(Path::new("/i")));
        let qemu = config.options.qemu.clone().unwrap();
        assert_eq!((qemu.program, qemu.args), ("my qemu".into(), vec!["-m".into(), "1G".into()]));
        assert_eq!(config.options.qemu_args, ["-foo", "b,ar"]);
        assert_eq!(config.options.kernel_args, ["x=1", "y"]);
        assert!(!config.options.halt_on_kernel_panic);
        assert_eq!(config.options.devices.len(), 7);
        assert_eq!(config.options.timeout, Some(Duration::from_secs(1)));
        let resources = &config.resources;
        assert_eq!((resources.console_sinks.len(), resources.tasks.len()), (2, 1));
        assert!(resources.cancel.is_some() && resources.event_consumers.len() == 1);
        assert_eq!(config.image.len(), 1);
        let firmware = Firmware { code: "/code".into(), vars: "/vars".into() };
        assert!(config.default_firmware && config.options.firmware == Some(firmware));
    }

    #[test]
    fn what_cannot_be_shared_is_refused_by_name() {
        assert!(matches!(refused(p9_directory("", "tag")), ConfigError::NoDirectory));
        assert!(matches!(refused(read_only_directory("")), ConfigError::NoDirectory));
        let file = tempfile::NamedTempFile::new().unwrap();
        for error in [
            refused(p9_directory(file.path(), "tag")),
            refused(p9_boot_directory(file.path())),
            refused(read_only_directory(file.path())),
        ] {
            assert!(matches!(&error, ConfigError::NotADirectory { path } if path == file.path()));
            assert!(error.hint().is_some());
        }
        let dir = tempfile::tempdir().unwrap();
        let error = refused(p9_directory(dir.path(), ""));
        assert!(matches!(error, ConfigError::Tag(TagError::Empty)));
    }

    #[test]
    fn a_qemu_command_needs_a_program_and_closed_quotes() {
        assert!(matches!(refused(with_qemu_command(" ")), ConfigError::NoQemu));
        let error = refused(with_qemu_command("qemu 'x"));
        assert!(matches!(error, ConfigError::QemuQuotes { .. }) && error.hint().is_some());
    }

    #[test]
    fn idle_options_cost_arguments_only() {
        let config = applied(
            Arch::Amd64,
            all((0..100).map(|n| with_qemu_args(["-name".to_owned(), format!("n{n}")]))),
        );
        let plan = config.options.plan().unwrap();
        assert!(plan.args(crate::plan::Spelling::Executed).len() > 200);
    }

    #[test]
    fn what_has_a_flag_can_be_configured() {
        let mut config = Config::new(Arch::Arm);
        config
            .apply((
                (with_memory(1024), with_cpus(2), with_accel(AccelOption::Tcg)),
                (with_boot_timeout(Duration::from_secs(3)), with_modules("/m"), with_sysroot("/s")),
                (with_warm(WarmMode::Off), with_artifacts("/a"), with_event_file("e", "/f")),
            ))
            .unwrap();
        assert_eq!((config.options.memory_mib, config.options.cpus), (1024, 2));
        assert_eq!((config.accel, config.warm), (AccelOption::Tcg, Some(WarmMode::Off)));
        assert_eq!(config.boot_timeout, Some(Duration::from_secs(3)));
        assert_eq!(config.modules, Some("/m".into()));
        assert_eq!(config.sysroot, Some("/s".into()));
        assert_eq!(config.artifacts, Some("/a".into()));
        assert_eq!(config.event_files, [("e".to_owned(), "/f".into())]);
    }
}
