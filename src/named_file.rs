//! Files that a user names: to be read, regular files and block devices; to be written, what can be
//! written at once.
//!
//! Whoever opens a named pipe waits for its other end, before any limit counts; a device may have no
//! end; a directory has nothing to read. None of them is what the user meant. A pipe without a name is
//! (`/dev/stdin`, `<(zcat log.gz)`), where a file is read once from its begin to its end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_setfl, fstatfs};
use rustix::io::Errno;

/// The file system of pipes without a name (`linux/magic.h`).
const PIPEFS: rustix::fs::FsWord = 0x5049_5045;

/// Opens a file for reading.
///
/// # Errors
/// It cannot be opened, or is neither a regular file nor a block device: then the error says what it is.
pub fn open(path: &Path) -> io::Result<File> {
    // Not waiting changes nothing for the two kinds that are accepted.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    let what = match kind {
        kind if kind.is_file() || kind.is_block_device() => return Ok(file),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_char_device() => "a character device",
        _ => "a socket",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

/// As [`open`], and also a pipe without a name: for what is read once, in order.
///
/// # Errors
/// As [`open`].
pub fn open_stream(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.file_type().is_fifo() || fstatfs(&file)?.f_type != PIPEFS {
        return open(path);
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

/// Opens a file for writing, emptied, or makes it. A named pipe has to have its reader already.
///
/// # Errors
/// It cannot be opened; a named pipe that nobody reads.
pub fn create(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => io::Error::new(error.kind(), "it is a named pipe that nobody reads"),
        _ => error,
    })?;
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

/// The whole content of what [`open_stream`] opens.
///
/// # Errors
/// As [`open`], and those of reading.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_stream(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As [`read`], for text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] for what is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    io::read_to_string(open_stream(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_an_end_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(open(&file).is_ok());
        for (path, said) in [
            (pipe.as_path(), "it is a named pipe, not a regular file"),
            (dir.path(), "it is a directory, not a regular file"),
            (Path::new("/dev/null"), "it is a character device, not a regular file"),
        ] {
            assert_eq!(open(path).unwrap_err().to_string(), said);
        }
        assert!(create(&pipe).unwrap_err().to_string().contains("nobody reads"));
        assert!(open_stream(&pipe).is_err() && open_stream(&file).is_ok());
        let (read_end, mut write_end) = io::pipe().unwrap();
        io::Write::write_all(&mut write_end, b"text").unwrap();
        drop(write_end);
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&read_end));
        assert_eq!(read_to_string(Path::new(&path)).unwrap(), "text");
        assert_eq!(open(&dir.path().join("no")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
