//! How much of the processors a machine gets when others want them too.

use rustix::process::{
    Pid, Resource, geteuid, getpriority_process, getrlimit, setpriority_process,
};

use super::guest::Guest;

/// How far a machine steps back behind others: the most that nice(1) knows.
const LOWEST: i32 = 19;

/// The limit that lets a user set a nice value of `n` is 20 - n (getrlimit(2), RLIMIT_NICE).
const NICE_CEILING: i32 = 20;

/// A machine's priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// That of this process.
    Normal,
    /// Behind all others, where it can be raised again.
    Low,
}

impl Guest {
    /// Sets the priority of all of QEMU's threads. Only a matter of who comes first: what the system does not
    /// allow is left as it is.
    pub(crate) fn priority(&self, priority: Priority) {
        let Ok(own) = getpriority_process(None) else { return };
        if !may_raise_to(own) {
            return;
        }
        let nice = match priority {
            Priority::Normal => own,
            Priority::Low => LOWEST,
        };
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.vm().pid()));
        for thread in threads.into_iter().flatten().flatten() {
            let number = thread.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(thread) = number.and_then(Pid::from_raw) {
                let _ = setpriority_process(Some(thread), nice);
            }
        }
    }
}

/// Whether a thread that has stepped back may come forward again.
fn may_raise_to(nice: i32) -> bool {
    let limit = getrlimit(Resource::Nice).current;
    geteuid().is_root() || limit.is_none_or(|limit| limit as i64 >= i64::from(NICE_CEILING - nice))
}
