//! Files that a user names to be read: regular files and block devices.
//!
//! Whoever opens a named pipe waits for its other end, before any limit counts; a device may have no
//! end; a directory has nothing to read. None of them is what the user meant.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

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
        assert_eq!(open(&dir.path().join("no")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
