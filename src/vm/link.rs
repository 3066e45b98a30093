//! Networks between machines: a hub in this process.
//!
//! ```text
//!   QEMU --stream--> reader --queue--> writer --stream--> QEMU
//!                      \----queue----> writer --stream--> QEMU
//! ```
//!
//! Each member has a stream to its QEMU (`-netdev stream`: frames, each behind its length in 4 bytes,
//! the highest first), a thread that reads it and passes every frame on to all others, and a thread
//! that writes. A member that does not read loses frames, as on a real network, and never slows
//! down the others. Everything of a member ends with its QEMU: it has the only other end of the
//! stream. Nothing listens on a port or a path, and a machine may come and go, and come again.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::plan::MakeFile;
use crate::qemu::LinkNic;

/// Frames that wait for a member at most; with full frames some 400 KB.
const QUEUED_FRAMES: usize = 256;

/// The longest frame that is passed on, in bytes; QEMU's own limit (`NET_BUFSIZE`) is 68 KiB.
const MAX_FRAME_BYTES: usize = 4096 + 65536;

/// A network between machines. Each machine gets a card on it with [`InterVm::join`].
///
/// Cheap to clone; it lasts as long as somebody has a card on it.
#[derive(Clone, Debug)]
pub struct InterVm {
    name: String,
    hub: Hub,
    members: Arc<Mutex<u16>>,
}

/// Passes frames from one member to all others.
#[derive(Clone, Debug, Default)]
struct Hub(Arc<Mutex<Ports>>);

/// The members that have a QEMU, by the number of their start: a machine that is started again is a
/// new one.
#[derive(Debug, Default)]
struct Ports {
    next: u64,
    queues: BTreeMap<u64, SyncSender<Arc<[u8]>>>,
}

impl InterVm {
    /// A network without machines. Its name makes the addresses of its cards: two networks of one
    /// machine need different names.
    pub fn new(name: impl Into<String>) -> InterVm {
        InterVm { name: name.into(), hub: Hub::default(), members: Arc::default() }
    }

    /// A card for one more machine. The same card can be given to a machine that is started again.
    ///
    /// # Panics
    /// After 65,535 cards.
    pub fn join(&self) -> LinkNic {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let member = *members;
        *members = member.checked_add(1).expect("fewer than 65,536 machines");
        LinkNic::new(self.name.clone(), member, Arc::new(self.hub.clone()))
    }
}

impl Hub {
    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, from: u64, frame: &Arc<[u8]>) {
        for (number, queue) in &self.ports().queues {
            if *number != from {
                // Full: the frame is lost for this member. Gone: its reader is about to take it off.
                let _ = queue.try_send(Arc::clone(frame));
            }
        }
    }
}

impl MakeFile for Hub {
    fn make(&self) -> io::Result<OwnedFd> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let reading = ours.try_clone()?;
        let (queue, frames) = sync_channel::<Arc<[u8]>>(QUEUED_FRAMES);
        let number = {
            let mut ports = self.ports();
            let number = ports.next;
            ports.next += 1;
            ports.queues.insert(number, queue);
            number
        };
        let hub = self.clone();
        thread::Builder::new().name("vmtest-link-in".into()).spawn(move || {
            // Ends with QEMU's end of the stream.
            let _ = read_frames(reading, |frame| hub.pass_on(number, &frame));
            hub.ports().queues.remove(&number);
        })?;
        thread::Builder::new().name("vmtest-link-out".into()).spawn(move || {
            for frame in frames {
                if ours.write_all(&frame).is_err() {
                    break;
                }
            }
        })?;
        Ok(theirs.into())
    }
}

/// Reads frames, each with its length before it, until the stream ends.
fn read_frames(stream: UnixStream, mut each: impl FnMut(Arc<[u8]>)) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; 4 + length];
        frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
        stream.read_exact(&mut frame[4..])?;
        each(frame.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
    }

    fn read(stream: &mut UnixStream) -> String {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn frames_reach_all_others_and_members_may_leave_and_flood() {
        let hub = Hub::default();
        let [mut a, mut b, mut c] = [(); 3].map(|()| UnixStream::from(hub.make().unwrap()));
        a.write_all(&frame("from a")).unwrap();
        assert_eq!((read(&mut b), read(&mut c)), ("from a".into(), "from a".into()));

        // c reads nothing for a while; b gets what fits into its queue and a never has to wait.
        let big = "x".repeat(1000);
        for _ in 0..5000 {
            a.write_all(&frame(&big)).unwrap();
        }
        assert_eq!(read(&mut b), big);
        drop(c);
        drop(b);
        // One that joins later gets what is sent from then on, once the flood has passed.
        while hub.ports().queues.len() > 1 {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut late = UnixStream::from(hub.make().unwrap());
        a.write_all(&frame("last")).unwrap();
        while read(&mut late) != "last" {}

        // A frame that cannot be ends its sender's membership, and only that.
        a.write_all(&u32::MAX.to_be_bytes()).unwrap();
        while hub.ports().queues.len() > 1 {
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn members_have_addresses_of_their_own() {
        let link = InterVm::new("lan");
        let macs = [(); 3].map(|()| link.join().mac());
        assert!(macs[0] != macs[1] && macs[1] != macs[2] && macs[0] != macs[2]);
    }
}
