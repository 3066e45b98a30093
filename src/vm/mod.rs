//! A running machine: [`Vm`] owns QEMU, its streams and everything that must be torn down.
//!
//! ```text
//!              start       ready            shutdown
//!   Plan ──────────> Vm ──────────> Guest ────────────> Vm ──ended──> End
//!                     │               └ exec: a command runs
//!                     └ run: all of it, for one command ──────────────> Outcome
//! ```
//!
//! tokio lives in this layer only; [`Vm::start`] has to be called in a runtime.

pub mod accel;
mod console;
mod counters;
mod dialogue;
mod events;
mod evidence;
mod explain;
mod faults;
mod files;
mod guest;
mod hang;
mod host_load;
#[cfg(feature = "http")]
mod http;
mod job;
pub mod lines;
mod link;
mod machine;
mod priority;
mod process;
mod pump;
mod qmp;
mod read_line;
mod resources;
mod runtime;
mod saved;
mod scene;
mod start_error;
mod stop;
mod stream;
mod tasks;
mod template;
mod value;
mod verdict;
mod wait;

pub use console::last_lines;
pub use console::{Console, Cursor, ExpectError, Pattern, Sink};
pub use counters::KernelCounters;
pub use dialogue::{Outcome, Phases, Progress, run};
pub use events::{EventChannel, EventError, MAX_EVENT_BYTES, read_event_file};
pub use evidence::Evidence;
pub use files::FileError;
pub(crate) use guest::Kept;
pub use guest::{
    CommandHandle, Exited, Guest, GuestError, Incomplete, NotReady, Output, Running, Streams,
};
pub use hang::{HangAfter, HangLimit};
pub use host_load::HostLoad;
#[cfg(feature = "http")]
pub use http::{HttpHandler, ServeHttp};
pub use job::{Job, SaveDone, SaveRequest, Start};
pub use link::InterVm;
pub(crate) use priority::Priority;
pub(crate) use read_line::excerpt;
pub use resources::{EventConsumer, Resources};
pub use runtime::BlockingRuntime;
pub(crate) use runtime::within;
pub use rustix::process::Signal;
pub use saved::Saved;
pub use scene::Stage;
pub use start_error::StartError;
pub use tasks::{BoxError, CancelToken, DEFAULT_GRACE, Notifications, Task, TaskFailure};
pub use template::{Resumed, TemplateError};
pub use value::{End, Vm};
pub use verdict::{Limit, Verdict};
pub use wait::{MachineError, WaitError};
