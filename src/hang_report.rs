//! What was found in a guest that hangs or took too long, for people, programs and files.

use serde_json::{Value, json};

use crate::diagnosis::frame::Frame;
use crate::diagnosis::registers::{self, Registers};
use crate::diagnosis::stacks::{Processor, Stacks, TaskState};
use crate::host::Moment;
use crate::vm::{Evidence, Stage, Verdict};

/// So many processors and tasks are told in short.
const MAX_TOLD: usize = 6;

/// So many functions of each.
const MAX_FUNCTIONS: usize = 4;

/// Functions that only wait: who waits is told by what called them.
const WAITS: [&str; 8] = [
    "__schedule",
    "schedule",
    "__switch_to",
    "context_switch",
    "preempt_schedule",
    "__wait_for_common",
    "wait_for_completion",
    "do_nanosleep",
];

/// What was found.
#[derive(Clone, Debug)]
pub struct HangReport {
    /// As it was collected.
    pub evidence: Evidence,
    /// What the kernel said when it was asked, with files and lines where they are known.
    pub stacks_text: String,
    /// The same, read.
    pub stacks: Stacks,
    /// Where each processor was, by QEMU.
    pub registers: Vec<Registers>,
    /// The last lines of the command's stdout and stderr.
    pub last_lines: [Vec<String>; 2],
}

impl HangReport {
    /// Reads what was collected. `decode` puts files and lines into the kernel's text.
    pub fn of(
        evidence: Evidence,
        last_lines: [Vec<String>; 2],
        decode: impl FnOnce(&str) -> String,
    ) -> HangReport {
        let text: Vec<String> = evidence
            .stacks
            .split(|byte| *byte == b'\n')
            .map(crate::diagnosis::text::clean)
            .collect();
        let stacks_text = decode(text.join("\n").trim());
        let stacks = Stacks::parse(&stacks_text);
        let registers = registers::parse(&evidence.registers);
        HangReport { evidence, stacks_text, stacks, registers, last_lines }
    }

    /// What the guest did, in short: a line a processor, the command, who does not answer.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.processors();
        lines.extend(self.tasks());
        let evidence = &self.evidence;
        match evidence.agent_answers {
            Some(true) => lines.push("vmtest's agent answers".into()),
            Some(false) => lines.push("vmtest's agent does not answer".into()),
            None if evidence.stage == Stage::Booting => {
                lines.push("vmtest's agent has not said hello".into());
            }
            None => {}
        }
        lines.extend(evidence.missing.iter().cloned());
        lines.extend(self.host());
        lines
    }

    fn processors(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        if self.stacks.processors.is_empty() {
            lines.extend(self.registers.iter().map(by_registers));
        } else {
            lines.extend(self.stacks.processors.iter().map(by_stack));
        }
        shortened(lines, "processors")
    }

    /// The command and what it started.
    fn tasks(&self) -> Vec<String> {
        let Some((name, pid)) = &self.evidence.command else { return Vec::new() };
        let mut lines = Vec::new();
        if let Some(task) = self.stacks.task(*pid) {
            lines.push(format!("the command, `{name}` ({pid}), {}", does(task)));
        }
        let others = self.stacks.descendants(*pid);
        lines.extend(
            others.iter().map(|task| format!("its `{}` ({}) {}", task.name, task.pid, does(task))),
        );
        shortened(lines, "tasks")
    }

    /// The host, if it may be the reason.
    fn host(&self) -> Option<String> {
        let Moment { processors, load, available } = self.evidence.host;
        let busy = self.evidence.load.complaint();
        let little = available.filter(|bytes| *bytes < 256 << 20);
        match (busy, little) {
            (Some(busy), _) => Some(format!(
                "{busy} (load {:.1} on {processors} processors)",
                load.unwrap_or_default()
            )),
            (None, Some(bytes)) => {
                Some(format!("the host has only {} MiB of memory left", bytes >> 20))
            }
            (None, None) => None,
        }
    }

    /// The files that are kept: what each is, its name, its text.
    pub fn files(&self, verdict: &Verdict) -> Vec<(&'static str, &'static str, String)> {
        let mut summary = format!("{verdict}\n\n");
        for line in self.lines() {
            summary.push_str(&format!("{line}\n"));
        }
        let Moment { processors, load, available } = self.evidence.host;
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        summary.push_str(&format!(
            "\nthe host: load {}, {processors} processors, {} of memory available; QEMU ran {:.1} s and \
             waited {:.1} s for a processor\n",
            load.map_or("unknown".into(), |load| format!("{load:.2}")),
            available.map_or("an unknown amount".into(), mib),
            self.evidence.load.ran.as_secs_f64(),
            self.evidence.load.waited.as_secs_f64(),
        ));
        for (stream, lines) in ["stdout", "stderr"].iter().zip(&self.last_lines) {
            if !lines.is_empty() {
                summary.push_str(&format!("\nthe last of {stream}:\n  {}\n", lines.join("\n  ")));
            }
        }
        let mut files = vec![("hang", "hang.txt", summary)];
        if !self.stacks_text.is_empty() {
            files.push(("stacks", "stacks.txt", format!("{}\n", self.stacks_text)));
        }
        if !self.evidence.registers.is_empty() {
            let text = self.evidence.registers.trim();
            files.push(("registers", "registers.txt", format!("{text}\n")));
        }
        files
    }

    /// For `run.json`.
    pub fn to_json(&self) -> Value {
        let evidence = &self.evidence;
        let Moment { processors, load, available } = evidence.host;
        json!({
            "stage": evidence.stage.text(),
            "lines": self.lines(),
            "agent_answers": evidence.agent_answers,
            "command": evidence.command.as_ref().map(|(name, pid)| json!({"name": name, "pid": pid})),
            "processors": self.stacks.processors,
            "registers": self.registers,
            "host": {"load": load, "processors": processors, "memory_available_bytes": available},
            "stdout_tail": self.last_lines[0],
            "stderr_tail": self.last_lines[1],
            "took_secs": evidence.took.as_secs_f64(),
        })
    }
}

fn shortened(mut lines: Vec<String>, what: &str) -> Vec<String> {
    let more = lines.len().saturating_sub(MAX_TOLD);
    if more > 0 {
        lines.truncate(MAX_TOLD);
        lines.push(format!("and {more} more {what}"));
    }
    lines
}

fn by_stack(processor: &Processor) -> String {
    let number = processor.number;
    if processor.idle {
        return format!("processor {number} had nothing to do");
    }
    let task = match &processor.task {
        Some((name, pid)) => format!("`{name}` ({pid})"),
        None => "something".into(),
    };
    if processor.in_user_space {
        return format!("processor {number} ran {task}, in user space");
    }
    format!("processor {number} ran {task}, in {}", functions(&processor.frames))
}

fn by_registers(registers: &Registers) -> String {
    let place = match (registers.halted, registers.in_user_space) {
        (Some(true), _) => "halted",
        (_, Some(true)) => "in user space",
        _ => "in the kernel",
    };
    format!("processor {} was at {:#x}, {place}", registers.number, registers.pc)
}

fn does(task: &TaskState) -> String {
    let place = || functions(&task.frames);
    match task.state {
        'R' if task.frames.is_empty() => "runs".into(),
        'R' => "runs or is about to".into(),
        'S' | 'I' => format!("waits in {}", place()),
        'D' => format!("waits in {}, and no signal ends that", place()),
        'T' | 't' => "is stopped".into(),
        'Z' | 'X' => "has ended".into(),
        other => format!("is in the state {other}, in {}", place()),
    }
}

/// Functions, the innermost first, without those that only wait.
fn functions(frames: &[Frame]) -> String {
    let waits = |frame: &&Frame| {
        WAITS.contains(&frame.function.as_str()) || frame.function.starts_with("schedule_")
    };
    let first = frames.iter().position(|frame| !waits(&frame)).unwrap_or(0);
    let told = frames[first..].iter().take(MAX_FUNCTIONS).map(|frame| match &frame.source {
        Some(source) => format!("{} ({source})", frame.function),
        None => frame.function.clone(),
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "an unknown place".into() } else { told.join(" < ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(stacks: &str, evidence: Evidence) -> HangReport {
        let evidence = Evidence { stacks: stacks.into(), ..evidence };
        HangReport::of(evidence, [Vec::new(), vec!["the last line".into()]], str::to_owned)
    }

    #[test]
    fn what_everybody_did_is_told_in_short() {
        let evidence = Evidence {
            agent_answers: Some(true),
            command: Some(("./test".into(), 7)),
            ..Evidence::default()
        };
        let report = report(
            "[    1.000000] NMI backtrace for cpu 0\r\n\
             [    1.000000] CPU: 0 PID: 8 Comm: sh Not tainted 6.12\r\n\
             [    1.000000]  asm_common_interrupt+0x26/0x40\r\n\
             [    1.000000] NMI backtrace for cpu 1 skipped: idling at native_halt+0x9/0x10\r\n\
             [    1.000000] task:test state:S stack:0 pid:7 tgid:7 ppid:1 flags:0x0\r\n\
             [    1.000000]  __schedule+0x3a6/0xbd2\r\n[    1.000000]  schedule+0x24/0xd4\r\n\
             [    1.000000]  do_wait+0x24/0xd4\r\n[    1.000000]  kernel_wait4+0x24/0xd4\r\n\
             [    1.000000] task:sh state:R running task stack:0 pid:8 tgid:8 ppid:7 flags:0x0\r\n",
            evidence,
        );
        assert_eq!(
            report.lines(),
            [
                "processor 0 ran `sh` (8), in user space",
                "processor 1 had nothing to do",
                "the command, `./test` (7), waits in do_wait < kernel_wait4",
                "its `sh` (8) runs",
                "vmtest's agent answers",
            ]
        );
        let verdict = Verdict::Hung { why: "x".into(), silent: std::time::Duration::from_secs(60) };
        let files = report.files(&verdict);
        assert_eq!(files.iter().map(|file| file.1).collect::<Vec<_>>(), ["hang.txt", "stacks.txt"]);
        assert!(files[0].2.contains("the last of stderr:\n  the last line\n"), "{}", files[0].2);
        assert_eq!(report.to_json()["command"]["pid"], 7);
    }

    #[test]
    fn a_kernel_that_says_nothing_is_told_by_registers() {
        let evidence = Evidence {
            registers: "CPU#0\nRIP=ffffffff81a2b3c4 RFL=00000046 CPL=0 HLT=0\n".into(),
            missing: vec!["stacks: no".into()],
            ..Evidence::default()
        };
        assert_eq!(
            report("", evidence).lines(),
            [
                "processor 0 was at 0xffffffff81a2b3c4, in the kernel",
                "vmtest's agent has not said hello",
                "stacks: no",
            ]
        );
    }
}
