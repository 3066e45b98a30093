//! Counters of programs that gcc or clang built with `--coverage`: a tree whose paths are the objects'.

use std::fs::{self, File};
use std::path::Path;

use walkdir::WalkDir;

use super::{MAX_COUNTERS, Object, convert};
use crate::coverage::collect::{Collector, read_limited};
use crate::coverage::model::TestId;
use crate::coverage::problem::Problem;
use crate::coverage::sources::{Base, Resolver};

/// Converts a tree that `GCOV_PREFIX` made; the notes are where the paths below it say.
pub(crate) fn programs(collector: &Collector<'_>, test: TestId, tree: &Path) {
    let tree = fs::canonicalize(tree).unwrap_or_else(|_| tree.to_owned());
    let resolver = Resolver::new(collector.sources, Base::Near);
    convert(collector, test, &resolver, |batches| {
        // Links are not followed: what a guest linked to is on another machine.
        for entry in WalkDir::new(&tree).sort_by_file_name() {
            if collector.tools.cancel.is_cancelled() {
                return;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let at = error.path().unwrap_or(&tree).to_owned();
                    let why = error.io_error().map_or_else(|| error.to_string(), |e| e.to_string());
                    collector.problem(Problem::at(&at, format!("cannot be read: {why}")));
                    continue;
                }
            };
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "gcda") {
                continue;
            }
            if !entry.file_type().is_file() {
                collector.problem(Problem::at(path, "it is no file; links are not followed"));
                continue;
            }
            let bytes = match File::open(path).and_then(|file| read_limited(file, MAX_COUNTERS)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    collector.problem(Problem::at(path, format!("cannot be read: {error}")));
                    continue;
                }
            };
            let inside = path.strip_prefix(&tree).unwrap_or(path);
            let notes = Path::new("/").join(inside).with_extension("gcno");
            let object = Object {
                name: path.display().to_string(),
                bytes: &bytes,
                file: Some(path),
                notes: &notes,
                dir: notes.parent().unwrap_or(Path::new("/")).to_owned(),
                marked: true,
            };
            if let Err(problem) = batches.add(object) {
                collector.problem(problem);
            }
        }
    });
}
