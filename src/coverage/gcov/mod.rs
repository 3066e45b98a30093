//! gcov's counters, of kernels and of programs: `gcov` or `llvm-cov gcov` in batches.
//!
//! The two files of an object, `NAME.gcda` and `NAME.gcno`, have to lie side by side. They are brought
//! together under plain numbers in a private directory, a few at a time, and removed when their batch
//! is done: neither odd names nor the size of an archive matter.

mod intermediate;
mod json;
mod kernel;
mod programs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::SyncSender;

use crate::formats::gcov::{self, End, FileKind, Head, Writer};

use super::collect::{Collector, in_parallel};
use super::model::{FileCoverage, TestId};
use super::problem::Problem;
use super::sources::Resolver;
use super::text;
use super::tools::{Finished, ToolError};
use crate::causes::chain;

pub(crate) use kernel::kernel;
pub(crate) use programs::programs;

/// How many objects a tool gets in one call. Starting it costs a few milliseconds; what a batch
/// writes is on the disk until the batch is done.
const BATCH: usize = 24;
/// No file of counters is larger: the largest object of a kernel has some hundred KiB.
const MAX_COUNTERS: u64 = 64 << 20;

/// An object's notes and counters, brought together.
#[derive(Debug)]
struct Batch {
    dir: tempfile::TempDir,
    writer: Writer,
    /// What the counters are called in messages; the index is the name in `dir`.
    objects: Vec<String>,
    /// Where the objects were compiled or lie, for sources with relative names.
    dirs: Vec<PathBuf>,
}

/// Fills batches and sends them off.
struct Batches<'a> {
    scratch: &'a Path,
    send: &'a SyncSender<Batch>,
    open: BTreeMap<Writer, Batch>,
}

/// An object to convert.
struct Object<'a> {
    /// What its counters are called in messages.
    name: String,
    /// Its counters.
    bytes: &'a [u8],
    /// The file that has them, if there is one.
    file: Option<&'a Path>,
    /// Its notes: an absolute path.
    notes: &'a Path,
    /// What sources with relative names are relative to, if the tool does not tell.
    dir: PathBuf,
    /// Whether its counters end with a mark.
    marked: bool,
}

impl Batches<'_> {
    /// Adds an object, after a look at its files.
    fn add(&mut self, object: Object<'_>) -> Result<(), Problem> {
        let (head, partly) = check(&object)?;
        let mut batch = match self.open.remove(&head.writer) {
            Some(batch) => batch,
            None => {
                let dir = tempfile::tempdir_in(self.scratch)
                    .map_err(|error| no_room(self.scratch, &error))?;
                let (objects, dirs) = (Vec::new(), Vec::new());
                Batch { dir, writer: head.writer, objects, dirs }
            }
        };
        let place = batch.dir.path().join(batch.objects.len().to_string());
        let data = place.with_extension("gcda");
        let placed =
            symlink(object.notes, place.with_extension("gcno")).and_then(|()| match object.file {
                Some(path) => symlink(path, data),
                None => fs::write(data, object.bytes),
            });
        let result = placed.map_err(|error| no_room(batch.dir.path(), &error));
        if result.is_ok() {
            batch.objects.push(object.name);
            batch.dirs.push(object.dir);
        }
        if batch.objects.len() >= BATCH {
            let _ = self.send.send(batch);
        } else {
            self.open.insert(head.writer, batch);
        }
        result?;
        partly.map_or(Ok(()), Err)
    }

    fn finish(self) {
        for batch in self.open.into_values() {
            let _ = self.send.send(batch);
        }
    }
}

fn no_room(dir: &Path, error: &io::Error) -> Problem {
    Problem::at(dir, format!("cannot write temporary files: {error}"))
        .hint("TMPDIR says where they go")
}

/// Whether the two files belong together; and a problem with a file that can be used in part.
fn check(object: &Object<'_>) -> Result<(Head, Option<Problem>), Problem> {
    let problem = |why: String| Problem::new(object.name.as_str(), why);
    let notes = object.notes.display();
    let Some(head) = gcov::head(object.bytes).filter(|head| head.kind == FileKind::Counters) else {
        let why = if object.bytes.is_empty() { "it is empty" } else { "it is no .gcda file" };
        return Err(problem(why.to_owned()));
    };
    let mut begin = Vec::new();
    File::open(object.notes)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, 12), &mut begin))
        .map_err(|error| {
            problem(format!("cannot read its notes {notes}: {error}"))
                .hint("the compiler writes the .gcno file beside the object: keep it where it was")
        })?;
    let Some(other) = gcov::head(&begin).filter(|head| head.kind == FileKind::Notes) else {
        return Err(problem(format!("its notes {notes} are no .gcno file")));
    };
    if other.writer != head.writer {
        let (own, other) = (head.writer, other.writer);
        return Err(problem(format!("it was written by {own}, its notes {notes} by {other}")));
    }
    if other.stamp != head.stamp {
        let hint = "the object was compiled again after the run; run it again";
        return Err(problem(format!("it is of another build than its notes {notes}")).hint(hint));
    }
    match head.end(object.bytes) {
        End::Marked => Ok((head, None)),
        End::Unmarked if !object.marked => Ok((head, None)),
        // clang's reader gives up on it, and on what follows it.
        _ if head.writer == Writer::Clang => Err(problem("it is cut short".to_owned())),
        _ => {
            let partly = "it is cut short: only its first functions are counted";
            Ok((head, Some(problem(partly.to_owned()))))
        }
    }
}

/// Converts what `feed` adds.
fn convert(
    collector: &Collector<'_>,
    test: TestId,
    resolver: &Resolver<'_>,
    feed: impl FnOnce(&mut Batches<'_>),
) {
    in_parallel(
        collector.jobs,
        |send| {
            let mut batches = Batches { scratch: collector.scratch, send, open: BTreeMap::new() };
            feed(&mut batches);
            batches.finish();
        },
        |batch: Batch| {
            if collector.tools.cancel.is_cancelled() {
                return;
            }
            let add = |index: usize, dir: Option<&str>, name: &str, file: FileCoverage| {
                // clang does not tell where it was called: near the notes.
                let near =
                    batch.dirs.get(index).map(|dir| text::escaped(dir.as_os_str().as_bytes()));
                collector.add(test, resolver, dir.or(near.as_deref()), name, file);
            };
            run(collector, &batch, &add);
        },
    );
}

/// Gets an object's number, the directory that names are relative to, a source's name and coverage.
type Add<'a> = dyn Fn(usize, Option<&str>, &str, FileCoverage) + 'a;

/// Converts a batch. One object that the tool chokes on does not cost the others: they are converted
/// one by one then.
fn run(collector: &Collector<'_>, batch: &Batch, add: &Add<'_>) {
    let about = |index: usize, why: &str, hint: Option<&String>| {
        let object = batch.objects[index].clone();
        collector.problem(Problem { object, why: why.to_owned(), hint: hint.cloned() });
    };
    let all: Vec<usize> = (0..batch.objects.len()).collect();
    let words = match collector.gcov_for(batch.writer) {
        Ok(words) => words,
        Err(hint) => {
            let why = format!("no tool reads what {} wrote", batch.writer);
            return all.iter().for_each(|index| about(*index, &why, Some(&hint)));
        }
    };
    let mut done = vec![false; all.len()];
    let mut alone = Vec::new();
    match call(collector, batch, &words, &all, &mut done, add) {
        Ok(finished) => {
            for index in all {
                if !done[index] && !finished.status.success() && batch.objects.len() > 1 {
                    alone.push(index);
                } else {
                    let object = batch.objects[index].as_str();
                    complaint(&finished, index, object, done[index], &words[0])
                        .into_iter()
                        .for_each(|problem| collector.problem(problem));
                }
            }
        }
        Err(ToolError::Failed { .. } | ToolError::Output { .. }) if all.len() > 1 => {
            alone.extend(all.into_iter().filter(|index| !done[*index]));
        }
        Err(error) => {
            let why = chain(&error);
            all.iter().filter(|index| !done[**index]).for_each(|index| about(*index, &why, None));
        }
    }
    for index in alone {
        match call(collector, batch, &words, &[index], &mut done, add) {
            Ok(finished) => {
                let object = batch.objects[index].as_str();
                complaint(&finished, index, object, done[index], &words[0])
                    .into_iter()
                    .for_each(|problem| collector.problem(problem));
            }
            Err(error) => about(index, &chain(&error), None),
        }
    }
}

/// What a tool writes for a batch.
struct Sink<'a> {
    collector: &'a Collector<'a>,
    batch: &'a Batch,
    done: &'a mut [bool],
    add: &'a Add<'a>,
}

impl json::Found for Sink<'_> {
    fn source(&mut self, index: usize, dir: Option<&str>, name: &str, file: FileCoverage) {
        if let Some(done) = self.done.get_mut(index) {
            *done = true;
        }
        (self.add)(index, dir, name, file);
    }

    fn wrong(&mut self, index: usize, why: String) {
        if let Some(object) = self.batch.objects.get(index) {
            self.collector.problem(Problem::new(object.as_str(), why));
        }
    }
}

/// Calls the tool for some objects of a batch; those that it wrote something of are `done`.
fn call(
    collector: &Collector<'_>,
    batch: &Batch,
    words: &[PathBuf],
    indices: &[usize],
    done: &mut [bool],
    add: &Add<'_>,
) -> Result<Finished<()>, ToolError> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(batch.dir.path());
    let files = indices.iter().map(|index| format!("{index}.gcda"));
    match batch.writer {
        Writer::Gcc(_) => {
            command.args(["--json-format", "--stdout", "--branch-probabilities"]).args(files);
            let mut sink = Sink { collector, batch, done, add };
            collector.tools.run(&mut command, |stdout| json::read(stdout, &mut sink))
        }
        Writer::Clang => {
            command.args(["--intermediate-format", "-b"]).args(files);
            let finished = collector.tools.run(&mut command, |_| Ok(()))?;
            for &index in indices {
                let path = batch.dir.path().join(format!("{index}.gcda.gcov"));
                let Ok(file) = File::open(path) else { continue };
                let read = intermediate::read(&mut io::BufReader::new(file), |name, file| {
                    done[index] = true;
                    add(index, None, name, file);
                });
                let why = match read {
                    Ok(None) => continue,
                    Ok(Some(wrong)) => wrong,
                    Err(error) => format!("llvm-cov: {error}"),
                };
                collector.problem(Problem::new(batch.objects[index].as_str(), why));
            }
            Ok(finished)
        }
    }
}

/// What a tool said about an object, or that it said nothing and gave nothing.
fn complaint(
    Finished { stderr, status, .. }: &Finished<()>,
    index: usize,
    object: &str,
    done: bool,
    tool: &Path,
) -> Option<Problem> {
    let tool = tool.file_name().unwrap_or(tool.as_os_str()).display();
    let said: Vec<&str> = stderr
        .lines()
        .filter_map(|line| {
            let named = ["gcda", "gcno"].map(|kind| format!("{index}.{kind}:"));
            let name = named.iter().find_map(|name| line.strip_prefix(name.as_str()))?;
            Some(name.trim())
        })
        .collect();
    match (said.is_empty(), done) {
        (false, _) => Some(Problem::new(object, format!("{tool}: {}", said.join("; ")))),
        (true, true) => None,
        // An object without code, such as one of data alone, has nothing to say.
        (true, false) if stderr.is_empty() && status.success() => None,
        (true, false) if stderr.is_empty() => {
            Some(Problem::new(object, format!("{tool} said nothing and ended with {status}")))
        }
        (true, false) => {
            let last = stderr.lines().last().unwrap_or_default();
            Some(Problem::new(object, format!("nothing came of it: {last}")))
        }
    }
}
