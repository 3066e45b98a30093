//! The command's stdin, stdout and stderr between the virtio ports and the host side.
//!
//! Each stream has a thread of its own that reads, writes and counts, in the simplest possible way: a
//! writer that blocks (a slow reader, a full disk's retry) slows down that stream only, through QEMU
//! down to the program in the guest, and neither time-outs nor the other streams.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use tokio::sync::{mpsc, watch};

/// Bytes read at once. A virtio port passes on 32 KiB at most in one go.
const CHUNK_BYTES: usize = 128 << 10;

/// Where the command's streams come from and go to.
pub struct Streams {
    /// Read until its end and given to the command; without it, stdin is `/dev/null`.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// Gets the command's stdout.
    pub stdout: Box<dyn Write + Send>,
    /// Gets the command's stderr.
    pub stderr: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// How far a stream from the guest has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Bytes that arrived and were written, or given up because of `failed`.
    pub(crate) bytes: u64,
    /// The writer's error: nothing more is written, the rest is read and dropped.
    pub(crate) failed: Option<(ErrorKind, String)>,
    /// The guest's end is gone.
    pub(crate) closed: bool,
}

/// Starts to copy from the guest to a writer.
pub(crate) fn from_guest(
    name: &'static str,
    mut port: UnixStream,
    mut writer: Box<dyn Write + Send>,
) -> io::Result<watch::Receiver<Flow>> {
    let (sender, flow) = watch::channel(Flow::default());
    thread::Builder::new().name(format!("vmtest-{name}")).spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut failed = false;
        loop {
            let n = match port.read(&mut buffer) {
                Ok(n @ 1..) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                _ => break,
            };
            let written = if failed {
                Ok(())
            } else {
                writer.write_all(&buffer[..n]).and_then(|()| writer.flush())
            };
            failed |= written.is_err();
            sender.send_modify(|flow| {
                flow.bytes += n as u64;
                if let Err(error) = written {
                    flow.failed = Some((error.kind(), error.to_string()));
                }
            });
        }
        sender.send_modify(|flow| flow.closed = true);
    })?;
    Ok(flow)
}

/// Starts to copy a reader to the guest. Says how many bytes there were when all are on their way.
///
/// The thread ends with the reader or the guest; one that waits for a terminal ends with the process.
pub(crate) fn to_guest(
    mut reader: Box<dyn Read + Send>,
    mut port: UnixStream,
    done: mpsc::UnboundedSender<u64>,
) -> io::Result<()> {
    thread::Builder::new().name("vmtest-stdin".into()).spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(n @ 1..) => {
                    if port.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                    bytes += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // An unreadable stdin ends like an empty one: the command sees its end.
                _ => break,
            }
        }
        let _ = done.send(bytes);
        // The port stays open: closing it could make QEMU drop what it has not passed on yet.
        let _ = port.read(&mut buffer);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn all_bytes_arrive_and_are_counted() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let sink = Shared::default();
        let mut flow = from_guest("test", host, Box::new(sink.clone())).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let copy = sent.clone();
        thread::spawn(move || guest.write_all(&copy).unwrap());
        flow.wait_for(|flow| flow.closed).await.unwrap();
        assert_eq!(flow.borrow().bytes, 3_000_000);
        assert!(*sink.0.lock().unwrap() == sent, "the bytes differ");
    }

    #[tokio::test]
    async fn a_writer_that_fails_does_not_stop_the_guest() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut flow = from_guest("test", host, Box::new(Broken)).unwrap();
        thread::spawn(move || guest.write_all(&[0; 1_000_000]).unwrap());
        flow.wait_for(|flow| flow.closed).await.unwrap();
        let flow = flow.borrow().clone();
        assert_eq!(flow.bytes, 1_000_000);
        assert_eq!(flow.failed.unwrap().0, ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn the_length_of_stdin_is_said_at_its_end() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let (sender, mut done) = mpsc::unbounded_channel();
        to_guest(Box::new(&b"hello"[..]), host, sender).unwrap();
        assert_eq!(done.recv().await, Some(5));
        let mut got = [0; 5];
        guest.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }
}
