//! What is kept of a suite's last run, and what is written while a run goes on.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use vmtest::options::Environment;
use vmtest::suite::{Line, Run, read};

use crate::cli::error::Failure;
use crate::cli::report::Outputs;
use crate::cli::ui;

/// The last run of a suite, and the file that the next one goes to.
pub(super) struct State {
    earlier: Run,
    file: Option<(PathBuf, File)>,
}

impl State {
    /// Reads the last run of the suite in this directory. Without a cache directory there is none, and where
    /// another run of the suite goes on, this one keeps none.
    pub(super) fn open(environment: &Environment, root: &Path) -> State {
        let mut state = State { earlier: Run::default(), file: None };
        let Some(cache) = &environment.cache_dir else { return state };
        let suites = cache.join("suites");
        let path = suites.join(hash_of(root)).join("last.jsonl");
        forget_oldest(&suites);
        match lock(&path) {
            Ok(file) => {
                if let Err(error) = read(BufReader::new(&file), &mut state.earlier) {
                    ui::note(&format!("the last run's results, `{}`: {error}", path.display()));
                }
                state.file = Some((path, file));
            }
            Err(why) => {
                // Its results are of use all the same.
                if let Ok(file) = File::open(&path) {
                    let _ = read(BufReader::new(file), &mut state.earlier);
                }
                ui::note(&format!("nothing is kept of this run for --rerun-failed: {why}"));
            }
        }
        state
    }

    /// The last run; empty where there was none.
    pub(super) fn earlier(&self) -> &Run {
        &self.earlier
    }

    /// Begins the file anew, and those of reports that are written line by line.
    pub(super) fn begin(&mut self, outputs: &Outputs) -> Result<Sinks, Failure> {
        let mut sinks = Sinks { files: Vec::new(), failed: None };
        if let Some((path, file)) = self.file.take() {
            match file.set_len(0) {
                Ok(()) => sinks.files.push((path, Box::new(file))),
                Err(error) => ui::note(&format!("`{}`: {error}", path.display())),
            }
        }
        for path in outputs.live() {
            let file: Box<dyn Write> = match path.as_os_str() == "-" {
                true => Box::new(std::io::stdout()),
                false => Box::new(File::create(path).map_err(|error| {
                    let text = format!("cannot write the report `{}`: {error}", path.display());
                    Failure::missing(text, "--report names it")
                })?),
            };
            sinks.files.push((path.to_owned(), file));
        }
        Ok(sinks)
    }
}

/// How many suites' last runs are kept.
const SUITES_MAX: usize = 64;

/// Removes last runs of suites that were not run for the longest time. What cannot be removed stays.
fn forget_oldest(suites: &Path) {
    let Ok(entries) = std::fs::read_dir(suites) else { return };
    let aged = entries.flatten().filter_map(|entry| {
        let changed = entry.path().join("last.jsonl").metadata().ok()?.modified().ok()?;
        Some((changed, entry.path()))
    });
    let mut aged: Vec<_> = aged.collect();
    aged.sort();
    let surplus = aged.len().saturating_sub(SUITES_MAX);
    for (_, dir) in aged.into_iter().take(surplus) {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// A directory's name in the cache.
fn hash_of(root: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let hash = vmtest::initramfs::Hash::of(root.as_os_str().as_bytes());
    hash.map_or_else(|_| "suite".into(), |hash| hash.to_string()[..32].to_owned())
}

fn lock(path: &Path) -> Result<File, String> {
    let told = |error: std::io::Error| format!("`{}`: {error}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(told)?;
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).open(path).map_err(told)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err("another run of this suite goes on".into()),
        Err(error) => Err(told(error.into())),
    }
}

/// Files that get each line at once.
pub(super) struct Sinks {
    files: Vec<(PathBuf, Box<dyn Write>)>,
    failed: Option<String>,
}

impl Sinks {
    /// Writes a line. A file that cannot be written is told of at the end, and gets no more.
    pub(super) fn line(&mut self, line: &Line) {
        let text = line.to_text();
        let failed = &mut self.failed;
        self.files.retain_mut(|(path, file)| match file.write_all(text.as_bytes()) {
            Ok(()) => true,
            Err(error) => {
                *failed = Some(format!("cannot write `{}`: {error}", path.display()));
                false
            }
        });
    }

    /// All is written, or not.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.failed {
            Some(text) => Err(Failure::missing(text, "is there room for it?")),
            None => Ok(()),
        }
    }
}
