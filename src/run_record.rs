//! The record of a run, and its form for programs: `run.json`.
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
use crate::coverage::Collected;
use crate::diagnosis::{Judged, Ruled};
use crate::hang_report::HangReport;
use crate::plan::{Plan, Spelling};
use crate::reasons::Reason;
use crate::vm::{KernelCounters, Outcome, Phases, Verdict};

/// Version of the report's format.
pub const SCHEMA: u32 = 1;

/// A run that has ended: all that is known of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunRecord {
    /// What happened.
    pub outcome: Outcome,
    /// Whether the guest booted or went on where it was saved; `None` where nothing got that far.
    pub origin: Option<Origin>,
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
    /// What was found in a guest that hangs or took too long.
    pub hang: Option<Box<HangReport>>,
    /// Why it failed, where that can be told, and what helps.
    pub reasons: Vec<Reason>,
    /// The kernel's reports of its faults, with files and lines where they are known.
    pub splats: Judged,
    /// What was collected of the run's coverage, and where.
    pub coverage: Option<Collected>,
    /// What was collected is not complete, although the verdict stands: why, and how to fix it.
    pub coverage_lost: Option<(String, String)>,
}

/// Which kernel was booted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KernelIdentity {
    /// Where it is; firmware boots one that has no path.
    pub path: Option<PathBuf>,
    /// SHA-256 of the file, in hexadecimal digits: as in the asset manifest.
    pub sha256: Option<String>,
}

/// Which image was booted.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ImageIdentity {
    /// Where it is; an image made for the run has no path.
    pub path: Option<PathBuf>,
    /// Its size.
    pub bytes: Option<u64>,
    /// BLAKE3 of the file, in hexadecimal digits, as `vmtest initramfs build` and `b3sum` print it.
    pub blake3: Option<String>,
}

/// How a guest came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// It went on where it was saved.
    Warm {
        /// Which template.
        template: String,
    },
    /// It booted, and was saved for the next run.
    Saved {
        /// Which template.
        template: String,
        /// Why there was none.
        reason: String,
    },
    /// It booted.
    Cold {
        /// Why.
        reason: String,
    },
}

/// What is known of a run before it runs.
pub(crate) fn facts(
    plan: &Plan,
    accel: &AccelChoice,
    kernel: &KernelIdentity,
    initramfs: Option<&ImageIdentity>,
) -> RunRecord {
    let mounts = plan.mounts().iter();
    RunRecord {
        outcome: Outcome::default(),
        origin: None,
        arch: plan.arch(),
        argv: std::iter::once(plan.program().to_owned())
            .chain(plan.args(Spelling::Executed))
            .collect(),
        repeat: OsString::new(),
        qemu_version: None,
        kernel: kernel.clone(),
        cmdline: plan.cmdline().map(str::to_owned),
        initramfs: initramfs.cloned(),
        mounts: mounts.map(|mount| (mount.source.clone(), mount.target.clone())).collect(),
        accel: accel.clone(),
        artifacts: Vec::new(),
        console_tail: Vec::new(),
        hang: None,
        reasons: Vec::new(),
        splats: Judged::default(),
        coverage: None,
        coverage_lost: None,
    }
}

/// A record of a run that ended like this, for tests of what is made of it.
#[cfg(test)]
pub(crate) fn of(verdict: Verdict) -> RunRecord {
    use crate::accel::{Accel, Reason};
    let plan = crate::options::Options::new(Arch::Amd64).plan().expect("the defaults can be had");
    let accel = AccelChoice { accel: Accel::Tcg, reason: Reason::Requested };
    let mut record = facts(&plan, &accel, &KernelIdentity::default(), None);
    record.outcome.verdict = verdict;
    record
}

/// The record as JSON.
pub fn to_json(record: &RunRecord) -> Value {
    let (context, outcome) = (record, &record.outcome);
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
        "warm": context.origin,
        "coverage": context.coverage.as_ref().map(|collected| json!({
            "dir": collected.dir,
            "name": collected.record.name,
            "collected": collected.record.collected,
            "missing": collected.record.missing,
            "kernel_secs": match &outcome.kernel_counters {
                Some(KernelCounters::Complete { took, .. }) => Some(took.as_secs_f64()),
                _ => None,
            },
        })),
        "hang": context.hang.as_ref().map(|hang| hang.to_json()),
        "reasons": context.reasons,
        "splats": splats(&context.splats),
        "host": {
            "qemu_ran_secs": outcome.host_load.ran.as_secs_f64(),
            "qemu_waited_secs": outcome.host_load.waited.as_secs_f64(),
            "starved": outcome.host_load.is_starved(),
        },
        "notices": outcome.notices,
        "console_tail": context.console_tail,
        "artifacts": artifacts,
    })
}

/// The kernel's reports in short; `splats.json` has them whole.
fn splats(splats: &Judged) -> Value {
    let report = |report: &Ruled| {
        json!({
            "title": report.splat.title,
            "kind": report.splat.kind,
            "function": report.splat.function,
            "counts": report.counts,
            "allowed_by": report.allowed_by,
            "console_line": report.splat.begin.line,
        })
    };
    json!({
        "mode": splats.mode,
        "counting": splats.count(),
        "reports": splats.reports.iter().map(report).collect::<Vec<_>>(),
    })
}

/// What is known of a run that was not started.
pub(crate) fn failed_start(exit_code: u8, message: &str, repeat: &std::ffi::OsStr) -> Value {
    json!({
        "schema": SCHEMA,
        "vmtest_version": env!("CARGO_PKG_VERSION"),
        "verdict": "could-not-start",
        "exit_code": exit_code,
        "message": message,
        "repeat": repeat.to_string_lossy(),
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
