//! The kernel's gcov counters: asked for once, streamed to a writer.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

/// How long the guest may take to send its counters. Some 1,500 files take a second under emulation.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Who takes the counters. (The lock only makes it `Sync`.)
pub(super) struct CounterSink(Mutex<Option<Box<dyn Write + Send>>>);

impl CounterSink {
    pub(super) fn new(writer: Option<Box<dyn Write + Send>>) -> CounterSink {
        CounterSink(Mutex::new(writer))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Write + Send>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CounterSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CounterSink").field(&self.lock().is_some()).finish()
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

/// How far a raw port has been copied.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    pub(super) failed: Option<String>,
    pub(super) closed: bool,
}

/// Copies a raw port to a writer, in a thread; what a writer that failed does not take is dropped.
pub(super) fn copy(
    mut port: UnixStream,
    mut writer: Box<dyn Write + Send>,
) -> io::Result<watch::Receiver<Copied>> {
    const CHUNK_BYTES: usize = 128 << 10;
    let (sender, copied) = watch::channel(Copied::default());
    thread::Builder::new().name("vmtest-coverage".into()).spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut failed = None;
        while let Ok(count @ 1..) = port.read(&mut buffer) {
            if failed.is_none() {
                let written = writer.write_all(&buffer[..count]).and_then(|()| writer.flush());
                failed = written.err().map(|error| error.to_string());
            }
            sender.send_modify(|copied| {
                copied.bytes += count as u64;
                copied.failed.clone_from(&failed);
            });
        }
        sender.send_modify(|copied| copied.closed = true);
    })?;
    Ok(copied)
}
