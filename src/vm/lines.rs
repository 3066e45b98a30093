//! The console, line by line: printers that can be put together, and the sink that feeds them.
//!
//! ```
//! # use vmtest::vm::lines;
//! let printer = lines::relative_ts(lines::prefix("vm", |line: &str| println!("{line}")));
//! let sink: vmtest::vm::Sink = Box::new(lines::sink(printer)); // prints "vm: [0.0000s] text"
//! ```

use std::io::{self, Write};
use std::time::{Instant, SystemTime};

/// The longest line in bytes; a longer one is printed in pieces.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// Prints one line, which has no line break. Closures `FnMut(&str)` are printers.
pub trait LinePrinter: Send {
    /// Prints a line.
    fn print(&mut self, line: &str);
}

impl<F: FnMut(&str) + Send> LinePrinter for F {
    fn print(&mut self, line: &str) {
        self(line);
    }
}

/// Puts `prefix: ` before each line.
pub fn prefix<P: LinePrinter>(prefix: &str, mut printer: P) -> impl LinePrinter + use<P> {
    let prefix = prefix.to_owned();
    move |line: &str| printer.print(&format!("{prefix}: {line}"))
}

/// Puts the seconds since the first line before each line, as `[0.1234s] `.
pub fn relative_ts(mut printer: impl LinePrinter) -> impl LinePrinter {
    let mut start = None;
    move |line: &str| {
        let seconds = start.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
        printer.print(&format!("[{seconds:06.4}s] {line}"));
    }
}

/// Puts the time before each line, as `[…] `. `format` says how a time is written: the crate has no
/// opinion on calendars and time zones.
pub fn ts(
    mut format: impl FnMut(SystemTime) -> String + Send,
    mut printer: impl LinePrinter,
) -> impl LinePrinter {
    move |line: &str| printer.print(&format!("[{}] {line}", format(SystemTime::now())))
}

/// What most want: `prefix: [0.1234s] line`.
pub fn default_print<P: LinePrinter>(name: &str, printer: P) -> impl LinePrinter + use<P> {
    relative_ts(prefix(name, printer))
}

/// A sink for console bytes that prints them line by line; a last line without a line break is
/// printed when it is dropped.
///
/// Bytes that are no UTF-8 are replaced by `U+FFFD`, control characters other than tab by `~`; a
/// carriage return at a line's end is part of the line break.
pub fn sink(printer: impl LinePrinter) -> impl Write + Send {
    LineSink { line: Vec::new(), printer }
}

struct LineSink<P: LinePrinter> {
    line: Vec<u8>,
    printer: P,
}

impl<P: LinePrinter> LineSink<P> {
    fn finish_line(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let text = String::from_utf8_lossy(line);
        let text: String = text.chars().map(|c| if is_control(c) { '~' } else { c }).collect();
        self.line.clear();
        self.printer.print(&text);
    }
}

/// The C0 controls without tab, and DEL.
fn is_control(c: char) -> bool {
    c.is_ascii_control() && c != '\t'
}

impl<P: LinePrinter> Write for LineSink<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for chunk in text.chunks(MAX_LINE_BYTES) {
                if self.line.len() + chunk.len() > MAX_LINE_BYTES {
                    self.finish_line();
                }
                self.line.extend_from_slice(chunk);
            }
            if ended {
                self.finish_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<P: LinePrinter> Drop for LineSink<P> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.finish_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a printer made of the chunks.
    fn printed<P: LinePrinter>(
        chunks: &[&[u8]],
        make: impl FnOnce(Box<dyn FnMut(&str) + Send>) -> P,
    ) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let mut sink = sink(make(Box::new(move |line| log.lock().unwrap().push(line.to_owned()))));
        for chunk in chunks {
            sink.write_all(chunk).unwrap();
        }
        drop(sink);
        let lines = lines.lock().unwrap();
        lines.clone()
    }

    #[test]
    fn lines_are_whole_whatever_the_chunks_are() {
        let lines = printed(&[b"on", b"e\r", b"\ntwo\n\nlast"], |printer| printer);
        assert_eq!(lines, ["one", "two", "", "last"]);
    }

    #[test]
    fn control_characters_other_than_tab_are_replaced() {
        let lines = printed(&[b"\x1b[1mbold\x7f\ta\x00b\xff\xc3\xa9\n"], |printer| printer);
        assert_eq!(lines, ["~[1mbold~\ta~b\u{fffd}é"]);
    }

    #[test]
    fn printers_can_be_put_together() {
        let lines = printed(&[b"a\nb\n"], |printer| default_print("vm", printer));
        assert_eq!(lines[0], "vm: [0.0000s] a");
        assert!(lines[1].starts_with("vm: [0.") && lines[1].ends_with("s] b"), "{lines:?}");
        let lines = printed(&[b"a\n"], |printer| ts(|_| "12:30".into(), prefix("vm", printer)));
        assert_eq!(lines, ["vm: [12:30] a"]);
    }

    #[test]
    fn a_guest_that_sends_no_line_break_is_printed_in_pieces() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        let lines = printed(&[&long, b"y\n"], |printer| printer);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, 2]);
    }
}
