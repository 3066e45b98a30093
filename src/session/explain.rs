//! What explains a run once it is over: what its kernel reported, where its guest hangs, reasons that can be told.

use std::time::Duration;

use super::symbols::Symbols;
use super::tail::Tail;
use crate::diagnosis::{Gate, Judged, Kind, Mode};
use crate::hang_report::HangReport;
use crate::reasons::{self, Reason};
use crate::vm::{self, Console, Outcome, Verdict};

/// How many lines of the console explain a failure.
const TAIL_LINES: usize = 20;

/// What was kept while it ran.
pub(super) struct Traces {
    pub(super) console: Console,
    /// The last of stdout and stderr.
    pub(super) tails: [Tail; 2],
    pub(super) memory_bytes: u64,
    pub(super) has_agent: bool,
    /// Which reports count.
    pub(super) gate: Gate,
    pub(super) symbols: Symbols,
    pub(super) boot_budget: Option<Duration>,
}

/// What they say.
pub(super) struct Explained {
    pub(super) splats: Judged,
    pub(super) hang: Option<Box<HangReport>>,
    pub(super) reasons: Vec<Reason>,
    pub(super) console_tail: Vec<String>,
}

impl Traces {
    /// Puts it together. A run that would have passed may fail by it; `tell` is told of remarks as they come.
    pub(super) fn explain(self, outcome: &mut Outcome, tell: &impl Fn(&str)) -> Explained {
        let (mut splats, more) = self.console.all_splats();
        // A guest that goes on has not panicked: it was a program's text.
        let panicked = matches!(outcome.verdict, Verdict::Panicked { .. });
        splats.retain(|splat| splat.kind != Kind::Panic || panicked);
        let mut said = self.console.transcript();
        said.truncate(outcome.evidence.as_ref().map_or(said.len(), |found| found.console_bytes));
        let reasons = reasons::of(reasons::Traces {
            verdict: &outcome.verdict,
            console: &said,
            stderr: &self.tails[1].lines(TAIL_LINES),
            memory_bytes: self.memory_bytes,
            has_agent: self.has_agent,
        });
        let mut splats = self.gate.judge(splats, more);
        let mut finder = self.symbols.open();
        if let Some(busy) = outcome.host_load.complaint() {
            splats.excuse_hangs(&busy);
        }
        splats.reports.iter_mut().for_each(|report| finder.decode(&mut report.splat));
        let last_lines = self.tails.map(|tail| tail.lines(TAIL_LINES));
        let found = outcome.evidence.take();
        let hang = found.map(|found| {
            Box::new(HangReport::of(*found, last_lines, |text| finder.decode_text(text)))
        });
        for text in finder.take_remarks() {
            tell(&text);
            outcome.notices.push(text);
        }
        judge_boot(self.boot_budget, outcome);
        judge_splats(&splats, &mut outcome.verdict);
        let console_tail = match outcome.verdict {
            Verdict::Panicked { .. } => self.console.panic_lines(TAIL_LINES),
            // Behind that stands what was asked for.
            _ => vm::last_lines(&said, TAIL_LINES),
        };
        Explained { splats, hang, reasons, console_tail }
    }
}

/// A boot over its budget is the verdict of a run in which nothing else went wrong.
fn judge_boot(budget: Option<Duration>, outcome: &mut Outcome) {
    if let (Some(budget), Some(took)) = (budget, outcome.phases.boot)
        && outcome.verdict.passed()
        && took > budget
    {
        outcome.verdict = Verdict::OverBudget { took, budget };
    }
}

/// Reports that count are the verdict of a run in which nothing else went wrong.
fn judge_splats(splats: &Judged, verdict: &mut Verdict) {
    let count = splats.count();
    if splats.mode == Mode::Fail && verdict.passed() && count > 0 {
        let title = splats.counting().next().map(|splat| splat.title.clone());
        *verdict = Verdict::KernelFault { title: title.unwrap_or_default(), count };
    }
}
