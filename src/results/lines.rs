//! Bytes to lines, of bounded length.

use super::capture::Capture;

/// Of a longer line, beginning and end are kept.
const LINE_HEAD: usize = 12 << 10;
const LINE_TAIL: usize = 4 << 10;

/// Splits bytes into lines. A carriage return before the line's end is not part of it.
#[derive(Debug)]
pub(super) struct Splitter {
    line: Capture,
    begun: bool,
}

impl Default for Splitter {
    fn default() -> Splitter {
        Splitter { line: Capture::new(LINE_HEAD, LINE_TAIL), begun: false }
    }
}

impl Splitter {
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&str)) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(at);
            if self.begun || line.len() > LINE_HEAD {
                self.line.push(line);
                each(chomped(&self.take()));
            } else {
                each(chomped(&String::from_utf8_lossy(line)));
            }
            bytes = &rest[1..];
        }
        if !bytes.is_empty() {
            self.begun = true;
            self.line.push(bytes);
        }
    }

    /// What was after the last newline.
    pub(super) fn finish(&mut self) -> Option<String> {
        self.begun.then(|| chomped(&self.take()).to_owned())
    }

    fn take(&mut self) -> String {
        self.begun = false;
        let text = std::mem::replace(&mut self.line, Capture::new(LINE_HEAD, LINE_TAIL)).text();
        // The remark on what is left out would make three lines of one.
        if text.contains('\n') { text.replace('\n', " ") } else { text }
    }
}

fn chomped(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
}
