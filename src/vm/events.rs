//! Event channels: typed records from the guest, in order, none lost.
//!
//! The wire format is the reference's ([`vmtest_guest::proto::event`]): one JSON object a line and a
//! last line that says that all were sent. A consumer that does not keep up slows the guest down.

use std::io;
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use tokio::io::BufReader;
use vmtest_guest::proto::event::{Action, Line};

use super::agent::{excerpt, read_line};
use super::into_tokio;

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
            let channel = || self.name.clone();
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
                    let error = EventError::Read { channel: channel(), source };
                    self.state = State::Ended;
                    return Some(Err(error));
                }
            };
            self.state = State::Open;
            let broken = |source| EventError::Broken {
                channel: self.name.clone(),
                line: excerpt(&line),
                source,
            };
            match serde_json::from_slice::<Line<T>>(&line) {
                Ok(Line { action: Action::Done, .. }) => self.state = State::Ended,
                Ok(Line { action: Action::GuestEvent, actual: Some(event) }) => {
                    return Some(Ok(event));
                }
                Ok(Line { action: Action::GuestEvent, actual: None }) => {
                    let source = serde::de::Error::missing_field("Actual");
                    let error = broken(source);
                    self.state = State::Ended;
                    return Some(Err(error));
                }
                Err(source) => {
                    let error = broken(source);
                    self.state = State::Ended;
                    return Some(Err(error));
                }
            }
        }
        None
    }
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
}
