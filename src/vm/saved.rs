//! The files of a guest that was saved, or can be.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, memfd_create};
use vmtest_guest::proto::Hello;

/// A saved guest.
#[derive(Debug)]
pub struct Saved {
    /// Its memory. Only read.
    pub memory: File,
    /// What QEMU knows of the machine besides.
    pub state: File,
    /// What it said when it was ready.
    pub hello: Hello,
}

impl Saved {
    /// An empty one, in memory and without a name.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn nameless(hello: &Hello) -> io::Result<Saved> {
        let Files { memory, state } = Files::new(0)?;
        Ok(Saved { memory, state, hello: hello.clone() })
    }

    /// Another handle to the same guest.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone(&self) -> io::Result<Saved> {
        Ok(Saved {
            memory: self.memory.try_clone()?,
            state: self.state.try_clone()?,
            hello: self.hello.clone(),
        })
    }
}

/// The files that a machine keeps its memory and its state in.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) memory: File,
    pub(super) state: File,
}

impl Files {
    /// New ones, for a guest that boots: in memory, and nameless.
    pub(super) fn new(memory_bytes: u64) -> io::Result<Files> {
        let memory = File::from(memfd_create("vmtest-memory", MemfdFlags::CLOEXEC)?);
        memory.set_len(memory_bytes)?;
        let state = File::from(memfd_create("vmtest-state", MemfdFlags::CLOEXEC)?);
        Ok(Files { memory, state })
    }
}
