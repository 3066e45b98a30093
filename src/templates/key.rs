//! What a template is found by.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Form of the keys and of what is saved: part of every key.
const SCHEMA: u32 = 1;

/// The hash of everything that decides what a saved guest is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

/// Hexadecimal digits of a key.
const DIGITS: usize = 32;

impl Key {
    /// Its name in the file system and for people: hexadecimal digits.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The key of a name; `None` for something else.
    pub fn from_name(name: &str) -> Option<Key> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (name.len() == DIGITS && name.bytes().all(digit)).then(|| Key(name.to_owned()))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects what decides, as lines that a person can compare.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    lines: Vec<String>,
}

impl Default for KeyBuilder {
    fn default() -> KeyBuilder {
        KeyBuilder::new()
    }
}

impl KeyBuilder {
    /// Nothing but the versions of what is saved and of who saves.
    pub fn new() -> KeyBuilder {
        let version = vmtest_guest::proto::VERSION;
        KeyBuilder { lines: vec![format!("schema {SCHEMA}, protocol {version}")] }
    }

    /// Adds lines of text.
    pub fn text(&mut self, text: impl AsRef<OsStr>) {
        for line in text.as_ref().as_bytes().split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                self.lines.push(line.escape_ascii().to_string());
            }
        }
    }

    /// Adds a file by what tells whether it was changed: not by its content, which would have to be read
    /// for each run. A change of content changes the inode's time, which nobody can set back.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn file(&mut self, what: &str, path: &Path) -> std::io::Result<()> {
        let metadata = path.metadata()?;
        let mut line = format!("{what} {}: ", path.as_os_str().as_bytes().escape_ascii());
        let _ = write!(
            line,
            "{} bytes, inode {}:{}, changed {}.{:09}",
            metadata.size(),
            metadata.dev(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec()
        );
        self.lines.push(line);
        Ok(())
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The key.
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new();
        for line in &self.lines {
            hasher.update(line.as_bytes());
            hasher.update(b"\n");
        }
        Key(hasher.finalize().to_hex()[..DIGITS].to_owned())
    }
}
