//! Why nothing was started.

use std::io;
use std::path::{Path, PathBuf};

use super::base::BaseError;
use crate::accel::KvmUnusable;
use crate::arch::Arch;
use crate::assets;
use crate::configure::ConfigError;
use crate::coverage::run_dir::RunDirError;
use crate::initramfs::Problems;
use crate::options::EnvironmentError;
use crate::plan::PlanError;
use crate::preflight::{Lack, State};
use crate::vm::{GuestError, StartError, TemplateError};

/// A machine could not be prepared. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No architecture is given, and the host's is none that a guest can have.
    #[error("this host's architecture, {host}, is none of vmtest's")]
    ForeignHost {
        /// The host's architecture, as Rust calls it.
        host: &'static str,
    },
    /// The environment cannot be understood.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A configurator cannot do what it is for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The asset manifest cannot be used.
    #[error(transparent)]
    Assets(#[from] assets::Error),
    /// Neither options nor assets name a kernel.
    #[error("there is no kernel for {arch}")]
    NoKernel {
        /// The guest's architecture.
        arch: Arch,
    },
    /// Neither the environment nor the assets name firmware.
    #[error("there is no firmware for {arch}")]
    NoFirmware {
        /// The guest's architecture.
        arch: Arch,
    },
    /// There is no place for the run's coverage.
    #[error(transparent)]
    Coverage(#[from] RunDirError),
    /// A run of coverage has a name, and no directory to be in.
    #[error("`--coverage-name` names a run in a directory, and there is none")]
    CoverageWithoutPlace,
    /// Coverage is wanted of a guest in which vmtest has nothing to say.
    #[error("coverage is collected by vmtest's agent, and this guest runs its own init")]
    CoverageWithoutAgent,
    /// The assets have no guest program.
    #[error("there is no guest program for {arch}")]
    NoGuestProgram {
        /// The guest's architecture.
        arch: Arch,
    },
    /// A file that is named cannot be read.
    #[error("cannot read the {what} `{}`", .path.display())]
    Read {
        /// `kernel`, `initramfs`, `drive` or `firmware`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be shared is no directory.
    #[error("the {what} `{}` is no directory", .path.display())]
    NotADirectory {
        /// `share` or `read-only directory`.
        what: &'static str,
        /// As given.
        path: PathBuf,
    },
    /// A directory was named as the kernel, and has none.
    #[error("there is no kernel in `{}`: {what}", .dir.display())]
    NoKernelIn {
        /// As given.
        dir: PathBuf,
        /// What is missing.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The kernel is packed, and cannot be unpacked.
    #[error("cannot unpack the kernel `{}`, which is {form}", .path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// How it is packed.
        form: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The guest's root can have no devices.
    #[error("the root share `{}` has no directory `dev`, and cannot get one: it is read-only", .dir.display())]
    RootWithoutDev {
        /// The directory of the host.
        dir: PathBuf,
    },
    /// The kernel is a file of another kind.
    #[error("`{}` is no kernel image that vmtest knows", .path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// The kernel is for another architecture.
    #[error("the kernel `{}` is for {}, the guest is {arch}", .path.display(), names(.found))]
    KernelOfOtherArch {
        /// The file.
        path: PathBuf,
        /// The architectures it is for; empty when it is for none that vmtest knows.
        found: Vec<Arch>,
        /// The guest's.
        arch: Arch,
    },
    /// KVM was asked for and does not work.
    #[error(transparent)]
    Kvm(#[from] KvmUnusable),
    /// Options contradict each other or the architecture.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The sysroot is no directory.
    #[error("the sysroot `{}` is no directory", .dir.display())]
    Sysroot {
        /// As given.
        dir: PathBuf,
    },
    /// The kernel has not what the run needs.
    #[error("the kernel `{}` lacks what this run needs{}", .kernel.display(), listed(.lacks))]
    Lacking {
        /// The kernel.
        kernel: PathBuf,
        /// Where its options are from, if they are known.
        known_from: Option<PathBuf>,
        /// What it lacks.
        lacks: Vec<Lack>,
    },
    /// The guest program, the shell or kernel modules cannot be put into the image.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The image cannot be made.
    #[error(transparent)]
    Image(#[from] Problems),
    /// No thread for a machine that is used without a runtime.
    #[error("cannot start a runtime for the machine")]
    Runtime(#[source] io::Error),
    /// No temporary file for the image.
    #[error("cannot write the initramfs into a temporary file")]
    Temporary(#[source] io::Error),
    /// A saved guest is insisted on, and this machine's cannot be.
    #[error("a saved guest is asked for, and this one has to boot: {reason}")]
    ColdOnly {
        /// Why.
        reason: String,
    },
    /// A file of the run cannot be written: an artifact, an event file.
    #[error("cannot {what} `{}`", .path.display())]
    Write {
        /// What was tried: `make`, `write the events of …`.
        what: String,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A guest is to be saved while something else still runs in it.
    #[error("the guest is in use")]
    GuestInUse,
    /// A guest could not go on from where it was saved.
    #[error("the saved guest cannot be resumed")]
    NotResumed {
        /// Why.
        #[source]
        why: Box<TemplateError>,
    },
    /// The guest did not get ready.
    #[error("the guest did not get ready")]
    NotReady {
        /// Why.
        #[source]
        why: GuestError,
    },
    /// The user ended it before there was a guest.
    #[error("interrupted by {signal}")]
    Interrupted {
        /// The signal.
        signal: &'static str,
    },
    /// QEMU cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A line for each.
fn listed(lacks: &[Lack]) -> String {
    lacks.iter().map(|lack| format!("\n  {lack}")).collect()
}

/// How a kernel gets what it lacks.
fn mend(kernel: &Path, source: Option<&Path>, lacks: &[Lack]) -> String {
    if lacks.iter().any(|lack| lack.state == State::Unknown) {
        return format!(
            "nothing says what is in `{}`: put its configuration beside it, as `.config` or `config`, or \
             build it with CONFIG_IKCONFIG",
            kernel.display()
        );
    }
    let modules =
        lacks.iter().any(|lack| matches!(lack.state, State::NoModules | State::ModuleMissing));
    let set: Vec<String> = lacks
        .iter()
        .filter(|lack| lack.state == State::Missing)
        .map(|lack| format!("CONFIG_{}=y", lack.option))
        .collect();
    let mut ways = Vec::new();
    if modules {
        ways.push("name the kernel's modules with --modules, …/lib/modules/RELEASE".to_owned());
    }
    if !set.is_empty() {
        ways.push(format!("build it with {}", set.join(" ")));
    }
    ways.push("`--kernel @distribution` has most of them as modules".to_owned());
    let known = source.map(|path| format!(" (by `{}`)", path.display())).unwrap_or_default();
    format!("{}{known}", ways.join("; "))
}

fn names(arches: &[Arch]) -> String {
    match arches {
        [] => "another architecture".into(),
        arches => arches.iter().map(|arch| arch.name()).collect::<Vec<_>>().join(" or "),
    }
}

impl Error {
    /// Whether an asset manifest would have had what is missing.
    pub(super) fn is_missing_asset(&self) -> bool {
        matches!(
            self,
            Error::NoKernel { .. } | Error::NoFirmware { .. } | Error::NoGuestProgram { .. }
        )
    }

    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::ForeignHost { .. } => "name the guest's with --arch or VMTEST_ARCH".into(),
            Error::Environment(error) => error.hint(),
            Error::Config(error) => return error.hint(),
            Error::Assets(error) => error.hint(),
            Error::NoKernel { arch } => format!(
                "`make assets ARCH={arch}` in vmtest's source fetches one; --kernel names another"
            ),
            Error::Coverage(error) => error.hint(),
            Error::CoverageWithoutPlace => {
                "give one with --coverage DIR, or with VMTEST_COVERAGE".into()
            }
            Error::CoverageWithoutAgent => {
                "give a COMMAND for the guest to run, or collect from your own init: the library \
                 `vmtest_guest::coverage` makes the archive"
                    .into()
            }
            Error::NoFirmware { .. } => "`setup/assets firmware` fetches it for amd64 and arm64; \
                VMTEST_OVMF_CODE and VMTEST_OVMF_VARS, or `--firmware CODE:VARS`, name another one"
                .into(),
            Error::NoGuestProgram { arch } => {
                format!("`make assets ARCH={arch}` in vmtest's source builds it")
            }
            Error::Read { what: what @ ("kernel" | "initramfs"), .. } => {
                format!("--{what} or VMTEST_{} names it", what.to_uppercase())
            }
            Error::Read { what: "share" | "root" | "read-only directory", .. } => {
                "name a directory of the host".into()
            }
            Error::Read { what, .. } => format!("--{what} names it"),
            Error::Base(BaseError::Modules { .. }) => {
                "--modules names …/lib/modules/RELEASE, or a kernel's build tree".into()
            }
            Error::NotADirectory { .. } => {
                "only directories can be shared; --file puts a file into the image".into()
            }
            Error::NoKernelIn { hint, .. } => hint.clone(),
            Error::Unpack { .. } => {
                "unpack it yourself, and name what comes of it: an Image, a bzImage or a vmlinux".into()
            }
            Error::RootWithoutDev { .. } => {
                "make `dev`, and best `proc`, `sys` and `tmp` too, in it; or let the guest write to it, \
                 without `:ro`"
                    .into()
            }
            Error::NotAKernel { .. } => {
                "a kernel is a bzImage, an Image, a zImage, a uImage or a vmlinux".into()
            }
            Error::KernelOfOtherArch { .. } => {
                "--arch names the guest's architecture, --kernel its kernel".into()
            }
            Error::Kvm(error) => error.hint(),
            Error::Plan(error) => return error.hint(),
            Error::Lacking { kernel, known_from, lacks } => {
                mend(kernel, known_from.as_deref(), lacks)
            },
            Error::Sysroot { .. } => {
                "--sysroot names the directory that holds the guest's /usr and /lib".into()
            }
            Error::ColdOnly { .. } => "`--warm auto`, or `session::boot`, boots where a guest has to".into(),
            Error::Write { .. } => "name a place that vmtest may write to".into(),
            Error::Base(_)
            | Error::Runtime(_)
            | Error::NotReady { .. }
            | Error::GuestInUse
            | Error::NotResumed { .. }
            | Error::Interrupted { .. } => return None,
            Error::Image(problems) => {
                let hints = problems.hints().join("\nhint: ");
                return (!hints.is_empty()).then_some(hints);
            }
            Error::Temporary(_) => "TMPDIR names the directory for temporary files".into(),
            Error::Start(error) => return error.hint(),
        })
    }
}
