//! The library for callers without a runtime: plain `#[test]` functions.
//!
//! The same machines and the same errors as in [`crate::vm`] and [`crate::session`]; each machine has a
//! thread of its own that runs its tasks.
//!
//! ```no_run
//! use std::time::Duration;
//! use vmtest::arch::Arch;
//! use vmtest::blocking;
//! use vmtest::configure::{virtio_random, with_kernel};
//!
//! let vm = blocking::start(Arch::Arm64, (with_kernel("Image"), virtio_random()))?;
//! let mut console = vm.console();
//! console.expect("login:", Duration::from_secs(60))?;
//! console.send_line("root");
//! vm.kill();
//! vm.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod template;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;
use serde::de::DeserializeOwned;
use vmtest_guest::proto::{Exec, Hello};

use crate::arch::Arch;
use crate::configure::Configure;
use crate::plan::Plan;
use crate::session::{self, Command, Error, Finished, Init, Prepared};
use crate::vm::{
    BlockingRuntime, Cursor, End, EventChannel, EventError, Exited, ExpectError, GuestError,
    Output, Pattern, Signal, Streams, WaitError,
};

pub use template::{Original, Pool, Template};

/// How long dropping a machine may wait for QEMU, which is killed.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// As [`session::start`].
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub fn start(arch: Arch, configurator: impl Configure) -> Result<Vm, Error> {
    Vm::start(session::prepare_with(arch, configurator, Init::Own)?)
}

/// As [`session::run`].
///
/// # Errors
/// [`Error`] when nothing was started. What happened after that is in [`Finished::record`].
pub fn run(arch: Arch, configurator: impl Configure, command: Command) -> Result<Finished, Error> {
    let prepared = session::prepare_with(arch, configurator, Init::Agent(Some(command)))?;
    let runtime = BlockingRuntime::new().map_err(Error::Runtime)?;
    runtime.block_on(prepared.run())
}

/// As [`session::boot`]: a guest that is ready, for any number of commands.
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub fn boot(arch: Arch, configurator: impl Configure) -> Result<Guest, Error> {
    let prepared = session::prepare_with(arch, configurator, Init::Agent(None))?;
    let runtime = Arc::new(BlockingRuntime::new().map_err(Error::Runtime)?);
    let guest = runtime.block_on(prepared.boot())?;
    Ok(Guest { guest: Some(Arc::new(guest)), runtime })
}

/// A guest that is ready. Dropped, it kills QEMU and everything QEMU started.
///
/// Commands may be run from several threads at once.
#[derive(Debug)]
pub struct Guest {
    /// `None` once it was shut down.
    guest: Option<Arc<crate::vm::Guest>>,
    runtime: Arc<BlockingRuntime>,
}

impl Guest {
    fn guest(&self) -> &Arc<crate::vm::Guest> {
        self.guest.as_ref().expect("only `shutdown` and `drop` take it, and both use up the Guest")
    }

    /// What it said when it was ready.
    pub fn hello(&self) -> &Hello {
        self.guest().hello()
    }

    /// As [`crate::vm::Guest::output`].
    ///
    /// # Errors
    /// [`GuestError`]; [`GuestError::Refused`] where it cannot be started.
    pub fn output(&self, exec: Exec) -> Result<Output, GuestError> {
        let guest = Arc::clone(self.guest());
        self.runtime.block_on(async move { guest.output(exec).await })
    }

    /// As [`crate::vm::Guest::exec`]; waits for the command's end, with streams of the caller's.
    ///
    /// # Errors
    /// [`GuestError`]; [`GuestError::Refused`] where it cannot be started.
    pub fn exec(&self, exec: Exec, streams: Streams) -> Result<Exited, GuestError> {
        let guest = Arc::clone(self.guest());
        self.runtime.block_on(async move { guest.exec(exec, streams).await?.wait().await })
    }

    /// As [`crate::vm::Guest::put_files`].
    ///
    /// # Errors
    /// [`GuestError`]; files before the one that failed are in place.
    pub fn put_files(&self, archive: impl io::Read + Send + 'static) -> Result<(), GuestError> {
        let guest = Arc::clone(self.guest());
        self.runtime.block_on(async move { guest.put_files(archive).await })
    }

    /// As [`crate::vm::Guest::stacks`].
    ///
    /// # Errors
    /// [`GuestError`], when the guest does not answer within `limit`.
    pub fn stacks(&self, limit: Duration) -> Result<Vec<u8>, GuestError> {
        let guest = Arc::clone(self.guest());
        self.runtime.block_on(async move { guest.stacks(limit).await })
    }

    /// Has the guest end what still runs, sync and unmount, and QEMU quit. Says what did not go well.
    pub fn shutdown(mut self) -> Vec<String> {
        let guest = self.guest.take().and_then(Arc::into_inner);
        self.runtime.block_on(async move {
            match guest {
                Some(guest) => guest.shutdown().await.1,
                None => Vec::new(),
            }
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(guest) = self.guest.take().and_then(Arc::into_inner) else { return };
        // Reaped before the runtime ends, or a zombie would stay until the process ends.
        self.runtime.block_on(async move {
            guest.vm().kill();
            let _ = crate::vm::within(DROP_LIMIT, guest.vm().ended()).await;
        });
    }
}

/// A running machine. Dropped, it kills QEMU and everything QEMU started.
#[derive(Debug)]
pub struct Vm {
    /// `None` once it was waited for.
    machine: Option<crate::vm::Vm>,
    runtime: Arc<BlockingRuntime>,
}

impl Vm {
    /// Starts a prepared machine, as [`Prepared::start_limited`].
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind then.
    pub fn start(prepared: Prepared) -> Result<Vm, Error> {
        let runtime = Arc::new(BlockingRuntime::new().map_err(Error::Runtime)?);
        let machine = runtime.block_on(async move { prepared.start_limited() })?;
        Ok(Vm { machine: Some(machine), runtime })
    }

    fn machine(&self) -> &crate::vm::Vm {
        self.machine.as_ref().expect("only `wait` and `drop` take it, and both use up the Vm")
    }

    /// What it was started from.
    pub fn plan(&self) -> &Plan {
        self.machine().plan()
    }

    /// QEMU's command line, quoted for a POSIX shell, as a person types it.
    pub fn cmdline_quoted(&self) -> OsString {
        self.machine().cmdline_quoted()
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.machine().pid()
    }

    /// A reader and writer of the console, at the transcript's beginning. Several are independent.
    pub fn console(&self) -> Console {
        let console = self.machine().console().clone();
        Console { cursor: console.cursor(), console, runtime: Arc::clone(&self.runtime) }
    }

    /// Takes an event channel as an iterator. Events that are not asked for slow down the guest.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such channel, or somebody has it.
    pub fn events<T: DeserializeOwned + Send + 'static>(
        &mut self,
        name: &str,
    ) -> io::Result<Events<T>> {
        let stream = self.machine.as_mut().and_then(|machine| machine.take_channel(name));
        let stream = stream.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no event channel `{name}`"))
        })?;
        let name = name.to_owned();
        let channel = self.runtime.block_on(async move { EventChannel::new(&name, stream) })?;
        Ok(Events { channel: Some(channel), runtime: Arc::clone(&self.runtime) })
    }

    /// Sends a signal to QEMU. One that has ended is no error.
    ///
    /// # Errors
    /// The system's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.machine().signal(signal)
    }

    /// Kills QEMU at once. [`Vm::wait`] then gives [`End::Killed`].
    pub fn kill(&self) {
        self.machine().kill();
    }

    /// Waits until QEMU has ended, the console is drained and all tasks are done.
    ///
    /// # Errors
    /// [`WaitError`], see [`crate::vm::Vm::wait`].
    pub fn wait(mut self) -> Result<End, WaitError> {
        let machine = self.machine.take().expect("it is taken once, here or by drop");
        self.runtime.block_on(machine.wait())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let Some(machine) = self.machine.take() else { return };
        // Reaped before the runtime ends, or a zombie would stay until the process ends.
        self.runtime.block_on(async move {
            machine.kill();
            let _ = crate::vm::within(DROP_LIMIT, machine.wait()).await;
        });
    }
}

/// A reader and writer of a machine's console. A clone reads on from the same place.
#[derive(Clone, Debug)]
pub struct Console {
    console: crate::vm::Console,
    cursor: Cursor,
    runtime: Arc<BlockingRuntime>,
}

impl Console {
    /// As [`Cursor::expect`].
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<Vec<u8>, ExpectError> {
        self.expect_any(&[text.into()], limit).map(|(_, passed)| passed)
    }

    /// As [`Cursor::expect_regex`].
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub fn expect_regex(&mut self, regex: &Regex, limit: Duration) -> Result<Vec<u8>, ExpectError> {
        self.expect_any(&[regex.clone().into()], limit).map(|(_, passed)| passed)
    }

    /// As [`Cursor::expect_any`].
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes or the console ends first.
    pub fn expect_any(
        &mut self,
        patterns: &[Pattern],
        limit: Duration,
    ) -> Result<(usize, Vec<u8>), ExpectError> {
        let (patterns, mut cursor) = (patterns.to_vec(), self.cursor.clone());
        let (cursor, result) = self.runtime.block_on(async move {
            let result = cursor.expect_any(&patterns, limit).await;
            (cursor, result)
        });
        self.cursor = cursor;
        result
    }

    /// As [`Cursor::expect_eof`].
    ///
    /// # Errors
    /// [`ExpectError`] when the deadline passes first.
    pub fn expect_eof(&mut self, limit: Duration) -> Result<Vec<u8>, ExpectError> {
        self.expect_any(&[Pattern::Eof], limit).map(|(_, passed)| passed)
    }

    /// Types bytes at the console.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) {
        self.console.send(bytes);
    }

    /// Types a line.
    pub fn send_line(&self, line: &str) {
        self.console.send_line(line);
    }

    /// Everything the console said so far.
    pub fn transcript(&self) -> Vec<u8> {
        self.console.transcript()
    }

    /// The last lines, without control characters.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.console.last_lines(count)
    }
}

/// The events of a channel, in order, up to the guest's `done`. An error is the last item.
#[derive(Debug)]
pub struct Events<T> {
    channel: Option<EventChannel<T>>,
    runtime: Arc<BlockingRuntime>,
}

impl<T: DeserializeOwned + Send + 'static> Iterator for Events<T> {
    type Item = Result<T, EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut channel = self.channel.take()?;
        let (channel, event) = self.runtime.block_on(async move {
            let event = channel.next().await;
            (channel, event)
        });
        self.channel = Some(channel);
        event
    }
}
