//! `--profile`: where the time of a run went.

use std::time::Duration;

use vmtest::run_record::{Origin, RunRecord};

use super::ui;

/// Prints a table of the phases on stderr.
pub(crate) fn say(record: &RunRecord) {
    ui::note("where the time went:");
    let lines: Vec<String> = rows(record)
        .into_iter()
        .map(|(name, took, what)| {
            format!("{name:<18} {:>7.3} s  {what}", took.as_secs_f64()).trim_end().to_owned()
        })
        .collect();
    ui::excerpt(&lines);
}

/// Phases in their order: name, time, what it is.
fn rows(record: &RunRecord) -> Vec<(&'static str, Duration, &'static str)> {
    let outcome = &record.outcome;
    let phases = &outcome.phases;
    let mut rows = Vec::new();
    match (phases.boot, &outcome.hello) {
        (Some(boot), _) if matches!(record.origin, Some(Origin::Warm { .. })) => {
            rows.push(("resumed", boot, "from the saved guest"));
        }
        (Some(boot), Some(hello)) => {
            let seconds = |secs: f64| Duration::try_from_secs_f64(secs).unwrap_or_default();
            // The guest's clock begins with its kernel.
            let (init, ready) = (seconds(hello.init_secs), seconds(hello.ready_secs));
            rows.push(("QEMU, firmware", boot.saturating_sub(ready), "until the kernel starts"));
            rows.push(("kernel", init, "until its init starts"));
            rows.push(("agent", ready.saturating_sub(init), "modules, until it is ready"));
        }
        (Some(boot), None) => rows.push(("boot", boot, "")),
        (None, _) => {}
    }
    rows.extend(
        phases.setup.map(|took| ("setup", took, "files, networks, mounts; saving the guest")),
    );
    rows.extend(phases.command.map(|took| ("command", took, "")));
    rows.extend(phases.shutdown.map(|took| ("shutdown", took, "")));
    rows.push(("total", phases.total, "of QEMU"));
    rows
}
