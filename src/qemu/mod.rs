//! QEMU's devices: what each adds to argv, to the kernel's cmdline, and what it needs.
//!
//! One family a file, with its unit tests. Everything here is pure: no files, environment, clock or
//! randomness, so that a golden test needs no QEMU. Options are spelled for QEMU 7.2 to 10.

mod agent;
mod coverage;
mod drive;
mod entropy;
mod firmware;
mod machine;
mod mirror;
mod net;
pub(crate) mod own;
mod p9;
mod port;
mod readonly_dir;

pub use crate::argv::{ChannelId, FileId, IdAllocator, QemuOpt};
pub use crate::net::{Cidr, HostForward, Mac, NetError, ParseNetError, Protocol};
pub use crate::plan::{Device, MOUNT_TAG_MAX, TagError};
pub use agent::AgentPort;
pub use coverage::CoverageShare;
pub use drive::{Drive, DriveFormat, DriveInterface, ParseDriveError};
pub use entropy::Entropy;
pub use firmware::{Firmware, FirmwareChoice};
pub use machine::{KernelLog, Machine};
pub use mirror::{Mirror, MirrorWrites};
pub use net::{Card, LinkNic, Nic, UserNet};
pub use p9::{Ownership, P9Root, P9Share};
pub use port::EventPort;
pub use readonly_dir::ReadOnlyDir;
