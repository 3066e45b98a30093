//! A run's report for programs: `run.json`.
//!
//! The schema only grows within one [`SCHEMA`]: programs must accept fields they do not know. Times
//! are seconds, sizes bytes. What is not known is `null` or absent, never a made-up value.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};
use vmtest_guest::proto::ExitStatus;

use crate::accel::AccelChoice;
use crate::arch::Arch;
use crate::coverage::record::Record;
use crate::vm::{KernelCounters, Outcome, Phases, Verdict};

/// Version of the report's format.
pub const SCHEMA: u32 = 1;

/// All that is known of a run besides its outcome.
#[derive(Clone, Debug)]
pub struct Context {
    /// Guest architecture.
    pub arch: Arch,
    /// QEMU's program and arguments, as executed.
    pub argv: Vec<OsString>,
    /// How vmtest itself was called, quoted for a shell: repeats the run.
    pub repeat: OsString,
    /// QEMU's version, in its own words.
    pub qemu_version: Option<String>,
    /// The kernel.
    pub kernel: KernelIdentity,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// The initramfs.
    pub initramfs: Option<ImageIdentity>,
    /// What the agent mounted: source and target.
    pub mounts: Vec<(String, String)>,
    /// The accelerator and why.
    pub accel: AccelChoice,
    /// Files kept of the run, by what they are.
    pub artifacts: Vec<(&'static str, PathBuf)>,
    /// The console's last lines.
    pub console_tail: Vec<String>,
    /// What was collected of the run's coverage, and where.
    pub coverage: Option<(PathBuf, Record)>,
}

/// Which kernel was booted.
#[derive(Clone, Debug, Default)]
pub struct KernelIdentity {
    /// Where it is; firmware boots one that has no path.
    pub path: Option<PathBuf>,
    /// SHA-256 of the file, in hexadecimal digits: as in the asset manifest.
    pub sha256: Option<String>,
}

/// Which image was booted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImageIdentity {
    /// Where it is; an image made for the run has no path.
    pub path: Option<PathBuf>,
    /// Its size.
    pub bytes: Option<u64>,
    /// BLAKE3 of the file, in hexadecimal digits, as `vmtest initramfs build` and `b3sum` print it.
    pub blake3: Option<String>,
}

/// The report as JSON.
pub fn to_json(context: &Context, outcome: &Outcome) -> Value {
    let verdict = &outcome.verdict;
    let (status, signal) = match verdict {
        Verdict::Exited(ExitStatus::Code(code)) => (Some(*code), None),
        Verdict::Exited(ExitStatus::Signal(signal)) => (None, Some(*signal)),
        Verdict::NotStarted { code, .. } => (Some(*code), None),
        _ => (None, None),
    };
    let limit = match verdict {
        Verdict::TimedOut { limit, .. } => Some(limit.name()),
        _ => None,
    };
    let mounts: Vec<_> = context
        .mounts
        .iter()
        .map(|(source, target)| json!({"source": source, "target": target}))
        .collect();
    let argv: Vec<_> = context.argv.iter().map(|arg| arg.to_string_lossy()).collect();
    let artifacts: serde_json::Map<_, _> =
        context.artifacts.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect();
    json!({
        "schema": SCHEMA,
        "vmtest_version": env!("CARGO_PKG_VERSION"),
        "verdict": verdict.name(),
        "exit_code": verdict.exit_code(),
        "message": verdict.to_string(),
        "status": status,
        "signal": signal,
        "limit": limit,
        "arch": context.arch.name(),
        "accelerator": {
            "name": context.accel.accel.to_string(),
            "reason": context.accel.reason.to_string(),
            "reason_code": context.accel.reason.code(),
        },
        "argv": argv,
        "repeat": context.repeat.to_string_lossy(),
        "qemu_version": context.qemu_version,
        "kernel": {
            "path": context.kernel.path,
            "sha256": context.kernel.sha256,
            "release": outcome.hello.as_ref().map(|hello| &hello.kernel_release),
            "cmdline": context.cmdline,
        },
        "initramfs": context.initramfs,
        "guest": outcome.hello,
        "mounts": mounts,
        "phases": phases(&outcome.phases),
        "stdout_bytes": outcome.output_bytes.0,
        "stderr_bytes": outcome.output_bytes.1,
        "port_forwards": outcome.port_forwards.iter().map(|forward| json!({
            "protocol": forward.protocol.name(),
            "host_address": forward.host_address,
            "host_port": forward.host_port,
            "guest_port": forward.guest_port,
        })).collect::<Vec<_>>(),
        "coverage": context.coverage.as_ref().map(|(dir, record)| json!({
            "dir": dir,
            "name": record.name,
            "collected": record.collected,
            "missing": record.missing,
            "kernel_secs": match &outcome.kernel_counters {
                Some(KernelCounters::Complete { took, .. }) => Some(took.as_secs_f64()),
                _ => None,
            },
        })),
        "notices": outcome.notices,
        "console_tail": context.console_tail,
        "artifacts": artifacts,
    })
}

fn phases(phases: &Phases) -> Value {
    let seconds = |phase: Option<std::time::Duration>| phase.map(|phase| phase.as_secs_f64());
    json!({
        "boot_secs": seconds(phases.boot),
        "setup_secs": seconds(phases.setup),
        "command_secs": seconds(phases.command),
        "shutdown_secs": seconds(phases.shutdown),
        "total_secs": phases.total.as_secs_f64(),
    })
}
