//! Why options make no plan.

use std::path::PathBuf;

use super::tag::TagError;
use crate::accel::Accel;
use crate::arch::Arch;
use crate::cmdline;
use crate::net::NetError;

/// Options that contradict each other or the architecture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A kernel parameter without a kernel: only a kernel that QEMU loads itself can get one.
    #[error("kernel argument `{argument}` without a kernel")]
    KernelRequiredForArgs {
        /// The first parameter.
        argument: String,
    },
    /// Two things of one name.
    #[error("two {what}s are called `{name}`")]
    NameTaken {
        /// What kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A mount tag that virtio-9p cannot carry.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A network setting that cannot be.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The kernel's cmdline cannot be written.
    #[error(transparent)]
    Cmdline(#[from] cmdline::Error),
    /// The architecture cannot have this.
    #[error("{what} cannot be had on {arch}")]
    NotOnArch {
        /// What was asked for.
        what: String,
        /// The guest's architecture.
        arch: Arch,
    },
    /// A value outside of its range.
    #[error("{what} of {given} is out of range")]
    OutOfRange {
        /// What was set.
        what: &'static str,
        /// The value.
        given: String,
        /// The range, in words.
        range: String,
    },
    /// QEMU's arguments name another accelerator than the one that was chosen.
    #[error("QEMU's argument `{argument}` asks for {named}, and the machine is made for {chosen}")]
    OtherAccelerator {
        /// The argument.
        argument: String,
        /// What it names.
        named: String,
        /// What was chosen.
        chosen: Accel,
    },
    /// A directory that no guest can have at its own path.
    #[error("the directory `{}` cannot be at its own path in a guest: {why}", .dir.display())]
    MirrorPath {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        why: String,
    },
    /// An error of a device from outside this crate.
    #[error("{0}")]
    Other(String),
}

impl PlanError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PlanError::KernelRequiredForArgs { .. } => Some(
                "QEMU passes arguments only to a kernel that it loads itself: set a kernel too"
                    .into(),
            ),
            PlanError::NameTaken { what, .. } => {
                Some(format!("give each {what} a name of its own"))
            }
            PlanError::Tag(error) => Some(error.hint()),
            PlanError::Net(error) => error.hint(),
            PlanError::Cmdline(error) => Some(error.hint()),
            PlanError::OtherAccelerator { named, .. } => Some(match named.as_str() {
                "kvm" | "tcg" => format!(
                    "take it out of QEMU's arguments, and say `--accel {named}` instead: processor, board \
                     and limits depend on it"
                ),
                _ => "vmtest knows kvm and tcg".into(),
            }),
            PlanError::OutOfRange { range, .. } => Some(range.clone()),
            PlanError::MirrorPath { .. } => {
                Some("share it at another place: `--share DIR:TAG`".into())
            }
            PlanError::NotOnArch { .. } | PlanError::Other(_) => None,
        }
    }
}
