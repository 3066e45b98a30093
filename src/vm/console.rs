//! The machine's console: always drained, wholly kept, searchable while it grows.
//!
//! A full console blocks the guest, so a thread reads it whether anybody looks or not. A sink that does
//! not take what it gets stops that thread, and through QEMU the guest's console, but neither limits nor
//! signals. Any number of [`Cursor`]s read the transcript, each from its own position.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regex::bytes::Regex;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::faults::Faults;
use crate::diagnosis::Splat;

/// What Linux prints when it panics (`kernel/panic.c`).
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// What Linux prints when it stops for good without switching off (`kernel/reboot.c`).
const HALT: &[u8] = b"reboot: System halted";

/// What a kernel says last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastWords {
    Panic,
    Halt,
}

/// How long the console is left alone after it was read. A UART says one byte at a time; waking up for
/// each costs the guest's processor a system call that wakes a thread. A pipe holds 64 KiB: filling it
/// in this time takes 21 MB/s, far more than a UART's single bytes come to.
const GATHER: Duration = Duration::from_millis(3);

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
    faults: Mutex<Faults>,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    len: usize,
    closed: bool,
    /// How often the kernel has said its last words, and the words.
    last_words: (usize, Option<LastWords>),
}

impl Console {
    /// `output` is what the machine says, `input` what it hears.
    pub(crate) fn new(
        mut output: PipeReader,
        input: PipeWriter,
        mut sinks: Vec<Sink>,
    ) -> io::Result<Console> {
        let mut write = pipe::Sender::from_owned_fd(input.into())?;
        let shared = Arc::new(Shared {
            transcript: Mutex::default(),
            faults: Mutex::default(),
            progress: watch::channel(Progress::default()).0,
        });
        let (input, mut typed) = mpsc::unbounded_channel::<Vec<u8>>();

        let reader = Arc::clone(&shared);
        std::thread::Builder::new().name("vmtest-console".into()).spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                // First of all: whoever waits for a text shall not wait for a sink.
                reader.push(&buffer[..n]);
                sinks.retain_mut(|sink| {
                    sink.write_all(&buffer[..n]).and_then(|()| sink.flush()).is_ok()
                });
                std::thread::sleep(GATHER);
            }
            reader.faults().finish();
            // Before the end is told: a sink may print its last line when it is dropped.
            drop(sinks);
            reader.progress.send_modify(|progress| progress.closed = true);
        })?;
        tokio::spawn(async move {
            while let Some(bytes) = typed.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
        Ok(Console { shared, input })
    }

    /// Everything the console said so far.
    pub fn transcript(&self) -> Vec<u8> {
        self.shared.lock().clone()
    }

    /// The kernel's reports of its faults that are whole so far, and how many more there were than could
    /// be kept.
    pub fn splats(&self) -> (Vec<Splat>, u64) {
        let faults = self.shared.faults();
        let (splats, more) = faults.so_far();
        (splats.to_vec(), more)
    }

    /// How many bytes it has said.
    pub(crate) fn len(&self) -> usize {
        self.shared.progress.borrow().len
    }

    /// What it has said behind the first bytes.
    pub(crate) fn since(&self, from: usize) -> Vec<u8> {
        let transcript = self.shared.lock();
        transcript[from.min(transcript.len())..].to_vec()
    }

    /// How many of the kernel's reports are of stalls and lockups.
    pub(crate) fn hang_reports(&self) -> usize {
        self.shared.faults().hangs()
    }

    /// What is said from now on was asked for: it is no report.
    pub(crate) fn no_more_splats(&self) {
        self.shared.faults().finish();
    }

    /// Whether the kernel has reported a fault, or is about to.
    pub(crate) fn has_splats(&self) -> bool {
        self.shared.faults().any()
    }

    /// As [`Console::splats`], with those that are not whole; nothing that is said later is one.
    pub(crate) fn all_splats(&self) -> (Vec<Splat>, u64) {
        self.shared.faults().finish();
        self.splats()
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

    /// Waits until the guest's kernel says its last words, more often than `heard` times. Returns them, and
    /// how often it has by then. Never ends if it does not.
    pub(crate) async fn last_words(&self, heard: usize) -> (LastWords, usize) {
        let mut progress = self.shared.progress.subscribe();
        let said = progress.wait_for(|progress| progress.last_words.0 > heard).await;
        match said.map(|progress| progress.last_words) {
            Ok((count, Some(words))) => (words, count),
            _ => std::future::pending().await,
        }
    }

    /// Whether the console says anything within `limit`.
    pub(crate) async fn speaks_within(&self, limit: Duration) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let len = progress.borrow_and_update().len;
        let more = progress.wait_for(|progress| progress.len > len);
        matches!(tokio::time::timeout(limit, more).await, Ok(Ok(_)))
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

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        let mut transcript = self.lock();
        let before = transcript.len();
        transcript.extend_from_slice(bytes);
        // Words that have ended in what is new.
        let ended = |words: &[u8]| {
            let from = before.saturating_sub(words.len() - 1);
            find(&transcript[from..], words).is_some()
        };
        let words = if ended(PANIC) {
            Some(LastWords::Panic)
        } else {
            ended(HALT).then_some(LastWords::Halt)
        };
        let len = transcript.len();
        drop(transcript);
        self.faults().feed(bytes);
        self.progress.send_modify(|progress| {
            progress.len = len;
            if words.is_some() {
                progress.last_words = (progress.last_words.0 + 1, words);
            }
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
        self.expect_any(&[text.into()], limit).await.map(|(_, passed)| passed)
    }

    /// Waits for a match of a regular expression and moves behind it. Returns what was passed over,
    /// the match included. What a greedy expression matches depends on how much the console has said.
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub async fn expect_regex(
        &mut self,
        regex: &Regex,
        limit: Duration,
    ) -> Result<Vec<u8>, ExpectError> {
        self.expect_any(&[regex.clone().into()], limit).await.map(|(_, passed)| passed)
    }

    /// Waits for the console's end and returns what was still unread.
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes first.
    pub async fn expect_eof(&mut self, limit: Duration) -> Result<Vec<u8>, ExpectError> {
        self.expect_any(&[Pattern::Eof], limit).await.map(|(_, passed)| passed)
    }

    /// Waits for the first of several patterns and moves behind it. Returns the pattern's place in the
    /// list and what was passed over, the match included. Of those that are there, the first in the list
    /// counts.
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub async fn expect_any(
        &mut self,
        patterns: &[Pattern],
        limit: Duration,
    ) -> Result<(usize, Vec<u8>), ExpectError> {
        let mut progress = self.shared.progress.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        // Text that was searched in vain is not searched again, or a long console takes quadratic time.
        let mut searched = self.position;
        loop {
            // In this order: what comes between the two is seen in the next round.
            let closed = progress.borrow_and_update().closed;
            {
                let transcript = self.shared.lock();
                let found = patterns.iter().enumerate().find_map(|(index, pattern)| {
                    let end = pattern.find_end(&transcript, self.position, searched, closed)?;
                    Some((index, end))
                });
                if let Some((index, end)) = found {
                    let passed = transcript[self.position..end].to_vec();
                    self.position = end;
                    return Ok((index, passed));
                }
                searched = transcript.len();
            }
            let changed = tokio::time::timeout_at(deadline, progress.changed());
            if closed || !matches!(changed.await, Ok(Ok(()))) {
                let wanted: Vec<String> = patterns.iter().map(ToString::to_string).collect();
                let last_lines = last_lines(&self.shared.lock(), 10);
                let wanted = wanted.join(" or ");
                return Err(ExpectError { wanted, limit, ended: closed, last_lines });
            }
        }
    }
}

/// What a [`Cursor`] can wait for.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// These bytes.
    Text(Vec<u8>),
    /// A match of a regular expression in what is unread.
    Regex(Regex),
    /// The console's end; all that is unread is passed over.
    Eof,
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Pattern {
        Pattern::Text(text.as_bytes().to_vec())
    }
}

impl From<Regex> for Pattern {
    fn from(regex: Regex) -> Pattern {
        Pattern::Regex(regex)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pattern::Text(text) => write!(f, "`{}`", String::from_utf8_lossy(text)),
            Pattern::Regex(regex) => write!(f, "/{regex}/"),
            Pattern::Eof => f.write_str("the console's end"),
        }
    }
}

impl Pattern {
    /// Where the first match in `text[from..]` ends. A text is not in `text[from..searched]`.
    fn find_end(&self, text: &[u8], from: usize, searched: usize, closed: bool) -> Option<usize> {
        match self {
            Pattern::Text(wanted) => {
                let from = searched.saturating_sub(wanted.len()).max(from);
                find(&text[from..], wanted).map(|at| from + at + wanted.len())
            }
            Pattern::Regex(regex) => regex.find(&text[from..]).map(|found| from + found.end()),
            Pattern::Eof => closed.then_some(text.len()),
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
pub fn last_lines(text: &[u8], count: usize) -> Vec<String> {
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

    fn console() -> (Console, pipe::Sender) {
        let (console, guest, _) = machine();
        (console, guest)
    }

    /// A console, with the machine's ends of it: what it says and what it hears.
    fn machine() -> (Console, pipe::Sender, pipe::Receiver) {
        let (output, theirs) = io::pipe().unwrap();
        let says = pipe::Sender::from_owned_fd(theirs.into()).unwrap();
        let (theirs, input) = io::pipe().unwrap();
        let hears = pipe::Receiver::from_owned_fd(theirs.into()).unwrap();
        (Console::new(output, input, Vec::new()).unwrap(), says, hears)
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
    async fn the_first_of_several_patterns_is_told() {
        let (console, mut guest) = console();
        let mut cursor = console.cursor();
        let patterns = [Pattern::from("never"), Regex::new("o+").unwrap().into(), Pattern::Eof];
        guest.write_all(b"foo ").await.unwrap();
        assert_eq!(cursor.expect_any(&patterns, SECOND).await.unwrap(), (1, b"foo".to_vec()));
        guest.write_all(b"bar").await.unwrap();
        drop(guest);
        assert_eq!(cursor.expect_any(&patterns, SECOND).await.unwrap(), (2, b" bar".to_vec()));
        let error = cursor.expect_any(&patterns[..2], SECOND).await.unwrap_err();
        assert!(error.ended && error.wanted == "`never` or /o+/", "{error}");
    }

    #[tokio::test]
    async fn a_text_is_found_though_it_comes_in_pieces() {
        let (console, mut guest) = console();
        let mut cursor = console.cursor();
        let waiting = tokio::spawn(async move { cursor.expect("login:", SECOND).await });
        for piece in ["x log", "in", ":"] {
            guest.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(waiting.await.unwrap().unwrap(), b"x login:");
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
        let (console, _says, mut guest) = machine();
        console.send_line("ls");
        let mut line = [0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut guest, &mut line).await.unwrap();
        assert_eq!(&line, b"ls\n");
    }

    #[tokio::test]
    async fn a_panic_is_seen_though_it_comes_in_pieces() {
        let (console, mut guest) = console();
        guest.write_all(b"[ 1.0] Kernel panic - not").await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(50), console.last_words(0)).await.is_err()
        );
        guest.write_all(b" syncing: Attempted to kill init!\r\n---").await.unwrap();
        let heard = tokio::time::timeout(SECOND, console.last_words(0)).await.unwrap();
        assert_eq!(heard, (LastWords::Panic, 1));
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
