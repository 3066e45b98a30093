//! QEMU with its streams and nothing around it: what [`super::Vm`] is assembled from.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use tokio::process::Command;

use super::files::{self, FileError};
use super::process::Process;
use super::qmp::Monitor;
use super::saved::{Files, Saved};
use super::start_error::StartError;
use super::stream::into_tokio;
use crate::plan::{ChannelKind, FIRST_FD, FileSource, MONITOR, Plan, Spelling};

/// What runs on the host as long as the machine does; dropped after QEMU was told to end.
pub(super) struct Services(Vec<Box<dyn Any + Send + Sync>>);

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Services").field(&self.0.len()).finish()
    }
}

/// What a machine is started with besides its plan.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The initramfs, where the plan boots one that was built.
    pub(super) initramfs: Option<File>,
    /// The guest that is resumed, where the plan does.
    pub(super) saved: Option<Saved>,
}

/// QEMU as a process, with our ends of its streams. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) plan: Plan,
    pub(super) process: Process,
    pub(super) monitor: Monitor,
    pub(super) channels: BTreeMap<String, UnixStream>,
    pub(super) console: (PipeReader, PipeWriter),
    pub(super) notices: Vec<String>,
    pub(super) started: Instant,
    pub(super) template_files: Option<Files>,
    pub(super) services: Services,
}

impl Machine {
    /// Starts QEMU.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn spawn(plan: Plan, given: Given) -> Result<Machine, StartError> {
        let mut notices = Vec::new();
        for need in plan.needs() {
            files::check(need, &mut notices)?;
        }
        let services = start_services(&plan)?;
        let (mut fds, template_files) = make_files(&plan, given, &mut notices)?;
        let (mut channels, console) = make_channels(&plan, &mut fds)?;

        let program = PathBuf::from(plan.program());
        let mut command = Command::new(&program);
        command.args(plan.args(Spelling::Executed));
        let started = Instant::now();
        let process = Process::spawn(command, FIRST_FD, fds).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                StartError::NoQemu { program: program.clone() }
            } else {
                StartError::Spawn { program: program.clone(), source }
            }
        })?;
        let monitor = channels.remove(MONITOR).expect("every plan has a monitor");
        let monitor = Monitor::new(into_tokio(monitor).map_err(StartError::Streams)?);
        let console = console.expect("every plan has a console");
        Ok(Machine {
            plan,
            process,
            monitor,
            channels,
            console,
            notices,
            started,
            template_files,
            services,
        })
    }
}

fn start_services(plan: &Plan) -> Result<Services, StartError> {
    let started = plan.services().iter().map(|service| {
        service
            .start()
            .map_err(|source| StartError::Service { service: format!("{service:?}"), source })
    });
    Ok(Services(started.collect::<Result<_, _>>()?))
}

/// The files that QEMU inherits, and those of its memory if there are any.
fn make_files(
    plan: &Plan,
    given: Given,
    notices: &mut Vec<String>,
) -> Result<(Vec<OwnedFd>, Option<Files>), StartError> {
    let keeps_memory = plan.files().iter().any(|file| matches!(file.source, FileSource::Memory));
    let template_files = match given.saved {
        Some(saved) => Some(Files { memory: saved.memory, state: saved.state }),
        None if keeps_memory => Some(Files::new(plan.memory_bytes()).map_err(StartError::Streams)?),
        None => None,
    };
    let of_template = |pick: fn(&Files) -> &File| -> Result<OwnedFd, StartError> {
        let file = template_files.as_ref().map(pick).ok_or(FileError::NoSavedGuest)?;
        Ok(file.try_clone().map_err(StartError::Streams)?.into())
    };
    let mut fds = Vec::new();
    for file in plan.files() {
        fds.push(match file.source {
            FileSource::Memory => of_template(|files| &files.memory)?,
            FileSource::State => of_template(|files| &files.state)?,
            _ => files::make(file, given.initramfs.as_ref(), notices)?,
        });
    }
    Ok((fds, template_files))
}

type Channels = (BTreeMap<String, UnixStream>, Option<(PipeReader, PipeWriter)>);

/// Our ends of QEMU's streams; its ends join `fds`.
fn make_channels(plan: &Plan, fds: &mut Vec<OwnedFd>) -> Result<Channels, StartError> {
    let mut channels = BTreeMap::new();
    let mut console = None;
    for channel in plan.channels() {
        if channel.kind == ChannelKind::Console {
            let (output, theirs) = io::pipe().map_err(StartError::Streams)?;
            fds.push(theirs.into());
            let (theirs, input) = io::pipe().map_err(StartError::Streams)?;
            fds.push(theirs.into());
            console = Some((output, input));
        } else {
            let (ours, theirs) = UnixStream::pair().map_err(StartError::Streams)?;
            fds.push(theirs.into());
            channels.insert(channel.name.clone(), ours);
        }
    }
    Ok((channels, console))
}
