//! What is written down beside a template.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use vmtest_guest::proto::Hello;

/// What a template is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Guest architecture.
    pub arch: String,
    /// QEMU's version, in its own words.
    pub qemu_version: String,
    /// What the guest said when it was ready.
    pub hello: Hello,
    /// What its key was made of ([`super::KeyBuilder::lines`]).
    pub made_of: Vec<String>,
}

/// What is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    pub about: About,
    memory: Identity,
    state_blake3: String,
}

/// What tells whether a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    bytes: u64,
    inode: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        let ns = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Identity {
            bytes: metadata.size(),
            inode: metadata.ino(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Record {
    pub(super) fn new(about: About, memory: &Metadata, state: &[u8]) -> Record {
        let state_blake3 = blake3::hash(state).to_hex().to_string();
        Record { about, memory: Identity::of(memory), state_blake3 }
    }

    pub(super) fn is_memory(&self, metadata: &Metadata) -> bool {
        self.memory == Identity::of(metadata)
    }

    pub(super) fn is_state(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && self.state_blake3 == blake3::hash(bytes).to_hex().as_str()
    }
}
