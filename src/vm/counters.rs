//! The kernel's gcov counters: asked for once, streamed to a writer.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmtest_guest::proto;

use super::Vm;
use super::agent::{Agent, AgentError};
use super::streams::from_guest;

/// How long the guest may take to send its counters. Some 1,500 files take a second under emulation.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Who takes the counters. (The lock only makes it `Sync`.)
pub(super) struct Taker(Mutex<Option<Box<dyn Write + Send>>>);

impl Taker {
    pub(super) fn new(writer: Option<Box<dyn Write + Send>>) -> Taker {
        Taker(Mutex::new(writer))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Write + Send>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taker").field(&self.lock().is_some()).finish()
    }
}

/// What came of asking for the kernel's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelCounters {
    /// They are written.
    Complete {
        /// Files in the archive.
        files: u64,
        /// The archive's size in bytes.
        bytes: u64,
        /// From the request to the last byte.
        took: Duration,
    },
    /// There are none, or not all.
    Missing {
        /// Why, for a person.
        why: String,
    },
}

impl Vm {
    /// Whether somebody wants the kernel's counters and has not got them.
    pub(super) fn wants_counters(&self) -> bool {
        self.kernel_coverage.lock().is_some()
    }

    /// Has the guest send its kernel's counters, if somebody wants them. `None` if nobody does.
    pub(super) async fn collect_counters(&mut self, agent: &mut Agent) -> Option<KernelCounters> {
        let writer = self.kernel_coverage.lock().take()?;
        let asked = std::time::Instant::now();
        let collected = match self.take_channel(proto::COVERAGE_PORT) {
            None => Err("the plan has no port for them".to_owned()),
            Some(port) => match tokio::time::timeout(LIMIT, receive(agent, port, writer)).await {
                Ok(result) => result,
                Err(_) => Err(format!(
                    "the guest did not send all of them within {}",
                    crate::duration::display(LIMIT)
                )),
            },
        };
        Some(match collected {
            Ok((files, bytes)) => KernelCounters::Complete { files, bytes, took: asked.elapsed() },
            Err(why) => KernelCounters::Missing { why },
        })
    }
}

async fn receive(
    agent: &mut Agent,
    port: std::os::unix::net::UnixStream,
    writer: Box<dyn Write + Send>,
) -> Result<(u64, u64), String> {
    let mut flow = from_guest("coverage", port, writer).map_err(|error| error.to_string())?;
    let (files, bytes) = agent.kernel_coverage().await.map_err(|error| match error {
        AgentError::Refused { error, .. } => error,
        other => other.to_string(),
    })?;
    let arrived = flow.wait_for(|flow| flow.bytes >= bytes || flow.closed).await;
    let flow = arrived.map(|flow| flow.clone()).unwrap_or_default();
    match flow.failed {
        Some((_, error)) => Err(format!("they cannot be written: {error}")),
        None if flow.bytes < bytes => Err(format!("{} of {bytes} bytes arrived", flow.bytes)),
        None => Ok((files, bytes)),
    }
}
