//! How a run ended: one of these, each with its exit code.

use std::time::Duration;

use vmtest_guest::proto::ExitStatus;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The command ended by itself. Passed when its status is 0.
    Exited(ExitStatus),
    /// The guest could not start the command: no such program, no right to execute it.
    NotStarted {
        /// What failed, in the guest's words.
        error: String,
        /// As a shell would say it: 127 for a missing program, 126 otherwise.
        code: u8,
    },
    /// The command ended with status 0, and what it wrote did not reach its reader: a full disk.
    OutputLost {
        /// Which stream, and why.
        what: String,
    },
    /// All else went well, and the kernel has reported faults that are not allowed
    /// ([`crate::diagnosis::Mode::Fail`]).
    KernelFault {
        /// The first one's title.
        title: String,
        /// How many there are.
        count: u64,
    },
    /// There was no command: the guest said that it is ready, and was switched off.
    Ready,
    /// There was no agent: the guest switched itself off.
    PoweredOff,
    /// The guest's kernel panicked, or its init died (which is a panic too).
    Panicked {
        /// The kernel's reason.
        text: String,
    },
    /// Something took longer than it may.
    TimedOut {
        /// Which limit.
        limit: Limit,
        /// Its value.
        after: Duration,
    },
    /// All else went well, and the guest was ready later than it may be.
    OverBudget {
        /// From QEMU's start until the guest was ready.
        took: Duration,
        /// How long that may take.
        budget: Duration,
    },
    /// Nothing has come from the guest for a time, and there is proof that nothing will.
    Hung {
        /// What proves it.
        why: String,
        /// For how long nothing has come.
        silent: Duration,
    },
    /// QEMU ended although nobody asked it to.
    QemuDied {
        /// How it ended.
        status: String,
        /// What it said on stderr.
        stderr: String,
    },
    /// The guest is gone or does not make sense any more: it was switched off or reset from inside
    /// before the command had ended, or does not keep to the protocol.
    GuestLost {
        /// What is known.
        reason: String,
    },
    /// Work on the host that was bound to the machine failed ([`super::Task`]).
    TaskFailed {
        /// Which, and why.
        error: String,
    },
    /// Nothing was run: a kernel, a QEMU or a file is missing or unusable.
    CouldNotStart {
        /// What failed on which object, and why.
        error: String,
        /// How to fix it.
        hint: Option<String>,
    },
    /// The user ended the run.
    Interrupted {
        /// The signal, `SIGINT` for instance.
        signal: &'static str,
    },
}

/// A limit in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// From QEMU's start until the guest is ready (`--boot-timeout`).
    Boot,
    /// The whole run (`--timeout`, `VMTEST_TIMEOUT`).
    Run,
}

impl Limit {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Boot => "boot",
            Limit::Run => "run",
        }
    }
}

impl Verdict {
    /// The exit code of `vmtest`.
    ///
    /// A command may use any of these codes itself; `run.json` tells them apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            Verdict::Exited(status) => status.shell_code(),
            Verdict::NotStarted { code, .. } => *code,
            Verdict::Ready | Verdict::PoweredOff => 0,
            Verdict::CouldNotStart { .. } | Verdict::OutputLost { .. } => 69,
            Verdict::Panicked { .. } => 70,
            Verdict::Hung { .. } => 72,
            Verdict::KernelFault { .. } => 73,
            Verdict::QemuDied { .. } | Verdict::GuestLost { .. } | Verdict::TaskFailed { .. } => 71,
            Verdict::TimedOut { .. } | Verdict::OverBudget { .. } => 124,
            Verdict::Interrupted { .. } => 130,
        }
    }

    /// Whether all went well.
    pub fn passed(&self) -> bool {
        matches!(self, Verdict::Exited(ExitStatus::Code(0)) | Verdict::Ready | Verdict::PoweredOff)
    }

    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            _ if self.passed() => "passed",
            Verdict::Exited(_)
            | Verdict::NotStarted { .. }
            | Verdict::Ready
            | Verdict::PoweredOff => "failed",
            Verdict::Panicked { .. } => "guest-panicked",
            Verdict::TimedOut { .. } => "timed-out",
            Verdict::OverBudget { .. } => "over-budget",
            Verdict::Hung { .. } => "hung",
            Verdict::QemuDied { .. } => "qemu-died",
            Verdict::GuestLost { .. } => "guest-lost",
            Verdict::TaskFailed { .. } => "task-failed",
            Verdict::CouldNotStart { .. } => "could-not-start",
            Verdict::OutputLost { .. } => "output-lost",
            Verdict::KernelFault { .. } => "kernel-fault",
            Verdict::Interrupted { .. } => "interrupted",
        }
    }
}

impl std::fmt::Display for Verdict {
    /// One line that says what happened.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Exited(ExitStatus::Code(0)) => f.write_str("passed"),
            Verdict::Exited(ExitStatus::Code(code)) => write!(f, "failed with status {code}"),
            Verdict::Exited(ExitStatus::Signal(signal)) => {
                write!(f, "killed by signal {signal}")?;
                match signal_name(*signal) {
                    Some(name) => write!(f, " ({name})"),
                    None => Ok(()),
                }
            }
            Verdict::NotStarted { error, .. } => write!(f, "the command did not start: {error}"),
            Verdict::OutputLost { what } => write!(f, "the command passed, but {what}"),
            Verdict::KernelFault { title, count } => {
                write!(f, "the kernel reported {title}")?;
                match count {
                    0 | 1 => {}
                    count => write!(f, " and {} more", count - 1)?,
                }
                f.write_str("; all else passed (--splats fail)")
            }
            Verdict::Ready => f.write_str("the guest works"),
            Verdict::PoweredOff => f.write_str("the guest switched itself off"),
            Verdict::Panicked { text } => write!(f, "the guest panicked: {text}"),
            Verdict::TimedOut { limit, after } => {
                let after = crate::duration::display(*after);
                match limit {
                    Limit::Boot => {
                        write!(
                            f,
                            "timed out: the guest was not ready after {after} (--boot-timeout)"
                        )
                    }
                    Limit::Run => write!(f, "timed out: the run took over {after} (--timeout)"),
                }
            }
            Verdict::OverBudget { took, budget } => {
                let [took, budget] = [took, budget].map(|time| {
                    crate::duration::display(Duration::from_millis(time.as_millis() as u64))
                });
                write!(
                    f,
                    "the boot took {took}, {budget} were allowed; all else passed (--boot-budget)"
                )
            }
            Verdict::Hung { why, silent } => {
                let silent = crate::duration::display(Duration::from_secs(silent.as_secs().max(1)));
                write!(
                    f,
                    "the guest hangs: {why}, and nothing came from it for {silent} (--hang-after)"
                )
            }
            Verdict::QemuDied { status, stderr } if stderr.is_empty() => {
                write!(f, "QEMU died ({status}) without a word")
            }
            Verdict::QemuDied { status, stderr } => write!(f, "QEMU died ({status}): {stderr}"),
            Verdict::GuestLost { reason } => write!(f, "lost the guest: {reason}"),
            Verdict::TaskFailed { error } => f.write_str(error),
            Verdict::CouldNotStart { error, .. } => write!(f, "could not start: {error}"),
            Verdict::Interrupted { signal } => write!(f, "interrupted by {signal}"),
        }
    }
}

/// Names of the signals that end programs most often. The numbers are the same on all five
/// architectures (`signal(7)`).
fn signal_name(signal: u8) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let text = String::new;
        let rows = [
            (Verdict::Exited(ExitStatus::Code(3)), 3, "failed"),
            (Verdict::Exited(ExitStatus::Code(0)), 0, "passed"),
            (Verdict::Exited(ExitStatus::Signal(11)), 139, "failed"),
            (Verdict::NotStarted { error: text(), code: 127 }, 127, "failed"),
            (Verdict::OutputLost { what: text() }, 69, "output-lost"),
            (Verdict::KernelFault { title: text(), count: 1 }, 73, "kernel-fault"),
            (Verdict::Ready, 0, "passed"),
            (Verdict::PoweredOff, 0, "passed"),
            (Verdict::CouldNotStart { error: text(), hint: None }, 69, "could-not-start"),
            (Verdict::Panicked { text: text() }, 70, "guest-panicked"),
            (Verdict::QemuDied { status: text(), stderr: text() }, 71, "qemu-died"),
            (Verdict::GuestLost { reason: text() }, 71, "guest-lost"),
            (Verdict::TaskFailed { error: text() }, 71, "task-failed"),
            (
                Verdict::TimedOut { limit: Limit::Boot, after: Duration::from_secs(1) },
                124,
                "timed-out",
            ),
            (
                Verdict::OverBudget {
                    took: Duration::from_secs(2),
                    budget: Duration::from_secs(1),
                },
                124,
                "over-budget",
            ),
            (Verdict::Hung { why: text(), silent: Duration::ZERO }, 72, "hung"),
            (Verdict::Interrupted { signal: "SIGINT" }, 130, "interrupted"),
        ];
        for (verdict, code, name) in rows {
            assert_eq!((verdict.exit_code(), verdict.name()), (code, name), "{verdict:?}");
        }
    }
}
