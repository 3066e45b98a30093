//! Event channels: a program in the guest tells the host typed things while it runs.
//!
//! A channel is a virtio-serial port (or a file on a share) that carries one JSON object a line in
//! the format of [`crate::proto::event`]. The last line says `done`: the host takes a channel that
//! ends without it for a program that died. So [`Emitter::close`] is a statement ("that was all")
//! and dropping an emitter does not make it.
//!
//! ```no_run
//! # fn main() -> Result<(), vmtest_guest::events::Error> {
//! let results = vmtest_guest::serial_event_channel::<u32>("results")?;
//! results.emit(&1)?;
//! results.emit_all([2, 3])?;
//! results.close()
//! # }
//! ```
//!
//! An event has left the program when `emit` returns: it survives the program's and the guest's
//! death. That costs one system call each; [`Emitter::emit_all`] needs one for some hundred events.

use crate::ports;
use crate::proto::event::{Action, Line};
use serde::Serialize;
use serde_json::value::RawValue;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A virtio port takes this much in one write, in bytes.
const PORT_WRITE_BYTES: usize = 32 << 10;

/// How long [`serial_event_channel`] waits for a port that is not there yet, or that another process has
/// open: `event` in a shell script opens and closes the port for each call.
const PATIENCE: Duration = Duration::from_secs(2);

/// An event channel does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no port of that name.
    #[error(transparent)]
    Port(#[from] ports::Error),
    /// The port or file cannot be opened.
    #[error("cannot open the event channel `{}`", .path.display())]
    Open {
        /// Device or file.
        path: PathBuf,
        /// The reason; `EBUSY` when another process has the port open.
        #[source]
        source: io::Error,
    },
    /// The host is gone, or the disk is full.
    #[error("cannot write to the event channel")]
    Write {
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The event cannot be said in JSON, or what was written raw is no JSON.
    #[error("no JSON: `{text}`")]
    Json {
        /// What was to be sent, where it was text.
        text: String,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
}

/// Opens the channel to the host that is the virtio-serial port `name`.
///
/// Waits up to two seconds for the port to appear and for another process to close it.
///
/// # Errors
/// [`Error::Port`] when there is no such port, [`Error::Open`] when it cannot be opened.
pub fn serial_event_channel<T: Serialize>(name: &str) -> Result<Emitter<T>, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let error = match ports::virtio_serial_device(name) {
            Ok(device) => match OpenOptions::new().write(true).open(&device) {
                Ok(file) => return Ok(Emitter::new(file)),
                Err(source) => Error::Open { path: device, source },
            },
            Err(error) => Error::Port(error),
        };
        let passing = match &error {
            Error::Port(ports::Error::NoSuchPort { .. }) => true,
            Error::Open { source, .. } => source.kind() == io::ErrorKind::ResourceBusy,
            _ => false,
        };
        if !passing || Instant::now() >= deadline {
            return Err(error);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Opens a channel that is a file, made where it is missing: on a share the host can read it.
///
/// # Errors
/// [`Error::Open`].
pub fn event_channel<T: Serialize>(path: impl AsRef<Path>) -> Result<Emitter<T>, Error> {
    let path = path.as_ref();
    // Appending keeps the lines of several processes whole.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|source| Error::Open { path: path.to_owned(), source })?;
    Ok(Emitter::new(file))
}

/// The sending end of an event channel of `T`.
///
/// Threads may share it: lines are never mixed.
#[derive(Debug)]
pub struct Emitter<T> {
    inner: Mutex<Inner>,
    events: PhantomData<fn(&T)>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// What was written raw after the last newline.
    partial: Vec<u8>,
    /// For lines on their way; kept to save the allocation.
    lines: Vec<u8>,
}

impl<T: Serialize> Emitter<T> {
    fn new(file: File) -> Emitter<T> {
        let inner = Inner { file, partial: Vec::new(), lines: Vec::new() };
        Emitter { inner: Mutex::new(inner), events: PhantomData }
    }

    /// Sends one event.
    ///
    /// # Errors
    /// [`Error::Json`] when `event` cannot be said in JSON: nothing was sent. [`Error::Write`] when
    /// the host is gone.
    pub fn emit(&self, event: &T) -> Result<(), Error> {
        let mut inner = self.inner();
        let result = inner.append(event);
        inner.send_appended(result)
    }

    /// Sends many events, in few writes.
    ///
    /// # Errors
    /// As [`Emitter::emit`]; the events before the one at fault were sent.
    pub fn emit_all(&self, events: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let mut inner = self.inner();
        for event in events {
            if let Err(error) = inner.append(&event) {
                return inner.send_appended(Err(error));
            }
            if inner.lines.len() >= PORT_WRITE_BYTES - 1024 {
                inner.send_appended(Ok(()))?;
            }
        }
        inner.send_appended(Ok(()))
    }

    /// Sends one event that is JSON text already. Line breaks between its parts become blanks.
    ///
    /// # Errors
    /// [`Error::Json`] when it is none, [`Error::Write`] when the host is gone.
    pub fn emit_json(&self, json: &str) -> Result<(), Error> {
        let mut inner = self.inner();
        let result = inner.append_json(json);
        inner.send_appended(result)
    }

    /// Says that this was all and closes the channel.
    ///
    /// # Errors
    /// [`Error::Json`] when the last raw line is no JSON, [`Error::Write`] when the host is gone. In
    /// both cases the host was not told that the channel is complete.
    pub fn close(self) -> Result<(), Error> {
        let mut inner = self.inner();
        let last = std::mem::take(&mut inner.partial);
        inner.append_raw_line(&last)?;
        let done: Line<T> = Line { action: Action::Done, actual: None };
        let result = inner.append_line(&done);
        inner.send_appended(result)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave half a line: lines are built aside and then sent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raw JSON, one event a line, in pieces of any size: for the output of a program that prints its
/// events. An event is sent once its line is complete; [`Emitter::close`] sends a last line without
/// newline.
impl<T: Serialize> Write for &Emitter<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut inner.partial);
            line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let result = inner.append_raw_line(&line);
            inner.send_appended(result).map_err(io::Error::other)?;
        }
        inner.partial.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Serialize> Write for Emitter<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    fn append<T: Serialize>(&mut self, event: &T) -> Result<(), Error> {
        self.append_line(&Line { action: Action::GuestEvent, actual: Some(event) })
    }

    fn append_line<T: Serialize>(&mut self, line: &Line<T>) -> Result<(), Error> {
        let start = self.lines.len();
        if let Err(source) = serde_json::to_writer(&mut self.lines, line) {
            self.lines.truncate(start);
            return Err(Error::Json { text: String::new(), source });
        }
        self.lines.push(b'\n');
        Ok(())
    }

    fn append_json(&mut self, json: &str) -> Result<(), Error> {
        // Within JSON a bare line break is always white space: strings must escape theirs.
        let line = json.trim().replace(['\n', '\r'], " ");
        match RawValue::from_string(line) {
            Ok(raw) => self.append(&raw),
            Err(source) => Err(Error::Json { text: json.to_owned(), source }),
        }
    }

    fn append_raw_line(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.append_json(&String::from_utf8_lossy(line))
    }

    /// Sends what was appended, then hands on `result`.
    fn send_appended(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        let sent = write_all(&mut self.file, &self.lines);
        self.lines.clear();
        sent.map_err(|source| Error::Write { source })?;
        result
    }
}

/// `write_all` that also takes a port's "no room just now", which it says as 0 bytes written.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => std::thread::sleep(Duration::from_millis(1)),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Runs `body` with a channel that is a file, and returns what the file has at the end.
    fn sent<T: Serialize>(name: &str, body: impl FnOnce(Emitter<T>)) -> String {
        let path = std::env::temp_dir().join(format!("vmtest-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        body(event_channel(&path).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text
    }

    const DONE: &str = "{\"hugelgupf_vmtest_guest_action\":\"done\"}\n";

    fn event(actual: &str) -> String {
        format!("{{\"hugelgupf_vmtest_guest_action\":\"guestevent\",\"Actual\":{actual}}}\n")
    }

    #[test]
    fn only_close_says_done() {
        assert_eq!(sent::<u8>("drop", |channel| channel.emit(&1).unwrap()), event("1"));
        let closed = sent::<u8>("close", |channel| {
            channel.emit(&1).unwrap();
            channel.close().unwrap();
        });
        assert_eq!(closed, event("1") + DONE);
    }

    #[test]
    fn raw_lines_may_come_in_pieces() {
        let text = sent::<serde_json::Value>("raw", |mut channel| {
            channel.write_all(b"{\"b\":1,").unwrap();
            channel.write_all(b"\"a\":2.50}\n\n[1]\n{\"last\":").unwrap();
            channel.write_all(b"true}").unwrap();
            channel.close().unwrap();
        });
        let expected = event(r#"{"b":1,"a":2.50}"#) + &event("[1]") + &event(r#"{"last":true}"#);
        assert_eq!(text, expected + DONE);
    }

    #[test]
    fn what_is_no_json_is_refused_and_not_sent() {
        let text = sent::<serde_json::Value>("bad", |channel| {
            assert!(matches!(channel.emit_json("{x}"), Err(Error::Json { .. })));
            assert!(matches!(channel.emit_json("1 2"), Err(Error::Json { .. })));
            (&channel).write_all(b"{\"half\":").unwrap();
            assert!(matches!(channel.close(), Err(Error::Json { .. })));
        });
        assert_eq!(text, "");
    }

    #[test]
    fn many_events_and_pretty_json_stay_one_line_each() {
        let text = sent::<u32>("many", |channel| {
            channel.emit_all(0..10_000).unwrap();
            channel.emit_json("{\n  \"a\": [\r\n 1]\n}").unwrap();
        });
        assert_eq!(text.lines().count(), 10_001);
        let numbers: Vec<u32> = text
            .lines()
            .take(10_000)
            .map(|line| serde_json::from_str::<Line<u32>>(line).unwrap().actual.unwrap())
            .collect();
        assert!(numbers.iter().copied().eq(0..10_000));
    }

    #[test]
    fn an_event_that_json_cannot_say_is_an_error_and_leaves_no_trace() {
        let text = sent::<BTreeMap<(u8, u8), u8>>("keys", |channel| {
            let bad = BTreeMap::from([((1, 2), 3)]);
            assert!(matches!(channel.emit(&bad), Err(Error::Json { .. })));
            channel.emit(&BTreeMap::new()).unwrap();
        });
        assert_eq!(text, event("{}"));
    }

    #[test]
    fn threads_do_not_mix_their_lines() {
        let text = sent::<String>("threads", |channel| {
            std::thread::scope(|scope| {
                for letter in ["a", "b", "c", "d"] {
                    let channel = &channel;
                    scope.spawn(move || {
                        for _ in 0..200 {
                            channel.emit(&letter.repeat(300)).unwrap();
                        }
                    });
                }
            });
        });
        assert_eq!(text.lines().count(), 800);
        for line in text.lines() {
            let line: Line<String> = serde_json::from_str(line).unwrap();
            let actual = line.actual.unwrap();
            assert_eq!(actual, actual[..1].repeat(300));
        }
    }
}
