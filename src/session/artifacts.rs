//! The files that are kept of a run.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::run_record::{self, RunRecord};

/// What an earlier run may have left, and not every run writes.
const LEFT_OVER: [&str; 5] = ["run.json", "splats.json", "hang.txt", "stacks.txt", "registers.txt"];

/// A run's directory of artifacts, or none.
pub(super) struct Artifacts {
    dir: Option<PathBuf>,
    kept: Vec<(&'static str, PathBuf)>,
}

impl Artifacts {
    /// Makes the directory, before anything is started. What an earlier run has left there of its record
    /// goes: it is not this run's.
    pub(super) fn create(dir: Option<&Path>) -> Result<Artifacts, Error> {
        let dir = dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        if let Some(dir) = &dir {
            std::fs::create_dir_all(dir).map_err(|source| cannot("make", dir, source))?;
            for name in LEFT_OVER {
                let old = dir.join(name);
                match std::fs::remove_file(&old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(cannot("replace", &old, error));
                    }
                    _ => {}
                }
            }
        }
        Ok(Artifacts { dir, kept: Vec::new() })
    }

    /// Whether anything is kept.
    pub(super) fn wanted(&self) -> bool {
        self.dir.is_some()
    }

    /// Makes a file, if any are kept.
    pub(super) fn file(&mut self, what: &'static str, name: &str) -> Result<Option<File>, Error> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.join(name);
        let file = File::create(&path).map_err(|source| cannot("write", &path, source))?;
        self.kept.push((what, path));
        Ok(Some(file))
    }

    /// Has a stream's bytes also go to a file.
    pub(super) fn tee(
        &mut self,
        what: &'static str,
        writer: Box<dyn Write + Send>,
    ) -> Result<Box<dyn Write + Send>, Error> {
        Ok(match self.file(what, what)? {
            Some(file) => Box::new(Tee { file, writer, gone: None }),
            None => writer,
        })
    }

    /// Writes a value as JSON, if files are kept: whole or not at all.
    pub(super) fn json(
        &mut self,
        what: &'static str,
        name: &str,
        value: &impl serde::Serialize,
    ) -> Result<(), Error> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(name);
        serde_json::to_string_pretty(value)
            .map_err(io::Error::other)
            .and_then(|text| write_whole(dir, &path, format!("{text}\n").as_bytes()))
            .map_err(|source| cannot("write", &path, source))?;
        self.kept.push((what, path));
        Ok(())
    }

    /// Writes a text, if files are kept: whole or not at all.
    pub(super) fn text(&mut self, what: &'static str, name: &str, text: &str) -> Result<(), Error> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(name);
        write_whole(dir, &path, text.as_bytes())
            .map_err(|source| cannot("write", &path, source))?;
        self.kept.push((what, path));
        Ok(())
    }

    /// Writes `run.json`, whole or not at all.
    pub(super) fn finish(self, record: &mut RunRecord) -> Result<(), Error> {
        record.artifacts = self.kept;
        if let Some(dir) = self.dir {
            let path = dir.join("run.json");
            record.artifacts.push(("run", path.clone()));
            let text = format!("{:#}\n", run_record::to_json(record));
            write_whole(&dir, &path, text.as_bytes())
                .map_err(|source| cannot("write", &path, source))?;
        }
        Ok(())
    }
}

/// Writes the record of a run that was not started: `run.json` in this directory, which is made.
///
/// # Errors
/// The system's.
pub fn record_failed_start(
    dir: &Path,
    exit_code: u8,
    message: &str,
    repeat: &std::ffi::OsStr,
) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let record = run_record::failed_start(exit_code, message, repeat);
    write_whole(dir, &dir.join("run.json"), format!("{record:#}\n").as_bytes())
}

/// Writes a file whole or not at all, as public as its directory.
fn write_whole(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".run.json.").tempfile_in(dir)?;
    file.write_all(text)?;
    file.persist(path)?;
    // A temporary file is private; a report is as public as the files beside it.
    let mode = dir.metadata()?.permissions().mode() & 0o666;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn cannot(what: &str, path: &Path, source: io::Error) -> Error {
    Error::Write { what: what.to_owned(), path: path.to_owned(), source }
}

/// Writes to a file and passes on. A reader that left does not end the file.
struct Tee {
    file: File,
    writer: Box<dyn Write + Send>,
    gone: Option<io::ErrorKind>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        match self.gone {
            Some(kind) => Err(kind.into()),
            None => {
                self.writer.write_all(bytes).inspect_err(|error| self.gone = Some(error.kind()))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.gone {
            Some(kind) => Err(kind.into()),
            None => self.writer.flush(),
        }
    }
}
