//! `coverage.json`: what a run collected, and what is needed to make sense of it.
//!
//! A coverage directory holds one directory for each run:
//!
//! | path | what |
//! |---|---|
//! | `RUN/coverage.json` | this record |
//! | `RUN/kernel_coverage.tar` | the guest's `/sys/kernel/debug/gcov`: `*.gcda` at the paths of their objects |
//! | `RUN/llvm/*.profraw` | of LLVM's source-based coverage, one file for each process |
//! | `RUN/go/covmeta.*`, `RUN/go/covcounters.*` | of Go programs (`GOCOVERDIR`) |
//! | `RUN/go/*.coverprofile` | of Go test programs, as text |
//! | `RUN/gcc/ABSOLUTE/PATH/*.gcda` | of gcc's `--coverage` (`GCOV_PREFIX`) |
//!
//! What is in the directories counts, not what the record says was collected: a run that was killed
//! before it could write its record still has its files. Programs that read a record have to accept
//! fields that they do not know; within one [`SCHEMA`] fields are only added.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::assets::GcovFormat;

/// Version of the record's format.
pub const SCHEMA: u32 = 1;
/// Name of the record in a run's directory.
pub const FILE: &str = "coverage.json";
/// Name of the kernel's counters in a run's directory.
pub const KERNEL_TAR: &str = "kernel_coverage.tar";
/// Name of the directory with LLVM's profiles in a run's directory.
pub const LLVM_DIR: &str = "llvm";
/// Name of the directory with Go's counters and profiles in a run's directory.
pub const GO_DIR: &str = "go";
/// Name of the directory with gcc's counters in a run's directory.
pub const GCC_DIR: &str = "gcc";

/// What a run collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format: [`SCHEMA`].
    pub schema: u32,
    /// The run's name; reports show it as the test's name.
    pub name: String,
    /// Guest architecture, as [`Arch::name`] spells it.
    pub arch: String,
    /// How the run ended, as `verdict` in `run.json`.
    pub verdict: String,
    /// The kernel that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Programs and libraries of the host that were in the guest. Only those that may have been
    /// instrumented are needed, but more do no harm.
    #[serde(default)]
    pub objects: Vec<Object>,
    /// What was brought home.
    #[serde(default)]
    pub collected: Vec<Collected>,
    /// What should have been there and is not.
    #[serde(default)]
    pub missing: Vec<Missing>,
}

/// A kernel that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its image on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What `uname -r` said, or the version of the package it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where what its counters mean is: only for kernels built with `CONFIG_GCOV_KERNEL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcov: Option<KernelGcov>,
}

/// What turns a kernel's counters into lines of its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelGcov {
    /// Directory with the `.gcno` files, at their paths below `build_dir`.
    pub notes: PathBuf,
    /// Absolute path of the build directory when the kernel was built: what the paths in the guest's
    /// `/sys/kernel/debug/gcov` begin with. It need not exist any more.
    pub build_dir: PathBuf,
    /// Where the source is on this host; `build_dir` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Which compiler wrote the notes.
    pub format: GcovFormat,
}

/// A program or library that was in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Path in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<PathBuf>,
}

/// A kind of coverage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// gcov counters of the kernel.
    Kernel,
    /// LLVM's source-based coverage: Rust, clang.
    Llvm,
    /// Go.
    Go,
    /// gcov counters of programs: gcc `--coverage`.
    Gcc,
}

impl Kind {
    /// As the record spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kernel => "kernel",
            Kind::Llvm => "llvm",
            Kind::Go => "go",
            Kind::Gcc => "gcc",
        }
    }
}

/// What was brought home of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Which.
    pub kind: Kind,
    /// How many files.
    pub files: u64,
    /// Their sizes' sum.
    pub bytes: u64,
}

/// What should have been there and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub kind: Kind,
    /// Why, for a person.
    pub why: String,
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no record.
    #[error("{} is no record of coverage", path.display())]
    Format {
        /// The record.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("{} has schema {schema}, this vmtest reads {SCHEMA}", path.display())]
    Schema {
        /// The record.
        path: PathBuf,
        /// What it says.
        schema: u32,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::Read { .. } => "give the directory that `vmtest run --coverage DIR` wrote",
            Error::Write { .. } => "is the directory writable, and is there room?",
            Error::Format { .. } => "the file is damaged or not vmtest's: collect again",
            Error::Schema { .. } => "use the vmtest that collected the coverage",
        }
    }
}

impl Record {
    /// A record without anything collected.
    pub fn new(name: impl Into<String>, arch: Arch, verdict: impl Into<String>) -> Record {
        Record {
            schema: SCHEMA,
            name: name.into(),
            arch: arch.name().to_owned(),
            verdict: verdict.into(),
            kernel: None,
            objects: Vec::new(),
            collected: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Reads the record of the run in `dir`.
    ///
    /// # Errors
    /// It cannot be read, is no record, or is of another version.
    pub fn read(dir: &Path) -> Result<Record, Error> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(Error::Read { path, source }),
        };
        // The version first: what another version's fields are is not for us to judge.
        match serde_json::from_slice::<Version>(&bytes) {
            Ok(Version { schema: SCHEMA }) => {}
            Ok(Version { schema }) => return Err(Error::Schema { path, schema }),
            Err(source) => return Err(Error::Format { path, source }),
        }
        serde_json::from_slice(&bytes).map_err(|source| Error::Format { path, source })
    }

    /// Writes the record into `dir`, which has to exist, in place of one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            io::Write::write_all(&mut file, b"\n")?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(mode)?;
            file.persist(&path).map_err(|err| err.error)
        };
        match write() {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Write { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::new("boot test", Arch::Riscv64, "passed");
        record.kernel = Some(Kernel {
            path: Some("/k/Image".into()),
            version: Some("6.1.0".into()),
            gcov: Some(KernelGcov {
                notes: "/k/notes".into(),
                build_dir: "/build/linux".into(),
                source: None,
                format: GcovFormat::Llvm,
            }),
        });
        record.objects.push(Object { host: "/bin/true".into(), guest: None });
        record.collected.push(Collected { kind: Kind::Kernel, files: 3, bytes: 99 });
        record.missing.push(Missing { kind: Kind::Go, why: "the guest panicked".into() });
        record.write(dir.path()).unwrap();
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), record);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains(r#""format": "llvm""#), "{text}");
    }

    #[test]
    fn unknown_fields_are_accepted_and_other_versions_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Record::read(dir.path())
        };
        let minimal = r#"{"schema":1,"name":"x","arch":"arm","verdict":"passed","new":{"a":1}}"#;
        assert_eq!(read(minimal).unwrap().name, "x");
        assert!(matches!(read(r#"{"schema":2}"#), Err(Error::Schema { schema: 2, .. })));
        assert!(matches!(read("{"), Err(Error::Format { .. })));
        assert!(matches!(read(r#"{"schema":1,"name":3}"#), Err(Error::Format { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(Record::read(dir.path()), Err(Error::Read { .. })));
        assert!(matches!(
            Record::new("x", Arch::Arm, "").write(&dir.path().join("no")),
            Err(Error::Write { .. })
        ));
    }
}
