//! From what runs left behind to one model: the way in for reports.

use std::path::PathBuf;

use super::collect::Collector;
use super::error::Error;
use super::input;
use super::model::Coverage;
use super::problem::Problem;
use super::sources::Sources;
use super::tools::Tools;

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
