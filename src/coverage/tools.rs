//! The converters of others: found, started with a deadline, and read as a stream.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::formats::gcov::Writer;

/// What a tool says on stderr is kept up to this many bytes.
const MAX_STDERR: usize = 64 << 10;
/// How often a tool's deadline and [`Cancel`] are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Ends everything that is under way, from another thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends it.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which tools to use. What is not given is looked for.
#[derive(Clone, Debug)]
pub struct Tools {
    /// gcc's `gcov`, for all versions of gcc.
    pub gcov: Option<PathBuf>,
    /// Directory with `llvm-cov` and `llvm-profdata`.
    pub llvm: Option<PathBuf>,
    /// `go`.
    pub go: Option<PathBuf>,
    /// No call of a tool takes longer.
    pub deadline: Duration,
    /// Ends calls that are under way.
    pub cancel: Cancel,
}

impl Default for Tools {
    fn default() -> Tools {
        let deadline = Duration::from_secs(300);
        Tools { gcov: None, llvm: None, go: None, deadline, cancel: Cancel::default() }
    }
}

/// Why a tool's call came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// It cannot be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The tool.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{} did not end within {} s", program.display(), deadline.as_secs())]
    TimedOut {
        /// The tool.
        program: PathBuf,
        /// How long it was given.
        deadline: Duration,
    },
    /// It failed.
    #[error("{} failed ({status}): {stderr}", program.display())]
    Failed {
        /// The tool.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
    /// What it wrote makes no sense.
    #[error("cannot read what {} wrote", program.display())]
    Output {
        /// The tool.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// [`Cancel`].
    #[error("interrupted")]
    Cancelled,
}

/// How a tool ended that was started and read to its end.
#[derive(Debug)]
pub(crate) struct Finished<T> {
    pub(crate) value: T,
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Tools {
    /// Runs a tool; `read` gets its stdout. A failure of `read` counts only if the tool did well.
    pub(crate) fn run<T>(
        &self,
        command: &mut Command,
        read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>,
    ) -> Result<Finished<T>, ToolError> {
        if self.cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        let program = PathBuf::from(command.get_program());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Their words are read by us.
        command.env("LC_ALL", "C");
        let start = |source| ToolError::Start { program: program.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let watch = Watch::new(Pid::from_child(&child), self.deadline, &self.cancel);
        let complaints = thread::spawn(move || tail(stderr));
        let mut stdout = BufReader::with_capacity(64 << 10, stdout.expect("piped"));
        let value = read(&mut stdout);
        // A tool whose output is not wanted any more must not wait for a reader.
        let drained = io::copy(&mut stdout, &mut io::sink());
        let status = child.wait();
        let cause = watch.end();
        let stderr = complaints.join().unwrap_or_default();
        match cause {
            Some(Cause::Deadline) => {
                return Err(ToolError::TimedOut { program, deadline: self.deadline });
            }
            Some(Cause::Cancel) => return Err(ToolError::Cancelled),
            None => {}
        }
        let output = |source| ToolError::Output { program: program.clone(), source };
        let status = status.map_err(output)?;
        let value = match (value, status.success()) {
            (Err(_), false) => return Err(ToolError::Failed { program, status, stderr }),
            (value, _) => value.map_err(output)?,
        };
        drained.map_err(output)?;
        Ok(Finished { value, status, stderr })
    }

    /// The same; a tool that fails is an error.
    pub(crate) fn run_well<T>(
        &self,
        command: &mut Command,
        read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>,
    ) -> Result<T, ToolError> {
        let program = PathBuf::from(command.get_program());
        let Finished { value, status, stderr } = self.run(command, read)?;
        if status.success() {
            Ok(value)
        } else {
            Err(ToolError::Failed { program, status, stderr })
        }
    }

    /// The gcov that reads what this compiler wrote, with the arguments that make it gcov.
    ///
    /// # Errors
    /// What to install, for a person.
    pub(crate) fn gcov_for(&self, writer: Writer) -> Result<Vec<PathBuf>, String> {
        match writer {
            Writer::Clang => match self.llvm_dirs().into_iter().next() {
                Some(dir) => Ok(vec![dir.cov, "gcov".into()]),
                None => Err(hint_llvm("any version")),
            },
            Writer::Gcc(major) => {
                if let Some(gcov) = &self.gcov {
                    return Ok(vec![gcov.clone()]);
                }
                if let Ok(versioned) = which::which(format!("gcov-{major}")) {
                    return Ok(vec![versioned]);
                }
                let found = which::which("gcov").ok();
                match found.filter(|gcov| self.gcov_major(gcov) == Some(major)) {
                    Some(gcov) => Ok(vec![gcov]),
                    None => Err(format!(
                        "gcov of gcc {major} is needed: install gcc-{major}, or name it with --gcov"
                    )),
                }
            }
        }
    }

    /// The major version of a gcov: `gcov (Debian 12.2.0-14) 12.2.0`.
    fn gcov_major(&self, gcov: &Path) -> Option<u32> {
        let line = self
            .run_well(Command::new(gcov).arg("--version"), |stdout| {
                let mut line = String::new();
                stdout.take(1 << 10).read_to_string(&mut line).map(|_| line)
            })
            .ok()?;
        let version = line.lines().next()?.rsplit(' ').next()?;
        version.split('.').next()?.parse().ok()
    }

    /// LLVM's tools, in the order to try them: those given or in PATH, versioned ones, the newest
    /// first, and those of Rust's toolchains.
    pub(crate) fn llvm_dirs(&self) -> Vec<Llvm> {
        let mut found = Vec::new();
        let mut add = |cov: PathBuf, profdata: PathBuf| {
            let llvm = Llvm { cov, profdata };
            if llvm.cov.is_file() && llvm.profdata.is_file() && !found.contains(&llvm) {
                found.push(llvm);
            }
        };
        if let Some(dir) = &self.llvm {
            add(dir.join("llvm-cov"), dir.join("llvm-profdata"));
            return found;
        }
        if let (Ok(cov), Ok(profdata)) = (which::which("llvm-cov"), which::which("llvm-profdata")) {
            add(cov, profdata);
        }
        for version in versions_in_path() {
            let find = |tool| which::which(format!("{tool}-{version}"));
            if let (Ok(cov), Ok(profdata)) = (find("llvm-cov"), find("llvm-profdata")) {
                add(cov, profdata);
            }
        }
        for dir in self.rust_dirs() {
            add(dir.join("llvm-cov"), dir.join("llvm-profdata"));
        }
        found
    }

    /// Where `llvm-tools` of Rust's toolchains are: of the one in use first, then of the others
    /// beside it.
    fn rust_dirs(&self) -> Vec<PathBuf> {
        let sysroot = self.run_well(Command::new("rustc").args(["--print", "sysroot"]), |stdout| {
            let mut text = String::new();
            stdout.take(64 << 10).read_to_string(&mut text).map(|_| text)
        });
        let Ok(sysroot) = sysroot else { return Vec::new() };
        let sysroot = PathBuf::from(sysroot.trim_end());
        let mut sysroots = vec![sysroot.clone()];
        if let Some(toolchains) = sysroot.parent().filter(|dir| dir.ends_with("toolchains")) {
            sysroots.extend(entries(toolchains));
        }
        let targets = sysroots.iter().flat_map(|root| entries(&root.join("lib/rustlib")));
        targets
            .map(|target| target.join("bin"))
            .filter(|dir| dir.join("llvm-cov").is_file())
            .collect()
    }
}

/// A pair of LLVM's tools that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Llvm {
    pub(crate) cov: PathBuf,
    pub(crate) profdata: PathBuf,
}

/// How to get LLVM's tools of some version.
pub(crate) fn hint_llvm(which: &str) -> String {
    format!(
        "llvm-cov and llvm-profdata of LLVM ({which}) are needed: install the package `llvm` or \
         `llvm-NN`, or run `rustup component add llvm-tools` for the Rust toolchain that built the \
         program, or name their directory with --llvm-bin"
    )
}

/// The entries of a directory, sorted; none if it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    found.sort();
    found
}

/// The versions of `llvm-cov-NN` in PATH, the newest first.
fn versions_in_path() -> impl Iterator<Item = u32> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = std::env::split_paths(&path).flat_map(|dir| entries(&dir));
    let versions: BTreeSet<u32> = names
        .filter_map(|path| {
            path.file_name().and_then(OsStr::to_str)?.strip_prefix("llvm-cov-")?.parse().ok()
        })
        .collect();
    versions.into_iter().rev()
}

/// The last part of a stream; all of it is read.
fn tail(stream: Option<impl Read>) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    let Some(mut stream) = stream else { return String::new() };
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > 2 * MAX_STDERR {
            kept.drain(..kept.len() - MAX_STDERR);
        }
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Deadline,
    Cancel,
}

/// Kills a child at its deadline or when all is cancelled.
#[derive(Debug)]
struct Watch {
    done: mpsc::Sender<()>,
    thread: thread::JoinHandle<Option<Cause>>,
}

impl Watch {
    fn new(pid: Pid, deadline: Duration, cancel: &Cancel) -> Watch {
        // The child is not waited for before this is open: the number is still its own.
        let fd = pidfd_open(pid, PidfdFlags::empty());
        let (done, ended) = mpsc::channel();
        let cancel = cancel.clone();
        let start = Instant::now();
        let thread = thread::spawn(move || {
            loop {
                match ended.recv_timeout(TICK) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return None,
                }
                let cause = match (cancel.is_cancelled(), start.elapsed() >= deadline) {
                    (true, _) => Cause::Cancel,
                    (_, true) => Cause::Deadline,
                    _ => continue,
                };
                if let Ok(fd) = &fd {
                    let _ = pidfd_send_signal(fd, Signal::KILL);
                }
                return Some(cause);
            }
        });
        Watch { done, thread }
    }

    fn end(self) -> Option<Cause> {
        let _ = self.done.send(());
        self.thread.join().ok().flatten()
    }
}

impl fmt::Display for Llvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cov.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn all(stdout: &mut dyn BufRead) -> io::Result<String> {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn output_and_failure_are_told_apart() {
        let tools = Tools::default();
        assert_eq!(tools.run_well(&mut sh("echo a; echo b >&2"), all).unwrap(), "a\n");
        let failed = tools.run_well(&mut sh("echo why >&2; exit 3"), all).unwrap_err();
        assert!(failed.to_string().contains("why"), "{failed}");
        // Nobody reads all of it; it ends all the same.
        let ignored = tools.run(&mut sh("seq 100000; exit 1"), |_| Ok(())).unwrap();
        assert_eq!(ignored.status.code(), Some(1));
        let absent = tools.run(&mut Command::new("/no/such/tool"), all).unwrap_err();
        assert!(matches!(absent, ToolError::Start { .. }));
    }

    #[test]
    fn deadline_and_interruption_end_it() {
        let deadline = Duration::from_millis(100);
        let tools = Tools { deadline, ..Tools::default() };
        let error = tools.run(&mut sh("exec sleep 60"), all).unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
        let tools = Tools::default();
        let cancel = tools.cancel.clone();
        let canceller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        let error = tools.run(&mut sh("exec sleep 60"), all).unwrap_err();
        assert!(matches!(error, ToolError::Cancelled), "{error}");
        canceller.join().unwrap();
        assert!(matches!(tools.run(&mut sh("true"), all), Err(ToolError::Cancelled)));
    }
}
