//! Carries an event channel from QEMU to whoever reads it, and knows when nothing is on its way.
//!
//! A guest's `write` to a port returns while the bytes are still in the port's queue, and a QEMU that
//! is told to quit drops them. So before a machine is switched off, its event channels have to run dry
//! ([`Pump::settled`]). Each has a thread: a reader that is slow stops it, and through QEMU the guest.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// QEMU has passed everything on when it was silent for this long.
const SILENCE: Duration = Duration::from_millis(30);
/// A reader that takes nothing for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a channel.
#[derive(Clone, Debug)]
pub(super) struct Pump {
    name: String,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    doing: Doing,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Waiting for QEMU.
    Reading,
    /// Waiting for the reader.
    Writing,
    Ended,
}

impl Pump {
    /// Starts to carry. Returns the reader's end.
    pub(super) fn start(name: &str, mut qemu: UnixStream) -> io::Result<(UnixStream, Pump)> {
        let (ours, mut theirs) = UnixStream::pair()?;
        let progress = Progress { doing: Doing::Reading, since: Instant::now() };
        let pump = Pump { name: name.to_owned(), progress: Arc::new(Mutex::new(progress)) };
        let state = pump.clone();
        thread::Builder::new().name(format!("vmtest-{name}")).spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                state.set(Doing::Reading);
                let n = match qemu.read(&mut buffer) {
                    Ok(n @ 1..) => n,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    _ => break,
                };
                state.set(Doing::Writing);
                if theirs.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = theirs.shutdown(Shutdown::Both);
            state.set(Doing::Ended);
        })?;
        Ok((ours, pump))
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, doing: Doing) {
        *self.lock() = Progress { doing, since: Instant::now() };
    }

    /// Waits until QEMU has nothing more to pass on. False when the reader does not read.
    pub(super) async fn settled(&self) -> bool {
        loop {
            let Progress { doing, since } = *self.lock();
            match doing {
                Doing::Ended => return true,
                Doing::Reading if since.elapsed() >= SILENCE => return true,
                Doing::Writing if since.elapsed() >= PATIENCE => return false,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// When something went through last.
    pub(super) fn since(&self) -> Instant {
        self.lock().since
    }

    /// The channel's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_waited_for_and_gets_everything() {
        let (qemu, mut guest) = UnixStream::pair().unwrap();
        let (mut reader, pump) = Pump::start("test", qemu).unwrap();
        assert!(pump.settled().await);
        const BYTES: usize = 2_000_000;
        let writer = thread::spawn(move || {
            guest.write_all(&[7; BYTES]).unwrap();
            guest
        });
        let slow = thread::spawn(move || {
            let mut got = 0;
            let mut buffer = [0; 65536];
            while got < BYTES {
                thread::sleep(Duration::from_millis(5));
                got += reader.read(&mut buffer).unwrap();
            }
            (got, reader)
        });
        let _guest = writer.join().unwrap();
        assert!(pump.settled().await);
        assert!(slow.is_finished() || pump.lock().doing == Doing::Reading);
        assert_eq!(slow.join().unwrap().0, BYTES);
    }

    #[tokio::test]
    async fn the_end_is_passed_on_in_both_directions() {
        let (qemu, guest) = UnixStream::pair().unwrap();
        let (mut reader, pump) = Pump::start("test", qemu).unwrap();
        drop(guest);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        assert!(pump.settled().await);

        let (qemu, mut guest) = UnixStream::pair().unwrap();
        let (reader, pump) = Pump::start("test", qemu).unwrap();
        drop(reader);
        let deadline = Instant::now() + Duration::from_secs(5);
        while guest.write_all(b"x").is_ok() {
            assert!(Instant::now() < deadline, "a reader that left was not noticed");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(pump.settled().await);
    }
}
