//! SIGINT, SIGTERM and SIGHUP end a run; QEMU goes away too.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Completes at the first signal that asks us to end, with its name; also when `keys` says that the
/// user typed so.
pub(crate) async fn interrupted(keys: Option<mpsc::UnboundedReceiver<()>>) -> &'static str {
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
        () = wait(&mut int) => "SIGINT",
        () = wait(&mut term) => "SIGTERM",
        () = wait(&mut hup) => "SIGHUP",
    }
}
