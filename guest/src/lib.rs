//! Guest side of vmtest.
//!
//! For programs that run in a guest:
//! * [`events`]: tell the host typed things while the program runs;
//! * [`ports`]: find a virtio-serial port by the name the host gave it;
//! * [`in_vm`], [`skip_if_not_in_vm`], [`skip_if_in_vm`]: tests that know where they run;
//! * `mount`: 9p shares (feature `agent`, on by default);
//! * `coverage`: the kernel's gcov counters as one archive (feature `agent`).
//!
//! For the host: [`proto`], what host and guest say to each other. It is the only module the host
//! uses.
//!
//! Nothing here starts threads or keeps global state, and nothing needs a program or a library in
//! the guest's file system.

#[cfg(feature = "agent")]
pub mod coverage;
pub mod events;
#[cfg(feature = "agent")]
pub mod mount;
pub mod ports;
pub mod proto;
mod skip;

pub use events::{Emitter, event_channel, serial_event_channel};
#[cfg(feature = "agent")]
pub use mount::mount_9p_dir;
pub use ports::virtio_serial_device;
pub use skip::{in_vm, skip_if_in_vm, skip_if_not_in_vm};
