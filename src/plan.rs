//! What will be done: QEMU's argv, the kernel's cmdline, the files and streams QEMU needs.
//!
//! [`Plan::new`] is a pure function of [`Options`]. A plan names no socket and no temporary file:
//! everything QEMU needs from us is an inherited file descriptor (streams are socket pairs or pipes, made
//! files are anonymous), so there is nothing to clean up, whoever is killed when, and no limit of
//! 108 bytes for the path of a socket.
//!
//! argv can be spelled in two ways ([`Spelling`]): as it is executed, and as a person would type it.

mod error;
mod planner;

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use vmtest_guest::proto;

use crate::arch::Arch;
use crate::options::Options;
use crate::qemu::{ChannelId, FileId, HostForward, Part, QemuOpt};

pub use error::PlanError;
pub use planner::Planner;

/// The first inherited file descriptor's number in QEMU: 0, 1 and 2 are taken.
pub const FIRST_FD: i32 = 3;

/// The name of the UART's channel.
pub const CONSOLE: &str = "console";
/// The name of QEMU's monitor channel.
pub const MONITOR: &str = "qmp";

/// What will be done for [`Options`].
#[derive(Clone, Debug)]
pub struct Plan {
    arch: Arch,
    program: OsString,
    args: Vec<Arg>,
    cmdline: Option<String>,
    files: Vec<PlannedFile>,
    channels: Vec<Channel>,
    modules: Vec<String>,
    optional_modules: Vec<String>,
    mounts: Vec<proto::Mount>,
    networks: Vec<proto::Network>,
    port_forwards: Vec<(String, HostForward)>,
    needs: Vec<Need>,
    services: Vec<Arc<dyn Service>>,
    agent: bool,
}

/// A path of the host that has to be there when the machine is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is for, for error messages: `share`, `drive`.
    pub what: &'static str,
    /// The path.
    pub path: PathBuf,
    /// A directory, or something that can be read.
    pub directory: bool,
}

/// Something of the host's that lives as long as the machine: an HTTP server for the guest.
pub trait Service: std::fmt::Debug + Send + Sync {
    /// Called when the machine is started, before QEMU. What it returns is dropped when the machine
    /// is gone, and that ends the service.
    ///
    /// # Errors
    /// The system's; the machine is not started then.
    fn start(&self) -> std::io::Result<Box<dyn std::any::Any + Send + Sync>>;
}

/// Makes a file or a stream that QEMU inherits, anew for each start.
pub trait MakeFile: std::fmt::Debug + Send + Sync {
    /// Called when the machine is started.
    ///
    /// # Errors
    /// The system's; the machine is not started then.
    fn make(&self) -> std::io::Result<OwnedFd>;
}

/// One option of QEMU with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arg {
    flag: OsString,
    value: Option<QemuOpt>,
}

/// A file that QEMU inherits.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// What it is, for error messages and for [`Spelling::Typed`].
    pub label: String,
    /// Where its content comes from.
    pub source: FileSource,
}

/// Where the content of an inherited file comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FileSource {
    /// The user's open file ([`Options::add_file`]).
    Given(Arc<OwnedFd>),
    /// The initramfs built for this run.
    Initramfs,
    /// A vfat image of this directory, made when the machine is started.
    VfatImage(PathBuf),
    /// A private copy of this file: the guest may write to it, the original stays as it is.
    PrivateCopy(PathBuf),
    /// Whatever this makes.
    Made(Arc<dyn MakeFile>),
}

/// A stream between QEMU and the host side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name: that of the virtio port, or [`CONSOLE`] or [`MONITOR`].
    pub name: String,
    /// What is at QEMU's side.
    pub kind: ChannelKind,
    id: String,
}

/// What is at QEMU's side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// The machine's UART.
    Console,
    /// QEMU's monitor, JSON.
    Monitor,
    /// A named virtio-serial port of the agent's.
    Agent,
    /// A named virtio-serial port that carries events.
    Events,
}

impl ChannelKind {
    /// How many descriptors QEMU inherits for it: the console is two pipes, first the one that QEMU
    /// writes to; all others are one end of a socket pair.
    pub fn fds(self) -> usize {
        if self == ChannelKind::Console { 2 } else { 1 }
    }
}

/// How argv is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As QEMU is started: streams and made files are inherited file descriptors.
    Executed,
    /// As a person types it to see the same machine boot: the console on the terminal, other
    /// streams as listening sockets in the working directory, made files by name.
    Typed,
}

impl Plan {
    /// Computes the plan.
    ///
    /// # Errors
    /// [`PlanError`] for options that contradict each other or the architecture.
    pub fn new(options: &Options) -> Result<Plan, PlanError> {
        Planner::new(options).finish(options)
    }

    /// The guest's architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// QEMU's program, as given: a name to look up in `PATH`, or a path.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// QEMU's arguments, without the program.
    pub fn args(&self, spelling: Spelling) -> Vec<OsString> {
        let mut argv = Vec::with_capacity(2 * self.args.len());
        for arg in &self.args {
            argv.push(arg.flag.clone());
            if let Some(value) = &arg.value {
                argv.push(value.render(|part| self.spell(part, spelling)));
            }
        }
        argv
    }

    /// Program and arguments, quoted for a POSIX shell.
    pub fn quoted(&self, spelling: Spelling) -> OsString {
        let args = self.args(spelling);
        crate::quote::join(std::iter::once(&self.program).chain(&args))
    }

    /// The command line, one option a line: the form of golden files.
    pub fn listing(&self) -> OsString {
        let mut text = self.program.clone();
        for arg in &self.args {
            text.push("\n");
            text.push(&arg.flag);
            if let Some(value) = &arg.value {
                text.push(" ");
                text.push(value.render(|part| self.spell(part, Spelling::Executed)));
            }
        }
        text.push("\n");
        text
    }

    /// The kernel's cmdline, when a kernel is booted directly.
    pub fn cmdline(&self) -> Option<&str> {
        self.cmdline.as_deref()
    }

    /// Files that QEMU inherits; the first has descriptor [`FIRST_FD`].
    pub fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    /// Streams; their descriptors follow those of [`Plan::files`].
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Kernel modules the options need, where the kernel does not have them built in.
    pub fn modules(&self) -> &[String] {
        &self.modules
    }

    /// Kernel modules that are of use where the kernel has them.
    pub fn optional_modules(&self) -> &[String] {
        &self.optional_modules
    }

    /// What the agent mounts before the command runs.
    pub fn mounts(&self) -> &[proto::Mount] {
        &self.mounts
    }

    /// How the agent sets up the cards of user networks before the command runs.
    pub fn networks(&self) -> &[proto::Network] {
        &self.networks
    }

    /// Paths of the host that have to be there when the machine is started.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// What runs on the host as long as the machine does.
    pub fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }

    /// Port forwards with the netdev they belong to.
    pub fn port_forwards(&self) -> &[(String, HostForward)] {
        &self.port_forwards
    }

    /// Whether the agent's ports are there.
    pub fn has_agent(&self) -> bool {
        self.agent
    }

    /// The first descriptor of a channel: they follow the files.
    fn channel_fd(&self, index: usize) -> usize {
        let before: usize = self.channels[..index].iter().map(|channel| channel.kind.fds()).sum();
        FIRST_FD as usize + self.files.len() + before
    }

    fn spell(&self, part: &Part, spelling: Spelling) -> OsString {
        match (part, spelling) {
            (Part::Text(text), _) => text.clone(),
            (Part::File(FileId(index)), Spelling::Executed) => {
                format!("/proc/self/fd/{}", FIRST_FD as usize + index).into()
            }
            (Part::File(FileId(index)), Spelling::Typed) => {
                let file = &self.files[*index];
                match &file.source {
                    FileSource::PrivateCopy(path) => path.clone().into(),
                    _ => OsString::from(&file.label),
                }
            }
            // As typed there is nothing to inherit; the number shows where it belongs.
            (Part::Fd(FileId(index)), _) => (FIRST_FD as usize + index).to_string().into(),
            (Part::Channel(ChannelId(index)), spelling) => {
                let channel = &self.channels[*index];
                let fd = self.channel_fd(*index);
                let opt = match (channel.kind, spelling) {
                    // A UART writes single bytes. Into a socket each one is a packet of its own: it
                    // fills up after some 300, and every byte takes several times as long.
                    (ChannelKind::Console, Spelling::Executed) => QemuOpt::new("file")
                        .kv("id", &channel.id)
                        .kv("path", format!("/proc/self/fd/{fd}"))
                        .kv("input-path", format!("/proc/self/fd/{}", fd + 1)),
                    (_, Spelling::Executed) => {
                        QemuOpt::new("socket").kv("id", &channel.id).num("fd", fd as u64)
                    }
                    (ChannelKind::Console, Spelling::Typed) => {
                        QemuOpt::new("stdio").kv("id", &channel.id).switch("signal", false)
                    }
                    (_, Spelling::Typed) => QemuOpt::new("socket")
                        .kv("id", &channel.id)
                        .kv("path", format!("{}.sock", channel.name))
                        .switch("server", true)
                        .switch("wait", false),
                };
                opt.render(|_| unreachable!("a chardev is text only"))
            }
        }
    }
}
