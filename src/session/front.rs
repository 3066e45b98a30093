//! What most want: start a machine, boot a guest, or run a command in one.

use std::ffi::OsString;

use crate::arch::Arch;
use crate::configure::{Config, Configure};
use crate::options::Environment;
use crate::run_record::RunRecord;
use crate::vm::{Guest, Kept, Streams, Vm};

use super::conduct::Conducted;
use super::{Command, Conduct, Error, Init, Prepared, prepare};

/// Reads the environment and prepares a machine. Starts nothing.
///
/// # Errors
/// [`Error`] names what is missing, unusable or contradictory.
pub fn prepare_with(arch: Arch, configure: impl Configure, init: Init) -> Result<Prepared, Error> {
    let environment = Environment::read()?;
    let mut config = Config::new(arch);
    config.apply(configure)?;
    prepare(config, &environment, init)
}

/// Starts a machine whose guest does what its own init does: that of the initramfs, the disk or the
/// root share. [`Vm::wait`] waits for its end.
///
/// Without a limit of its own it is killed after `VMTEST_TIMEOUT`, else after 5 minutes with KVM and 15
/// emulated.
///
/// # Errors
/// [`Error`]; nothing is left behind then.
///
/// # Panics
/// Outside of a tokio runtime; [`crate::blocking::start`] needs none.
pub fn start(arch: Arch, configurator: impl Configure) -> Result<Vm, Error> {
    prepare_with(arch, configurator, Init::Own)?.start_limited()
}

/// Boots a guest, or resumes a saved one, and does what the configuration says for every command: networks,
/// mounts, files. Any number of commands can be run in it ([`Guest::exec`], [`Guest::output`]).
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub async fn boot(arch: Arch, configurator: impl Configure) -> Result<Guest, Error> {
    prepare_with(arch, configurator, Init::Agent(None))?.boot().await
}

/// Boots a guest, runs a command in it and switches it off.
///
/// # Errors
/// [`Error`] when nothing was started. What happened after that is in [`Finished::record`].
pub async fn run(
    arch: Arch,
    configurator: impl Configure,
    command: Command,
) -> Result<Finished, Error> {
    prepare_with(arch, configurator, Init::Agent(Some(command)))?.run().await
}

/// A run that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finished {
    /// All that is known of it: verdict, times, notices, coverage.
    pub record: RunRecord,
    /// The command's stdout.
    pub stdout: Vec<u8>,
    /// The command's stderr.
    pub stderr: Vec<u8>,
    /// Everything the console said.
    pub console: Vec<u8>,
    /// QEMU's command line as a person types it, quoted for a shell.
    pub cmdline: OsString,
}

/// A run did not pass. Its `Debug` is its text, so that `unwrap` in a test shows what a person needs.
#[derive(thiserror::Error)]
#[error("{}{}", .0.record.outcome.verdict, details(.0))]
pub struct NotPassed(pub Box<Finished>);

impl std::fmt::Debug for NotPassed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What explains a failure: what the command has written, and the console's last lines where the command
/// did not end by itself.
fn details(finished: &Finished) -> String {
    use crate::vm::Verdict;
    const LINES: usize = 20;
    let console: &[u8] = match finished.record.outcome.verdict {
        Verdict::Exited(_) | Verdict::NotStarted { .. } => &[],
        _ => &finished.console,
    };
    let mut text = String::new();
    for (what, bytes) in [
        ("its stdout", &*finished.stdout),
        ("its stderr", &*finished.stderr),
        ("the console", console),
    ] {
        let lines = crate::vm::last_lines(bytes, LINES);
        if !lines.is_empty() {
            text.push_str(&format!("; the last of {what}:\n  {}", lines.join("\n  ")));
        }
    }
    text
}

impl Finished {
    /// The run itself if it passed.
    ///
    /// # Errors
    /// [`NotPassed`], with the verdict and the lines that explain it.
    pub fn passed(self) -> Result<Finished, NotPassed> {
        if self.record.outcome.verdict.passed() { Ok(self) } else { Err(NotPassed(Box::new(self))) }
    }

    /// The command's stdout, as well as it can be read.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The command's stderr, as well as it can be read.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Prepared {
    /// Starts the machine, with [`Prepared::run_limit`] as the limit for QEMU's life. The image is built
    /// before, if that is still to be done.
    ///
    /// # Errors
    /// [`Error::Start`], and those of [`Prepared::build_image`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_limited(mut self) -> Result<Vm, Error> {
        self.resources.timeout.get_or_insert(self.run_limit);
        self.start()
    }

    /// Starts the machine, runs the command and keeps what it writes.
    ///
    /// # Errors
    /// [`Error`] when nothing was started.
    pub async fn run(self) -> Result<Finished, Error> {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let streams = Streams {
            // A command that reads sees the end of a file.
            stdin: None,
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
        };
        let never = std::future::pending();
        let Conducted { record, console, cmdline } =
            self.conduct_all(Conduct::new(streams), never, |_| ()).await?;
        Ok(Finished {
            record,
            stdout: stdout.take(),
            stderr: stderr.take(),
            console: console.transcript(),
            cmdline,
        })
    }
}
