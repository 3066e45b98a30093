//! Ready guests, kept for whoever needs one next.
//!
//! ```text
//!   Template ──clone, run something, park──> parked guests ──take──> Guest, handed out once
//!                        ▲                                    │
//!                        └────── the maker makes another ─────┘
//! ```
//!
//! A guest that was just resumed answers its first command in a quarter of a second: under emulation nearly all
//! of that is translation of the guest's code, which no other process can take over. A guest of a pool has
//! run something before, so that the code is translated, and was then stopped: it takes no processor time
//! until it is taken, and answers in some 10 to 40 ms. It has the clock and the random numbers of the moment
//! in which it is taken.
//!
//! The maker runs beside everything else, on one guest at a time and at a low priority where the user may raise it
//! again; it makes none that would not fit into the memory that the host has left. Whoever takes a guest
//! when none is parked gets one that is made at once.
//!
//! ```no_run
//! # async fn doc() -> Result<(), vmtest::session::Error> {
//! use vmtest::arch::Arch;
//! use vmtest::pool::Pool;
//! use vmtest::session::Template;
//!
//! let pool = Pool::new(Template::new(Arch::Riscv64, ()).await?, 2);
//! let guest = pool.take().await?;
//! # Ok(()) }
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::host::Memory;
use crate::session::{Error, Template};
use crate::vm::{Guest, Priority};

/// How often a guest runs a command before it is parked: after the third everything that a command needs is
/// translated (`benches/blocks.rs`).
const EXERCISES: u32 = 3;

/// How long the maker waits after a failure, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often the maker looks whether there is memory again.
const MEMORY_PAUSE: Duration = Duration::from_millis(500);

/// What the host keeps for itself, in bytes.
const HOST_MEMORY_BYTES: u64 = 256 << 20;

/// Ready guests of one template. Dropped, it ends those that are parked.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    maker: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    template: Template,
    size: usize,
    parked: Mutex<VecDeque<Guest>>,
    /// One was taken.
    taken: Notify,
    /// One was parked.
    made: Notify,
}

impl Pool {
    /// Keeps `size` guests ready, from now on: 1 to as many as there is memory for.
    ///
    /// # Panics
    /// Outside of a tokio runtime; [`crate::blocking::Pool`] needs none.
    pub fn new(template: Template, size: usize) -> Pool {
        let shared = Arc::new(Shared {
            template,
            size,
            parked: Mutex::default(),
            taken: Notify::new(),
            made: Notify::new(),
        });
        let maker = tokio::spawn(make(shared.clone()));
        Pool { shared, maker }
    }

    /// A guest that nobody has used: a parked one, else one that is made now.
    ///
    /// # Errors
    /// Those of [`Template::clone_guest`].
    pub async fn take(&self) -> Result<Guest, Error> {
        while let Some(guest) = self.shared.pop() {
            self.shared.taken.notify_one();
            guest.priority(Priority::Normal);
            // One that has died while it was parked is none.
            if guest.wake().await.is_ok() {
                return Ok(guest);
            }
        }
        self.shared.template.clone_guest().await
    }

    /// How many guests are parked.
    pub fn parked(&self) -> usize {
        self.shared.lock().len()
    }

    /// The process ids of the parked guests' QEMUs.
    pub fn pids(&self) -> Vec<u32> {
        self.shared.lock().iter().map(|guest| guest.vm().pid()).collect()
    }

    /// Waits until `count` guests are parked, at most as many as the pool keeps.
    pub async fn filled(&self, count: usize) {
        loop {
            let made = self.shared.made.notified();
            if self.parked() >= count.min(self.shared.size) {
                return;
            }
            made.await;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.maker.abort();
        self.shared.lock().clear();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Guest>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Guest> {
        self.lock().pop_front()
    }
}

/// Keeps the pool filled. Whoever takes a guest gets to know why none can be made.
async fn make(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let taken = shared.taken.notified();
        if shared.lock().len() >= shared.size {
            taken.await;
            continue;
        }
        let needed = shared.template.memory_bytes() + HOST_MEMORY_BYTES;
        if Memory::read().is_some_and(|memory| memory.available < needed) {
            tokio::time::sleep(MEMORY_PAUSE).await;
            continue;
        }
        match parked(&shared.template).await {
            Ok(guest) => {
                pause = FIRST_PAUSE;
                shared.lock().push_back(guest);
                shared.made.notify_waiters();
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn parked(template: &Template) -> Result<Guest, Error> {
    let guest = template.clone_guest().await?;
    guest.priority(Priority::Low);
    for _ in 0..EXERCISES {
        guest.exercise().await.map_err(|why| Error::NotReady { why })?;
    }
    guest.park().await.map_err(|why| Error::NotResumed { why: Box::new(why) })?;
    Ok(guest)
}
