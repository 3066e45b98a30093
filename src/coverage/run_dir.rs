//! The directory of one run, while it is collected.
//!
//! It is made before the machine starts, so that nobody finds out after an hour that there is no place
//! for the counters, and it is removed if nothing was started.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::record::{
    self, Collected, GCC_DIR, GO_DIR, KERNEL_TAR, Kernel, Kind, LLVM_DIR, Missing, Object, Record,
};
use crate::arch::Arch;

/// The longest name of a run, in bytes.
const NAME_MAX_BYTES: usize = 200;

/// What the kernel's counters are called until all are there.
const UNFINISHED: &str = ".kernel_coverage.tar.unfinished";

/// There is no place for a run's coverage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunDirError {
    /// The name cannot be that of a directory.
    #[error("a run cannot be called `{}`", .name.escape_debug())]
    Name {
        /// As given.
        name: String,
    },
    /// Another run has this name.
    #[error("there is coverage of a run `{name}` in `{}`", .dir.display())]
    Taken {
        /// The coverage directory.
        dir: PathBuf,
        /// The name.
        name: String,
    },
    /// It cannot be made, or written to.
    #[error("cannot make `{}`", .path.display())]
    Make {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RunDirError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            RunDirError::Name { .. } => format!(
                "a name has at most {NAME_MAX_BYTES} bytes and no slash, and does not begin with a dot"
            ),
            RunDirError::Taken { dir, name } => format!(
                "remove `{}`, or give the run another name: its counters would be added to those of \
                 another test",
                dir.join(name).display()
            ),
            RunDirError::Make { .. } => {
                "coverage needs a directory that vmtest may write to".to_owned()
            }
        }
    }
}

/// A run's directory.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    name: String,
    /// Whether anything was started: then it stays.
    keep: bool,
}

/// What is known of a run when it has ended.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Guest architecture.
    pub arch: Arch,
    /// How it ended, as `verdict` in `run.json`.
    pub verdict: &'a str,
    /// The kernel that ran.
    pub kernel: Option<Kernel>,
    /// Instrumented files of the host that were in the guest.
    pub objects: Vec<Object>,
    /// The number of files with kernel counters, or why there are none; `None` if they were not wanted.
    pub counters: Option<Result<u64, String>>,
    /// Why programs that were still running have left nothing, if that is so.
    pub programs: Option<String>,
}

impl RunDir {
    /// Makes the directory of a run below `dir`, which is made where it is missing.
    ///
    /// A `name` that is given must not be taken. Without one it is `otherwise`, made fit for a file's
    /// name, with `-2`, `-3`, … behind it where that is taken.
    ///
    /// # Errors
    /// [`RunDirError`]; nothing is made then but `dir`.
    pub fn create(dir: &Path, name: Option<&str>, otherwise: &str) -> Result<RunDir, RunDirError> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        if let Some(name) = name
            && (name.is_empty()
                || name.len() > NAME_MAX_BYTES
                || name.starts_with('.')
                || name.contains(['/', '\0']))
        {
            return Err(RunDirError::Name { name: name.to_owned() });
        }
        let make = |path: &Path, source| RunDirError::Make { path: path.to_owned(), source };
        fs::create_dir_all(&dir).map_err(|source| make(&dir, source))?;
        let wanted = name.map_or_else(|| fit(otherwise), str::to_owned);
        let mut number = 1;
        let run = loop {
            let tried = if number == 1 { wanted.clone() } else { format!("{wanted}-{number}") };
            let path = dir.join(&tried);
            match fs::create_dir(&path) {
                Ok(()) => break RunDir { path, name: tried, keep: false },
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(make(&path, error));
                }
                Err(_) if name.is_some() => {
                    return Err(RunDirError::Taken { dir, name: wanted });
                }
                Err(_) => number += 1,
            }
        };
        for kind in [LLVM_DIR, GO_DIR, GCC_DIR] {
            let path = run.path.join(kind);
            // Programs of the guest may run as anybody.
            let open = Permissions::from_mode(0o1777);
            fs::create_dir(&path)
                .and_then(|()| fs::set_permissions(&path, open))
                .map_err(|source| make(&path, source))?;
        }
        Ok(run)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the kernel's counters go.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn kernel_tar(&self) -> Result<File, RunDirError> {
        let path = self.path.join(UNFINISHED);
        File::create(&path).map_err(|source| RunDirError::Make { path, source })
    }

    /// From now on the directory stays.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Writes down what there is, and takes the directories of kinds of which there is nothing away.
    ///
    /// # Errors
    /// The record cannot be written. What was collected stays.
    pub fn finish(mut self, facts: Facts<'_>) -> Result<Record, record::Error> {
        self.keep = true;
        let mut record = Record::new(&self.name, facts.arch, facts.verdict);
        record.kernel = facts.kernel;
        record.objects = facts.objects;
        self.finish_counters(facts.counters, &mut record);
        let mut any = false;
        for (kind, name) in [(Kind::Llvm, LLVM_DIR), (Kind::Go, GO_DIR), (Kind::Gcc, GCC_DIR)] {
            let path = self.path.join(name);
            let Size { files, bytes, closed } = size(&path);
            if let Some(why) = closed {
                record.missing.push(Missing { kind, why });
            } else if files == 0 {
                let _ = fs::remove_dir_all(&path);
            }
            if files > 0 {
                any = true;
                record.collected.push(Collected { kind, files, bytes });
                let _ = fs::set_permissions(&path, Permissions::from_mode(0o755));
            }
        }
        // Which kind a program has that was never heard of is not known: the instrumented ones tell.
        let go = |object: &Object| super::instrumented::by_go(&object.host);
        let all_go = !record.objects.is_empty() && record.objects.iter().all(go);
        let kind = if all_go { Kind::Go } else { Kind::Llvm };
        if let Some(why) = facts.programs {
            if !record.objects.is_empty() || any {
                record.missing.push(Missing { kind, why });
            }
        } else if !any && !record.objects.is_empty() {
            let why = "an instrumented program was in the guest, and nothing was written: did it run, \
                       and end by itself?";
            record.missing.push(Missing { kind, why: why.to_owned() });
        }
        record.write(&self.path)?;
        Ok(record)
    }

    fn finish_counters(&self, counters: Option<Result<u64, String>>, record: &mut Record) {
        let (unfinished, path) = (self.path.join(UNFINISHED), self.path.join(KERNEL_TAR));
        let bytes = unfinished.metadata().map_or(0, |metadata| metadata.len());
        let files = match counters {
            Some(Ok(files)) => files,
            Some(Err(mut why)) => {
                if bytes > 0 {
                    why.push_str(&format!("; the first {bytes} bytes are kept"));
                }
                record.missing.push(Missing { kind: Kind::Kernel, why });
                0
            }
            None => 0,
        };
        // The good part of an archive is worth as much as it was before.
        if bytes == 0 {
            let _ = fs::remove_file(&unfinished);
        } else if let Err(error) = fs::rename(&unfinished, &path) {
            let why = format!("cannot rename {}: {error}", unfinished.display());
            record.missing.push(Missing { kind: Kind::Kernel, why });
        } else {
            record.collected.push(Collected { kind: Kind::Kernel, files, bytes });
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What is below a directory.
#[derive(Debug, Default)]
struct Size {
    files: u64,
    bytes: u64,
    /// Why it is more than that, perhaps: a directory or file that may not be looked at.
    closed: Option<String>,
}

fn size(dir: &Path) -> Size {
    let mut size = Size::default();
    for entry in walkdir::WalkDir::new(dir) {
        match entry.and_then(|entry| Ok((entry.file_type().is_file(), entry.metadata()?))) {
            Ok((true, metadata)) => {
                size.files += 1;
                size.bytes += metadata.len();
            }
            Ok((false, _)) => {}
            Err(error) => {
                size.closed.get_or_insert_with(|| error.to_string());
            }
        }
    }
    size
}

/// A name for a directory made of any text.
fn fit(text: &str) -> String {
    let fit: String = text
        .chars()
        .map(|c| if c.is_alphanumeric() || "._+-".contains(c) { c } else { '_' })
        .take(NAME_MAX_BYTES / 4)
        .collect();
    match fit.trim_start_matches('.') {
        "" => "run".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(counters: Option<Result<u64, String>>) -> Facts<'static> {
        Facts {
            arch: Arch::Arm64,
            verdict: "passed",
            kernel: None,
            objects: Vec::new(),
            counters,
            programs: None,
        }
    }

    #[test]
    fn what_was_never_started_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), None, "my test/1").unwrap();
        assert_eq!(run.name(), "my_test_1");
        assert!(run.path().join("llvm").is_dir());
        drop(run);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Vec::new();
        for expected in ["a", "a-2", "a-3"] {
            let run = RunDir::create(dir.path(), None, "a").unwrap();
            assert_eq!(run.name(), expected);
            kept.push(run);
        }
        let error = RunDir::create(dir.path(), Some("a-2"), "").unwrap_err();
        assert!(matches!(&error, RunDirError::Taken { name, .. } if name == "a-2"), "{error}");
        for name in ["", ".", "..", ".x", "a/b", "a\0b"] {
            let error = RunDir::create(dir.path(), Some(name), "").unwrap_err();
            assert!(matches!(error, RunDirError::Name { .. }), "{name}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunDir::create(&file, None, "x").unwrap_err();
        assert!(matches!(error, RunDirError::Make { .. }), "{error}");
    }

    #[test]
    fn the_record_says_what_there_is_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Some("one"), "").unwrap();
        fs::write(run.path().join("llvm/1-2.profraw"), "12345").unwrap();
        io::Write::write_all(&mut run.kernel_tar().unwrap(), b"tar").unwrap();
        let path = run.path().to_owned();
        let record = run.finish(facts(Some(Err("it hangs".into())))).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        let kinds: Vec<_> = record.collected.iter().map(|c| (c.kind, c.files, c.bytes)).collect();
        assert_eq!(kinds, [(Kind::Kernel, 0, 3), (Kind::Llvm, 1, 5)]);
        assert_eq!(record.missing[0].why, "it hangs; the first 3 bytes are kept");
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["coverage.json", "kernel_coverage.tar", "llvm"]);
    }
}
