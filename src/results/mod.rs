//! Results of tests: one model, and the readers of what test programs print.
//!
//! A [`Reader`] takes a program's output in chunks of any size and, once it is known how the program ended,
//! gives one [`Case`] for each test that the output names. It trusts nothing: output may be of another
//! format, no UTF-8, endless, or cut off anywhere. Memory is bounded: [`MAX_CASES`] tests,
//! [`MAX_OUTPUT_BYTES`] of what they printed; what is left out is counted.
//!
//! | format | what is read |
//! |---|---|
//! | [`Format::Exit`] | the exit status alone: 0 passed |
//! | [`Format::Automake`] | the exit status as Automake and Meson define it: 77 skipped, 99 a hard error |
//! | [`Format::Libtest`] | Rust's `test NAME ... ok`, with the list of `--list --format terse` before it |
//! | [`Format::Go`] | `go test -v`, and events of `go test -json` (`go doc test2json`) |
//! | [`Format::Tap`] | TAP 13 and 14, with subtests |
//! | [`Format::Ktap`] | KTAP 1, with nesting and all directives; exit status 4 is a skip |
//! | [`Format::Kunit`] | KTAP in a kernel's log |
//! | [`Format::Kselftest`] | what `run_kselftest.sh` prints; exit status 4 is a skip |
//! | [`Format::Gtest`] | GoogleTest's text, or its XML |
//!
//! Absent on purpose: running anything. A test that the output does not end has a result all the same: it
//! crashed, timed out or has not run, as the [`End`] says.

mod book;
mod capture;
mod go;
mod gtest;
mod libtest;
mod lines;
mod model;
mod tap;
mod tap_line;
#[cfg(test)]
mod tests;
mod xml;

pub use book::{MAX_CASES, MAX_OUTPUT_BYTES};
pub use capture::Capture;
pub use go::{TestEvent, test2json};
pub use libtest::listed;
pub use model::{Case, End, Format, Status, UnknownFormat};

use book::Book;
use lines::Splitter;

/// Reads a test program's output.
///
/// ```
/// use vmtest::results::{End, Format, Reader, Status};
///
/// let mut reader = Reader::new(Format::Tap);
/// reader.feed(b"TAP version 13\n1..2\nok 1 - adds\nnot ok 2 - divides\n");
/// let cases = reader.finish(&End::Exited(1));
/// assert_eq!(cases[1].name, "divides");
/// assert_eq!(cases[1].status, Status::Failed);
/// ```
#[derive(Debug)]
pub struct Reader {
    format: Format,
    splitter: Splitter,
    parser: Parser,
}

/// What understands lines. A format is one of these and how its exit status is understood.
#[derive(Debug)]
enum Parser {
    Status(Capture),
    Libtest(libtest::Parser),
    Go(go::Parser),
    Tap(tap::Parser),
    Gtest(gtest::Parser),
}

impl Parser {
    fn line(&mut self, line: &str) {
        match self {
            Parser::Status(output) => output.push_line(line),
            Parser::Libtest(parser) => parser.line(line),
            Parser::Go(parser) => parser.line(line),
            Parser::Tap(parser) => parser.line(line),
            Parser::Gtest(parser) => parser.line(line),
        }
    }

    /// The last line of a program that was cut off in it.
    fn cut_line(&mut self, line: &str) {
        match self {
            Parser::Status(output) => output.push_line(line),
            Parser::Libtest(parser) => parser.line(line),
            Parser::Go(parser) => parser.printed(line),
            Parser::Tap(parser) => parser.printed(line),
            Parser::Gtest(parser) => parser.cut_line(line),
        }
    }

    fn finish(self, end: &End) -> (Book, Capture) {
        match self {
            Parser::Status(output) => (Book::default(), output),
            Parser::Libtest(parser) => parser.finish(),
            Parser::Go(parser) => parser.finish(),
            Parser::Tap(parser) => parser.finish(end),
            Parser::Gtest(parser) => parser.finish(),
        }
    }
}

impl Reader {
    /// A reader at the output's beginning.
    pub fn new(format: Format) -> Reader {
        let parser = match format {
            Format::Exit | Format::Automake => Parser::Status(Capture::default()),
            Format::Libtest => Parser::Libtest(libtest::Parser::default()),
            Format::Go => Parser::Go(go::Parser::default()),
            Format::Tap | Format::Ktap | Format::Kunit | Format::Kselftest => {
                Parser::Tap(tap::Parser::new(format))
            }
            Format::Gtest => Parser::Gtest(gtest::Parser::default()),
        };
        Reader { format, splitter: Splitter::default(), parser }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let parser = &mut self.parser;
        self.splitter.feed(bytes, &mut |line| parser.line(line));
    }

    /// Names tests that the program will run, where they are known before.
    pub fn expect(&mut self, names: impl IntoIterator<Item = impl Into<String>>) {
        let Parser::Libtest(parser) = &mut self.parser else { return };
        names.into_iter().for_each(|name| parser.expect(name.into()));
    }

    /// The results: at least one. A case without a name is about the whole program: it printed no results,
    /// or failed although none of its tests did.
    pub fn finish(mut self, end: &End) -> Vec<Case> {
        if let Some(line) = self.splitter.finish() {
            match end {
                End::Exited(_) => self.parser.line(&line),
                _ => self.parser.cut_line(&line),
            }
        }
        let (book, rest) = self.parser.finish(end);
        let mut cases = book.finish(end);
        if let Some(whole) = model::whole(self.format, end, &cases, rest) {
            cases.push(whole);
        }
        cases
    }
}
