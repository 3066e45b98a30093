//! SIGINT, SIGTERM and SIGHUP end a run; QEMU goes away too.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first signal that asks us to end, with its name.
pub(crate) async fn interrupted() -> &'static str {
    let listen = |kind| signal(kind).ok();
    let (mut int, mut term, mut hup) = (
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
        listen(SignalKind::hangup()),
    );
    async fn wait(signal: &mut Option<tokio::signal::unix::Signal>) {
        match signal {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
    tokio::select! {
        () = wait(&mut int) => "SIGINT",
        () = wait(&mut term) => "SIGTERM",
        () = wait(&mut hup) => "SIGHUP",
    }
}
