//! The control port: JSON lines both ways.

use super::agent::Event;
use super::stdin::{is_passing, wait_any};
use rustix::event::PollFlags;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::time::Duration;
use vmtest_guest::proto::{MAX_LINE_BYTES, Message};

const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The sending side.
///
/// Writing to a port blocks for ever when the host has closed its end, so this does not block: it
/// waits for room or for the host to be gone, whichever comes first.
pub(crate) struct Control {
    port: File,
}

impl Control {
    /// Both ends of what `port` is shared with become non-blocking.
    pub(crate) fn new(port: File) -> io::Result<Control> {
        rustix::io::ioctl_fionbio(&port, true)?;
        Ok(Control { port })
    }

    /// Waits until the host has connected its end, however long that takes: it may attach to a
    /// guest that runs already.
    pub(crate) fn wait_for_host(&self) {
        while self.poll(PollFlags::OUT).contains(PollFlags::HUP) {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// For the thread that reads.
    pub(crate) fn reader(&self) -> io::Result<Reader> {
        Ok(Reader { port: self.port.try_clone()? })
    }

    /// Sends one message; an error when the host is gone.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            match self.port.write(rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(error) if !is_passing(error.kind()) => return Err(error),
                _ => {
                    if self.poll(PollFlags::OUT).contains(PollFlags::HUP) {
                        return Err(io::ErrorKind::NotConnected.into());
                    }
                }
            }
        }
        Ok(())
    }

    fn poll(&self, flags: PollFlags) -> PollFlags {
        wait_any(&[(self.port.as_fd(), flags)], None)[0]
    }
}

/// Waits for what the host sends, although the port does not block.
pub(crate) struct Reader {
    port: File,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.port.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_any(&[(self.port.as_fd(), PollFlags::IN)], None);
                }
                result => return result,
            }
        }
    }
}

/// Writes all of `bytes` to a port that blocks. A port says 0 when its queue has no room after all.
pub(crate) fn write_port(port: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match port.write(bytes) {
            Ok(0) => std::thread::sleep(LOOK_AGAIN),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A port as a writer that waits for the host.
pub(crate) struct PortWriter(pub(crate) File);

impl Write for PortWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_port(&mut self.0, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The receiving side, for a thread of its own: sends each request as an event, and last why there
/// are no more.
pub(crate) fn read_requests(port: impl Read, events: &Sender<Event>) {
    let mut reader = BufReader::with_capacity(64 << 10, port);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE_BYTES as u64;
        let why = match reader.by_ref().take(limit).read_until(b'\n', &mut line) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => format!("cannot read the control port: {error}"),
            Ok(_) if line.last() == Some(&b'\n') => match serde_json::from_slice(&line) {
                Ok(request) => {
                    let _ = events.send(Event::Request(request));
                    continue;
                }
                Err(error) => format!("malformed request: {error}: {}", start_of(&line)),
            },
            Ok(_) if line.len() == MAX_LINE_BYTES => {
                format!("a request is longer than {MAX_LINE_BYTES} bytes: {}", start_of(&line))
            }
            Ok(_) if line.is_empty() => "the host closed the control port".to_owned(),
            Ok(_) => format!("the host closed the control port in a line: {}", start_of(&line)),
        };
        let _ = events.send(Event::ControlEnded(why));
        return;
    }
}

/// Enough of a line to recognise it.
fn start_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(200)]);
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmtest_guest::proto::Request;

    /// The requests in `input`, and what is said at its end.
    fn requests(input: &[u8]) -> (Vec<Request>, String) {
        let (sender, events) = std::sync::mpsc::channel();
        read_requests(input, &sender);
        drop(sender);
        let mut requests = Vec::new();
        for event in events {
            match event {
                Event::Request(request) => requests.push(request),
                Event::ControlEnded(why) => return (requests, why),
                _ => panic!("only requests come from the control port"),
            }
        }
        panic!("the end is always told")
    }

    #[test]
    fn requests_are_lines_and_the_end_is_told() {
        let input = b"{\"type\":\"signal\",\"signal\":2}\n{\"type\":\"shutdown\"}\n";
        let (found, why) = requests(input);
        assert_eq!(found, [Request::Signal { signal: 2 }, Request::Shutdown]);
        assert_eq!(why, "the host closed the control port");
    }

    #[test]
    fn a_malformed_line_ends_the_conversation() {
        let (found, why) =
            requests(b"{\"type\":\"shutdown\"}\n{\"type\":\"dance\"}\n{\"type\":\"shutdown\"}\n");
        assert_eq!(found, [Request::Shutdown]);
        assert!(why.starts_with("malformed request: unknown variant `dance`"), "{why}");
        let (_, why) = requests(b"{\"type\":\"shut");
        assert_eq!(why, "the host closed the control port in a line: {\"type\":\"shut");
        let (_, why) = requests(b"\xff\xfe\n");
        assert!(why.starts_with("malformed request"), "{why}");
    }

    #[test]
    fn the_longest_line_is_the_limit() {
        let line = |bytes: usize| {
            let empty = br#"{"type":"exec","id":1,"argv":[""]}"#.len() + 1;
            let word = "x".repeat(bytes - empty);
            format!("{{\"type\":\"exec\",\"id\":1,\"argv\":[\"{word}\"]}}\n")
        };
        assert_eq!(requests(line(MAX_LINE_BYTES).as_bytes()).0.len(), 1);
        let (found, why) = requests(line(MAX_LINE_BYTES + 1).as_bytes());
        assert!(found.is_empty());
        assert!(why.starts_with("a request is longer than"), "{why}");
    }
}
