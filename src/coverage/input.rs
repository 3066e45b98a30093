//! What is given to a report: directories with runs, and files of other tools.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::collect::Collector;
use super::error::Error;
use super::model::{TestId, UNKNOWN_ARCH};
use super::problem::Problem;
use super::record::{FILE, GCC_DIR, GO_DIR, KERNEL_TAR, LLVM_DIR, Record};
use super::sources::{Base, Resolver};
use super::{gcov, go, json, lcov, llvm};
use crate::causes::chain;
use crate::named_file;

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The directory of a run.
    Run(PathBuf),
    /// An lcov file.
    Lcov(PathBuf),
    /// A JSON file of ours.
    Json(PathBuf),
}

/// What there is to read, and what of it cannot be.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) found: Vec<Input>,
    pub(crate) problems: Vec<Problem>,
    /// What was given twice, and links that lead nowhere.
    pub(crate) notes: Vec<String>,
}

/// Finds what there is to read in what was given.
pub(crate) fn find(given: &[PathBuf]) -> Result<Inputs, Error> {
    let mut inputs = Inputs::default();
    let mut seen: HashMap<PathBuf, ()> = HashMap::new();
    for path in given {
        let metadata =
            fs::metadata(path).map_err(|source| Error::Input { path: path.clone(), source })?;
        let before = inputs.found.len();
        if metadata.is_dir() {
            runs(path, &mut inputs);
            if inputs.found.len() == before {
                let closed = inputs.problems.iter().any(|p| Path::new(&p.object).starts_with(path));
                return Err(match inputs.problems.pop().filter(|_| closed) {
                    Some(problem) => Error::Closed { path: path.clone(), problem },
                    None => Error::Nothing { path: path.clone() },
                });
            }
        } else if path.extension().is_some_and(|extension| extension == "json") {
            inputs.found.push(Input::Json(path.clone()));
        } else {
            inputs.found.push(Input::Lcov(path.clone()));
        }
    }
    let Inputs { found, notes, .. } = &mut inputs;
    found.retain(|input| {
        let (Input::Run(path) | Input::Lcov(path) | Input::Json(path)) = input;
        let full = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let new = seen.insert(full, ()).is_none();
        if !new {
            notes.push(format!("{} was given twice; it is read once", path.display()));
        }
        new
    });
    Ok(inputs)
}

/// The runs in a directory, in order, also behind links.
fn runs(dir: &Path, inputs: &mut Inputs) {
    let mut walk = WalkDir::new(dir).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // What a link back leads to is walked as itself.
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => {
                let path = error.path().unwrap_or(dir);
                match error.io_error() {
                    Some(why) if why.kind() == io::ErrorKind::NotFound => {
                        inputs.notes.push(format!("{} leads nowhere", path.display()));
                    }
                    Some(why) => inputs.problems.push(closed(path, why)),
                    None => inputs.problems.push(Problem::at(path, &error)),
                }
                continue;
            }
        };
        if !entry.file_type().is_dir() && entry.depth() > 0 {
            continue;
        }
        match is_run(entry.path()) {
            Ok(true) => {
                inputs.found.push(Input::Run(entry.path().to_owned()));
                walk.skip_current_dir();
            }
            Ok(false) => {}
            Err(problem) => inputs.problems.push(problem),
        }
    }
}

fn closed(path: &Path, why: &io::Error) -> Problem {
    Problem::at(path, format!("cannot be entered: {why}"))
        .hint("what is in it is not in the report: who may read it?")
}

/// Whether a directory is a run's; one that was killed left no record.
fn is_run(dir: &Path) -> Result<bool, Problem> {
    for part in [FILE, KERNEL_TAR] {
        match fs::metadata(dir.join(part)) {
            Ok(metadata) if metadata.is_file() => return Ok(true),
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                return Err(closed(dir, &why));
            }
            _ => {}
        }
    }
    let has = |part: &str, wanted: &dyn Fn(&str) -> bool| {
        // One that cannot be read is found, and told, as a directory of its own.
        fs::read_dir(dir.join(part)).is_ok_and(|entries| {
            entries.flatten().any(|entry| wanted(&entry.file_name().to_string_lossy()))
        })
    };
    Ok(has(LLVM_DIR, &|name| name.ends_with(".profraw"))
        || has(GO_DIR, &|name| {
            name.starts_with(go::META)
                || name.starts_with(go::COUNTERS)
                || name.ends_with(go::PROFILE)
        }))
}

/// Reads everything. Runs of one name and architecture are one test.
pub(crate) fn read(collector: &Collector<'_>, inputs: &[Input], notes: &mut Vec<String>) {
    let mut first: BTreeMap<(String, String), PathBuf> = BTreeMap::new();
    for input in inputs {
        if collector.tools.cancel.is_cancelled() {
            return;
        }
        match input {
            Input::Run(dir) => {
                let record = run(collector, dir);
                let key = (record.name, record.arch);
                match first.get(&key) {
                    Some(other) => notes.push(format!(
                        "{} and {} are both runs `{}` ({}): their counts are added",
                        other.display(),
                        dir.display(),
                        key.0,
                        key.1
                    )),
                    None => drop(first.insert(key, dir.clone())),
                }
            }
            Input::Lcov(path) => lcov_file(collector, path),
            Input::Json(path) => match json::read(path) {
                Ok(coverage) => json::add(collector, coverage),
                Err(error) => collector.problem(Problem::at(path, error)),
            },
        }
    }
}

fn run(collector: &Collector<'_>, dir: &Path) -> Record {
    let path = dir.join(FILE);
    let mut record = Record::read(dir).unwrap_or_else(|error| {
        let hint = "the run's name is that of its directory, its architecture unknown";
        collector.problem(Problem::at(&path, chain(&error)).hint(hint));
        let full = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut record = Record::new(name, crate::arch::Arch::Amd64, "");
        record.arch = UNKNOWN_ARCH.to_owned();
        record
    });
    if record.arch.is_empty() {
        record.arch = UNKNOWN_ARCH.to_owned();
    }
    let test = {
        let mut coverage = collector.coverage();
        let id = coverage.test(&record.name, &record.arch);
        let test = &mut coverage.tests[id.0];
        test.verdict = Some(record.verdict.clone()).filter(|verdict| !verdict.is_empty());
        let missing = record.missing.iter();
        test.missing
            .extend(missing.map(|missing| format!("{}: {}", missing.kind.name(), missing.why)));
        id
    };
    parts(collector, test, dir, &path, &record);
    record
}

fn parts(collector: &Collector<'_>, test: TestId, dir: &Path, path: &Path, record: &Record) {
    let archive = dir.join(KERNEL_TAR);
    if archive.symlink_metadata().is_ok() {
        let gcov = record.kernel.as_ref().and_then(|kernel| kernel.gcov.as_ref());
        match gcov {
            Some(gcov) if !gcov.notes.is_dir() => {
                let why = format!("the kernel's notes {} are not there", gcov.notes.display());
                let hint = "they are the .gcno files of its build; `kernel.gcov.notes` says where";
                collector.problem(Problem::at(path, why).hint(hint));
            }
            _ => gcov::kernel(collector, test, &archive, gcov),
        }
    }
    let has = |part: &str| Some(dir.join(part)).filter(|part| part.is_dir());
    if let Some(llvm) = has(LLVM_DIR) {
        llvm::profiles(collector, test, &llvm, &record.objects, path);
    }
    if let Some(go) = has(GO_DIR) {
        go::profiles(collector, test, &go, &record.objects);
    }
    if let Some(gcc) = has(GCC_DIR) {
        gcov::programs(collector, test, &gcc);
    }
}

/// The test's name is the file's own, or the file's.
fn lcov_file(collector: &Collector<'_>, path: &Path) {
    let resolver = Resolver::new(collector.sources, Base::Nothing);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let read = named_file::open_stream(path).and_then(|file| {
        lcov::read(&mut BufReader::new(file), |name, source, file| {
            let name = if name.is_empty() { &stem } else { name };
            let test = collector.coverage().test(name, UNKNOWN_ARCH);
            collector.add(test, &resolver, None, source, file);
        })
    });
    match read {
        Ok(wrong) => {
            if let Some(first) = wrong.first() {
                let at = match first.line {
                    0 => String::new(),
                    line => format!("line {line}: "),
                };
                let more = match wrong.len() {
                    1 => String::new(),
                    n => format!(" (and {} more)", n - 1),
                };
                collector.problem(Problem::at(path, format!("{at}{}{more}", first.why)));
            }
        }
        Err(error) => collector.problem(Problem::at(path, format!("cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn runs_are_found_at_any_depth_also_without_record() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["suite/a/llvm", "suite/b", "suite/c/llvm", "suite/d/gcc/x", "other/go"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("suite/a/coverage.json"), "{}").unwrap();
        // Not looked for inside a run.
        fs::write(at("suite/a/llvm/coverage.json"), "{}").unwrap();
        fs::write(at("suite/b/kernel_coverage.tar"), "").unwrap();
        fs::write(at("suite/c/llvm/1.profraw"), "").unwrap();
        fs::write(at("other/go/x.coverprofile"), "").unwrap();
        fs::create_dir_all(at("far/run/go")).unwrap();
        fs::write(at("far/run/go/covcounters.x"), "").unwrap();
        symlink("../far/run", at("suite/link")).unwrap();
        symlink("../suite", at("far/loop")).unwrap();
        let given = [at("suite"), at("suite/b/../a"), at("other")];
        symlink("nowhere", at("suite/gone")).unwrap();
        let Inputs { found, problems, notes } = find(&given).unwrap();
        let expected = ["suite/a", "suite/b", "suite/c", "suite/link", "other"]
            .map(|path| Input::Run(at(path)));
        assert_eq!(found, expected);
        assert_eq!(problems, []);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].ends_with("suite/gone leads nowhere"), "{notes:?}");
        assert!(matches!(find(&[at("suite/d")]), Err(Error::Nothing { .. })));
        assert!(matches!(find(&[at("absent")]), Err(Error::Input { .. })));
    }
}
