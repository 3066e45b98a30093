//! What the user wants of a machine and of the host beside it: [`Config`], and configurators that
//! fill it.
//!
//! A `Config` is a value: a clone of it makes another machine of the same kind. What only one machine can
//! use (a task, a stream) it holds as a function that makes it.
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

mod combine;
mod setters;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::accel::AccelOption;
use crate::arch::Arch;
use crate::diagnosis::{Gate, Mode};
use crate::fields::{self, BadValue};
use crate::initramfs::ImageSpec;
use crate::options::{Options, WarmMode};
use crate::plan::TagError;
use crate::vm::{BoxError, HangAfter, Resources};

pub use crate::options::ParseQemuCommandError;
pub use combine::{Boxed, Configure, all, by_arch, if_arch, if_not_arch};
pub use setters::*;

/// Adds something to an image.
pub type ImagePart = Arc<dyn Fn(&mut ImageSpec) + Send + Sync>;

/// Makes something for each machine: a task, a place where the console's bytes go, …
pub type ResourcePart = Arc<dyn Fn(&mut Resources) + Send + Sync>;

/// A machine's [`Options`], what is looked up for it, and what the host does beside it.
#[derive(Clone)]
#[non_exhaustive]
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
    /// Collect what ran in the guest, in a directory of the run's own below this one
    /// (`docs/coverage.md`). Default: `VMTEST_COVERAGE`, else it is not collected.
    pub coverage: Option<PathBuf>,
    /// The run's name, that of its directory and of the test in reports of coverage. It must be new.
    /// Default: the command's name and the architecture, with a number where that is taken.
    pub coverage_name: Option<String>,
    /// Whether a saved guest is resumed, and this one saved. Default: `VMTEST_WARM`, else
    /// [`WarmMode::Auto`].
    pub warm: Option<WarmMode>,
    /// Event channels whose events go to files, one JSON object a line.
    pub event_files: Vec<EventFile>,
    /// Which of the kernel's reports of its faults count, and what one that does means for a run.
    /// Default: all do, and are shown ([`Mode::Warn`]).
    pub splats: Gate,
    /// The kernel's ELF file with debug information, for files and lines in its traces (feature
    /// `symbols`). Default: that of the pinned kernel, if the asset manifest names one.
    pub vmlinux: Option<PathBuf>,
    /// Options that the kernel must have, with or without `CONFIG_`. Default: none but what the machine's
    /// devices need.
    pub requires: Vec<String>,
    /// A directory that keeps console, streams and `run.json` of the run. Default: none.
    pub artifacts: Option<PathBuf>,
    /// A run whose guest is ready later than this after QEMU's start fails, though all else passed.
    /// Default: none.
    pub boot_budget: Option<Duration>,
    /// When a silent guest is looked at, whether it hangs. Default: after 1 min with KVM, 3 min emulated.
    pub hang_after: Option<HangAfter>,
    /// From QEMU's start until the agent is ready. Default: 20 s with KVM, 2 min emulated.
    pub boot_timeout: Option<Duration>,
    /// What the machine gets besides its plan.
    pub resources: Vec<ResourcePart>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("options", &self.options).finish_non_exhaustive()
    }
}

/// An event channel whose events go to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFile {
    /// The channel's name.
    pub channel: String,
    /// The file; it is made, or emptied, before the machine starts.
    pub file: PathBuf,
}

impl EventFile {
    /// Parses the command line's form, `NAME=FILE`.
    ///
    /// # Errors
    /// [`BadValue`] without a name or a file.
    pub fn parse(text: &OsStr) -> Result<EventFile, BadValue> {
        let parts = fields::assignment(text).filter(|(_, file)| !file.is_empty());
        let (name, file) = parts.ok_or_else(|| {
            BadValue::new(text, "has no name or no file", "write it as `NAME=FILE`")
        })?;
        Ok(EventFile { channel: name.to_string_lossy().into_owned(), file: file.into() })
    }
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
    /// What one machine of this kind gets besides its plan.
    pub(crate) fn make_resources(&self) -> Resources {
        let mut resources = Resources::default();
        self.resources.iter().for_each(|part| part(&mut resources));
        resources
    }

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
            boot_budget: None,
            hang_after: None,
            coverage: None,
            coverage_name: None,
            warm: None,
            event_files: Vec::new(),
            splats: Gate::new(Mode::Warn),
            vmlinux: None,
            requires: Vec::new(),
            artifacts: None,
            resources: Vec::new(),
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
    /// QEMU's command cannot be understood.
    #[error("QEMU's command")]
    Qemu(#[from] ParseQemuCommandError),
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
            ConfigError::Qemu(error) => Some(error.hint()),
            ConfigError::Other(_) => None,
        }
    }
}
