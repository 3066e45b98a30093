//! What a run says of its kernel's faults: the flags, and what is printed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vmtest::configure::{
    Configure, all, with_boot_budget, with_hang_after, with_required_option, with_splats,
    with_vmlinux,
};
use vmtest::diagnosis::{Kind, Mode, Splat};
use vmtest::duration;
use vmtest::fields::BadValue;
use vmtest::formats::kconfig;
use vmtest::run_record::RunRecord;
use vmtest::vm::{HangAfter, Verdict};

use super::error::Failure;
use super::gate::GateArgs;
use super::ui;
use super::value::text;

/// So many titles are told; `splats.json` has all.
const MAX_TITLES: usize = 5;

/// So many lines of the first report are shown.
const EXCERPT: usize = 12;

/// Options that say what a run does about its guest's faults.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiagnosisArgs {
    /// What the kernel's reports of its faults mean (BUG, WARNING, Oops, KASAN, lockdep, …): the run fails,
    /// they are shown, nothing. Default: warn
    #[arg(long, value_name = "fail|warn|off", value_parser = text(Mode::parse), help_heading = "Splats")]
    splats: Option<Mode>,
    /// A guest from which nothing has come for this time is looked at, whether it hangs; then one that only
    /// does nothing hangs, too. Default: 1m with KVM, 3m emulated, and doing nothing is no hang
    #[arg(long, value_name = "D|off", value_parser = text(HangAfter::parse), help_heading = "Limits")]
    hang_after: Option<HangAfter>,
    /// Print where the time went: QEMU, kernel, agent, setup, command, shutdown
    #[arg(long, help_heading = "Report")]
    pub(crate) profile: bool,
    /// A run whose guest was ready later than this after QEMU's start fails, though all else passed
    #[arg(long, value_parser = text(duration::parse_limit), value_name = "D", help_heading = "Limits")]
    boot_budget: Option<Duration>,
    /// Option that the kernel must have, with or without CONFIG_; repeats. What devices need is looked for
    /// anyway
    #[arg(long, value_parser = text(option_name), value_name = "OPTION", help_heading = "Boot")]
    require: Vec<String>,
    #[command(flatten)]
    lists: GateArgs,
    /// The kernel's vmlinux with debug information: its traces get files and lines. Default: that of the
    /// pinned kernel, if there is one
    #[arg(long, value_name = "FILE", help_heading = "Splats")]
    vmlinux: Option<PathBuf>,
}

impl DiagnosisArgs {
    /// What the flags mean for the machine; reads the files that they name.
    pub(crate) fn configurator(&self) -> Result<impl Configure + use<>, Failure> {
        let DiagnosisArgs { splats, hang_after, profile: _, boot_budget, require, lists, vmlinux } =
            self;
        let gate = lists.gate(splats.unwrap_or(Mode::Warn))?;
        let vmlinux = vmlinux.clone().map(with_vmlinux);
        let require = all(require.clone().into_iter().map(with_required_option));
        let budget = boot_budget.map(with_boot_budget);
        Ok((with_splats(gate), hang_after.map(with_hang_after), budget, require, vmlinux))
    }
}

/// The name of an option of kernels.
fn option_name(text: &str) -> Result<String, BadValue> {
    let name = text.strip_prefix("CONFIG_").unwrap_or(text);
    if kconfig::is_name(name) {
        return Ok(name.to_owned());
    }
    let hint = "a name is letters, digits and `_`, as in BPF_SYSCALL";
    Err(BadValue::new(text.as_ref(), "is no name of a kernel's option", hint))
}

/// What is added to the line of a verdict: that the kernel complained although all went well.
pub(crate) fn aside(record: &RunRecord) -> String {
    match record.splats.count() {
        0 => String::new(),
        1 => ", and its kernel reported a fault".into(),
        count => format!(", and its kernel reported {count} faults"),
    }
}

/// Whether what was found says more than the console's last lines, which are from the boot then.
pub(crate) fn explains(record: &RunRecord) -> bool {
    record.outcome.hello.is_some()
        && record.hang.as_ref().is_some_and(|hang| !hang.stacks.processors.is_empty())
}

/// Says what was found in a guest that hangs or took too long.
pub(crate) fn say_hang(record: &RunRecord) {
    let Some(hang) = &record.hang else { return };
    let lines = hang.lines();
    if !lines.is_empty() {
        ui::note(&format!("what was found {}:", hang.evidence.stage.text()));
        ui::excerpt(&lines);
    }
}

/// Says why a run failed, where that can be told, and what helps.
pub(crate) fn say_reasons(record: &RunRecord) {
    for reason in &record.reasons {
        ui::note(&reason.text);
        if let Some(fix) = &reason.fix {
            ui::hint(fix);
        }
    }
}

/// Says which faults the kernel reported.
pub(crate) fn say(record: &RunRecord) {
    let panicked = matches!(record.outcome.verdict, Verdict::Panicked { .. });
    let mut rows: Vec<(&Splat, u64)> = Vec::new();
    for splat in record.splats.counting() {
        // A panic without a report before it is the verdict.
        if panicked && splat.kind == Kind::Panic {
            continue;
        }
        match rows.iter_mut().find(|(first, _)| first.title == splat.title) {
            Some((_, times)) => *times += 1,
            None => rows.push((splat, 1)),
        }
    }
    for (splat, times) in rows.iter().take(MAX_TITLES) {
        let times = if *times > 1 { format!(", {times} times") } else { String::new() };
        ui::note(&format!(
            "the kernel reported {} (line {} of the console{times})",
            splat.title, splat.begin.line
        ));
    }
    if rows.len() > MAX_TITLES {
        ui::note(&format!("the kernel reported {} other faults", rows.len() - MAX_TITLES));
    }
    let Some((first, _)) = rows.first() else { return };
    // A panic's lines are shown anyway, unless these say more.
    let decoded = first.traces.iter().flat_map(|trace| &trace.frames);
    if !panicked || decoded.into_iter().any(|frame| !frame.locations.is_empty()) {
        ui::excerpt(&first.lines[..first.lines.len().min(EXCERPT)]);
        if first.lines.len() > EXCERPT {
            ui::excerpt(&["…".to_owned()]);
        }
    }
    if record.outcome.verdict.passed() {
        ui::hint("`--splats fail` fails such a run, `--allow-splat REGEX` lets a report pass");
    }
}
