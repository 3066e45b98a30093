//! The last of a stream, for whoever explains a run afterwards.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// So much of it is kept.
const KEPT_BYTES: usize = 4 << 10;

/// Keeps the last bytes that went through a writer.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// A writer that passes on to this one.
    pub(super) fn before(&self, writer: Box<dyn Write + Send>) -> Box<dyn Write + Send> {
        Box::new(Through { tail: self.clone(), writer })
    }

    /// The last lines, as well as they can be read.
    pub(super) fn lines(&self, count: usize) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = bytes.iter().copied().collect();
        crate::vm::last_lines(&bytes, count)
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&bytes[bytes.len().saturating_sub(KEPT_BYTES)..]);
        let excess = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..excess);
    }
}

struct Through {
    tail: Tail,
    writer: Box<dyn Write + Send>,
}

impl Write for Through {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tail.push(bytes);
        self.writer.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_is_kept_and_all_is_passed_on() {
        let tail = Tail::default();
        let mut writer = tail.before(Box::new(io::sink()));
        for line in 0..10_000 {
            writeln!(writer, "line {line}").unwrap();
        }
        writer.write_all(b"\x1b[1mend").unwrap();
        assert_eq!(tail.lines(2), ["line 9999", "end"]);
        assert!(tail.0.lock().unwrap().len() <= KEPT_BYTES);
    }
}
