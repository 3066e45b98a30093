//! The host's half of the control protocol ([`vmtest_guest::proto`]).

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;
use vmtest_guest::proto::{self, Hello, MAX_LINE_BYTES, Message, Request};

/// A conversation with the guest.
#[derive(Debug)]
pub(crate) struct Agent {
    requests: mpsc::UnboundedSender<Request>,
    messages: BufReader<OwnedReadHalf>,
    next_id: u64,
    notices: Vec<String>,
    /// The beginning of a line whose end was not yet there when somebody stopped waiting.
    begun: Vec<u8>,
}

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AgentError {
    /// The guest is gone: its machine ended.
    #[error("the guest is gone")]
    Gone,
    /// The guest said something that is not of the protocol.
    #[error("the guest does not keep to the protocol: {0}")]
    Protocol(String),
    /// The guest could not do what it was asked to.
    #[error("{error}")]
    Refused { error: String, errno: Option<i32> },
}

/// Sends requests from elsewhere: signals, the terminal's size, the end of stdin.
pub(crate) type Requests = mpsc::UnboundedSender<Request>;

impl Agent {
    pub(crate) fn new(stream: UnixStream) -> Agent {
        let (read, mut write) = stream.into_split();
        let (requests, mut outgoing) = mpsc::unbounded_channel::<Request>();
        tokio::spawn(async move {
            while let Some(request) = outgoing.recv().await {
                let Ok(mut line) = serde_json::to_vec(&request) else { continue };
                line.push(b'\n');
                if write.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        Agent {
            requests,
            messages: BufReader::new(read),
            next_id: 1,
            notices: Vec::new(),
            begun: Vec::new(),
        }
    }

    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// What the guest remarked, since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Waits for the guest to be ready.
    pub(crate) async fn hello(&mut self) -> Result<Hello, AgentError> {
        match self.next().await? {
            Message::Hello(hello) if hello.protocol == proto::VERSION => Ok(hello),
            Message::Hello(hello) => Err(AgentError::Protocol(format!(
                "it speaks version {} and this vmtest version {}; take the guest program of this vmtest",
                hello.protocol,
                proto::VERSION
            ))),
            other => Err(AgentError::Protocol(format!("{other:?} instead of its hello"))),
        }
    }

    /// Makes a request and waits for its answer, the process id if there is one.
    pub(crate) async fn call(
        &mut self,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<Option<u32>, AgentError> {
        let id = self.next_id;
        self.next_id += 1;
        self.requests.send(request(id)).map_err(|_| AgentError::Gone)?;
        match self.next().await? {
            Message::Done { id: answered, pid } if answered == id => Ok(pid),
            Message::Failed { id: answered, error, errno } if answered == id => {
                Err(AgentError::Refused { error, errno })
            }
            other => Err(AgentError::Protocol(format!("{other:?} as answer to request {id}"))),
        }
    }

    /// Has the guest send the kernel's counters; returns the number of files and of bytes. A command may
    /// run meanwhile: what is said of it is passed over.
    pub(crate) async fn kernel_coverage(&mut self) -> Result<(u64, u64), AgentError> {
        let id = self.next_id;
        self.next_id += 1;
        self.requests.send(Request::KernelCoverage { id }).map_err(|_| AgentError::Gone)?;
        loop {
            match self.next().await? {
                Message::KernelCoverage { id: answered, files, bytes } if answered == id => {
                    return Ok((files, bytes));
                }
                Message::Failed { id: answered, error, errno } if answered == id => {
                    return Err(AgentError::Refused { error, errno });
                }
                _ => {}
            }
        }
    }

    /// The next message that is no remark. Nothing is lost when the caller stops waiting.
    pub(crate) async fn next(&mut self) -> Result<Message, AgentError> {
        loop {
            let line = continue_line(&mut self.messages, &mut self.begun, MAX_LINE_BYTES)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => AgentError::Protocol(error.to_string()),
                    _ => AgentError::Gone,
                })?;
            let Some(line) = line else { return Err(AgentError::Gone) };
            match serde_json::from_slice(&line) {
                Ok(Message::Notice { text }) => self.notices.push(text),
                Ok(message) => return Ok(message),
                Err(error) => {
                    return Err(AgentError::Protocol(format!(
                        "{error} in the line `{}`",
                        excerpt(&line)
                    )));
                }
            }
        }
    }
}

/// A line of foreign bytes, cut to a length that a person reads.
pub(crate) fn excerpt(line: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    let shown = &line[..line.len().min(SHOWN_BYTES)];
    let more = if line.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{more}", super::console::printable(shown))
}

/// Reads a line without its newline; `None` at the end of the stream. An unfinished last line counts
/// as a line.
///
/// # Errors
/// `InvalidData` when it is longer than `max` bytes.
pub(crate) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
    continue_line(reader, &mut Vec::new(), max).await
}

/// As [`read_line`], with a line that may have begun before: what was read when the caller stops waiting
/// is kept there.
async fn continue_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok((!line.is_empty()).then(|| std::mem::take(line)));
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        if line.len() + taken > max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line of more than {max} bytes, beginning `{}`", excerpt(line)),
            ));
        }
        line.extend_from_slice(&buffer[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(std::mem::take(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn agent_hearing(text: &str) -> Agent {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).await.unwrap();
        Agent::new(ours)
    }

    #[tokio::test]
    async fn remarks_are_kept_apart_from_answers() {
        let text = "{\"type\":\"notice\",\"text\":\"a\"}\n{\"type\":\"done\",\"id\":1,\"pid\":7}\n";
        let mut agent = agent_hearing(text).await;
        let pid = agent.call(|_| Request::Shutdown).await.unwrap();
        assert_eq!((pid, agent.take_notices()), (Some(7), vec!["a".to_owned()]));
        assert!(matches!(agent.next().await, Err(AgentError::Gone)));
    }

    #[tokio::test]
    async fn what_is_not_of_the_protocol_is_shown() {
        for (text, shown) in [
            ("what?\n", "what?"),
            ("{\"type\":\"bye\"}\n", "Bye instead of its hello"),
            ("{\"type\":\"bye\"", "EOF while parsing"),
        ] {
            let error = agent_hearing(text).await.hello().await.unwrap_err().to_string();
            assert!(error.contains(shown), "{error}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut endless = &vec![b'x'; 100][..];
        assert_eq!(read_line(&mut endless, 100).await.unwrap().unwrap().len(), 100);
        let mut endless = &vec![b'x'; 101][..];
        let error = read_line(&mut endless, 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
