//! What a person sees of a suite: a line for each test that has ended, on a terminal also what runs; then a
//! summary with what did not pass at its end.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

use vmtest::results::Status;
use vmtest::suite::report::duration;
use vmtest::suite::{Cell, Run, Test};

use super::jobs::Job;
use crate::cli::ui;

/// How many failures the summary tells of; reports have all.
const FAILURES_MAX: usize = 50;

/// How many lines of a failure's output are shown.
const OUTPUT_LINES: usize = 12;

/// What ran when.
struct Running {
    what: String,
    since: Instant,
    /// What it took last time.
    expected: f64,
}

pub(super) struct Live {
    terminal: bool,
    slots: u32,
    running: BTreeMap<u32, Running>,
    /// What each test took in the last run.
    earlier: HashMap<(Cell, String), f64>,
    total: usize,
    done: usize,
    /// Seconds of tests that have not begun, as far as they are known.
    ahead: f64,
    /// Whether any of it is known.
    known: bool,
    drawn: bool,
}

impl Live {
    pub(super) fn new(earlier: &Run, slots: u32) -> Live {
        let mut took: HashMap<(Cell, String), f64> = HashMap::new();
        for test in &earlier.tests {
            // Several tests of one guest all have its time.
            let key = (test.names.cell.clone(), test.names.suite.clone());
            let secs: f64 = test.attempts.iter().map(|attempt| attempt.guest_secs).sum();
            let known = took.entry(key).or_default();
            *known = known.max(secs);
        }
        Live {
            terminal: stderr().is_terminal(),
            slots,
            running: BTreeMap::new(),
            earlier: took,
            total: 0,
            done: 0,
            ahead: 0.0,
            known: false,
            drawn: false,
        }
    }

    pub(super) fn round(&mut self, jobs: usize, round: u32, rounds: u32) {
        (self.total, self.done) = (jobs, 0);
        self.known = !self.earlier.is_empty();
        self.ahead = self.earlier.values().sum();
        if round == 1 {
            let s = if jobs == 1 { "" } else { "s" };
            let slots = self.slots.min(u32::try_from(jobs).unwrap_or(u32::MAX));
            self.say(&format!("vmtest: {jobs} test{s}, {slots} at a time"));
        } else if rounds != u32::MAX {
            self.say(&format!("vmtest: round {round} of {rounds}"));
        } else {
            self.say(&format!("vmtest: round {round}"));
        }
    }

    pub(super) fn started(&mut self, job: &Job, slot: u32) {
        let key = (job.cell.clone(), job.suite.clone());
        let expected = self.earlier.get(&key).copied().unwrap_or(0.0);
        self.ahead -= expected;
        let what = format!("{} [{}]", job.suite, job.cell);
        self.running.insert(slot, Running { what, since: Instant::now(), expected });
        self.draw();
    }

    /// A job has ended: a line for it, and for each of its tests that did not pass. Gives whether any did not.
    pub(super) fn ended(&mut self, run: &Run, job: &Job, suite: &str, slot: u32) -> bool {
        self.done += 1;
        self.running.remove(&slot);
        let of_job = |test: &&Test| test.names.suite == suite && test.names.cell == job.cell;
        // They are the last ones.
        let from = run.tests.iter().rposition(|test| !of_job(&test)).map_or(0, |at| at + 1);
        let tests = &run.tests[from..];
        let worst = tests.iter().map(Test::status).min().unwrap_or(Status::NotRun);
        let secs = tests.iter().map(|test| test.attempts.iter().map(|a| a.guest_secs).sum::<f64>());
        let secs = secs.fold(0.0, f64::max);
        let many = match tests {
            [only] if only.names.name.is_empty() => String::new(),
            tests => {
                let good = tests.iter().filter(|test| test.status().good()).count();
                format!(" ({good} of {} tests passed)", tests.len())
            }
        };
        self.say(&format!(
            "{} {:>7}  {suite} [{}]{many}",
            ui::result(worst),
            duration(secs),
            job.cell
        ));
        if tests.len() > 1 {
            for test in tests.iter().filter(|test| !test.status().good()).take(FAILURES_MAX) {
                self.say(&format!("{}          {}", ui::result(test.status()), test.names));
            }
        }
        self.draw();
        !worst.good()
    }

    pub(super) fn tick(&mut self) {
        self.draw();
    }

    /// Writes a line above what is drawn.
    fn say(&mut self, text: &str) {
        self.clear();
        ui::line(text);
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = stderr().write_all(b"\r\x1b[K");
        }
    }

    /// What runs, and how long it may still take: one line, on a terminal.
    fn draw(&mut self) {
        if !self.terminal || self.total == 0 {
            return;
        }
        let width =
            usize::from(rustix::termios::tcgetwinsize(stderr()).map_or(80, |size| size.ws_col));
        let filled = 16 * self.done / self.total;
        let bar: String = (0..16).map(|at| if at < filled { '█' } else { '░' }).collect();
        let mut text = format!("{bar} {}/{}", self.done, self.total);
        if self.known {
            let of = |running: &Running| {
                (running.expected - running.since.elapsed().as_secs_f64()).max(0.0)
            };
            let left = self.ahead.max(0.0) + self.running.values().map(of).sum::<f64>();
            text.push_str(&format!(", {} left", duration(left / f64::from(self.slots.max(1)))));
        }
        for running in self.running.values() {
            let since = duration(running.since.elapsed().as_secs_f64());
            text.push_str(&format!(" | {} {since}", running.what));
        }
        let text: String = text.chars().take(width.max(20) - 1).collect();
        let _ = stderr().write_all(format!("\r\x1b[K{text}").as_bytes());
        self.drawn = true;
    }

    /// What came of it: failures last, the worst of them at the very end's beginning, then one line.
    pub(super) fn conclude(&mut self, run: &Run) {
        self.clear();
        self.total = 0;
        let failures = run.failures();
        for test in failures.iter().take(FAILURES_MAX).rev() {
            failure(test);
        }
        if let Some(more) = failures.len().checked_sub(FAILURES_MAX).filter(|more| *more > 0) {
            ui::note(&format!("{more} more did not pass; a report has all: --report html=FILE"));
        }
        let counts: Vec<String> = Status::ALL
            .iter()
            .rev()
            .map(|status| (run.count(*status), status))
            .filter(|(count, _)| *count > 0)
            .map(|(count, status)| format!("{count} {status}"))
            .collect();
        let text = format!("{} in {}", counts.join(", "), duration(run.secs));
        if run.passed() && !run.incomplete { ui::status(&text) } else { ui::failed(&text) }
    }
}

fn failure(test: &Test) {
    let told = test.telling();
    ui::line(&format!("\n{} {}", ui::result(test.status()), test.names));
    let shown: Vec<String> = match told.console.as_slice() {
        [] => vmtest::vm::last_lines(told.output.as_bytes(), OUTPUT_LINES),
        // It begins where the panic does.
        console => console.iter().take(OUTPUT_LINES).cloned().collect(),
    };
    ui::excerpt(&shown);
    if let Some(reason) = &told.reason {
        ui::line(&format!("  {reason}"));
    }
    if !told.repeat.is_empty() {
        ui::note(&format!("repeat it: {}", told.repeat));
    }
}
