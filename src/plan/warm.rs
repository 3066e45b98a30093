//! The same machine, three times: booted, saved once its guest is ready, resumed from that.
//!
//! What is saved is found by the machine's *shape*: everything of its argv that the guest can tell.
//! Which directory is behind a share, a port of the host's, a file of packets are the run's own and no
//! part of it. A machine that is resumed needs neither kernel nor initramfs nor cmdline: they are in
//! the memory that was saved, and loading them again costs time and memory (a third of QEMU's start on
//! arm64).

use std::ffi::OsString;

use super::value::{Arg, FileSource, Plan, PlannedFile};
use crate::argv::{FileId, QemuOpt};

/// The id of the memory's back end in QEMU.
const MEMORY_ID: &str = "mem";

/// Options that only a machine that boots needs.
const BOOT_OPTIONS: [&str; 3] = ["-kernel", "-initrd", "-append"];

impl Plan {
    /// Why a guest of this machine has to boot each time; `None` for one that can be saved and resumed.
    pub fn why_cold(&self) -> Option<&'static str> {
        if self.agent { self.cold } else { Some("nothing in it says when it is ready") }
    }

    /// Everything of the machine that its guest can tell, one option a line.
    pub fn shape(&self) -> OsString {
        let mut text = OsString::new();
        for arg in &self.args {
            text.push(&arg.flag);
            if let Some(value) = &arg.value {
                text.push(" ");
                text.push(value.shape());
            }
            text.push("\n");
        }
        for module in self.modules.iter().chain(&self.optional_modules) {
            text.push(format!("module {module}\n"));
        }
        text
    }

    /// The machine as one whose guest can be saved: its memory is a file.
    #[must_use]
    pub fn to_be_saved(mut self) -> Plan {
        let memory = self.add_file("memory", FileSource::Memory);
        self.add_file("state", FileSource::State);
        let backend = self.backend(memory).switch("share", true);
        self.use_memory(backend);
        self
    }

    /// The machine as one that goes on where a guest was saved. The file is only read: what the guest
    /// writes is its own.
    #[must_use]
    pub fn to_be_resumed(mut self) -> Plan {
        let memory = self.add_file("memory", FileSource::Memory);
        self.add_file("state", FileSource::State);
        let backend = self
            .backend(memory)
            .switch("share", false)
            .switch("readonly", true)
            .switch("rom", false);
        self.use_memory(backend);
        self.args.retain(|arg| !BOOT_OPTIONS.iter().any(|option| arg.flag == *option));
        for file in &mut self.files {
            if matches!(file.source, FileSource::Initramfs) {
                file.source = FileSource::Nothing;
            }
        }
        let wait = QemuOpt::new("defer");
        self.args.push(Arg { flag: "-incoming".into(), value: Some(wait) });
        self
    }

    /// The path of the state's file in QEMU.
    pub(crate) fn state_path(&self) -> Option<OsString> {
        let index = self.files.iter().position(|file| matches!(file.source, FileSource::State))?;
        Some(self.executed_path(FileId(index)))
    }

    /// The guest's memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_mib << 20
    }

    fn add_file(&mut self, label: &str, source: FileSource) -> FileId {
        self.files.push(PlannedFile { label: label.into(), source });
        FileId(self.files.len() - 1)
    }

    fn backend(&self, memory: FileId) -> QemuOpt {
        QemuOpt::new("memory-backend-file")
            .kv("id", MEMORY_ID)
            .kv("size", format!("{}M", self.memory_mib))
            .kv_file("mem-path", memory)
    }

    fn use_memory(&mut self, backend: QemuOpt) {
        for arg in self.args.iter_mut().filter(|arg| arg.flag == "-machine") {
            arg.value = arg.value.take().map(|board| board.kv("memory-backend", MEMORY_ID));
        }
        self.args.push(Arg { flag: "-object".into(), value: Some(backend) });
    }
}
