//! What a machine gets besides its plan.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::console::Sink;
use super::events;
use super::tasks::{BoxError, CancelToken, Task};

/// What a machine gets besides its plan.
#[derive(Default)]
pub struct Resources {
    /// The initramfs, when the plan boots one that is built ([`crate::options::Initramfs::Built`]).
    pub initramfs: Option<File>,
    /// Where the console's bytes also go.
    pub console_sinks: Vec<Sink>,
    /// Work bound to the machine's life.
    pub tasks: Vec<Task>,
    /// Who takes event channels; see [`Resources::on_event`].
    pub event_consumers: Vec<EventConsumer>,
    /// Gets the kernel's gcov counters, a tar archive, from a plan with a
    /// [`crate::qemu::CoverageShare`] that wants them.
    pub kernel_coverage: Option<Box<dyn Write + Send>>,
    /// QEMU is killed when this is thrown.
    pub cancel: Option<CancelToken>,
    /// QEMU is killed when it has lived this long. Default: no limit.
    pub timeout: Option<Duration>,
}

/// Takes an event channel when the machine starts.
pub struct EventConsumer {
    pub(super) channel: String,
    pub(super) start: Box<dyn FnOnce(UnixStream) -> Task + Send>,
}

impl std::fmt::Debug for EventConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventConsumer").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Resources {
    /// Calls a function for each event of a channel, in order, on a thread of its own. The plan needs
    /// an [`crate::qemu::EventPort`] of that name.
    ///
    /// A function that takes its time slows down the guest, which loses nothing. An error or a panic of
    /// it, a broken line or a missing `done` is the failure of a task: it ends the machine and comes out
    /// of [`super::Vm::wait`].
    pub fn on_event<T, E>(
        &mut self,
        channel: impl Into<String>,
        callback: impl FnMut(T) -> Result<(), E> + Send + 'static,
    ) where
        T: DeserializeOwned + 'static,
        E: Into<BoxError>,
    {
        let channel = channel.into();
        let name = channel.clone();
        let start = Box::new(move |stream| events::callback_task(&name, stream, callback));
        self.event_consumers.push(EventConsumer { channel, start });
    }
}

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resources").field("initramfs", &self.initramfs).finish_non_exhaustive()
    }
}
