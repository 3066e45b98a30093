//! Event channels: typed records from the guest, in order, none lost.
//!
//! The wire format is that of the Go package `hugelgupf/vmtest` ([`vmtest_guest::proto::event`]): one JSON object a line and a
//! last line that says that all were sent. A consumer that does not keep up slows the guest down.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::BufReader;
use vmtest_guest::proto::event::{Action, Line};

use super::read_line::{excerpt, read_line};
use super::stream::into_tokio;
use super::tasks::{BoxError, Task, on_thread};

/// The longest line, in bytes. A guest that sends more without a line break is broken.
pub const MAX_EVENT_BYTES: usize = 16 << 20;

/// The host's end of an event channel.
#[derive(Debug)]
pub struct EventChannel<T> {
    name: String,
    lines: BufReader<tokio::net::UnixStream>,
    state: State,
    events: PhantomData<fn() -> T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unused,
    Open,
    Ended,
}

/// An event channel did not keep to its format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A line is no event of the expected type.
    #[error("event channel `{channel}`: broken line `{line}`")]
    Broken {
        /// The channel.
        channel: String,
        /// The line, cut to a length that a person reads.
        line: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The guest is gone without having said that it sent everything.
    #[error("event channel `{channel}` ended without `done`: events may be missing")]
    MissingDone {
        /// The channel.
        channel: String,
        /// No line came at all: perhaps nobody in the guest opened the channel.
        unused: bool,
    },
    /// The channel cannot be read.
    #[error("event channel `{channel}` cannot be read")]
    Read {
        /// The channel.
        channel: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl<T: DeserializeOwned> EventChannel<T> {
    /// Reads events from a channel that was taken from a machine ([`super::Vm::take_channel`]).
    ///
    /// # Errors
    /// The system's, when the stream cannot be watched.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(name: &str, stream: UnixStream) -> io::Result<EventChannel<T>> {
        Ok(EventChannel {
            name: name.to_owned(),
            lines: BufReader::with_capacity(64 << 10, into_tokio(stream)?),
            state: State::Unused,
            events: PhantomData,
        })
    }

    /// The next event. `None` after the guest's `done`.
    ///
    /// # Errors
    /// [`EventError`], once; then `None`.
    pub async fn next(&mut self) -> Option<Result<T, EventError>> {
        while self.state != State::Ended {
            let line = match read_line(&mut self.lines, MAX_EVENT_BYTES).await {
                Ok(Some(line)) => line,
                Ok(None) => {
                    let unused = self.state == State::Unused;
                    self.state = State::Ended;
                    return Some(Err(EventError::MissingDone {
                        channel: self.name.clone(),
                        unused,
                    }));
                }
                Err(source) => {
                    let error = EventError::Read { channel: self.name.clone(), source };
                    self.state = State::Ended;
                    return Some(Err(error));
                }
            };
            self.state = State::Open;
            match decode(&self.name, &line) {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => self.state = State::Ended,
                Err(error) => {
                    self.state = State::Ended;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// All events up to the guest's `done`.
    ///
    /// # Errors
    /// The first [`EventError`].
    pub async fn all(mut self) -> Result<Vec<T>, EventError> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event?);
        }
        Ok(events)
    }
}

/// The event of a line; `None` for `done`.
fn decode<T: DeserializeOwned>(channel: &str, line: &[u8]) -> Result<Option<T>, EventError> {
    let broken =
        |source| EventError::Broken { channel: channel.to_owned(), line: excerpt(line), source };
    match serde_json::from_slice::<Line<T>>(line) {
        Ok(Line { action: Action::Done, .. }) => Ok(None),
        Ok(Line { action: Action::GuestEvent, actual: Some(event) }) => Ok(Some(event)),
        Ok(Line { action: Action::GuestEvent, actual: None }) => {
            Err(broken(serde::de::Error::missing_field("Actual")))
        }
        Err(source) => Err(broken(source)),
    }
}

/// Reads the events that a guest wrote to a file, on a share for instance.
///
/// # Errors
/// [`EventError`]; [`EventError::MissingDone`] when the file has no `done`.
pub fn read_event_file<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Vec<T>, EventError> {
    let path = path.as_ref();
    let channel = || path.display().to_string();
    let read = |source| EventError::Read { channel: channel(), source };
    let mut file = io::BufReader::new(File::open(path).map_err(read)?);
    let mut events = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_EVENT_BYTES as u64 + 1;
        if file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(read)? == 0 {
            return Err(EventError::MissingDone { channel: channel(), unused: events.is_empty() });
        }
        if line.len() > MAX_EVENT_BYTES {
            return Err(read(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "a line of more than {MAX_EVENT_BYTES} bytes, beginning `{}`",
                    excerpt(&line)
                ),
            )));
        }
        match decode(&channel(), line.strip_suffix(b"\n").unwrap_or(&line))? {
            Some(event) => events.push(event),
            None => return Ok(events),
        }
    }
}

/// How long a consumer may take for what was sent, when QEMU has ended.
const CALLBACK_GRACE: Duration = Duration::from_secs(60);

/// Calls a function for each event, on a thread of its own: one that blocks slows down the guest and
/// nothing else. The task ends with the guest's `done`.
pub(super) fn callback_task<T, E>(
    name: &str,
    stream: UnixStream,
    mut callback: impl FnMut(T) -> Result<(), E> + Send + 'static,
) -> Task
where
    T: DeserializeOwned + 'static,
    E: Into<BoxError>,
{
    let channel = name.to_owned();
    let work = move || -> Result<(), BoxError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let mut events = EventChannel::<T>::new(&channel, stream)?;
            while let Some(event) = events.next().await {
                callback(event?).map_err(Into::into)?;
            }
            Ok(())
        })
    };
    on_thread(format!("events of {name}"), work).grace(CALLBACK_GRACE)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn channel<T: DeserializeOwned>(text: &str) -> EventChannel<T> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        EventChannel::new("test", ours).unwrap()
    }

    const ONE: &str = "{\"hugelgupf_vmtest_guest_action\":\"guestevent\",\"Actual\":1}\n";
    const DONE: &str = "{\"hugelgupf_vmtest_guest_action\":\"done\"}\n";

    #[tokio::test]
    async fn events_come_in_order_up_to_done() {
        let mut events = channel::<u8>(&format!("{ONE}{}{DONE}", ONE.replace('1', "2")));
        assert_eq!(events.next().await.unwrap().unwrap(), 1);
        assert_eq!(events.next().await.unwrap().unwrap(), 2);
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_missing_done_is_an_error_of_its_own() {
        let mut events = channel::<u8>(ONE);
        events.next().await.unwrap().unwrap();
        let error = events.next().await.unwrap().unwrap_err();
        assert!(matches!(error, EventError::MissingDone { unused: false, .. }), "{error}");
        assert!(events.next().await.is_none());
        let error = channel::<u8>("").next().await.unwrap().unwrap_err();
        assert!(matches!(error, EventError::MissingDone { unused: true, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_broken_line_is_shown() {
        let long = format!("{{\"x\":\"{}\"}}\n", "y".repeat(5000));
        for text in ["what\n", &ONE.replace('1', "\"a\""), &ONE.replace(",\"Actual\":1", ""), &long]
        {
            let error = channel::<u8>(text).next().await.unwrap().unwrap_err();
            let EventError::Broken { line, .. } = &error else { panic!("{error}") };
            assert!(text.starts_with(line.trim_end_matches('…')) && line.len() < 300, "{line}");
        }
    }

    #[tokio::test]
    async fn a_hundred_thousand_events_arrive_in_order() {
        const COUNT: u32 = 100_000;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = std::thread::spawn(move || {
            let mut guest = io::BufWriter::new(theirs);
            for n in 0..COUNT {
                guest.write_all(ONE.replace('1', &n.to_string()).as_bytes()).unwrap();
            }
            guest.write_all(DONE.as_bytes()).unwrap();
        });
        let events = EventChannel::<u32>::new("test", ours).unwrap().all().await.unwrap();
        guest.join().unwrap();
        assert!(events.into_iter().eq(0..COUNT));
    }

    #[tokio::test]
    async fn a_slow_callback_slows_the_guest_and_loses_nothing() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let line = format!(
            "{{\"hugelgupf_vmtest_guest_action\":\"guestevent\",\"Actual\":\"{}\"}}\n",
            "x".repeat(10_000)
        );
        let (sent, received) =
            (std::sync::Arc::new(AtomicU32::new(0)), std::sync::Arc::new(AtomicU32::new(0)));
        let (counter, ahead) = (sent.clone(), received.clone());
        let guest = std::thread::spawn(move || {
            let mut most = 0;
            for _ in 0..200 {
                theirs.write_all(line.as_bytes()).unwrap();
                let sent = counter.fetch_add(1, Ordering::SeqCst) + 1;
                most = most.max(sent - ahead.load(Ordering::SeqCst));
            }
            theirs.write_all(DONE.as_bytes()).unwrap();
            most
        });
        let count = received.clone();
        let task = callback_task("test", ours, move |_: String| {
            std::thread::sleep(Duration::from_millis(1));
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<(), BoxError>(())
        });
        let failures = super::super::tasks::Running::start(vec![task]).finish().await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(received.load(Ordering::SeqCst), 200);
        // The socket's buffer and the reader's hold some; all 200 would mean that nothing blocked.
        assert!(guest.join().unwrap() < 150, "the guest was not slowed down");
    }

    #[tokio::test]
    async fn a_callback_that_panics_or_fails_is_a_failed_task() {
        for (fails, text) in [(true, "failed"), (false, "panicked: no such event")] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(ONE.as_bytes()).unwrap();
            let task = callback_task("test", ours, move |_: u8| {
                if fails { Err("enough") } else { panic!("no such event") }
            });
            let failures = super::super::tasks::Running::start(vec![task]).finish().await;
            assert_eq!(failures[0].to_string(), format!("task `events of test` {text}"));
        }
    }

    #[test]
    fn event_files_are_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(ONE.as_bytes()).unwrap();
        let error = read_event_file::<u8>(file.path()).unwrap_err();
        assert!(matches!(error, EventError::MissingDone { unused: false, .. }), "{error}");
        file.write_all(DONE.as_bytes()).unwrap();
        assert_eq!(read_event_file::<u8>(file.path()).unwrap(), [1]);
        let error = read_event_file::<String>(file.path()).unwrap_err();
        assert!(matches!(error, EventError::Broken { .. }), "{error}");
        let error = read_event_file::<u8>("/no/such/file").unwrap_err();
        assert!(matches!(error, EventError::Read { .. }), "{error}");
    }
}
