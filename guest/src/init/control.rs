//! The control port: JSON lines both ways.

use super::agent::Event;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::Sender;
use std::time::Duration;
use vmtest_guest::proto::{MAX_LINE_BYTES, Message};

/// The sending side.
pub(crate) struct Control {
    port: File,
}

impl Control {
    pub(crate) fn new(port: File) -> Control {
        Control { port }
    }

    /// Sends one message; blocks until the host has connected its end.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        write_port(&mut self.port, &line)
    }
}

/// Writes all of `bytes` to a port. A port says 0 when its queue has no room after all.
pub(crate) fn write_port(port: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match port.write(bytes) {
            Ok(0) => std::thread::sleep(Duration::from_millis(1)),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
