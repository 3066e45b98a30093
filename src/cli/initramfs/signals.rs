//! Signals while a directory is written: what is half done goes away before the program does.
//!
//! Archives need none of this: until they are complete they have no name.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::cli::error::{Failure, INTERRUPTED};
use crate::cli::{interrupt, ui};

static ASKED: AtomicBool = AtomicBool::new(false);
static DONE: AtomicBool = AtomicBool::new(false);

/// Does `work`, which shall clean up and fail soon after its argument is set: at the first SIGINT,
/// SIGTERM or SIGHUP. A second one ends the program at once.
pub(super) fn guarded<T>(
    work: impl FnOnce(&'static AtomicBool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    static SIGNAL: OnceLock<&str> = OnceLock::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| Failure::unavailable(&err, None))?;
    let (ready, listening) = mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let first = async {
                let signal = interrupt::interrupted(None).await;
                let _ = SIGNAL.set(signal);
                ASKED.store(true, Ordering::SeqCst);
            };
            tokio::select! {
                biased;
                () = first => {}
                // Polled second: by now the signals are listened to.
                () = async {
                    let _ = ready.send(());
                    std::future::pending().await
                } => {}
            }
            if !DONE.load(Ordering::SeqCst) {
                interrupt::interrupted(None).await;
                ui::error("interrupted twice: what was half done stays");
            }
            std::process::exit(i32::from(INTERRUPTED));
        });
    });
    // An error means that the thread is gone, and signals do what they always do.
    let _ = listening.recv();
    let done = work(&ASKED);
    DONE.store(true, Ordering::SeqCst);
    match (SIGNAL.get(), done) {
        (Some(signal), Err(failure)) => Err(Failure {
            code: INTERRUPTED,
            text: format!("interrupted by {signal}"),
            hint: failure.hint,
        }),
        (_, done) => done,
    }
}
