//! The files that are kept of a run.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vmtest::report::{self, Context};
use vmtest::vm::Outcome;

use super::error::Failure;

/// `--artifacts DIR`.
pub(crate) struct Artifacts {
    dir: Option<PathBuf>,
    kept: Vec<(&'static str, PathBuf)>,
}

impl Artifacts {
    /// Makes the directory, before anything is started.
    pub(crate) fn create(dir: Option<&Path>) -> Result<Artifacts, Failure> {
        let dir = dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        if let Some(dir) = &dir {
            std::fs::create_dir_all(dir).map_err(|error| cannot("make", dir, &error))?;
        }
        Ok(Artifacts { dir, kept: Vec::new() })
    }

    /// Whether anything is kept.
    pub(crate) fn wanted(&self) -> bool {
        self.dir.is_some()
    }

    /// Makes a file, if any are kept.
    pub(crate) fn file(&mut self, what: &'static str, name: &str) -> Result<Option<File>, Failure> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.join(name);
        let file = File::create(&path).map_err(|error| cannot("write", &path, &error))?;
        self.kept.push((what, path));
        Ok(Some(file))
    }

    /// Has a stream's bytes also go to a file.
    pub(crate) fn tee(
        &mut self,
        what: &'static str,
        writer: Box<dyn Write + Send>,
    ) -> Result<Box<dyn Write + Send>, Failure> {
        Ok(match self.file(what, what)? {
            Some(file) => Box::new(Tee { file, writer, gone: None }),
            None => writer,
        })
    }

    /// Writes `run.json`, whole or not at all.
    pub(crate) fn finish(
        self,
        mut context: Context,
        outcome: &Outcome,
    ) -> Result<Context, Failure> {
        context.artifacts = self.kept;
        if let Some(dir) = self.dir {
            let path = dir.join("run.json");
            context.artifacts.push(("run", path.clone()));
            let text = format!("{:#}\n", report::to_json(&context, outcome));
            write_whole(&dir, &path, text.as_bytes())
                .map_err(|error| cannot("write", &path, &error))?;
        }
        Ok(context)
    }
}

fn write_whole(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".run.json.").tempfile_in(dir)?;
    file.write_all(text)?;
    file.persist(path)?;
    // A temporary file is private; a report is as public as the files beside it.
    let mode = dir.metadata()?.permissions();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode) & 0o666;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::missing(
        format!("cannot {what} `{}`: {error}", path.display()),
        "--artifacts names a directory that vmtest may write to",
    )
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
