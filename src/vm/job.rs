//! What a run is asked to do, and the machine that it takes over.

use std::fs::File;
use std::time::Duration;

use vmtest_guest::proto::{Exec, Hello};

use super::{Guest, HangLimit, TemplateError, Vm};

/// What to do in the guest, and for how long.
#[derive(Debug)]
pub struct Job {
    /// The command; `None` only proves that the guest boots.
    pub exec: Option<Exec>,
    /// An archive of files that are put into the guest before ([`Guest::put_files`]).
    pub files: Option<File>,
    /// Where the guest is saved once it is ready.
    pub save: Option<SaveRequest>,
    /// From QEMU's start until the guest is ready.
    pub boot_limit: Duration,
    /// The whole run; `None` for an interactive one.
    pub run_limit: Option<Duration>,
    /// When a silent guest is looked at; `None` for never.
    pub hang: Option<HangLimit>,
}

/// Where a guest is saved once it is ready, and who is told.
pub struct SaveRequest {
    /// Gets its memory.
    pub memory: File,
    /// Gets the rest of the machine.
    pub state: File,
    /// Called when it is saved, or could not be: then the run goes on, and the text is remarked.
    pub done: SaveDone,
}

/// Takes what the guest said when it was ready, and QEMU's version; gives what the user shall know.
pub type SaveDone =
    Box<dyn FnOnce(&Hello, Option<String>, Result<(), TemplateError>) -> Option<String> + Send>;

impl std::fmt::Debug for SaveRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaveRequest").finish_non_exhaustive()
    }
}

/// A machine as a run takes it over.
#[derive(Debug)]
pub enum Start {
    /// It was started, and its guest is not ready yet.
    Booting(Box<Vm>),
    /// Its guest is ready.
    Ready(Box<Guest>),
}

impl Start {
    pub(super) fn vm(&self) -> &Vm {
        match self {
            Start::Booting(vm) => vm,
            Start::Ready(guest) => guest.vm(),
        }
    }
}

impl From<Vm> for Start {
    fn from(vm: Vm) -> Start {
        Start::Booting(Box::new(vm))
    }
}

impl From<Guest> for Start {
    fn from(guest: Guest) -> Start {
        Start::Ready(Box::new(guest))
    }
}
