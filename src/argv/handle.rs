//! What QEMU inherits, by number.

/// The first inherited file descriptor's number in QEMU: 0, 1 and 2 are taken.
pub const FIRST_FD: i32 = 3;

/// A file that QEMU inherits, by its place in [`crate::plan::Plan::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub(crate) usize);

/// A stream between QEMU and the host side, by its place in [`crate::plan::Plan::channels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub(crate) usize);
