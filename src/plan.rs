//! What will be done: QEMU's argv, the kernel's cmdline, the files and streams QEMU needs.
//!
//! [`Plan::new`] is a pure function of [`Options`]. A plan names no socket and no temporary file:
//! everything QEMU needs from us is an inherited file descriptor (streams are socket pairs, made
//! files are anonymous), so there is nothing to clean up, whoever is killed when, and no limit of
//! 108 bytes for the path of a socket.
//!
//! argv can be spelled in two ways ([`Spelling`]): as it is executed, and as a person would type it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use vmtest_guest::proto;

use crate::arch::Arch;
use crate::cmdline::{self, Cmdline};
use crate::options::{Boot, Initramfs, Options, QemuCommand};
use crate::qemu::{ChannelId, Device, FileId, HostForward, IdAllocator, Part, QemuOpt, TagError};

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

/// Collects what the machine and its devices ask for, in order.
#[derive(Debug)]
pub struct Planner {
    arch: Arch,
    ids: IdAllocator,
    args: Vec<Arg>,
    kernel: Cmdline,
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
    once: BTreeMap<&'static str, String>,
    serial_ports: u64,
    scsi_disks: u32,
    ahci_ports: u32,
    pci_devices: u64,
    user_nets: u32,
    names: BTreeSet<(&'static str, String)>,
}

impl Planner {
    fn new(options: &Options) -> Planner {
        let given = options.extra_files.iter().enumerate().map(|(index, file)| PlannedFile {
            label: format!("extra file {index}"),
            source: FileSource::Given(Arc::clone(file)),
        });
        Planner {
            arch: options.arch,
            ids: IdAllocator::new(),
            args: Vec::new(),
            kernel: Cmdline::new(),
            files: given.collect(),
            channels: Vec::new(),
            modules: Vec::new(),
            optional_modules: Vec::new(),
            mounts: Vec::new(),
            networks: Vec::new(),
            port_forwards: Vec::new(),
            needs: Vec::new(),
            services: Vec::new(),
            agent: false,
            once: BTreeMap::new(),
            serial_ports: 0,
            scsi_disks: 0,
            ahci_ports: 0,
            pci_devices: 0,
            user_nets: 0,
            names: BTreeSet::new(),
        }
    }

    /// The guest's architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The next id for a prefix, unique in this machine.
    pub fn id(&mut self, prefix: &str) -> String {
        self.ids.id(prefix)
    }

    /// Adds an option with its value: `-device virtio-rng-pci,…`.
    pub fn qemu(&mut self, flag: &str, value: QemuOpt) {
        self.args.push(Arg { flag: flag.into(), value: Some(value) });
    }

    /// Adds a device on the PCI bus, `virtio-rng-pci` for instance.
    ///
    /// QEMU gives each device a slot of its own and there are 31, so devices beyond the first 16 share
    /// slots, eight to one, as its functions.
    ///
    /// # Errors
    /// [`PlanError::OutOfRange`] when the bus is full.
    pub fn pci_device(&mut self, device: QemuOpt) -> Result<(), PlanError> {
        const ALONE: u64 = 16;
        const FUNCTIONS: u64 = 8;
        // QEMU's own devices are in slot 0 and, on q35, in slot 0x1f. The slots in between that are
        // left are for devices that come by `-device` arguments of the user's.
        const FIRST_SHARED_SLOT: u64 = 0x12;
        const LAST_SHARED_SLOT: u64 = 0x1a;
        const MAX: u64 = ALONE + FUNCTIONS * (LAST_SHARED_SLOT - FIRST_SHARED_SLOT + 1);
        let index = self.pci_devices;
        if index == MAX {
            return Err(PlanError::OutOfRange {
                what: "number of PCI devices",
                given: (MAX + 1).to_string(),
                range: format!(
                    "the bus has room for {MAX}; event channels and SCSI disks share one device"
                ),
            });
        }
        self.pci_devices += 1;
        let device = match index.checked_sub(ALONE) {
            None => device,
            Some(index) => {
                let (slot, function) = (FIRST_SHARED_SLOT + index / FUNCTIONS, index % FUNCTIONS);
                let device = device.kv("addr", format!("{slot:#x}.{function}"));
                if function == 0 { device.switch("multifunction", true) } else { device }
            }
        };
        self.qemu("-device", device);
        Ok(())
    }

    /// Says that a directory of the host has to be there when the machine is started. `what` is for
    /// the error message.
    pub fn needs_dir(&mut self, what: &'static str, path: impl Into<PathBuf>) {
        self.needs.push(Need { what, path: path.into(), directory: true });
    }

    /// As [`Planner::needs_dir`], for a file that is read.
    pub fn needs_file(&mut self, what: &'static str, path: impl Into<PathBuf>) {
        self.needs.push(Need { what, path: path.into(), directory: false });
    }

    /// Has something run on the host as long as the machine does.
    pub fn service(&mut self, service: Arc<dyn Service>) {
        self.services.push(service);
    }

    /// Adds an option without a value: `-nodefaults`.
    pub fn qemu_flag(&mut self, flag: &str) {
        self.args.push(Arg { flag: flag.into(), value: None });
    }

    /// Adds to the kernel's cmdline, as a person writes it: `panic=-1`.
    ///
    /// # Errors
    /// [`PlanError::Cmdline`] for quotes that are not closed.
    pub fn kernel(&mut self, parameters: &str) -> Result<(), PlanError> {
        self.kernel.append(parameters)?;
        Ok(())
    }

    /// Adds `name=value` to the kernel's cmdline, quoted as the kernel wants it.
    ///
    /// # Errors
    /// [`PlanError::Cmdline`] for a value that the kernel's quoting cannot express.
    pub fn kernel_set(&mut self, name: &str, value: &str) -> Result<(), PlanError> {
        self.kernel.set(name, value)?;
        Ok(())
    }

    /// Says that the guest needs a kernel module, where its kernel does not have it built in.
    pub fn module(&mut self, name: &str) {
        if !self.modules.iter().any(|module| module == name) {
            self.modules.push(name.to_owned());
        }
    }

    /// Says that a kernel module is of use; a kernel without it will do.
    pub fn optional_module(&mut self, name: &str) {
        if !self.optional_modules.iter().any(|module| module == name) {
            self.optional_modules.push(name.to_owned());
        }
    }

    /// Has the agent mount something before the command runs.
    pub fn mount(&mut self, mount: proto::Mount) {
        self.mounts.push(mount);
    }

    /// Adds a file that QEMU inherits.
    pub fn file(&mut self, label: impl Into<String>, source: FileSource) -> FileId {
        self.files.push(PlannedFile { label: label.into(), source });
        FileId(self.files.len() - 1)
    }

    /// Claims a name that only one may have: a mount tag, an event channel.
    ///
    /// # Errors
    /// [`PlanError::NameTaken`] when it is taken.
    pub fn claim(&mut self, what: &'static str, name: &str) -> Result<(), PlanError> {
        if self.names.insert((what, name.to_owned())) {
            Ok(())
        } else {
            Err(PlanError::NameTaken { what, name: name.to_owned() })
        }
    }

    /// Adds a stream between QEMU and the host side, and returns the id of its chardev.
    pub fn channel(&mut self, name: &str, kind: ChannelKind) -> String {
        let id = self.id("char");
        self.channels.push(Channel { name: name.to_owned(), kind, id: id.clone() });
        self.qemu("-chardev", QemuOpt::channel(ChannelId(self.channels.len() - 1)));
        id
    }

    /// Adds a virtio-serial port with a stream behind it.
    ///
    /// # Errors
    /// [`PlanError::NameTaken`] when another port has this name.
    pub fn serial_port(&mut self, name: &str, kind: ChannelKind) -> Result<(), PlanError> {
        // One controller takes 31 ports; port 0 is reserved for consoles.
        const PORTS_A_CONTROLLER: u64 = 30;
        self.claim("virtio port", name)?;
        let nth = self.serial_ports % PORTS_A_CONTROLLER;
        if nth == 0 {
            let id = self.id("serial");
            self.pci_device(QemuOpt::new("virtio-serial-pci").kv("id", &id))?;
            self.once.insert("virtio-serial", id);
            self.module("virtio_pci");
            self.module("virtio_console");
        }
        self.serial_ports += 1;
        let bus = format!("{}.0", self.once["virtio-serial"]);
        let chardev = self.channel(name, kind);
        self.qemu(
            "-device",
            QemuOpt::new("virtserialport")
                .kv("bus", bus)
                .num("nr", nth + 1)
                .kv("chardev", chardev)
                .kv("name", name),
        );
        Ok(())
    }

    /// The id of a controller that several devices share; `add` adds it at first use.
    ///
    /// # Errors
    /// Those of `add`.
    pub fn shared(
        &mut self,
        what: &'static str,
        add: impl FnOnce(&mut Planner) -> Result<String, PlanError>,
    ) -> Result<String, PlanError> {
        if let Some(id) = self.once.get(what) {
            return Ok(id.clone());
        }
        let id = add(self)?;
        self.once.insert(what, id.clone());
        Ok(id)
    }

    /// The next disk's place on the SCSI bus, and its letter: 0 is `sda`.
    pub(crate) fn next_scsi_disk(&mut self) -> Result<u32, PlanError> {
        const TARGETS: u32 = 256; // of QEMU's virtio-scsi
        let index = self.scsi_disks;
        if index == TARGETS {
            return Err(PlanError::OutOfRange {
                what: "number of SCSI disks",
                given: (TARGETS + 1).to_string(),
                range: format!("the bus has {TARGETS} targets"),
            });
        }
        self.scsi_disks += 1;
        Ok(index)
    }

    /// The next free port of the AHCI controller.
    pub(crate) fn next_ahci_port(&mut self) -> Result<u32, PlanError> {
        const PORTS: u32 = 6; // of QEMU's ich9-ahci
        let port = self.ahci_ports;
        if port == PORTS {
            return Err(PlanError::OutOfRange {
                what: "number of AHCI drives",
                given: (PORTS + 1).to_string(),
                range: format!("the controller has {PORTS} ports; put further drives on if=scsi"),
            });
        }
        self.ahci_ports += 1;
        Ok(port)
    }

    pub(crate) fn set_agent(&mut self) {
        self.agent = true;
    }

    /// How many user networks there were before this one.
    pub(crate) fn next_user_net(&mut self) -> u32 {
        self.user_nets += 1;
        self.user_nets - 1
    }

    /// Has the agent set up a network card before the command runs.
    pub fn network(&mut self, network: proto::Network) {
        self.networks.push(network);
    }

    pub(crate) fn forward(&mut self, netdev: &str, forward: HostForward) {
        self.port_forwards.push((netdev.to_owned(), forward));
    }

    fn finish(mut self, options: &Options) -> Result<Plan, PlanError> {
        let qemu = options.qemu.clone();
        let qemu = qemu.unwrap_or_else(|| QemuCommand::new(self.arch.qemu_program()));
        let program_args = qemu.args.iter().map(|arg| Arg { flag: arg.clone(), value: None });
        self.args.extend(program_args);
        for parameters in &options.env_kernel_args {
            self.kernel.append(parameters)?;
        }
        options.machine().plan(&mut self)?;

        let cmdline = match &options.boot {
            Boot::Kernel { image, initramfs } => {
                self.qemu("-kernel", QemuOpt::verbatim(image));
                match initramfs {
                    Initramfs::None => {}
                    Initramfs::Path(path) => self.qemu("-initrd", QemuOpt::verbatim(path)),
                    Initramfs::Built => {
                        let file = self.file("initramfs.cpio", FileSource::Initramfs);
                        self.qemu("-initrd", QemuOpt::file(file));
                    }
                }
                true
            }
            Boot::Disk => false,
        };
        if let Some(firmware) = &options.firmware {
            firmware.plan(&mut self)?;
        }
        for device in &options.devices {
            device.plan(&mut self)?;
        }

        let cmdline = if cmdline {
            for parameters in &options.kernel_args {
                self.kernel.append(parameters)?;
            }
            let cmdline = self.kernel.for_arch(self.arch)?;
            self.qemu("-append", QemuOpt::verbatim(&cmdline));
            Some(cmdline)
        } else if let Some(argument) = options.kernel_args.first() {
            return Err(PlanError::KernelRequiredForArgs { argument: argument.clone() });
        } else {
            None
        };
        for arg in options.qemu_args.iter().chain(&options.env_qemu_args) {
            self.args.push(Arg { flag: arg.clone(), value: None });
        }
        // Linux names disks in the order in which their drivers come: SCSI before AHCI.
        self.modules.sort_by_key(|module| module == "ahci");
        Ok(Plan {
            arch: self.arch,
            program: qemu.program,
            args: self.args,
            cmdline,
            files: self.files,
            channels: self.channels,
            modules: self.modules,
            optional_modules: self.optional_modules,
            mounts: self.mounts,
            networks: self.networks,
            port_forwards: self.port_forwards,
            needs: self.needs,
            services: self.services,
            agent: self.agent,
        })
    }
}

/// Options that contradict each other or the architecture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A kernel parameter without a kernel: only a kernel that QEMU loads itself can get one.
    #[error("kernel argument `{argument}` without a kernel")]
    KernelRequiredForArgs {
        /// The first parameter.
        argument: String,
    },
    /// Two things of one name.
    #[error("two {what}s are called `{name}`")]
    NameTaken {
        /// What kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A mount tag that virtio-9p cannot carry.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A network setting that cannot be.
    #[error(transparent)]
    Net(#[from] crate::qemu::NetError),
    /// The kernel's cmdline cannot be written.
    #[error(transparent)]
    Cmdline(#[from] cmdline::Error),
    /// The architecture cannot have this.
    #[error("{what} cannot be had on {arch}")]
    NotOnArch {
        /// What was asked for.
        what: String,
        /// The guest's architecture.
        arch: Arch,
    },
    /// A value outside of its range.
    #[error("{what} of {given} is out of range")]
    OutOfRange {
        /// What was set.
        what: &'static str,
        /// The value.
        given: String,
        /// The range, in words.
        range: String,
    },
    /// An error of a device from outside this crate.
    #[error("{0}")]
    Other(String),
}

impl PlanError {
    /// How to mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PlanError::KernelRequiredForArgs { .. } => Some(
                "QEMU passes arguments only to a kernel that it loads itself: set a kernel too"
                    .into(),
            ),
            PlanError::NameTaken { what, .. } => {
                Some(format!("give each {what} a name of its own"))
            }
            PlanError::Tag(error) => Some(error.hint()),
            PlanError::Net(error) => error.hint(),
            PlanError::Cmdline(error) => Some(error.hint()),
            PlanError::OutOfRange { range, .. } => Some(range.clone()),
            PlanError::NotOnArch { .. } | PlanError::Other(_) => None,
        }
    }
}
