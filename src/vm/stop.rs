//! Ending QEMU before its time: why, and how, whatever hangs.
//!
//! Asked over the monitor first, so that QEMU closes its disks; a monitor that does not answer is
//! followed by SIGTERM and SIGKILL. From the decision to QEMU's end pass at most [`QUIT_GRACE`] and
//! [`TERM_GRACE`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::process::{Killer, Process};
use super::qmp::{Monitor, StopReason};
use super::tasks::CancelToken;

/// How long QEMU may take to quit when it is asked over its monitor.
pub(super) const QUIT_GRACE: Duration = Duration::from_secs(1);

/// How long QEMU may take to end after SIGTERM.
pub(super) const TERM_GRACE: Duration = Duration::from_millis(500);

/// Why QEMU was ended, if we did it: the first reason counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// [`super::Vm::kill`].
    Kill,
    /// It lived too long.
    Timeout(Duration),
    /// The caller's [`CancelToken`] was thrown.
    Cancelled,
    /// A task failed.
    TaskFailed,
    /// It hangs: why, and for how long it was silent.
    Hung { why: String, silent: Duration },
    /// The user's signal.
    Interrupted(&'static str),
    /// The kernel said that it panics, and nothing has lived since.
    Panicked,
    /// The kernel said that it halts, and nothing has lived since.
    Halted,
    /// QEMU itself has stopped the machine: the state's name, and what it says of the processors.
    Stopped { state: String, registers: String },
}

/// Remembers why QEMU was ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopped(Arc<Mutex<Option<Cause>>>);

impl Stopped {
    pub(super) fn by(&self, cause: Cause) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Ends QEMU, from anywhere.
#[derive(Clone, Debug)]
pub(super) struct Stopper {
    stopped: Stopped,
    monitor: Monitor,
    killer: Killer,
}

impl Stopper {
    pub(super) fn new(process: &Process, monitor: &Monitor, stopped: &Stopped) -> Stopper {
        Stopper { stopped: stopped.clone(), monitor: monitor.clone(), killer: process.killer() }
    }

    /// Has QEMU end for this reason, unless there was one before. Does not wait for it.
    pub(super) fn stop(&self, cause: Cause) {
        self.stopped.by(cause);
        let this = self.clone();
        tokio::spawn(async move { this.end().await });
    }

    /// Has QEMU end, and waits for it.
    pub(super) async fn end(&self) {
        self.monitor.quit();
        if !self.killer.ended_within(QUIT_GRACE).await {
            self.killer.terminate(TERM_GRACE).await;
        }
    }
}

/// Ends QEMU when a task fails, a token is thrown, its time is up, or it has stopped its machine.
pub(super) fn watch(
    stopper: &Stopper,
    failed: CancelToken,
    cancel: Option<CancelToken>,
    timeout: Option<Duration>,
) {
    let stopper = stopper.clone();
    let cancel = cancel.unwrap_or_default();
    tokio::spawn(async move {
        let time_is_up = async {
            match timeout {
                Some(limit) => {
                    tokio::time::sleep(limit).await;
                    Cause::Timeout(limit)
                }
                None => std::future::pending().await,
            }
        };
        let cause = tokio::select! {
            biased;
            () = stopper.killer.ended() => return,
            () = failed.cancelled() => Cause::TaskFailed,
            () = cancel.cancelled() => Cause::Cancelled,
            cause = time_is_up => cause,
            cause = stopped_by_itself(&stopper.monitor) => cause,
        };
        // These are ends that nobody wants to wait for.
        stopper.stopped.by(cause);
        stopper.killer.kill();
    });
}

/// Completes when QEMU has stopped its machine although nobody asked it to.
async fn stopped_by_itself(monitor: &Monitor) -> Cause {
    loop {
        monitor.stop_event().await;
        // A panic or a power-off stops the machine on its way out, and says so.
        if monitor.stop_reason().is_some() {
            std::future::pending::<()>().await;
        }
        let status = monitor.execute("query-status", serde_json::Value::Null).await;
        let Ok(status) = status else {
            // It is about to end, and says more by that.
            std::future::pending().await
        };
        let state = status["status"].as_str().unwrap_or("unknown").to_owned();
        if status["running"].as_bool() == Some(true)
            || matches!(monitor.stop_reason(), Some(reason) if reason != StopReason::HostQuit)
        {
            continue;
        }
        if matches!(state.as_str(), "shutdown" | "guest-panicked") {
            std::future::pending::<()>().await;
        }
        let arguments = serde_json::json!({ "command-line": "info registers -a" });
        let registers = monitor.execute("human-monitor-command", arguments).await;
        let registers = registers.ok().and_then(|text| text.as_str().map(str::to_owned));
        return Cause::Stopped { state, registers: registers.unwrap_or_default() };
    }
}
