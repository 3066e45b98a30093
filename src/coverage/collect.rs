//! Where converters put what they find, from several threads.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;

use crate::formats::gcov::Writer;

use super::model::{Coverage, FileCoverage, TestId};
use super::problem::Problem;
use super::sources::{Resolver, Sources};
use super::tools::{Llvm, Tools};

/// What is common to all converters of a report.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) sources: &'a Sources,
    /// A private directory, removed at the end.
    pub(crate) scratch: &'a Path,
    /// How many tools run at the same time.
    pub(crate) jobs: usize,
    coverage: Mutex<Coverage>,
    problems: Mutex<Vec<Problem>>,
    /// Looking for tools starts some: once is enough.
    gcovs: Mutex<BTreeMap<Writer, Result<Vec<PathBuf>, String>>>,
    llvms: OnceLock<Vec<Llvm>>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(tools: &'a Tools, sources: &'a Sources, scratch: &'a Path) -> Collector<'a> {
        let jobs = thread::available_parallelism().map_or(2, usize::from).min(8);
        let (coverage, problems) = (Mutex::default(), Mutex::default());
        let (gcovs, llvms) = (Mutex::default(), OnceLock::new());
        Collector { tools, sources, scratch, jobs, coverage, problems, gcovs, llvms }
    }

    /// As [`Tools::gcov_for`].
    pub(crate) fn gcov_for(&self, writer: Writer) -> Result<Vec<PathBuf>, String> {
        let mut known = self.gcovs.lock().unwrap_or_else(|err| err.into_inner());
        known.entry(writer).or_insert_with(|| self.tools.gcov_for(writer)).clone()
    }

    /// As [`Tools::llvm_dirs`].
    pub(crate) fn llvm_dirs(&self) -> &[Llvm] {
        self.llvms.get_or_init(|| self.tools.llvm_dirs())
    }

    /// What has been found so far.
    pub(crate) fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().unwrap_or_else(|err| err.into_inner())
    }

    /// Adds what a test covered in the source that a converter calls `name`.
    pub(crate) fn add(
        &self,
        test: TestId,
        resolver: &Resolver<'_>,
        dir: Option<&str>,
        name: &str,
        file: FileCoverage,
    ) {
        if let Some(path) = resolver.resolve(dir, name) {
            self.coverage().add(&path, test, file);
        }
    }

    pub(crate) fn problem(&self, problem: Problem) {
        self.problems.lock().unwrap_or_else(|err| err.into_inner()).push(problem);
    }

    pub(crate) fn finish(self) -> (Coverage, Vec<Problem>) {
        let coverage = self.coverage.into_inner().unwrap_or_else(|err| err.into_inner());
        (coverage, self.problems.into_inner().unwrap_or_else(|err| err.into_inner()))
    }
}

/// Does `work` for everything that `feed` sends, on `jobs` threads. Few items wait at a time.
pub(crate) fn in_parallel<T: Send, R>(
    jobs: usize,
    feed: impl FnOnce(&SyncSender<T>) -> R,
    work: impl Fn(T) + Sync,
) -> R {
    let (send, receive) = mpsc::sync_channel(1);
    let receive = Mutex::new(receive);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = receive.lock().unwrap_or_else(|err| err.into_inner()).recv();
                    match next {
                        Ok(item) => work(item),
                        Err(_) => return,
                    }
                }
            });
        }
        let result = feed(&send);
        drop(send);
        result
    })
}

/// A regular file's content, up to a limit.
pub(crate) fn read_limited(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}
