//! QEMU's devices: what each adds to argv, to the kernel's cmdline, and what it needs.
//!
//! One family a file, with its unit tests. Everything here is pure: no files, environment, clock or
//! randomness, so that a golden test needs no QEMU. Options are spelled for QEMU 7.2 to 10.

mod agent;
mod card;
mod coverage;
mod drive;
mod entropy;
mod firmware;
mod id;
mod link;
mod machine;
mod net;
mod opt;
mod p9;
mod port;
mod readonly_dir;

pub use agent::AgentPorts;
pub use card::{Card, Mac, Nic};
pub use coverage::CoverageShare;
pub use drive::{Drive, DriveFormat, DriveInterface, ParseDriveError};
pub use entropy::Entropy;
pub use firmware::Firmware;
pub use id::IdAllocator;
pub use link::LinkNic;
pub use machine::Machine;
pub use net::{Cidr, HostForward, NetError, ParseNetError, Protocol, UserNet};
pub(crate) use opt::Part;
pub use opt::QemuOpt;
pub use p9::{MOUNT_TAG_MAX, Ownership, P9Root, P9Share, TagError};
pub use port::EventPort;
pub use readonly_dir::ReadOnlyDir;

use crate::plan::{PlanError, Planner};

/// A file that QEMU inherits, by its place in [`crate::plan::Plan::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub(crate) usize);

/// A stream between QEMU and the host side, by its place in [`crate::plan::Plan::channels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub(crate) usize);

/// Something a machine has.
///
/// Implement it to add a device that vmtest does not know; `examples/custom_device.rs` shows how.
pub trait Device: std::fmt::Debug + Send + Sync {
    /// Adds the device to the plan: arguments, kernel parameters, modules, files, mounts.
    ///
    /// Called once a plan, in the order of [`crate::options::Options::devices`]. It must be pure: the
    /// same planner state gives the same additions.
    ///
    /// # Errors
    /// [`PlanError`] when the device cannot be had as asked for, on this architecture or beside
    /// another device.
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError>;

    /// Whether the guest's root file system is on it, so that no image has to bring one.
    fn is_root(&self) -> bool {
        false
    }
}

/// Whether a word can be the key of an option's value.
fn is_key(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
