//! A runtime for callers that have none, so that tokio stays in this layer.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Runs futures for code that does not know of them. Works on any thread, also inside of somebody's
/// runtime (which it blocks).
#[derive(Debug)]
pub struct BlockingRuntime(Option<Runtime>);

impl BlockingRuntime {
    /// Starts its thread.
    ///
    /// # Errors
    /// The system's, when there is no thread or no descriptor to be had.
    pub fn new() -> io::Result<BlockingRuntime> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("vmtest-runtime")
            .enable_all()
            .build()?;
        Ok(BlockingRuntime(Some(runtime)))
    }

    /// Runs a future to its end on the runtime's thread and waits for its value.
    ///
    /// # Panics
    /// When the future panics, with its message on stderr.
    pub fn block_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, value) = mpsc::channel();
        let Some(runtime) = &self.0 else { unreachable!("it is taken by drop only") };
        runtime.spawn(async move {
            let _ = sender.send(work.await);
        });
        value.recv().expect("the future panicked; its message is above")
    }
}

impl Drop for BlockingRuntime {
    fn drop(&mut self) {
        // Waiting for its threads could last forever, and is forbidden inside of a runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The value of a future that ends within the limit.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let runtime = BlockingRuntime::new().unwrap();
        assert_eq!(runtime.block_on(async { tokio::spawn(async { 6 * 7 }).await.unwrap() }), 42);
    }

    #[tokio::test]
    async fn it_works_inside_of_another_runtime() {
        let runtime = BlockingRuntime::new().unwrap();
        assert_eq!(runtime.block_on(async { 1 }), 1);
    }
}
