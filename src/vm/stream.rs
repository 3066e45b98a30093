//! Streams for tokio.

use std::io;
use std::os::unix::net::UnixStream;

/// The same stream, watched by the runtime.
///
/// # Panics
/// Outside of a tokio runtime.
pub(super) fn into_tokio(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
