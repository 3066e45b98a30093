//! What will be done: QEMU's argv, the kernel's cmdline, the files and streams QEMU needs.
//!
//! A [`Plan`] is a pure function of [`crate::options::Options`]. It names no socket and no temporary
//! file: everything QEMU needs from us is an inherited file descriptor (streams are socket pairs or
//! pipes, made files are anonymous), so there is nothing to clean up, whoever is killed when, and no
//! limit of 108 bytes for the path of a socket.
//!
//! argv can be spelled in two ways ([`Spelling`]): as it is executed, and as a person would type it.

mod device;
mod error;
mod planner;
mod service;
mod tag;
mod value;
mod warm;

pub use crate::argv::FIRST_FD;
pub use device::Device;
pub use error::PlanError;
pub use planner::Planner;
pub use service::Service;
pub use tag::{MOUNT_TAG_MAX, TagError};
pub use value::{
    CONSOLE, Channel, ChannelKind, FileSource, MONITOR, MakeFile, Need, NeedForm, Plan,
    PlannedFile, Spelling,
};
