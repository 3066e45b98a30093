//! A trace for Chrome and Perfetto: a row for each slot, a bar for each guest, its boot within.

use std::io::{self, Write};

use serde_json::json;

use super::super::record::{Attempt, Names, Run};

/// A guest: several tests may be of one.
pub(super) struct Guest<'a> {
    pub(super) names: &'a Names,
    pub(super) attempt: &'a Attempt,
    pub(super) good: bool,
}

/// The guests, in the order in which their first test ended.
pub(super) fn guests(run: &Run) -> Vec<Guest<'_>> {
    let mut places = std::collections::HashMap::new();
    let mut guests: Vec<Guest<'_>> = Vec::new();
    for test in &run.tests {
        for attempt in test.attempts.iter().filter(|attempt| attempt.guest_secs > 0.0) {
            let key =
                (attempt.slot, attempt.started_secs.to_bits(), &test.names.cell, &test.names.suite);
            let at = *places.entry(key).or_insert(guests.len());
            match guests.get_mut(at) {
                Some(guest) => guest.good &= attempt.status.good(),
                None => {
                    let good = attempt.status.good();
                    guests.push(Guest { names: &test.names, attempt, good });
                }
            }
        }
    }
    guests
}

pub(super) fn write(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    let name = json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "vmtest"}});
    write!(out, "{name}")?;
    for guest in guests(run) {
        let attempt = guest.attempt;
        let micros = |secs: f64| (secs * 1e6).round();
        let begin = micros(attempt.started_secs - run.started_secs);
        let bar = json!({
            "name": format!("{} [{}]", guest.names.suite, guest.names.cell),
            "cat": "guest", "ph": "X", "pid": 1, "tid": attempt.slot,
            "ts": begin, "dur": micros(attempt.guest_secs),
            "args": {
                "arch": guest.names.cell.arch, "kernel": guest.names.cell.kernel,
                "attempt": attempt.number, "good": guest.good, "repeat": attempt.repeat,
            },
        });
        let boot = json!({
            "name": "boot", "cat": "boot", "ph": "X", "pid": 1, "tid": attempt.slot,
            "ts": begin, "dur": micros(attempt.boot_secs),
        });
        write!(out, ",\n{bar},\n{boot}")?;
    }
    writeln!(out, "]}}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::run;

    #[test]
    fn it_is_json_with_a_bar_for_each_guest() {
        let mut out = Vec::new();
        super::write(&run(), &mut out).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(trace["traceEvents"].as_array().unwrap().len(), 1 + 2 * 7);
    }
}
