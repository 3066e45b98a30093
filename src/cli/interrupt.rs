//! SIGINT, SIGTERM and SIGHUP end what is under way; QEMU goes away too.
//!
//! They are listened to from before there is anything to lose, in a thread of their own: what
//! happens at a signal does not depend on what the rest of the program is busy with.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::error::{Failure, INTERRUPTED};
use super::ui;

/// How long what was interrupted may clean up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `each` at every signal that asks us to end, with its name, in a thread of its own. When
/// this returns, signals are listened to and no longer end the program by themselves.
pub(crate) fn listen(mut each: impl FnMut(&'static str) + Send + 'static) -> Result<(), Failure> {
    let failed = |error| Failure::unavailable(&error, None);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let listening = {
        let _within = runtime.enter();
        let listen = |kind| signal(kind).map_err(failed);
        (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        let (mut int, mut term, mut hup): (Signal, Signal, Signal) = listening;
        loop {
            each(runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => "SIGINT",
                    _ = term.recv() => "SIGTERM",
                    _ = hup.recv() => "SIGHUP",
                }
            }));
        }
    });
    Ok(())
}

/// Ends the program. Nothing is dropped.
pub(crate) fn exit(signal: &str) -> ! {
    ui::error(&format!("interrupted by {signal}"));
    std::process::exit(i32::from(INTERRUPTED))
}

/// Does `work`. The first signal calls `ask`, after which `work` shall clean up and fail soon; a
/// second one, or ten seconds, end the program at once.
pub(crate) fn guarded<T>(
    ask: impl Fn() + Send + 'static,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    #[derive(Default)]
    struct Seen {
        signal: Option<&'static str>,
        done: bool,
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let ours = seen.clone();
    listen(move |signal| {
        let mut seen = lock(&seen);
        if seen.done {
            exit(signal);
        }
        if seen.signal.replace(signal).is_some() {
            ui::error("interrupted twice: what was half done stays");
            std::process::exit(i32::from(INTERRUPTED));
        }
        ask();
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            exit(signal);
        });
    })?;
    let done = work();
    let mut seen = lock(&ours);
    seen.done = true;
    match (seen.signal, done) {
        (Some(signal), Err(failure)) => Err(Failure {
            code: INTERRUPTED,
            text: format!("interrupted by {signal}"),
            hint: failure.hint,
        }),
        (_, done) => done,
    }
}

/// Signals during a run: one ends the guest, and then the program in good order. Before there is a
/// guest, and after all about it has been written, one ends the program at once.
pub(crate) struct Interrupts {
    state: Arc<Mutex<State>>,
    first: mpsc::UnboundedReceiver<&'static str>,
}

struct State {
    /// Somebody takes what `first` gives.
    guest: bool,
    /// What goes away with a program that ends at once.
    unfinished: Option<PathBuf>,
}

impl Interrupts {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Interrupts, Failure> {
        let (send, first) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(State { guest: false, unfinished: None }));
        let ours = Interrupts { state: state.clone(), first };
        listen(move |signal| {
            // Held while the program ends, so that no guest is started meanwhile.
            let state = lock(&state);
            if !state.guest {
                if let Some(dir) = &state.unfinished {
                    let _ = std::fs::remove_dir_all(dir);
                }
                exit(signal);
            }
            // The run may be over; then it is too late for this one.
            let _ = send.send(signal);
        })?;
        Ok(ours)
    }

    /// Until there is a guest, a signal takes this directory along.
    pub(crate) fn remove_unfinished(&self, dir: PathBuf) {
        lock(&self.state).unfinished = Some(dir);
    }

    /// For whoever knows when there is a guest.
    pub(crate) fn starter(&self) -> Starter {
        Starter(Arc::clone(&self.state))
    }

    /// All about the guest has been written.
    pub(crate) fn guest_is_over(&self) {
        lock(&self.state).guest = false;
    }

    /// Completes at the first signal, with its name; also when `keys` says that the user typed so.
    pub(crate) async fn interrupted(
        &mut self,
        keys: Option<mpsc::UnboundedReceiver<()>>,
    ) -> &'static str {
        let typed = async {
            let key = match keys {
                Some(mut keys) => keys.recv().await,
                None => None,
            };
            // A closed channel means that stdin has ended, which is no reason to end.
            if key.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = typed => "Ctrl-A x",
            Some(signal) = self.first.recv() => signal,
        }
    }
}

/// Says when there is a guest.
pub(crate) struct Starter(Arc<Mutex<State>>);

impl Starter {
    /// There is a guest soon: the next signal comes out of [`Interrupts::interrupted`].
    pub(crate) fn guest_starts(&self) {
        *lock(&self.0) = State { guest: true, unfinished: None };
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere does not make it wrong.
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
