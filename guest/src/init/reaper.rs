//! Collects every child that ends, the command's and the orphans that process 1 inherits.
//!
//! Two things would go wrong with a plain `waitpid(-1)` loop. A program that cannot be executed is a
//! child that `Command::spawn` waits for itself; taken away from it, it panics. And with no child
//! at all there is nothing to wait for. So a thread waits for a child to end *without* collecting it,
//! then takes the lock that `spawn` holds as well, and collects what is still there. When there are
//! no children it sleeps until the next `spawn`: nothing else gives process 1 a first child.

use super::agent::Event;
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid};
use std::io;
use std::process::Command;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use vmtest_guest::proto::ExitStatus;

pub(crate) struct Reaper {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whether something was spawned since the reaper last looked.
    spawned: Mutex<bool>,
    wake: Condvar,
}

impl Reaper {
    pub(crate) fn start(events: Sender<Event>) -> Reaper {
        let shared = Arc::new(Shared { spawned: Mutex::new(false), wake: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || for_thread.reap(&events));
        Reaper { shared }
    }

    /// Starts `command`; its end will be an [`Event::Reaped`] with the process id returned.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Pid> {
        let mut spawned = self.shared.lock();
        let child = command.spawn()?;
        *spawned = true;
        self.shared.wake.notify_one();
        Ok(Pid::from_child(&child))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.spawned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self, events: &Sender<Event>) {
        loop {
            let ended = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let mut spawned = self.lock();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(status) = exit_status(status) {
                    let _ = events.send(Event::Reaped { pid, status });
                }
            }
            if ended.is_err_and(|errno| errno == Errno::CHILD) && !*spawned {
                let _ = events.send(Event::NoChildren);
                while !*spawned {
                    spawned = self.wake.wait(spawned).unwrap_or_else(PoisonError::into_inner);
                }
            }
            *spawned = false;
        }
    }
}

fn exit_status(status: rustix::process::WaitStatus) -> Option<ExitStatus> {
    if let Some(code) = status.exit_status() {
        return Some(ExitStatus::Code(code as u8));
    }
    status.terminating_signal().map(|signal| ExitStatus::Signal(signal as u8))
}
