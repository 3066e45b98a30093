//! The hash of images and files.

use std::fmt;
use std::io::{self, Read};

/// A hash of 256 bits, shown in hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// BLAKE3 of all that `from` gives.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(from: impl Read) -> io::Result<Hash> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(from)?;
        Ok(Hash(hasher.finalize().into()))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
