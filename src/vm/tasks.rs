//! Work on the host that is bound to a machine's life: a server, a collector of events, a clean-up.
//!
//! ```text
//!   tasks start -> QEMU starts -> QEMU ends -> tasks are told, and have their grace -> wait returns
//!                                    ^
//!                   a task that fails kills QEMU: its error comes out of `wait`
//! ```
//!
//! A task that panics has failed. One that does not end within its grace is abandoned, and named.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a task may take to end when QEMU has ended, if nothing else is said.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Any error of a task.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Work bound to a machine's life.
pub struct Task {
    name: String,
    grace: Duration,
    start: Box<dyn FnOnce(Notifications) -> Work + Send>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).field("grace", &self.grace).finish()
    }
}

impl Task {
    /// A task; `name` is for messages. It starts right before QEMU does, and should end when
    /// [`Notifications::vm_exited`] does.
    pub fn new<F, W, E>(name: impl Into<String>, start: F) -> Task
    where
        F: FnOnce(Notifications) -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Task {
            name: name.into(),
            grace: DEFAULT_GRACE,
            start: Box::new(|notifications| {
                let work = start(notifications);
                Box::pin(async move { work.await.map_err(Into::into) })
            }),
        }
    }

    /// A function that runs when QEMU has ended, whatever the reason, also when it was never started
    /// and when the [`super::Vm`] was dropped.
    pub fn cleanup<E: Into<BoxError>>(
        name: impl Into<String>,
        cleanup: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Task {
        Task::new(name, |notifications| async move {
            notifications.vm_exited().await;
            cleanup()
        })
    }

    /// Starts only when QEMU has been started; never, and without an error, if it is not.
    #[must_use]
    pub fn wait_vm_started(self) -> Task {
        let start = self.start;
        Task {
            start: Box::new(|notifications| {
                Box::pin(async move {
                    if notifications.vm_started().await {
                        start(notifications).await
                    } else {
                        Ok(())
                    }
                })
            }),
            ..self
        }
    }

    /// How long it may take to end when QEMU has ended. Default: [`DEFAULT_GRACE`].
    #[must_use]
    pub fn grace(self, grace: Duration) -> Task {
        Task { grace, ..self }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Starting,
    Started,
    Exited(Option<ExitStatus>),
}

/// What a task can know of its machine. Nobody has to listen; clones hear the same.
#[derive(Clone, Debug)]
pub struct Notifications(watch::Receiver<State>);

impl Notifications {
    /// Waits until QEMU is started. `false`: it never was.
    pub async fn vm_started(&self) -> bool {
        let mut state = self.0.clone();
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        // One that has already ended was started, if it has a status.
        matches!(state.as_deref(), Ok(State::Started | State::Exited(Some(_))))
    }

    /// Waits until QEMU has ended, or could not be started: the time for the task to end. `None` when
    /// there is no status.
    pub async fn vm_exited(&self) -> Option<ExitStatus> {
        let mut state = self.0.clone();
        match state.wait_for(|state| matches!(state, State::Exited(_))).await.as_deref() {
            Ok(State::Exited(status)) => *status,
            _ => None,
        }
    }

    /// Runs something until it ends or QEMU does; `None` in the second case.
    pub async fn until_exit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            value = work => Some(value),
            _ = self.vm_exited() => None,
        }
    }
}

/// A switch that is thrown once, from anywhere; clones are the same switch.
#[derive(Clone, Debug)]
pub struct CancelToken(Arc<watch::Sender<bool>>);

impl Default for CancelToken {
    fn default() -> CancelToken {
        CancelToken(Arc::new(watch::channel(false).0))
    }
}

impl CancelToken {
    /// One that is not thrown.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Throws it.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was thrown.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is thrown.
    pub async fn cancelled(&self) {
        // It lives as long as its sender, which we hold.
        let _ = self.0.subscribe().wait_for(|thrown| *thrown).await;
    }
}

/// A task did not end well.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskFailure {
    /// It gave an error.
    #[error("task `{name}` failed")]
    Failed {
        /// The task.
        name: String,
        /// Its error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It panicked.
    #[error("task `{name}` panicked: {message}")]
    Panicked {
        /// The task.
        name: String,
        /// What it said.
        message: String,
    },
    /// It did not end when QEMU had ended.
    #[error("task `{name}` did not end within {} after QEMU", crate::duration::display(*.grace))]
    Stuck {
        /// The task.
        name: String,
        /// How long it had.
        grace: Duration,
    },
}

/// The running tasks of a machine.
#[derive(Debug)]
pub(super) struct Running {
    state: watch::Sender<State>,
    failed: CancelToken,
    handles: Vec<JoinHandle<Result<(), TaskFailure>>>,
}

impl Running {
    /// Starts the tasks.
    pub(super) fn start(tasks: Vec<Task>) -> Running {
        let state = watch::channel(State::Starting).0;
        let mut running = Running { state, failed: CancelToken::new(), handles: Vec::new() };
        tasks.into_iter().for_each(|task| running.add(task));
        running
    }

    /// Starts another task.
    pub(super) fn add(&mut self, task: Task) {
        let notifications = Notifications(self.state.subscribe());
        let supervisor = supervise(task, notifications, self.failed.clone());
        self.handles.push(tokio::spawn(supervisor));
    }

    /// Tells the tasks that QEMU runs, and later that it has ended.
    pub(super) fn follow(&self, mut exit: watch::Receiver<Option<ExitStatus>>) {
        self.state.send_replace(State::Started);
        let state = self.state.clone();
        tokio::spawn(async move {
            let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
            state.send_replace(State::Exited(status));
        });
    }

    /// Thrown when a task fails.
    pub(super) fn failed(&self) -> CancelToken {
        self.failed.clone()
    }

    /// Waits for all tasks, each within its grace. QEMU has to have ended.
    pub(super) async fn finish(&mut self) -> Vec<TaskFailure> {
        let mut failures = Vec::new();
        for handle in self.handles.drain(..) {
            // Supervisors do not panic, and nobody aborts them but the end of the runtime.
            if let Ok(Err(failure)) = handle.await {
                failures.push(failure);
            }
        }
        failures
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Never started: clean-ups run, others end. After a start, `follow` says so.
        self.state.send_if_modified(|state| {
            let starting = matches!(state, State::Starting);
            if starting {
                *state = State::Exited(None);
            }
            starting
        });
    }
}

async fn supervise(
    task: Task,
    notifications: Notifications,
    failed: CancelToken,
) -> Result<(), TaskFailure> {
    let Task { name, grace, start } = task;
    let exited = notifications.clone();
    // The closure itself may panic, so it runs inside of the task.
    let mut work = tokio::spawn(async move { start(notifications).await });
    let overdue = async {
        exited.vm_exited().await;
        tokio::time::sleep(grace).await;
    };
    let result = tokio::select! {
        result = &mut work => match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(TaskFailure::Failed { name, source: source.into() }),
            Err(error) => {
                let message = match error.try_into_panic() {
                    Ok(panic) => panic_text(&*panic),
                    Err(_) => "it was cancelled".into(),
                };
                Err(TaskFailure::Panicked { name, message })
            }
        },
        () = overdue => {
            work.abort();
            Err(TaskFailure::Stuck { name, grace })
        }
    };
    if result.is_err() {
        failed.cancel();
    }
    result
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}

/// A task that blocks: it has a thread of its own, so that it slows down nobody else. A panic in it is
/// the task's.
///
/// The thread of a task that is abandoned lives on until its function returns.
pub(super) fn on_thread<E: Into<BoxError> + Send + 'static>(
    name: String,
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Task {
    let thread_name = name.clone();
    Task::new(name, move |_| async move {
        let (sender, result) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name(thread_name).spawn(move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(work));
            let _ = sender.send(result.map(|result| result.map_err(Into::into)));
        })?;
        match result.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err("its thread is gone".into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Runs tasks beside a machine that starts and ends at once.
    async fn beside_a_machine(tasks: Vec<Task>) -> Vec<TaskFailure> {
        let (exit, exited) = watch::channel(None);
        let mut running = Running::start(tasks);
        running.follow(exited);
        tokio::task::yield_now().await;
        exit.send_replace(Some(ExitStatus::from_raw(0)));
        running.finish().await
    }

    #[tokio::test]
    async fn tasks_may_ignore_all_notifications() {
        let idle = Task::new("idle", |_| async { Ok::<(), BoxError>(()) });
        assert!(beside_a_machine(vec![idle]).await.is_empty());
    }

    #[tokio::test]
    async fn tasks_hear_of_start_and_end() {
        let (sender, heard) = tokio::sync::oneshot::channel();
        let task = Task::new("listener", |vm: Notifications| async move {
            let started = vm.vm_started().await;
            let cut = vm.until_exit(std::future::pending::<()>()).await;
            let status = vm.vm_exited().await;
            sender.send((started, cut, status.map(|status| status.success()))).unwrap();
            Ok::<(), BoxError>(())
        });
        assert!(beside_a_machine(vec![task]).await.is_empty());
        assert_eq!(heard.await.unwrap(), (true, None, Some(true)));
    }

    #[tokio::test]
    async fn errors_and_panics_come_out_and_end_the_machine() {
        let failing = Task::new("server", |_| async { Err("no port is free") });
        let panicking = Task::new("wild", |_| async {
            if true {
                panic!("oh {}", "no");
            }
            Ok::<(), BoxError>(())
        });
        let mut running = Running::start(vec![failing, panicking]);
        running.failed().cancelled().await;
        let failures = running.finish().await;
        let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["task `server` failed", "task `wild` panicked: oh no"]);
        let source = std::error::Error::source(&failures[0]).unwrap().to_string();
        assert_eq!(source, "no port is free");
    }

    #[tokio::test]
    async fn a_task_that_never_ends_has_a_deadline_and_is_named() {
        let endless = Task::new("endless", |_| std::future::pending::<Result<(), BoxError>>());
        let failures = beside_a_machine(vec![endless.grace(Duration::from_millis(20))]).await;
        assert_eq!(failures[0].to_string(), "task `endless` did not end within 20ms after QEMU");
    }

    #[tokio::test]
    async fn what_waits_for_the_start_never_starts_without_one_but_clean_ups_run() {
        let started = Arc::new(AtomicBool::new(false));
        let (sender, cleaned) = tokio::sync::oneshot::channel();
        let flag = Arc::clone(&started);
        let tasks = vec![
            Task::new("late", |_| async move {
                flag.store(true, Ordering::Relaxed);
                Ok::<(), BoxError>(())
            })
            .wait_vm_started(),
            Task::cleanup("cleanup", move || {
                sender.send(()).unwrap();
                Ok::<(), BoxError>(())
            }),
        ];
        drop(Running::start(tasks));
        cleaned.await.unwrap();
        assert!(!started.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn the_error_of_a_clean_up_comes_out() {
        let task = Task::cleanup("tidy", || Err("the lock file is gone"));
        let failures = beside_a_machine(vec![task]).await;
        assert!(matches!(&failures[..], [TaskFailure::Failed { name, .. }] if name == "tidy"));
    }

    #[tokio::test]
    async fn a_blocking_task_that_panics_is_a_failed_task() {
        let task = on_thread("callback".into(), || {
            if true {
                panic!("in the callback");
            }
            Ok::<(), BoxError>(())
        });
        let failures = beside_a_machine(vec![task]).await;
        assert_eq!(failures[0].to_string(), "task `callback` panicked: in the callback");
    }

    #[tokio::test]
    async fn a_token_is_thrown_once_for_all() {
        let token = CancelToken::new();
        let clone = token.clone();
        assert!(!clone.is_cancelled());
        token.cancel();
        clone.cancelled().await;
        assert!(clone.is_cancelled());
    }
}
