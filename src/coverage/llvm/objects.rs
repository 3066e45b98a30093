//! Which program a profile is of.
//!
//! A program has the names of its instrumented functions in a section that is loaded, packed as the
//! compiler packed them; its profiles carry the same bytes. Two programs, or two builds of one, may
//! have functions of the same names: then the build id decides, if the linker wrote one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;

use crate::coverage::elf::Sections;
use crate::coverage::instrumented::{LLVM_NAMES, MAX_LLVM_NAMES};

/// The section with the map from counters to source.
const MAP: &[u8] = b"__llvm_covmap";
/// The section with the build id, and how much of it comes before the id: a note's head.
const BUILD_ID: &[u8] = b".note.gnu.build-id";
const NOTE_HEAD: usize = 16;
/// The first raw format whose third word is the size of its build ids.
const HAS_BUILD_IDS: u64 = 8;

/// A program or library with LLVM's instrumentation.
#[derive(Debug)]
pub(super) struct Instrumented {
    pub(super) path: PathBuf,
    /// Whether it has the map from counters to source: strip(1) takes it away.
    pub(super) mapped: bool,
    names: Vec<u8>,
    build_id: Option<Vec<u8>>,
}

/// How well a profile fits a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It is of another program or build.
    None,
    /// It has the same functions.
    Names,
    /// It has the same functions and build id.
    Build,
}

/// Reads a file's sections; `None` if it is no ELF file or is not instrumented.
pub(super) fn instrumented(path: &Path) -> io::Result<Option<Instrumented>> {
    let Some(program) = Sections::read(path)? else { return Ok(None) };
    let mapped = program.has(MAP);
    let Some(names) = program.bytes(LLVM_NAMES, MAX_LLVM_NAMES)?.filter(|names| !names.is_empty())
    else {
        return Ok(None);
    };
    let build_id = program.bytes(BUILD_ID, NOTE_HEAD as u64 + 64)?;
    let build_id = build_id
        .and_then(|mut note| (note.len() >= NOTE_HEAD + 8).then(|| note.split_off(NOTE_HEAD)));
    Ok(Some(Instrumented { path: path.to_owned(), mapped, names, build_id }))
}

impl Instrumented {
    /// How well a profile of a raw format fits this program.
    pub(super) fn fit(&self, profile: &Path, format: u64) -> io::Result<Fit> {
        let mut file = File::open(profile)?;
        if !contains(&mut file, &self.names)? {
            return Ok(Fit::None);
        }
        let Some(id) = self.build_id.as_ref().filter(|_| format >= HAS_BUILD_IDS) else {
            return Ok(Fit::Names);
        };
        let mut head = [0; 24];
        file.read_exact_at(&mut head, 0)?;
        if head[16..] == [0; 8] {
            return Ok(Fit::Names);
        }
        io::Seek::rewind(&mut file)?;
        // The ids come right after the head.
        let found = contains(&mut file.take(4096), id)?;
        Ok(if found { Fit::Build } else { Fit::None })
    }
}

/// Whether a stream has these bytes somewhere. Memory: twice their number and 1 MiB.
fn contains(stream: &mut dyn Read, needle: &[u8]) -> io::Result<bool> {
    let finder = Finder::new(needle);
    let step = needle.len().max(1 << 20);
    let mut kept: Vec<u8> = Vec::with_capacity(step + needle.len());
    loop {
        let n = stream.take(step as u64).read_to_end(&mut kept)?;
        if finder.find(&kept).is_some() {
            return Ok(true);
        }
        if n == 0 {
            return Ok(false);
        }
        let overlap = kept.len().min(needle.len().saturating_sub(1));
        kept.drain(..kept.len() - overlap);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_program_without_instrumentation_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for bytes in [
            &b""[..],
            b"#!/bin/sh\n",
            b"\x7fELF",
            &[b"\x7fELF\x02\x01".as_slice(), &[0xff; 90]].concat(),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert!(instrumented(&path).unwrap().is_none());
        }
        assert!(instrumented(Path::new("/bin/sh")).unwrap().is_none());
        assert!(instrumented(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn bytes_are_found_across_chunks() {
        let mut haystack = vec![7; (2 << 20) + 100];
        assert!(!contains(&mut haystack.as_slice(), b"needle").unwrap());
        for at in [0, (1 << 20) - 3, (1 << 20) + 1, haystack.len() - 6] {
            let mut with = haystack.clone();
            with[at..at + 6].copy_from_slice(b"needle");
            assert!(contains(&mut with.as_slice(), b"needle").unwrap(), "{at}");
        }
        haystack.truncate(3);
        assert!(!contains(&mut haystack.as_slice(), b"needle").unwrap());
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 6..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x");
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            std::fs::write(&path, &bytes).unwrap();
            let _ = instrumented(&path);
        }
    }
}
