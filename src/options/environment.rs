//! What the environment says: read once, at the edge, into a value.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{QemuCommand, WarmMode};
use crate::arch::{Arch, UnsupportedArch};
use crate::duration;
use crate::fields::UnknownWord;
use crate::qemu::Firmware;
use crate::quote;

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
