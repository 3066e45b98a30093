//! A guest that was saved when it was ready, and guests that go on from there.
//!
//! ```text
//!   Plan::to_be_saved ──start──> Vm ──ready──> Guest ──save──> Saved (two files and a hello)
//!                                                └ goes on as it was
//!   Plan::to_be_resumed + Saved ──resume──> Resumed ──with what is around it──> Guest
//! ```
//!
//! The guest's memory is a file that QEMU maps; the rest of the machine, a few hundred KiB, is written
//! by QEMU's migration, which is told to leave out memory that is a file (`x-ignore-shared`). A guest
//! that is resumed maps the saved memory copy-on-write: any number may, and what one writes is its own.
//!
//! All that is saved is the same in each of them; [`Guest`] is made its own before anybody gets it
//! ([`vmtest_guest::proto::Fresh`]). While a guest is saved it stands still: some ten milliseconds, and the
//! time that copying its memory takes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{SeekFrom, seek};
use serde_json::{Value, json};
use vmtest_guest::proto::{self, Bytes, Exec, Fresh, Hello, Request};

use super::guest::{Guest, GuestError, Link};
use super::machine::{Given, Machine};
use super::qmp::Monitor;
use super::resources::Resources;
use super::saved::Saved;
use super::start_error::StartError;
use super::tasks::Running;
use super::value::{Around, Vm};
use crate::plan::Plan;

/// How long QEMU may take to write or to read a machine's state.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the host's randomness that a resumed guest gets: what Linux takes in for a full reseeding.
const ENTROPY_BYTES: usize = 64;

/// How long a guest is left alone before it is saved.
const IDLE: Duration = Duration::from_millis(20);

/// A page of every architecture of ours.
const PAGE_BYTES: usize = 4096;

/// A guest could not be saved, or not be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Its machine was not started for it ([`crate::plan::Plan::to_be_saved`]).
    #[error("the machine was not started to be saved")]
    NotSaveable,
    /// Its kernel has reported a fault: a run that goes on from it would not see that.
    #[error("its kernel reported a fault while it booted")]
    Faulty,
    /// QEMU refused.
    #[error("QEMU cannot {what} the guest")]
    Qemu {
        /// `save`, `resume`, `stop` or `wake`.
        what: &'static str,
        /// In its own words.
        #[source]
        source: io::Error,
    },
    /// QEMU ended instead.
    #[error("QEMU ended while it resumed the guest: {stderr}")]
    Died {
        /// What it said.
        stderr: String,
    },
    /// QEMU could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The files cannot be written.
    #[error("cannot write the saved guest")]
    Write(#[source] io::Error),
    /// The guest did not answer any more.
    #[error("the guest does not answer")]
    Guest(#[from] GuestError),
}

impl Guest {
    /// Saves the guest into two files, and lets it go on. Nothing may have been asked of it yet, and no
    /// share be mounted.
    ///
    /// # Errors
    /// [`TemplateError`]. The guest goes on all the same, unless QEMU is gone.
    pub async fn save(&self, memory: &File, state: &File) -> Result<(), TemplateError> {
        let vm = self.vm();
        let (Some(files), Some(path)) = (&vm.template_files, vm.plan().state_path()) else {
            return Err(TemplateError::NotSaveable);
        };
        if vm.console().has_splats() {
            return Err(TemplateError::Faulty);
        }
        let monitor = &vm.monitor;
        // When it answers it has sent all it had to say, and waits for the next request; a moment later
        // its kernel waits, too, and has stopped its tick.
        self.exercise().await?;
        self.settle().await?;
        tokio::time::sleep(IDLE).await;
        let failed = |source| TemplateError::Qemu { what: "save", source };
        monitor.stops_are_ours();
        let saved = async {
            monitor.execute("stop", Value::Null).await.map_err(failed)?;
            ignore_shared(monitor).await.map_err(failed)?;
            let uri = format!("file:{}", path.display());
            monitor.execute("migrate", json!({ "uri": uri })).await.map_err(failed)?;
            migrated(monitor).await.map_err(failed)?;
            let (from, to) = (files.memory.try_clone(), memory.try_clone());
            let (from_state, to_state) = (files.state.try_clone(), state.try_clone());
            let copied = tokio::task::spawn_blocking(move || {
                copy_used(&from?, &to?)?;
                copy_used(&from_state?, &to_state?)
            });
            let copied = copied.await.map_err(io::Error::other);
            copied.and_then(|copied| copied).map_err(TemplateError::Write)
        };
        let saved = saved.await;
        let goes_on = monitor.execute("cont", Value::Null).await.map_err(failed);
        monitor.stops_are_unexpected();
        saved.and(goes_on.map(drop))
    }
}

impl Guest {
    /// Stops the guest's processors: from now on it takes no processor time, and hears nothing until
    /// [`Guest::wake`].
    ///
    /// # Errors
    /// [`TemplateError::Qemu`].
    pub async fn park(&self) -> Result<(), TemplateError> {
        let monitor = &self.vm().monitor;
        monitor.stops_are_ours();
        let stopped = monitor.execute("stop", Value::Null).await;
        stopped.map(drop).map_err(|source| TemplateError::Qemu { what: "stop", source })
    }

    /// Has a parked guest go on, with the time of now and new random numbers.
    ///
    /// # Errors
    /// [`TemplateError`], when QEMU or the guest does not answer.
    pub async fn wake(&self) -> Result<(), TemplateError> {
        let monitor = &self.vm().monitor;
        let going = monitor.execute("cont", Value::Null).await;
        monitor.stops_are_unexpected();
        going.map_err(|source| TemplateError::Qemu { what: "wake", source })?;
        let fresh = fresh()?;
        self.link().call(|id| Request::Resumed { id, fresh }).await?;
        Ok(())
    }

    /// Runs a command that does nothing, so that the kernel has been on the whole way once: pages, caches
    /// and slabs that the first command of each guest would have to wait for are there. A guest that has
    /// no such command is none the worse for it.
    pub(crate) async fn exercise(&self) -> Result<(), GuestError> {
        let nothing = Exec { argv: vec![Bytes::from("true")], ..Exec::default() };
        match self.output(nothing).await {
            Ok(_) | Err(GuestError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What makes a resumed guest its own.
fn fresh() -> Result<Fresh, GuestError> {
    let mut entropy = [0u8; ENTROPY_BYTES];
    let mut filled = 0;
    while filled < ENTROPY_BYTES {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut entropy[filled..], flags).map_err(|errno| {
            GuestError::Host(format!("the host has no random numbers: {errno}"))
        })?;
    }
    let entropy = entropy.iter().map(|byte| format!("{byte:02x}")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Fresh { entropy, realtime_ns: now.as_nanos() as u64 })
}

/// A guest that lives again, and has nothing around it yet: neither tasks nor who reads its console.
#[derive(Debug)]
pub struct Resumed {
    machine: Machine,
    link: Link,
    hello: Hello,
    ready_after: Duration,
}

impl Vm {
    /// Starts a machine whose guest goes on where it was saved, and makes the guest its own. `plan` is
    /// the saved machine's, [`Plan::to_be_resumed`]. It takes at most `limit`.
    ///
    /// # Errors
    /// [`TemplateError`], and nothing is left of it: a machine may be booted instead.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn resume(
        plan: Plan,
        saved: Saved,
        limit: Duration,
    ) -> Result<Resumed, TemplateError> {
        let hello = saved.hello.clone();
        let mut machine = Machine::spawn(plan, Given { initramfs: None, saved: Some(saved) })?;
        let control = machine.channels.remove(proto::CONTROL_PORT);
        let link = Link::new(control.ok_or(GuestError::NoAgent)?)
            .map_err(|error| GuestError::Host(format!("cannot listen to the guest: {error}")))?;
        link.resumed();
        let path = machine.plan.state_path().unwrap_or_default().to_string_lossy().into_owned();
        let killer = machine.process.killer();
        tokio::select! {
            biased;
            going = go_on(&machine.monitor, &path, &link) => going?,
            () = killer.ended() => {
                let stderr = machine.process.output().text();
                return Err(TemplateError::Died { stderr });
            }
            () = tokio::time::sleep(limit) => return Err(GuestError::NotReady { limit }.into()),
        }
        let ready_after = machine.started.elapsed();
        Ok(Resumed { machine, link, hello, ready_after })
    }
}

impl Resumed {
    /// Puts around it what belongs to a machine.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn with(self, resources: Resources) -> Result<Guest, StartError> {
        let Resources {
            initramfs: _,
            console_sinks,
            tasks,
            event_consumers,
            kernel_coverage,
            cancel,
            timeout,
        } = resources;
        let tasks = Running::start(tasks);
        let around =
            Around { console_sinks, tasks, event_consumers, kernel_coverage, cancel, timeout };
        let vm = Vm::assemble(self.machine, around)?;
        Ok(Guest::of(vm, self.link, self.hello, self.ready_after))
    }
}

/// Has QEMU, started with `-incoming defer`, read the state and go on, and the guest become its own.
async fn go_on(monitor: &Monitor, state_path: &str, link: &Link) -> Result<(), TemplateError> {
    let failed = |source| TemplateError::Qemu { what: "resume", source };
    ignore_shared(monitor).await.map_err(failed)?;
    let uri = format!("file:{state_path}");
    monitor.execute("migrate-incoming", json!({ "uri": uri })).await.map_err(failed)?;
    migrated(monitor).await.map_err(failed)?;
    monitor.execute("cont", Value::Null).await.map_err(failed)?;
    let fresh = fresh()?;
    link.call(|id| Request::Resumed { id, fresh }).await?;
    Ok(())
}

async fn ignore_shared(monitor: &Monitor) -> io::Result<()> {
    let capability = json!([{ "capability": "x-ignore-shared", "state": true }]);
    let arguments = json!({ "capabilities": capability });
    monitor.execute("migrate-set-capabilities", arguments).await.map(drop)
}

/// Waits until the state is written or read.
async fn migrated(monitor: &Monitor) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let info = monitor.execute("query-migrate", Value::Null).await?;
        match info["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let why = info["error-desc"].as_str().unwrap_or("without a word");
                return Err(io::Error::other(format!("it failed: {why}")));
            }
            _ if tokio::time::Instant::now() > deadline => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time"));
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Copies what is not zero; the rest is a hole.
fn copy_used(from: &File, to: &File) -> io::Result<()> {
    const CHUNK_BYTES: usize = 1 << 20;
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < len {
        let data = match seek(from.as_fd(), SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        at = data;
        let end = seek(from.as_fd(), SeekFrom::Hole(at))?;
        while at < end {
            let count = CHUNK_BYTES.min((end - at) as usize);
            from.read_exact_at(&mut buffer[..count], at)?;
            write_used(to, &buffer[..count], at)?;
            at += count as u64;
        }
    }
    Ok(())
}

/// Writes the runs of pages that are not zero.
fn write_used(to: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let mut start = 0;
    while start < bytes.len() {
        let page = |from: usize| &bytes[from..bytes.len().min(from + PAGE_BYTES)];
        if is_zero(page(start)) {
            start += PAGE_BYTES;
            continue;
        }
        let mut end = start + PAGE_BYTES;
        while end < bytes.len() && !is_zero(page(end)) {
            end += PAGE_BYTES;
        }
        let end = end.min(bytes.len());
        to.write_all_at(&bytes[start..end], at + start as u64)?;
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::saved::Files;
    use super::*;

    #[test]
    fn copies_are_equal_and_sparse() {
        use std::os::unix::fs::MetadataExt;
        let files = Files::new(64 << 20).unwrap();
        let (from, to) = (&files.memory, tempfile::tempfile().unwrap());
        for at in [0, 4096 * 3, (1 << 20) - 1, 5 << 20, (64 << 20) - 1] {
            from.write_all_at(&[7], at).unwrap();
        }
        // Pages that were touched and are zero again.
        from.write_all_at(&[0; 1 << 20], 9 << 20).unwrap();
        copy_used(from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 64 << 20);
        assert!(to.metadata().unwrap().blocks() * 512 <= 8 * 4096, "it is not sparse");
        let (mut a, mut b) = (vec![1; 64 << 20], vec![2; 64 << 20]);
        from.read_exact_at(&mut a, 0).unwrap();
        to.read_exact_at(&mut b, 0).unwrap();
        assert!(a == b, "the copy differs");
    }
}
