//! A plan: what is known before anything is started.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use vmtest_guest::proto;

use super::service::Service;
use crate::arch::Arch;
use crate::argv::{ChannelId, FIRST_FD, FileId, Part, QemuOpt};
use crate::net::HostForward;

/// The name of the UART's channel.
pub const CONSOLE: &str = "console";
/// The name of QEMU's monitor channel.
pub const MONITOR: &str = "qmp";

/// What will be done for [`crate::options::Options`].
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) arch: Arch,
    pub(super) program: OsString,
    pub(super) args: Vec<Arg>,
    pub(super) cmdline: Option<String>,
    pub(super) files: Vec<PlannedFile>,
    pub(super) channels: Vec<Channel>,
    pub(super) modules: Vec<String>,
    pub(super) optional_modules: Vec<String>,
    pub(super) mounts: Vec<proto::Mount>,
    pub(super) networks: Vec<proto::Network>,
    pub(super) port_forwards: Vec<(String, HostForward)>,
    pub(super) needs: Vec<Need>,
    pub(super) services: Vec<Arc<dyn Service>>,
    pub(super) agent: bool,
    pub(super) memory_mib: u64,
    pub(super) cold: Option<&'static str>,
}

/// A path of the host that has to be there when the machine is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is for, for error messages: `share`, `drive`.
    pub what: &'static str,
    /// The path.
    pub path: PathBuf,
    /// As what.
    pub form: NeedForm,
}

/// What a path of the host has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeedForm {
    /// A directory.
    Directory,
    /// Something that can be read.
    File,
    /// The same, whose bytes the guest sees as a disk.
    Disk,
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
pub(super) struct Arg {
    pub(super) flag: OsString,
    pub(super) value: Option<QemuOpt>,
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
    /// The user's open file ([`crate::options::Options::add_file`]).
    Given(Arc<OwnedFd>),
    /// The initramfs built for this run.
    Initramfs,
    /// A vfat image of this directory, made when the machine is started.
    VfatImage(PathBuf),
    /// A private copy of this file: the guest may write to it, the original stays as it is.
    PrivateCopy(PathBuf),
    /// Whatever this makes.
    Made(Arc<dyn MakeFile>),
    /// The guest's memory: made for a guest that is to be saved, given for one that is resumed.
    Memory,
    /// What QEMU knows of a machine besides its memory: as the memory.
    State,
    /// Nothing: `/dev/null`.
    Nothing,
}

/// A stream between QEMU and the host side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name: that of the virtio port, or [`CONSOLE`] or [`MONITOR`].
    pub name: String,
    /// What is at QEMU's side.
    pub kind: ChannelKind,
    pub(super) id: String,
}

/// What is at QEMU's side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum Spelling {
    /// As QEMU is started: streams and made files are inherited file descriptors.
    Executed,
    /// As a person types it to see the same machine boot: the console on the terminal, other
    /// streams as listening sockets in the working directory, made files by name.
    Typed,
}

impl Plan {
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

    /// The id of the console in QEMU.
    pub(crate) fn console_chardev(&self) -> Option<&str> {
        let console = |channel: &&Channel| channel.kind == ChannelKind::Console;
        self.channels.iter().find(console).map(|channel| channel.id.as_str())
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

    /// The path under which QEMU sees an inherited file.
    pub(super) fn executed_path(&self, FileId(index): FileId) -> OsString {
        format!("/proc/self/fd/{}", FIRST_FD as usize + index).into()
    }

    fn spell(&self, part: &Part, spelling: Spelling) -> OsString {
        match (part, spelling) {
            (Part::Text(text) | Part::OfRun(text), _) => text.clone(),
            (Part::File(id), Spelling::Executed) => self.executed_path(*id),
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
