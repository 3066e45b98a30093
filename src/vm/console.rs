//! The machine's console: always drained, wholly kept, searchable while it grows.
//!
//! A full console blocks the guest, so a task reads it whether anybody looks or not. Any number of
//! [`Cursor`]s read the transcript, each from its own position.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// What Linux prints when it panics (`kernel/panic.c`).
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// Where console bytes also go. A sink that fails gets no more.
pub type Sink = Box<dyn Write + Send>;

/// The machine's console. Clones share one transcript.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<Shared>,
    input: mpsc::UnboundedSender<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    transcript: Mutex<Vec<u8>>,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    len: usize,
    closed: bool,
    panicked: bool,
}

impl Console {
    pub(crate) fn new(stream: UnixStream, mut sinks: Vec<Sink>) -> Console {
        let shared = Arc::new(Shared {
            transcript: Mutex::default(),
            progress: watch::channel(Progress::default()).0,
        });
        let (input, mut typed) = mpsc::unbounded_channel::<Vec<u8>>();
        let (mut read, mut write) = stream.into_split();

        let reader = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                sinks.retain_mut(|sink| {
                    sink.write_all(&buffer[..n]).and_then(|()| sink.flush()).is_ok()
                });
                reader.push(&buffer[..n]);
            }
            // Before the end is told: a sink may print its last line when it is dropped.
            drop(sinks);
            reader.progress.send_modify(|progress| progress.closed = true);
        });
        tokio::spawn(async move {
            while let Some(bytes) = typed.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
        Console { shared, input }
    }

    /// Everything the console said so far.
    pub fn transcript(&self) -> Vec<u8> {
        self.shared.lock().clone()
    }

    /// The last lines, as well as they can be read, without control characters.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        last_lines(&self.shared.lock(), count)
    }

    /// The lines around the kernel's panic: a few before it, where an oops says its reason, and those
    /// behind it. The last lines when there was no panic.
    pub fn panic_lines(&self, count: usize) -> Vec<String> {
        const BEFORE: usize = 4;
        let transcript = self.shared.lock();
        let Some(at) = find(&transcript, PANIC) else { return last_lines(&transcript, count) };
        let line_end = transcript[at..].iter().position(|byte| *byte == b'\n');
        let (before, after) =
            transcript.split_at(line_end.map_or(transcript.len(), |end| at + end));
        let mut lines = last_lines(before, BEFORE + 1);
        let rest =
            after.split(|byte| *byte == b'\n').map(printable).filter(|line| !line.is_empty());
        lines.extend(rest.take(count.saturating_sub(lines.len())));
        lines
    }

    /// Types bytes at the console.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) {
        let _ = self.input.send(bytes.into());
    }

    /// Types a line.
    pub fn send_line(&self, line: &str) {
        self.send(format!("{line}\n"));
    }

    /// A cursor at the transcript's beginning.
    pub fn cursor(&self) -> Cursor {
        Cursor { shared: Arc::clone(&self.shared), position: 0 }
    }

    /// Waits until the guest's kernel says that it panics. Never ends if it does not.
    pub(crate) async fn panicked(&self) {
        let mut progress = self.shared.progress.subscribe();
        if progress.wait_for(|progress| progress.panicked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until QEMU has closed the console.
    pub(crate) async fn closed(&self) {
        let _ = self.shared.progress.subscribe().wait_for(|progress| progress.closed).await;
    }

    /// The reason of the kernel's panic, if it said one: the text behind "not syncing: ".
    pub fn panic_text(&self) -> Option<String> {
        let transcript = self.shared.lock();
        let start = find(&transcript, PANIC)?;
        let line = transcript[start..].split(|&byte| byte == b'\n').next()?;
        Some(String::from_utf8_lossy(line).trim().to_owned())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        let mut transcript = self.lock();
        let from = transcript.len().saturating_sub(PANIC.len());
        transcript.extend_from_slice(bytes);
        let panicked = find(&transcript[from..], PANIC).is_some();
        let len = transcript.len();
        drop(transcript);
        self.progress.send_modify(|progress| {
            progress.len = len;
            progress.panicked |= panicked;
        });
    }
}

/// A reader of the transcript with a position of its own.
#[derive(Clone, Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    position: usize,
}

impl Cursor {
    /// Waits for a text and moves behind it. Returns what was passed over, the text included.
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub async fn expect(&mut self, text: &str, limit: Duration) -> Result<Vec<u8>, ExpectError> {
        let wanted = text.as_bytes();
        self.wait(format!("`{text}`"), limit, |unread| {
            find(unread, wanted).map(|at| at + wanted.len())
        })
        .await
    }

    /// Waits for a match of a regular expression and moves behind it. Returns what was passed over,
    /// the match included.
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub async fn expect_regex(
        &mut self,
        regex: &Regex,
        limit: Duration,
    ) -> Result<Vec<u8>, ExpectError> {
        self.wait(format!("/{regex}/"), limit, |unread| regex.find(unread).map(|found| found.end()))
            .await
    }

    /// Waits for the console's end and returns what was still unread.
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes first.
    pub async fn expect_eof(&mut self, limit: Duration) -> Result<Vec<u8>, ExpectError> {
        match self.wait("the console's end".into(), limit, |_| None).await {
            Err(ExpectError { ended: true, .. }) => Ok(self.take_rest()),
            other => other,
        }
    }

    fn take_rest(&mut self) -> Vec<u8> {
        let transcript = self.shared.lock();
        let rest = transcript[self.position..].to_vec();
        self.position = transcript.len();
        rest
    }

    async fn wait(
        &mut self,
        wanted: String,
        limit: Duration,
        find_end: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<Vec<u8>, ExpectError> {
        let mut progress = self.shared.progress.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            // In this order: what comes between the two is seen in the next round.
            let closed = progress.borrow_and_update().closed;
            {
                let transcript = self.shared.lock();
                let unread = &transcript[self.position..];
                if let Some(end) = find_end(unread) {
                    let passed = unread[..end].to_vec();
                    self.position += end;
                    return Ok(passed);
                }
            }
            let changed = tokio::time::timeout_at(deadline, progress.changed());
            if closed || !matches!(changed.await, Ok(Ok(()))) {
                let last_lines = last_lines(&self.shared.lock(), 10);
                return Err(ExpectError { wanted, limit, ended: closed, last_lines });
            }
        }
    }
}

/// What was awaited did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {wanted}{}", if *.ended { "the console ended before" } else { "the console did not say in time:" }, said(.last_lines, .limit, *.ended))]
pub struct ExpectError {
    /// What was awaited.
    pub wanted: String,
    /// How long it was awaited at most.
    pub limit: Duration,
    /// The console ended, so that waiting longer is of no use.
    pub ended: bool,
    /// What the console said last.
    pub last_lines: Vec<String>,
}

fn said(last_lines: &[String], limit: &Duration, ended: bool) -> String {
    let limit = if ended { String::new() } else { format!(" (limit {limit:?})") };
    if last_lines.is_empty() {
        format!("{limit}; it said nothing")
    } else {
        format!("{limit}; its last lines:\n  {}", last_lines.join("\n  "))
    }
}

/// The last lines of a text, without empty ones and control characters.
pub(crate) fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let mut lines: Vec<String> = text
        .rsplit(|&byte| byte == b'\n')
        .map(printable)
        .filter(|line| !line.is_empty())
        .take(count)
        .collect();
    lines.reverse();
    lines
}

/// A line for people: escape sequences and control characters are left out.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' && chars.next_if_eq(&'[').is_some() {
            // A control sequence ends with a letter, `@` or `~` (ECMA-48, 5.4).
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

pub(crate) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> (Console, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Console::new(ours, Vec::new()), theirs)
    }

    const SECOND: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn several_cursors_read_the_same_text() {
        let (console, mut guest) = console();
        let (mut one, mut two) = (console.cursor(), console.cursor());
        guest.write_all(b"login: ").await.unwrap();
        assert_eq!(one.expect("login:", SECOND).await.unwrap(), b"login:");
        guest.write_all(b"root 42\nrest").await.unwrap();
        let regex = Regex::new(r"\d+").unwrap();
        assert_eq!(two.expect_regex(&regex, SECOND).await.unwrap(), b"login: root 42");
        drop(guest);
        assert_eq!(one.expect_eof(SECOND).await.unwrap(), b" root 42\nrest");
        assert_eq!(console.transcript(), b"login: root 42\nrest");
    }

    #[tokio::test]
    async fn an_error_says_what_was_awaited_and_what_came() {
        let (console, mut guest) = console();
        guest.write_all(b"\x1b[1;32mhello\x1b[0m\r\n").await.unwrap();
        let mut cursor = console.cursor();
        let error = cursor.expect("bye", Duration::from_millis(50)).await.unwrap_err();
        assert!(!error.ended);
        assert_eq!(
            error.to_string(),
            "the console did not say in time: `bye` (limit 50ms); its last lines:\n  hello"
        );
        drop(guest);
        let error = cursor.expect("bye", SECOND).await.unwrap_err();
        assert!(error.ended && error.to_string().starts_with("the console ended before `bye`;"));
    }

    #[tokio::test]
    async fn typed_text_reaches_the_guest() {
        let (console, mut guest) = console();
        console.send_line("ls");
        let mut line = [0; 3];
        guest.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"ls\n");
    }

    #[tokio::test]
    async fn a_panic_is_seen_though_it_comes_in_pieces() {
        let (console, mut guest) = console();
        guest.write_all(b"[ 1.0] Kernel panic - not").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), console.panicked()).await.is_err());
        guest.write_all(b" syncing: Attempted to kill init!\r\n---").await.unwrap();
        tokio::time::timeout(SECOND, console.panicked()).await.unwrap();
        guest.write_all(b"[ cut ]\r\nCPU: 0\r\n").await.unwrap();
        let mut cursor = console.cursor();
        cursor.expect("CPU: 0\r\n", SECOND).await.unwrap();
        let panic = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!";
        assert_eq!(console.panic_lines(3), [panic, "---[ cut ]", "CPU: 0"]);
        assert_eq!(console.panic_lines(1), [panic]);
        let text = console.panic_text().unwrap();
        assert_eq!(text, "Kernel panic - not syncing: Attempted to kill init!");
    }
}
