//! Lines of foreign bytes: bounded, and shown so that they do no harm.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

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
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok((!line.is_empty()).then(|| std::mem::take(&mut line)));
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        if line.len() + taken > max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line of more than {max} bytes, beginning `{}`", excerpt(&line)),
            ));
        }
        line.extend_from_slice(&buffer[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(std::mem::take(&mut line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut endless = &vec![b'x'; 100][..];
        assert_eq!(read_line(&mut endless, 100).await.unwrap().unwrap().len(), 100);
        let mut endless = &vec![b'x'; 101][..];
        let error = read_line(&mut endless, 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
