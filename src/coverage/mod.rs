//! Coverage of what ran in guests: what was collected, and what people's and machines' tools read.
//!
//! [`record`] says what a run's directory holds. [`load`] turns directories into [`model::Coverage`]
//! with the converters of others: gcov, llvm-cov, go. [`lcov`], [`cobertura`], [`json`], [`table`] and
//! [`html`] write it. What cannot be used is a [`Problem`]; the rest is used all the same.

pub mod cobertura;
mod collect;
mod elf;
mod error;
mod gcov;
pub mod go;
pub mod html;
mod input;
pub mod json;
pub mod lcov;
mod llvm;
pub mod model;
mod problem;
pub mod record;
pub mod run_dir;
mod sources;
pub mod table;
mod text;
mod tools;

use std::path::{Path, PathBuf};

pub use error::Error;
pub use problem::Problem;
pub use sources::{SourceRoot, Sources};
pub use tools::{Cancel, ToolError, Tools};

use collect::Collector;
use model::Coverage;

/// Whether a file is a program or library that counts what it executes, by LLVM's instrumentation or
/// Go's. One that cannot be read is none.
pub fn is_instrumented(path: &Path) -> bool {
    llvm::is_instrumented(path) || go::is_instrumented(path)
}

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    /// The coverage.
    pub coverage: Coverage,
    /// What could not be used, or only in part, by object.
    pub problems: Vec<Problem>,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// Reads runs, directories of runs, and files of other tools.
///
/// Memory: the counts of all tests, some 15 MiB for a kernel's run; archives and profiles are read as
/// streams. Temporary files are in a directory of their own, which is removed.
///
/// # Errors
/// Something that was given is not there, or has no coverage in it.
pub fn load(given: &[PathBuf], tools: &Tools, sources: &Sources) -> Result<Loaded, Error> {
    let input::Inputs { found, problems: closed, mut notes } = input::find(given)?;
    let scratch = tempfile::Builder::new()
        .prefix("vmtest-coverage-")
        .tempdir()
        .map_err(|source| Error::Scratch { source })?;
    let collector = Collector::new(tools, sources, scratch.path());
    closed.into_iter().for_each(|problem| collector.problem(problem));
    input::read(&collector, &found, &mut notes);
    let (coverage, mut problems) = collector.finish();
    if tools.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    problems.sort_by(|a, b| (&a.object, &a.why).cmp(&(&b.object, &b.why)));
    problems.dedup();
    Ok(Loaded { coverage, problems, notes })
}
