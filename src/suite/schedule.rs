//! Guests side by side: as many as there are slots and memory for.
//!
//! Each slot is a thread. A guest counts the memory that it has; where the first guest of a kind is about to
//! be saved (`docs/warm-start.md`), others of that kind wait for it, since they go on from it in a fraction of
//! the time. Absent on purpose: an order of its own. Jobs start in the order they are given, but for those
//! that have to wait.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// What a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Memory of its guest, in bytes.
    pub bytes: u64,
    /// What kind of guest it has: guests of one kind are saved once. `None` for those that boot each time.
    pub kind: Option<u64>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Guests at a time; at least one.
    pub slots: u32,
    /// Memory for all of them, in bytes. A guest that needs more runs alone.
    pub bytes: u64,
}

/// What happens.
#[derive(Debug)]
pub enum Event<R> {
    /// A job begins.
    Started {
        /// Which, by its place.
        job: usize,
        /// Where.
        slot: u32,
    },
    /// A job has ended.
    Ended {
        /// Which.
        job: usize,
        /// Where.
        slot: u32,
        /// What came of it.
        result: R,
    },
    /// Nothing, for a while.
    Tick,
}

/// How often there is a tick.
const TICK: Duration = Duration::from_millis(200);

/// How many jobs are looked at for one that may start now.
const LOOK_MAX: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// The first of a kind is on its way.
    Closed,
    Open,
}

struct State {
    pending: VecDeque<usize>,
    running: u32,
    used: u64,
    gates: HashMap<u64, Gate>,
}

struct Shared<'a> {
    state: Mutex<State>,
    changed: Condvar,
    needs: &'a [Needs],
    limits: Limits,
    stop: &'a AtomicBool,
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job that may start; waits for one. `None` when there are no more, or all is to stop.
    fn next(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) || state.pending.is_empty() {
                return None;
            }
            let may_start = |job: &usize| {
                let needs = self.needs[*job];
                let fits = state.used + needs.bytes <= self.limits.bytes || state.running == 0;
                let open =
                    needs.kind.is_none_or(|kind| state.gates.get(&kind) != Some(&Gate::Closed));
                fits && open
            };
            if let Some(at) = state.pending.iter().take(LOOK_MAX).position(may_start) {
                let job = state.pending.remove(at)?;
                let needs = self.needs[job];
                state.running += 1;
                state.used += needs.bytes;
                if let Some(kind) = needs.kind {
                    state.gates.entry(kind).or_insert(Gate::Closed);
                }
                return Some(job);
            }
            state = match self.changed.wait_timeout(state, TICK) {
                Ok((state, _)) => state,
                Err(error) => error.into_inner().0,
            };
        }
    }

    /// The guest of a job is ready, or will not be saved: others of its kind need not wait.
    fn open(&self, job: usize) {
        if let Some(kind) = self.needs[job].kind {
            self.lock().gates.insert(kind, Gate::Open);
            self.changed.notify_all();
        }
    }

    fn done(&self, job: usize) {
        self.open(job);
        let mut state = self.lock();
        state.running -= 1;
        state.used -= self.needs[job].bytes;
        drop(state);
        self.changed.notify_all();
    }
}

/// Runs jobs, one for each of `needs`, and tells of each on the caller's thread. `work` gets the job, its
/// slot, and what it calls when its guest is ready. No job starts after `stop` is set.
pub fn run<R: Send>(
    needs: &[Needs],
    limits: Limits,
    stop: &AtomicBool,
    work: impl Fn(usize, u32, &(dyn Fn() + Sync)) -> R + Sync,
    mut each: impl FnMut(Event<R>),
) {
    let state =
        State { pending: (0..needs.len()).collect(), running: 0, used: 0, gates: HashMap::new() };
    let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), needs, limits, stop };
    let (shared, work) = (&shared, &work);
    let slots = limits.slots.max(1).min(u32::try_from(needs.len()).unwrap_or(u32::MAX));
    std::thread::scope(|scope| {
        let (send, events) = mpsc::channel();
        for slot in 0..slots {
            let send = send.clone();
            scope.spawn(move || {
                while let Some(job) = shared.next() {
                    let _ = send.send(Event::Started { job, slot });
                    let result = work(job, slot, &|| shared.open(job));
                    shared.done(job);
                    let _ = send.send(Event::Ended { job, slot, result });
                }
            });
        }
        drop(send);
        loop {
            match events.recv_timeout(TICK) {
                Ok(event) => each(event),
                Err(mpsc::RecvTimeoutError::Timeout) => each(Event::Tick),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn memory_and_slots_are_kept() {
        let needs = vec![Needs { bytes: 40, kind: None }; 12];
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut ended = Vec::new();
        let work = |job: usize, slot: u32, _: &(dyn Fn() + Sync)| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
            assert!(slot < 4);
            job
        };
        let limits = Limits { slots: 4, bytes: 100 };
        run(&needs, limits, &AtomicBool::new(false), work, |event| {
            if let Event::Ended { result, .. } = event {
                ended.push(result);
            }
        });
        ended.sort_unstable();
        assert_eq!(ended, (0..12).collect::<Vec<_>>());
        assert_eq!(most.into_inner(), 2);
        // One that needs more than there is runs alone.
        let large = [Needs { bytes: 1000, kind: None }];
        let mut count = 0;
        run(&large, limits, &AtomicBool::new(false), |_, _, _| (), |_| count += 1);
        assert!(count >= 2);
    }

    #[test]
    fn others_of_a_kind_wait_for_the_first_guest() {
        let needs = vec![Needs { bytes: 1, kind: Some(7) }; 6];
        let ready = AtomicBool::new(false);
        let first = AtomicBool::new(true);
        let work = |_: usize, _: u32, open: &(dyn Fn() + Sync)| {
            if first.swap(false, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
                ready.store(true, Ordering::SeqCst);
                open();
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(ready.load(Ordering::SeqCst));
        };
        let limits = Limits { slots: 3, bytes: 100 };
        run(&needs, limits, &AtomicBool::new(false), work, |_| ());
    }

    #[test]
    fn nothing_starts_after_a_stop() {
        let needs = vec![Needs { bytes: 1, kind: None }; 100];
        let stop = AtomicBool::new(false);
        let mut ended = 0;
        let work = |_: usize, _: u32, _: &(dyn Fn() + Sync)| stop.store(true, Ordering::SeqCst);
        run(&needs, Limits { slots: 1, bytes: 100 }, &stop, work, |event| {
            ended += usize::from(matches!(event, Event::Ended { .. }));
        });
        assert_eq!(ended, 1);
    }
}
