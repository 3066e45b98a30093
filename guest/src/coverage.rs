//! The kernel's gcov counters, as one archive.
//!
//! A kernel built with `CONFIG_GCOV_KERNEL` shows a file of counters for each of its objects below
//! `/sys/kernel/debug/gcov` (Documentation/dev-tools/gcov.rst): thousands of small files, made while
//! they are read, of which none says its size. One tar archive brings them out in one stream; a copy
//! file by file over 9p takes several round trips for each.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Where the kernel shows its counters (debugfs has to be mounted at its usual place).
pub const KERNEL_DIR: &str = "/sys/kernel/debug/gcov";

/// The largest file of counters that is believed, in bytes: no object has a million counters.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Files of counters.
    pub files: u64,
    /// The archive's size in bytes.
    pub bytes: u64,
}

/// Counters could not be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has none.
    #[error(
        "the kernel shows no counters at {}: it was built without CONFIG_GCOV_KERNEL (or \
         CONFIG_DEBUG_FS)", .dir.display()
    )]
    None {
        /// Where they were looked for.
        dir: PathBuf,
    },
    /// They cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody takes the archive.
    #[error("cannot write the archive of counters")]
    Write {
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The operating system's error number, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::None { .. } => Some(libc::ENOENT),
            Error::Read { source, .. } | Error::Write { source } => source.raw_os_error(),
        }
    }
}

/// Writes all counters below `dir` (usually [`KERNEL_DIR`]) to a tar archive. The names in it are
/// absolute paths without their first slash; `CollectKernelCoverage` of the Go package
/// `hugelgupf/vmtest` makes archives of the same form.
///
/// Only counters are taken; the links to `.gcno` files beside them point to the machine that built
/// the kernel.
///
/// # Errors
/// [`Error`]; the archive is unfinished then.
pub fn collect_kernel(dir: &Path, writer: impl Write) -> Result<Archived, Error> {
    let failed = |source| Error::Write { source };
    if !dir.is_dir() {
        return Err(Error::None { dir: dir.to_owned() });
    }
    let counted = Counted { writer, bytes: 0 };
    let mut archive = tar::Builder::new(BufWriter::with_capacity(64 << 10, counted));
    let mut files = 0;
    let mut counters = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let read = |source| Error::Read { path: dir.clone(), source };
        let mut entries = fs::read_dir(&dir)
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
            .map_err(read)?;
        // The same kernel gives the same archive.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().map_err(read)?;
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "gcda") {
                counters.clear();
                let read = |source| Error::Read { path: path.clone(), source };
                // A module that was unloaded takes its counters with it.
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file.map_err(read)?,
                };
                file.take(FILE_MAX_BYTES).read_to_end(&mut counters).map_err(read)?;
                append(&mut archive, &path, &counters).map_err(failed)?;
                files += 1;
            }
        }
    }
    let buffer = archive.into_inner().map_err(failed)?;
    let counted = buffer.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(Archived { files, bytes: counted.bytes })
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &Path, data: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, path.strip_prefix("/").unwrap_or(path), data)
}

/// Counts what is written.
struct Counted<W> {
    writer: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(data)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_nothing_else_are_archived() {
        let root = std::env::temp_dir().join(format!("vmtest-gcov-{}", std::process::id()));
        let long = "directory-with-a-long-name/".repeat(8);
        let deep = root.join(&long);
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.join("open.gcda"), b"one").unwrap();
        fs::write(deep.join("close.gcda"), vec![7; 1000]).unwrap();
        fs::write(root.join("reset"), b"0").unwrap();
        std::os::unix::fs::symlink("/build/open.gcno", root.join("open.gcno")).unwrap();

        let mut bytes = Vec::new();
        let archived = collect_kernel(&root, &mut bytes).unwrap();
        assert_eq!(archived, Archived { files: 2, bytes: bytes.len() as u64 });
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = Path::new("/").join(entry.path().unwrap());
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            found.push((path, data.len()));
        }
        assert_eq!(found, [(root.join("open.gcda"), 3), (deep.join("close.gcda"), 1000)]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_kernel_without_counters_is_named_with_its_option() {
        let error = collect_kernel(Path::new("/no/such/gcov"), io::sink()).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(error.to_string().contains("CONFIG_GCOV_KERNEL"), "{error}");
    }
}
