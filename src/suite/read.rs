//! Lines of a suite's results, read back.

use std::io::{self, BufRead};

use super::record::{Line, Run, SCHEMA};

/// A longer line than this is none of ours.
const LINE_MAX: u64 = 8 << 20;

/// Lines that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// They cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// A line is none of ours.
    #[error("line {number} is no result of a suite: {text}")]
    Line {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        text: String,
    },
    /// It is of a later version.
    #[error("its schema is {found}, and this program knows up to {SCHEMA}")]
    Schema {
        /// Its schema.
        found: u32,
    },
}

/// Reads lines into a run. A last line without its end is left out: who wrote it was killed.
///
/// # Errors
/// [`Broken`].
pub fn read(mut input: impl BufRead, run: &mut Run) -> Result<(), Broken> {
    let mut number = 0;
    let mut ended = false;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut limited = io::Read::take(&mut input, LINE_MAX);
        if limited.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        number += 1;
        let whole = bytes.last() == Some(&b'\n');
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&bytes) {
            Ok(Line::Suite { schema, .. }) if schema > SCHEMA => {
                return Err(Broken::Schema { found: schema });
            }
            Ok(line) => {
                ended = matches!(line, Line::End { .. });
                run.line(line);
            }
            Err(_) if !whole && (bytes.len() as u64) < LINE_MAX => {}
            Err(error) => return Err(Broken::Line { number, text: error.to_string() }),
        }
    }
    run.incomplete |= !ended;
    Ok(())
}
