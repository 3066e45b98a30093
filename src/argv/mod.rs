//! QEMU's argv, option by option: commas, ids, inherited files. Knows no device.

mod handle;
mod id;
mod opt;

pub use handle::{ChannelId, FIRST_FD, FileId};
pub use id::IdAllocator;
pub use opt::QemuOpt;
pub(crate) use opt::{Part, is_key};
