//! What may take long, each in a thread of its own. The main loop is told when one is through.

use super::failure::Failure;
use super::network;
use crate::commands::event;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use vmtest_guest::coverage::{self, Archived};
use vmtest_guest::mount;
use vmtest_guest::proto::{Message, Mount, Network};

const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What came of something.
pub(crate) enum Done {
    /// The answer to a request, and the directory that was mounted.
    Answer { id: u64, result: Result<(), Failure>, mounted: Option<String> },
    /// What the host is to be told, in this order.
    Messages(Vec<Message>),
}

/// The threads.
pub(crate) struct Work {
    wake: Arc<OwnedFd>,
    sender: Sender<Done>,
    done: Receiver<Done>,
    under_way: usize,
}

impl Work {
    pub(crate) fn new() -> io::Result<Work> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (sender, done) = channel();
        Ok(Work { wake: Arc::new(wake), sender, done, under_way: 0 })
    }

    /// Readable once something is through.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// The next thing that is through.
    pub(crate) fn next(&mut self) -> Option<Done> {
        let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
        let done = self.done.try_recv().ok()?;
        self.under_way -= 1;
        Some(done)
    }

    fn start(&mut self, work: impl FnOnce() -> Done + Send + 'static) {
        let (wake, sender) = (Arc::clone(&self.wake), self.sender.clone());
        self.under_way += 1;
        std::thread::spawn(move || {
            let _ = sender.send(work());
            // It can only fail when it was told 2^64 times.
            let _ = rustix::io::write(&*wake, &1u64.to_ne_bytes());
        });
    }

    /// A device may take seconds to appear.
    pub(crate) fn mount(&mut self, id: u64, mount: Mount) {
        self.start(move || {
            let result =
                mount::mount_fs(&mount).map_err(|error| Failure::chain(&error, error.errno()));
            let mounted = result.is_ok().then_some(mount.target);
            Done::Answer { id, result, mounted }
        });
    }

    /// So may a card.
    pub(crate) fn network(&mut self, id: u64, network: Network) {
        self.start(move || Done::Answer { id, result: network::set_up(&network), mounted: None });
    }

    /// There may be thousands of files, and the host may read slowly.
    ///
    /// # Errors
    /// There is no port for them.
    pub(crate) fn kernel_coverage(&mut self, id: u64, port: Option<&File>) -> Result<(), Failure> {
        let missing = "the machine has no virtio-serial port for coverage";
        let port = port.ok_or_else(|| Failure::new(missing, Errno::NODEV))?;
        let port = port
            .try_clone()
            .map_err(|error| Failure::of("cannot use the port for coverage", &error))?;
        self.start(move || {
            match coverage::collect_kernel(Path::new(coverage::KERNEL_DIR), PortWriter(port)) {
                Ok(Archived { files, bytes }) => {
                    Done::Messages(vec![Message::KernelCoverage { id, files, bytes }])
                }
                Err(error) => {
                    let failure = Failure::chain(&error, error.errno());
                    Done::Answer { id, result: Err(failure), mounted: None }
                }
            }
        });
        Ok(())
    }

    /// Says `done` on the channels that a command used, then that it has exited: a host may read them
    /// slowly.
    pub(crate) fn close_events(&mut self, exited: Message) {
        self.start(move || {
            let notices = event::close_used().into_iter().map(|text| Message::Notice { text });
            Done::Messages(notices.chain([exited]).collect())
        });
    }
}

/// A port that blocks, as a writer that waits for the host.
struct PortWriter(File);

impl Write for PortWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                // A port says 0 when its queue has no room after all.
                Ok(0) if !bytes.is_empty() => std::thread::sleep(LOOK_AGAIN),
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
