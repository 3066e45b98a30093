//! The two things most want: start a machine, or run a command in one.

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::arch::Arch;
use crate::configure::{Config, Configure};
use crate::options::Environment;
use crate::plan::Spelling;
use crate::vm::{Outcome, Streams, Vm};

use super::{Collected, Command, Error, Init, Prepared, prepare};

/// Reads the environment and prepares a machine. Starts nothing.
///
/// # Errors
/// [`Error`] names what is missing, unusable or contradictory.
pub fn configure(arch: Arch, configure: impl Configure, init: Init) -> Result<Prepared, Error> {
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
    configure(arch, configurator, Init::Own)?.start_limited()
}

/// Boots a guest, runs a command in it and switches it off.
///
/// # Errors
/// [`Error`] when nothing was started. What happened after that is in [`Finished::outcome`].
pub async fn run(
    arch: Arch,
    configurator: impl Configure,
    command: Command,
) -> Result<Finished, Error> {
    configure(arch, configurator, Init::Agent(Some(command)))?.run().await
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What happened.
    pub outcome: Outcome,
    /// The command's stdout.
    pub stdout: Vec<u8>,
    /// The command's stderr.
    pub stderr: Vec<u8>,
    /// Everything the console said.
    pub console: Vec<u8>,
    /// QEMU's command line as a person types it, quoted for a shell.
    pub cmdline: OsString,
    /// What was collected, where coverage was wanted ([`Config::coverage`]).
    pub coverage: Option<Collected>,
}

/// A run did not pass. Its `Debug` is its text, so that `unwrap` in a test shows what a person needs.
#[derive(thiserror::Error)]
#[error("{}{}", .0.outcome.verdict, details(.0))]
pub struct NotPassed(pub Box<Finished>);

impl std::fmt::Debug for NotPassed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What explains a failure: the command's stderr if it ended, else the console's last lines.
fn details(finished: &Finished) -> String {
    use crate::vm::Verdict;
    let (what, text) = match finished.outcome.verdict {
        Verdict::Exited(_) => ("its stderr", &finished.stderr),
        _ => ("the console", &finished.console),
    };
    let lines = crate::vm::last_lines(text, 20);
    if lines.is_empty() {
        return String::new();
    }
    format!("; the last of {what}:\n  {}", lines.join("\n  "))
}

impl Finished {
    /// The run itself if it passed.
    ///
    /// # Errors
    /// [`NotPassed`], with the verdict and the lines that explain it.
    pub fn passed(self) -> Result<Finished, NotPassed> {
        if self.outcome.verdict.passed() { Ok(self) } else { Err(NotPassed(Box::new(self))) }
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
    pub async fn run(mut self) -> Result<Finished, Error> {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let streams = Streams {
            stdin: None,
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
        };
        let job = self.job();
        self.build_image()?;
        let mut coverage = self.coverage.take();
        let vm = self.start()?;
        if let Some(collecting) = &mut coverage {
            collecting.started();
        }
        let console = vm.console().clone();
        let cmdline = vm.plan().quoted(Spelling::Typed);
        let mut outcome = crate::vm::run(vm, job, streams, std::future::pending(), |_| ()).await;
        let coverage = coverage.and_then(|collecting| match collecting.finish(&outcome) {
            Ok(collected) => Some(collected),
            Err(error) => {
                outcome.notices.push(crate::causes::chain(&error));
                None
            }
        });
        Ok(Finished {
            outcome,
            stdout: stdout.take(),
            stderr: stderr.take(),
            console: console.transcript(),
            cmdline,
            coverage,
        })
    }
}

/// A writer that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
