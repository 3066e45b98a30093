//! How QEMU fares on its host: what a guest's watchdogs say of a host that is too busy is not the guest's
//! fault.
//!
//! The scheduler counts for each thread how long it ran and how long it was ready and had no processor
//! (`/proc/PID/task/TID/schedstat`, kernel documentation "Scheduler Statistics"). A kernel without
//! CONFIG_SCHED_INFO counts nothing, and then no host is called busy.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::process::Process;

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Less waiting than this says nothing, however short the run was.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// What QEMU got of its host's processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLoad {
    /// How long its threads ran, all added up.
    pub ran: Duration,
    /// How long the thread that waited longest was ready and had no processor.
    pub waited: Duration,
    /// The time that this is about.
    pub of: Duration,
}

impl HostLoad {
    /// Whether the host was too busy for what a guest says of its time to mean anything: one thread was
    /// kept waiting for a fifth of it.
    pub fn is_starved(&self) -> bool {
        self.waited >= NOTICEABLE && 5 * self.waited >= self.of
    }

    /// What a person should know, if the host was too busy.
    pub fn complaint(&self) -> Option<String> {
        let display = |duration: Duration| {
            crate::duration::display(Duration::from_millis(duration.as_millis() as u64))
        };
        self.is_starved().then(|| {
            format!(
                "the host was too busy: in {} QEMU waited {} for a processor",
                display(self.of),
                display(self.waited)
            )
        })
    }
}

/// Looks at QEMU as long as it lives.
#[derive(Clone, Debug, Default)]
pub(super) struct HostWatch(Arc<Mutex<HostLoad>>);

impl HostWatch {
    /// Starts to look. Reads /proc, which waits for nobody.
    pub(super) fn start(process: &Process) -> HostWatch {
        let watch = HostWatch::default();
        let (load, pid, mut exit) = (watch.0.clone(), process.pid(), process.exit_watch());
        let tasks = format!("/proc/{}/task", pid.as_raw_pid());
        tokio::spawn(async move {
            let started = Instant::now();
            while tokio::time::timeout(PERIOD, exit.wait_for(Option::is_some)).await.is_err() {
                let now = of_threads(Path::new(&tasks));
                let mut load = load.lock().unwrap_or_else(PoisonError::into_inner);
                // A thread that has ended takes its count with it.
                load.ran = load.ran.max(now.ran);
                load.waited = load.waited.max(now.waited);
                load.of = started.elapsed();
            }
        });
        watch
    }

    /// So far.
    pub(super) fn so_far(&self) -> HostLoad {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_threads(tasks: &Path) -> HostLoad {
    let mut load = HostLoad::default();
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let (ran, waited) = parse(&text).unwrap_or_default();
        load.ran += ran;
        load.waited = load.waited.max(waited);
    }
    load
}

/// Nanoseconds on a processor, nanoseconds ready to be, number of turns.
fn parse(text: &str) -> Option<(Duration, Duration)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((Duration::from_nanos(ran), Duration::from_nanos(waited)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_host_is_one_that_has_qemu_wait() {
        let load = |waited, of| HostLoad {
            ran: Duration::ZERO,
            waited: Duration::from_secs(waited),
            of: Duration::from_secs(of),
        };
        assert!(!load(0, 1).is_starved() && !load(9, 60).is_starved());
        assert_eq!(
            load(15, 60).complaint().as_deref(),
            Some("the host was too busy: in 1m0s QEMU waited 15s for a processor")
        );
    }

    #[test]
    fn the_schedulers_count_is_read() {
        assert_eq!(
            parse("626420895 1959587412 171\n"),
            Some((Duration::from_nanos(626_420_895), Duration::from_nanos(1_959_587_412)))
        );
        assert_eq!((parse(""), parse("x 1 2"), parse("1")), (None, None, None));
        let own = of_threads(Path::new("/proc/self/task"));
        assert!(own.ran > Duration::ZERO, "{own:?}");
    }
}
