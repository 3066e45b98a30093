//! The control port, as frames both ways. Nothing here blocks but [`Link::wait_for_host`].
//!
//! What is to be sent is queued and written as the port takes it. Messages are always queued; of a
//! command's output only as much as the port has taken is read on ([`Link::has_room`]), so the queue
//! stays short.

use super::poll;
use rustix::event::{PollFd, PollFlags};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;
use vmtest_guest::proto::Message;
use vmtest_guest::proto::frame::{self, Decoder, HEADER_BYTES, Kind, MAX_DATA_BYTES};

const LOOK_AGAIN: Duration = Duration::from_millis(1);
const READ_BYTES: usize = 64 << 10;

pub(crate) struct Link {
    port: File,
    pub(crate) decoder: Decoder,
    input: Vec<u8>,
    /// What the port has not taken yet, from `sent` on.
    output: Vec<u8>,
    sent: usize,
}

impl Link {
    /// Both ends of what `port` is shared with become non-blocking.
    pub(crate) fn new(port: File) -> io::Result<Link> {
        rustix::io::ioctl_fionbio(&port, true)?;
        let output = Vec::with_capacity(HEADER_BYTES + MAX_DATA_BYTES);
        let input = vec![0; READ_BYTES];
        Ok(Link { port, decoder: Decoder::new(), input, output, sent: 0 })
    }

    /// Waits until the host has connected its end, however long that takes: it may attach to a
    /// guest that runs already.
    pub(crate) fn wait_for_host(&self) {
        loop {
            let mut fds = [PollFd::new(&self.port, PollFlags::OUT)];
            poll::wait(&mut fds, None);
            if !fds[0].revents().contains(PollFlags::HUP) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// For `poll`: always what comes, and room where something waits for it.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        let flags = if self.has_room() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        PollFd::from_borrowed_fd(self.port.as_fd(), flags)
    }

    /// Whether everything that was queued is sent.
    pub(crate) fn has_room(&self) -> bool {
        self.sent == self.output.len()
    }

    /// Queues a message and sends what the port takes.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let line = serde_json::to_vec(message)?;
        self.queue(&frame::header(Kind::Message, 0, line.len()));
        self.queue(&line);
        self.flush()
    }

    /// Queues a frame and sends what the port takes.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        self.queue(frame);
        self.flush()
    }

    fn queue(&mut self, bytes: &[u8]) {
        if self.has_room() {
            self.output.clear();
            self.sent = 0;
        }
        self.output.extend_from_slice(bytes);
    }

    /// Has `read` fill a frame of at most `most` bytes of a stream, and sends it.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn relay(
        &mut self,
        kind: Kind,
        id: u32,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> poll::Progress,
    ) -> io::Result<poll::Progress> {
        self.queue(&[0; HEADER_BYTES]);
        let start = self.output.len();
        self.output.resize(start + most.min(MAX_DATA_BYTES), 0);
        let progress = read(&mut self.output[start..]);
        let poll::Progress::Some(count) = progress else {
            self.output.truncate(start - HEADER_BYTES);
            return Ok(progress);
        };
        self.output.truncate(start + count);
        let header = frame::header(kind, id, count);
        self.output[start - HEADER_BYTES..start].copy_from_slice(&header);
        self.flush()?;
        Ok(progress)
    }

    /// Sends what the port takes.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.port.write(&self.output[self.sent..]) {
                // A port says 0 when its queue has no room after all, and `poll` may know no better.
                Ok(0) => {
                    std::thread::sleep(LOOK_AGAIN);
                    return Ok(());
                }
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what has come. False when there was nothing.
    ///
    /// # Errors
    /// The host is gone, or the port cannot be read: a sentence.
    pub(crate) fn fill(&mut self) -> Result<bool, String> {
        match self.port.read(&mut self.input) {
            Ok(0) => Err(match self.decoder.pending() {
                [] => "the host closed the control port".to_owned(),
                begun => format!("the host closed the control port in a frame: {}", excerpt(begun)),
            }),
            Ok(count) => {
                self.decoder.push(&self.input[..count]);
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(false)
            }
            Err(error) => Err(format!("cannot read the control port: {error}")),
        }
    }
}

/// Enough of foreign bytes to recognise them.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim_end().to_owned()
}
