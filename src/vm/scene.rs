//! Where a run is, for those who look at it from beside: the hang watch and the collector.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::console::Console;
use super::guest::Probe;
use super::host_load::HostWatch;
use super::pump::Pump;
use super::qmp::Monitor;
use super::value::Vm;
use crate::arch::Arch;

/// What a run is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// QEMU runs, and the guest has not said hello yet.
    #[default]
    Booting,
    /// There is no agent: the guest does what its own init does.
    OwnInit,
    /// The guest gets its files, mounts and networks.
    SettingUp,
    /// The command runs.
    Running,
    /// The run is about to be over: this has limits of its own.
    Ending,
}

impl Stage {
    /// As a part of a sentence: "it fell silent …".
    pub fn text(self) -> &'static str {
        match self {
            Stage::Booting => "while it booted",
            Stage::OwnInit => "while its own init ran",
            Stage::SettingUp => "while it was set up",
            Stage::Running => "while the command ran",
            Stage::Ending => "while it was switched off",
        }
    }
}

/// A run, as it can be looked at. Clones look at the same one.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) arch: Arch,
    pub(super) console: Console,
    /// The console's id in QEMU.
    pub(super) chardev: Option<String>,
    pub(super) monitor: Monitor,
    pub(super) pid: u32,
    pub(super) host: HostWatch,
    pumps: Vec<Pump>,
    told: Arc<Told>,
}

/// What the run has told of itself.
#[derive(Debug, Default)]
struct Told {
    probe: OnceLock<Probe>,
    now: Mutex<Now>,
}

#[derive(Clone, Debug, Default)]
struct Now {
    stage: Stage,
    command: Option<(String, u32)>,
}

/// How far everything has come that shows progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) console: usize,
    /// Frames of the guest's agent: all of its commands' output is among them.
    pub(super) heard: u64,
    pub(super) events: Option<Instant>,
}

impl Scene {
    pub(super) fn of(vm: &Vm) -> Scene {
        Scene {
            arch: vm.plan.arch(),
            console: vm.console.clone(),
            chardev: vm.plan.console_chardev().map(str::to_owned),
            monitor: vm.monitor.clone(),
            pid: vm.pid(),
            host: vm.host.clone(),
            pumps: vm.pumps.clone(),
            told: Arc::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.told.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.now().stage = stage;
    }

    pub(super) fn stage(&self) -> Stage {
        self.now().stage
    }

    /// The command's name and process id, once it runs.
    pub(super) fn runs(&self, name: String, pid: u32) {
        let mut now = self.now();
        now.stage = Stage::Running;
        now.command = Some((name, pid));
    }

    pub(super) fn command(&self) -> Option<(String, u32)> {
        self.now().command.clone()
    }

    pub(super) fn ready(&self, probe: Probe) {
        let _ = self.told.probe.set(probe);
        self.enter(Stage::SettingUp);
    }

    /// To ask the guest, once it is ready.
    pub(super) fn probe(&self) -> Option<&Probe> {
        self.told.probe.get()
    }

    pub(super) fn marks(&self) -> Marks {
        Marks {
            console: self.console.len(),
            heard: self.probe().map_or(0, Probe::heard),
            events: self.pumps.iter().map(Pump::since).max(),
        }
    }

    /// Whether somebody has stopped QEMU's process: a signal, a debugger.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name before it is in brackets, and may have brackets of its own.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, Some('T' | 't'))
    }
}
