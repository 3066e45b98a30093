//! Waiting for a machine: how it ended, what stopped it, and what its tasks say.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::stop::Cause;
use super::tasks::TaskFailure;
use super::value::{End, Vm};
use super::verdict::{Limit, Verdict};
use crate::causes::chain;

/// A machine did not end well, or what ran beside it.
#[derive(Clone, Debug)]
pub struct WaitError {
    /// What is wrong with the machine, if anything is.
    pub machine: Option<MachineError>,
    /// The tasks that failed.
    pub tasks: Vec<TaskFailure>,
    /// What the console said last.
    pub last_lines: Vec<String>,
}

/// A machine did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The guest's kernel panicked.
    #[error("the guest panicked: {text}")]
    Panicked {
        /// The kernel's reason.
        text: String,
    },
    /// QEMU ended before it had made the machine: wrong arguments, an unreadable file.
    #[error("QEMU refused: {stderr}")]
    NeverRan {
        /// What it said.
        stderr: String,
    },
    /// QEMU ended with another status than 0, or by a signal that was not [`Vm::kill`].
    #[error("QEMU died ({status}): {stderr}")]
    Died {
        /// How.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// QEMU was killed because it lived too long ([`super::Resources::timeout`]).
    #[error("timed out: QEMU was killed after {}", crate::duration::display(*.limit))]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// QEMU was killed because the caller's [`super::CancelToken`] was thrown.
    #[error("cancelled: QEMU was killed")]
    Cancelled,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(machine) = &self.machine {
            write!(f, "{machine}")?;
            separator = "; ";
        }
        for task in &self.tasks {
            write!(f, "{separator}{}", chain(task))?;
            separator = "; ";
        }
        if self.machine.is_some() && !self.last_lines.is_empty() {
            write!(f, "\nthe console's last lines:\n  {}", self.last_lines.join("\n  "))?;
        }
        Ok(())
    }
}

// The causes are several, and in the text.
impl Error for WaitError {}

impl Vm {
    /// Waits until QEMU has ended, the console is drained and all tasks are done.
    ///
    /// The limits are [`super::Resources::timeout`] for QEMU and each task's own grace. After
    /// [`Vm::kill`] this gives [`End::Killed`].
    ///
    /// # Errors
    /// [`WaitError`] when QEMU did not end with status 0, the guest's kernel panicked, a limit passed,
    /// the machine was cancelled, or a task failed.
    pub async fn wait(mut self) -> Result<End, WaitError> {
        let end = self.ended().await;
        let tasks = self.finish_tasks().await;
        let machine = match (self.stopped.cause(), &end) {
            (Some(Cause::Timeout(limit)), _) => Some(MachineError::TimedOut { limit }),
            (Some(Cause::Cancelled), _) => Some(MachineError::Cancelled),
            // The failure says it all.
            (Some(Cause::TaskFailed), _) => None,
            (_, End::Panicked { text }) => Some(MachineError::Panicked { text: text.clone() }),
            (_, End::NeverRan { stderr }) => {
                Some(MachineError::NeverRan { stderr: stderr.clone() })
            }
            (_, End::Died { status, stderr }) => {
                Some(MachineError::Died { status: status.clone(), stderr: stderr.clone() })
            }
            _ => None,
        };
        if machine.is_none() && tasks.is_empty() {
            return Ok(end);
        }
        Err(WaitError { machine, tasks, last_lines: self.console.last_lines(10) })
    }

    /// Waits for the tasks of a machine that has ended.
    pub(super) async fn finish_tasks(&mut self) -> Vec<TaskFailure> {
        self.tasks.finish().await
    }

    /// The verdict of a run in which we have killed QEMU ourselves. The text of a failed task comes later.
    pub(super) fn stopped_verdict(&self) -> Option<Verdict> {
        Some(match self.stopped.cause()? {
            // How it ended says more.
            Cause::Kill | Cause::Panicked | Cause::Halted | Cause::Stopped { .. } => return None,
            Cause::Timeout(after) => Verdict::TimedOut { limit: Limit::Run, after },
            Cause::Hung { why, silent } => Verdict::Hung { why, silent },
            Cause::Cancelled => Verdict::Interrupted { signal: "cancellation" },
            Cause::Interrupted(signal) => Verdict::Interrupted { signal },
            Cause::TaskFailed => Verdict::TaskFailed { error: String::new() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tasks::{BoxError, CancelToken, Task};
    use super::super::{Job, Resources, StartError, Streams, run};
    use super::*;
    use crate::arch::Arch;
    use crate::options::{Options, QemuCommand};
    use crate::plan::Plan;
    use crate::qemu::EventPort;

    const LONG: Duration = Duration::from_secs(60);

    /// A "QEMU" that runs a shell script; QEMU's own arguments are the script's.
    fn start(script: &str, resources: Resources) -> Vm {
        Vm::start(plan(script), resources).unwrap()
    }

    fn plan(script: &str) -> Plan {
        let mut options = Options::new(Arch::Amd64);
        let args = ["-c", script, "sh"].map(Into::into).to_vec();
        options.qemu = Some(QemuCommand { program: "sh".into(), args });
        options.device(EventPort { name: "events".into() });
        options.plan().unwrap()
    }

    async fn wait(vm: Vm) -> Result<End, WaitError> {
        tokio::time::timeout(LONG, vm.wait()).await.expect("wait has to end")
    }

    #[tokio::test]
    async fn wait_after_kill_is_defined() {
        let vm = start("sleep 100", Resources::default());
        vm.kill();
        vm.kill();
        assert_eq!(wait(vm).await.unwrap(), End::Killed);
    }

    #[tokio::test]
    async fn a_signal_reaches_qemu() {
        let vm = start(
            "trap 'exit 3' TERM; echo on >&2; while :; do sleep 0.05; done",
            Resources::default(),
        );
        // The greeting is not there, but stderr says when the trap is set.
        while vm.process.output().text().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        vm.signal(super::super::Signal::TERM).unwrap();
        let error = wait(vm).await.unwrap_err();
        assert_eq!(error.machine, Some(MachineError::NeverRan { stderr: "on".into() }));
    }

    #[tokio::test]
    async fn a_machine_that_lives_too_long_is_killed() {
        let limit = Duration::from_millis(50);
        let vm = start("sleep 100", Resources { timeout: Some(limit), ..Resources::default() });
        let error = wait(vm).await.unwrap_err();
        assert_eq!(error.machine, Some(MachineError::TimedOut { limit }));
        assert_eq!(error.to_string(), "timed out: QEMU was killed after 50ms");
    }

    #[tokio::test]
    async fn cancelling_kills() {
        let cancel = CancelToken::new();
        let resources = Resources { cancel: Some(cancel.clone()), ..Resources::default() };
        let vm = start("sleep 100", resources);
        cancel.cancel();
        let error = wait(vm).await.unwrap_err();
        assert_eq!(error.machine, Some(MachineError::Cancelled));
    }

    #[tokio::test]
    async fn a_task_that_fails_ends_the_machine_and_comes_out_of_wait() {
        let task = Task::new("server", |_| async { Err("no port is free") });
        let vm = start("sleep 100", Resources { tasks: vec![task], ..Resources::default() });
        let error = wait(vm).await.unwrap_err();
        assert_eq!(error.machine, None);
        assert_eq!(error.to_string(), "task `server` failed: no port is free");
    }

    #[tokio::test]
    async fn a_run_says_why_qemu_was_killed() {
        let cancel = CancelToken::new();
        cancel.cancel();
        let limit = Duration::from_millis(50);
        let failing = Task::new("server", |_| async { Err("no port is free") });
        let none = Resources::default;
        for (resources, verdict) in [
            (
                Resources { cancel: Some(cancel), ..none() },
                Verdict::Interrupted { signal: "cancellation" },
            ),
            (
                Resources { timeout: Some(limit), ..none() },
                Verdict::TimedOut { limit: Limit::Run, after: limit },
            ),
            (
                Resources { tasks: vec![failing], ..none() },
                Verdict::TaskFailed { error: "task `server` failed: no port is free".into() },
            ),
        ] {
            let job = Job {
                exec: None,
                files: None,
                save: None,
                boot_limit: LONG,
                run_limit: None,
                hang: None,
            };
            let streams = Streams {
                stdin: None,
                stdout: Box::new(std::io::sink()),
                stderr: Box::new(std::io::sink()),
            };
            let interrupt = std::future::pending();
            let run = run(start("sleep 100", resources), job, streams, interrupt, |_| ());
            assert_eq!(run.await.verdict, verdict);
        }
    }

    #[tokio::test]
    async fn clean_ups_run_also_when_nobody_waits() {
        let (sender, cleaned) = tokio::sync::oneshot::channel();
        let task = Task::cleanup("tidy", move || {
            let _ = sender.send(());
            Ok::<(), BoxError>(())
        });
        drop(start("sleep 100", Resources { tasks: vec![task], ..Resources::default() }));
        tokio::time::timeout(LONG, cleaned).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn events_can_be_taken_once() {
        let mut resources = Resources::default();
        resources.on_event("events", |_: u8| Ok::<(), BoxError>(()));
        resources.on_event("events", |_: u8| Ok::<(), BoxError>(()));
        let error = Vm::start(plan("sleep 100"), resources).unwrap_err();
        assert!(matches!(&error, StartError::NoChannel { channel } if channel == "events"));
        let mut vm = start("sleep 100", Resources::default());
        assert!(vm.events::<u8>("events").is_ok());
        assert_eq!(vm.events::<u8>("events").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_channel_that_ends_without_done_fails_the_wait() {
        let mut resources = Resources::default();
        resources.on_event("events", |_: u8| Ok::<(), BoxError>(()));
        let error = wait(start("exit 0", resources)).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`events of events` failed: event channel `events` ended without"),
            "{text}"
        );
    }
}
