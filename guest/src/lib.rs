//! Guest side of vmtest.
//!
//! * [`proto`]: what host and guest say to each other; the only module the host uses.

pub mod proto;
