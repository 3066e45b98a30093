//! Collects what the machine and its devices ask for, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use vmtest_guest::proto;

use super::error::PlanError;
use super::service::Service;
use super::value::{Arg, Channel, ChannelKind, FileSource, Need, NeedForm, Plan, PlannedFile};
use crate::arch::Arch;
use crate::argv::{ChannelId, FileId, IdAllocator, QemuOpt};
use crate::cmdline::Cmdline;
use crate::net::HostForward;

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
    /// Nothing yet but files that are the caller's.
    pub(crate) fn new(arch: Arch, given: &[Arc<OwnedFd>]) -> Planner {
        let given = given.iter().enumerate().map(|(index, file)| PlannedFile {
            label: format!("extra file {index}"),
            source: FileSource::Given(Arc::clone(file)),
        });
        Planner {
            arch,
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
        self.needs.push(Need { what, path: path.into(), form: NeedForm::Directory });
    }

    /// What was said so far by [`Planner::needs_dir`] and [`Planner::needs_file`].
    pub(crate) fn into_needs(self) -> Vec<Need> {
        self.needs
    }

    /// As [`Planner::needs_dir`], for a file that is read.
    pub fn needs_file(&mut self, what: &'static str, path: impl Into<PathBuf>) {
        self.needs.push(Need { what, path: path.into(), form: NeedForm::File });
    }

    /// As [`Planner::needs_file`], for one whose bytes the guest sees as a disk.
    pub fn needs_disk(&mut self, what: &'static str, path: impl Into<PathBuf>) {
        self.needs.push(Need { what, path: path.into(), form: NeedForm::Disk });
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

    /// Adds an argument as it is, for whatever is the user's own.
    pub(crate) fn argument(&mut self, argument: OsString) {
        self.args.push(Arg { flag: argument, value: None });
    }

    /// Adds the kernel's cmdline, as it has become, to argv.
    ///
    /// # Errors
    /// [`PlanError::Cmdline`] when the architecture's kernels cannot take it.
    pub(crate) fn append_cmdline(&mut self) -> Result<String, PlanError> {
        let cmdline = self.kernel.for_arch(self.arch)?;
        self.qemu("-append", QemuOpt::verbatim(&cmdline));
        Ok(cmdline)
    }

    /// The plan of all that was added.
    pub(crate) fn finish(
        mut self,
        program: OsString,
        cmdline: Option<String>,
        memory_mib: u64,
        cold: Option<&'static str>,
    ) -> Plan {
        // Linux names disks in the order in which their drivers come: SCSI before AHCI.
        self.modules.sort_by_key(|module| module == "ahci");
        Plan {
            arch: self.arch,
            program,
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
            memory_mib,
            cold,
        }
    }
}
