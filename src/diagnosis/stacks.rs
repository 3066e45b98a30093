//! What a kernel says of its processors and tasks when it is asked ("magic" keys `l`, `w`, `t`).
//!
//! A key that comes over the UART is an interrupt: above what the processor did stand the frames that
//! print, and those of the interrupt. Both are left out.

use serde::Serialize;

use super::frame::{self, Frame, Role};
use super::prefix;

/// So many processors and tasks are read; what is more is left out.
const MAX_ENTRIES: usize = 4096;

/// So many frames of each.
const MAX_FRAMES: usize = 64;

/// Functions through which an interrupt enters the kernel: what stands behind the last of them is what
/// was interrupted. In the order of amd64 and i386, arm64, arm, riscv64.
const INTERRUPTS: [&str; 16] = [
    "asm_common_interrupt",
    "asm_sysvec_",
    "common_interrupt",
    "sysvec_",
    "el1h_64_irq",
    "el0t_64_irq",
    "el0_interrupt",
    "el1_interrupt",
    "__el0_irq_handler_common",
    "__irq_svc",
    "__irq_usr",
    "do_irq",
    "handle_exception",
    "ret_from_exception",
    "call_on_irq_stack",
    "do_softirq_own_stack",
];

/// Functions that only print.
const PRINTERS: [&str; 12] = [
    "dump_backtrace",
    "show_stack",
    "dump_stack",
    "nmi_cpu_backtrace",
    "nmi_trigger_cpumask_backtrace",
    "arch_trigger_cpumask_backtrace",
    "sysrq_handle_",
    "__handle_sysrq",
    "handle_sysrq",
    "unwind_backtrace",
    "show_regs",
    "do_show_stack",
];

/// What a processor did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// Its number.
    pub number: u32,
    /// The task on it: name and process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<(String, u32)>,
    /// Nothing was to be done.
    pub idle: bool,
    /// It ran a program; `frames` is empty then.
    pub in_user_space: bool,
    /// Functions of the kernel, the innermost first.
    pub frames: Vec<Frame>,
}

/// What a task did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskState {
    /// The first 15 bytes of its name.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// That of its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// The kernel's letter: `R` runs or is ready, `S` sleeps, `D` sleeps and cannot be woken by signals,
    /// `I` is an idle worker, `T` and `t` are stopped, `Z` and `X` have ended.
    pub state: char,
    /// Where it waits in the kernel, the innermost first; of one that runs a program there is nothing.
    pub frames: Vec<Frame>,
}

/// A kernel's answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stacks {
    /// Processors, each once.
    pub processors: Vec<Processor>,
    /// Tasks, each once.
    pub tasks: Vec<TaskState>,
}

/// Whose frames come.
enum Subject {
    Nobody,
    Processor(Processor),
    Task(TaskState),
}

impl Stacks {
    /// Reads what the console said.
    pub fn parse(text: &str) -> Stacks {
        let mut stacks = Stacks::default();
        let mut subject = Subject::Nobody;
        for line in text.lines() {
            let (_, message) = prefix::parse(line);
            let message = message.trim_end();
            if let Some(next) = begins(message) {
                stacks.keep(std::mem::replace(&mut subject, next));
                continue;
            }
            match &mut subject {
                Subject::Nobody => {}
                Subject::Processor(processor) => processor.line(message),
                Subject::Task(task) => {
                    let frame = frame::parse(message).filter(|frame| frame.role != Role::Guess);
                    task.frames.extend(frame.filter(|_| task.frames.len() < MAX_FRAMES));
                }
            }
        }
        stacks.keep(subject);
        stacks
    }

    /// A task by its process id.
    pub fn task(&self, pid: u32) -> Option<&TaskState> {
        self.tasks.iter().find(|task| task.pid == pid)
    }

    /// A task's children, and theirs, in the kernel's order.
    pub fn descendants(&self, pid: u32) -> Vec<&TaskState> {
        let mut parents = vec![pid];
        let mut found: Vec<&TaskState> = Vec::new();
        // A parent may stand behind its child.
        loop {
            let more: Vec<&TaskState> = self
                .tasks
                .iter()
                .filter(|task| task.parent.is_some_and(|parent| parents.contains(&parent)))
                .filter(|task| !parents.contains(&task.pid))
                .collect();
            if more.is_empty() {
                return found;
            }
            parents.extend(more.iter().map(|task| task.pid));
            found.extend(more);
        }
    }

    fn keep(&mut self, subject: Subject) {
        match subject {
            Subject::Nobody => {}
            Subject::Processor(mut processor) => {
                processor.interrupted();
                let known = self.processors.iter().any(|other| other.number == processor.number);
                if !known && self.processors.len() < MAX_ENTRIES {
                    self.processors.push(processor);
                }
            }
            Subject::Task(task) => {
                if self.task(task.pid).is_none() && self.tasks.len() < MAX_ENTRIES {
                    self.tasks.push(task);
                }
            }
        }
    }
}

/// Whether a line begins another entry, or ends the last one.
fn begins(message: &str) -> Option<Subject> {
    if let Some(rest) = message.strip_prefix("NMI backtrace for cpu ") {
        let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let idle = rest.starts_with("skipped: idling");
        return Some(processor(number, idle));
    }
    // How `l` begins on kernels that print for one processor after the other.
    if let Some(number) = message.strip_prefix("CPU").and_then(|rest| rest.strip_suffix(':')) {
        return number.bytes().all(|b| b.is_ascii_digit()).then(|| processor(number, false));
    }
    if let Some(rest) = message.strip_prefix("task:") {
        return Some(task(rest).map_or(Subject::Nobody, Subject::Task));
    }
    let ends = message.starts_with("sysrq: ")
        || message.starts_with("Mem-Info")
        || message.starts_with("Sched Debug Version")
        || message.starts_with("Showing ");
    ends.then_some(Subject::Nobody)
}

fn processor(number: &str, idle: bool) -> Subject {
    match number.parse() {
        Ok(number) => Subject::Processor(Processor {
            number,
            task: None,
            idle,
            in_user_space: false,
            frames: Vec::new(),
        }),
        Err(_) => Subject::Nobody,
    }
}

/// `sh              state:S stack:0     pid:116   tgid:116   ppid:1 …`
fn task(text: &str) -> Option<TaskState> {
    let (name, rest) = text.split_once(" state:").or_else(|| text.split_once("state:"))?;
    let state = rest.chars().next().filter(char::is_ascii_alphabetic)?;
    let number = |key: &str| {
        let digits = rest.split_once(key)?.1.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    let parent = number(" ppid:");
    Some(TaskState {
        name: name.trim().to_owned(),
        pid: number(" pid:")?,
        parent,
        state,
        frames: Vec::new(),
    })
}

impl Processor {
    fn line(&mut self, message: &str) {
        if self.task.is_none()
            && message.starts_with("CPU: ")
            && let Some((_, rest)) = message.split_once(" PID: ")
            && let Some((pid, rest)) = rest.split_once(" Comm: ")
        {
            // Names may have blanks; what comes behind is known.
            let end = [" Not tainted", " Tainted"].iter().find_map(|word| rest.find(word));
            let name = rest[..end.unwrap_or(rest.len())].trim();
            self.task = pid.trim().parse().ok().map(|pid: u32| (name.to_owned(), pid));
            return;
        }
        // The selector of amd64's and i386's programs has privilege 3.
        if ["RIP: 0033:", "RIP: 0023:", "EIP: 0073:"].iter().any(|user| message.starts_with(user)) {
            self.in_user_space = self.frames.iter().all(is_of_interrupt);
        }
        let frame = frame::parse(message).filter(|frame| frame.role != Role::Guess);
        self.frames.extend(frame.filter(|_| self.frames.len() < MAX_FRAMES));
    }

    /// Leaves out what printed, and the interrupt.
    fn interrupted(&mut self) {
        if self.idle {
            return;
        }
        let enters = |frame: &Frame| INTERRUPTS.iter().any(|name| frame.symbol.starts_with(name));
        if let Some(last) = self.frames.iter().rposition(enters) {
            self.frames.drain(..=last);
            self.in_user_space = self.frames.is_empty();
        } else {
            let prints = |frame: &Frame| PRINTERS.iter().any(|name| frame.symbol.starts_with(name));
            let printers = self.frames.iter().rposition(prints).map_or(0, |last| last + 1);
            self.frames.drain(..printers);
        }
        self.idle = self.task.as_ref().is_some_and(|(name, _)| name.starts_with("swapper/"))
            && self.frames.iter().any(|frame| frame.symbol.contains("idle"));
    }
}

fn is_of_interrupt(frame: &Frame) -> bool {
    let of = |names: &[&str]| names.iter().any(|name| frame.symbol.starts_with(name));
    of(&INTERRUPTS) || of(&PRINTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions, the innermost first.
    fn names(frames: &[Frame]) -> Vec<&str> {
        frames.iter().map(|frame| frame.function.as_str()).collect()
    }

    #[test]
    fn a_task_has_its_state_its_parent_and_its_stack() {
        let stacks = Stacks::parse(
            "[    3.000000] sysrq: Show State\n\
             [    3.100000] task:my prog         state:D stack:0     pid:7     tgid:7     ppid:1      flags:0x00000002\n\
             [    3.100000] Call Trace:\n\
             [    3.100000]  <TASK>\n\
             [    3.100000]  __schedule+0x3a6/0xbd2\n\
             [    3.100000]  ? nothing+0x1/0x2\n\
             [    3.100000]  schedule+0x24/0xd4\n\
             [    3.100000] task:sh state:R  running task     stack:0     pid:8     tgid:8     ppid:7      flags:0x0\n\
             [    3.200000] Showing busy workqueues and worker pools:\n\
             [    3.200000]  other+0x1/0x2\n",
        );
        let [first, second] = &stacks.tasks[..] else { panic!("{stacks:?}") };
        assert_eq!((first.name.as_str(), first.pid, first.state), ("my prog", 7, 'D'));
        assert_eq!(names(&first.frames), ["__schedule", "schedule"]);
        assert_eq!((second.state, second.frames.len()), ('R', 0));
        assert_eq!(stacks.descendants(1).len(), 2);
        assert_eq!(stacks.descendants(7)[0].pid, 8);
    }

    #[test]
    fn an_interrupt_is_left_out_and_what_is_behind_it_is_what_the_processor_did() {
        let stacks = Stacks::parse(
            "[    2.500000] NMI backtrace for cpu 0\n\
             [    2.500000] CPU: 0 UID: 0 PID: 112 Comm: my prog Not tainted 6.12 #1\n\
             [    2.500000] Call Trace:\n\
             [    2.500000] [<ffffffff80007020>] dump_backtrace+0x28/0x30\n\
             [    2.500000] [<ffffffff806f7d62>] sysrq_handle_showallcpus+0x22/0x2a\n\
             [    2.500000] [<ffffffff80007020>] handle_exception+0x14a/0x156\n\
             [    2.500000] [<ffffffff80007020>] vfs_write+0xaa/0x3ba\n\
             [    2.500000] NMI backtrace for cpu 1 skipped: idling at native_halt+0x9/0x10\n\
             [    2.500000] NMI backtrace for cpu 2\n\
             [    2.500000] CPU: 2 UID: 0 PID: 9 Comm: sh Tainted: G\n\
             [    2.500000]  dump_stack_lvl+0x5d/0x80\n\
             [    2.500000]  asm_common_interrupt+0x26/0x40\n\
             [    2.500000] RIP: 0033:0x4ae3f7\n\
             [    2.500000] sysrq: Show Blocked State\n",
        );
        let [kernel, idle, user] = &stacks.processors[..] else { panic!("{stacks:?}") };
        assert_eq!(kernel.task, Some(("my prog".into(), 112)));
        assert_eq!((names(&kernel.frames), kernel.in_user_space), (vec!["vfs_write"], false));
        assert!(idle.idle && !user.idle && user.in_user_space, "{stacks:?}");
    }

    #[test]
    fn bytes_that_are_none_of_it_are_nothing() {
        for text in
            ["", "task:", "task: state:", "task:x state:S", "NMI backtrace for cpu x", "CPU:"]
        {
            assert_eq!(Stacks::parse(text), Stacks::default(), "{text}");
        }
    }
}
