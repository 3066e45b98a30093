//! Asking a guest for its kernel's gcov counters.

use std::io::Write;
use std::os::unix::net::UnixStream;

use vmtest_guest::proto::{self, Message, Request};

use super::Guest;
use crate::vm::counters::{KernelCounters, LIMIT, copy};
use crate::vm::value::Vm;

impl Vm {
    /// Whether somebody wants the kernel's counters and has not got them.
    pub(in crate::vm) fn wants_counters(&self) -> bool {
        self.kernel_coverage.lock().is_some()
    }
}

impl Guest {
    /// Has the guest send its kernel's counters to whoever wants them
    /// ([`crate::vm::Resources::kernel_coverage`]). `None` if nobody does. A command may run meanwhile.
    pub async fn counters(&mut self) -> Option<KernelCounters> {
        let writer = self.vm.kernel_coverage.lock().take()?;
        let asked = std::time::Instant::now();
        let collected = match self.vm.take_channel(proto::COVERAGE_PORT) {
            None => Err("the plan has no port for them".to_owned()),
            Some(port) => match tokio::time::timeout(LIMIT, self.receive(port, writer)).await {
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

    async fn receive(
        &self,
        port: UnixStream,
        writer: Box<dyn Write + Send>,
    ) -> Result<(u64, u64), String> {
        let mut copied = copy(port, writer).map_err(|error| error.to_string())?;
        let answer = self.link.call(|id| Request::KernelCoverage { id }).await;
        let (files, bytes) = match answer.map_err(|error| error.to_string())? {
            Message::KernelCoverage { files, bytes, .. } => (files, bytes),
            other => return Err(format!("{other:?} instead of them")),
        };
        let arrived = copied.wait_for(|copied| copied.bytes >= bytes || copied.closed).await;
        let copied = arrived.map(|copied| copied.clone()).unwrap_or_default();
        match copied.failed {
            Some(error) => Err(format!("they cannot be written: {error}")),
            None if copied.bytes < bytes => {
                Err(format!("{} of {bytes} bytes arrived", copied.bytes))
            }
            None => Ok((files, bytes)),
        }
    }
}
