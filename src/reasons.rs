//! Why a run failed, where that can be told from what it left behind: memory, a full file system, an init
//! that died. Each comes with what helps.

use serde::Serialize;

use crate::vm::Verdict;

/// What "full" is called on stderr, by the C libraries' `strerror(ENOSPC)`.
const FULL: &str = "No space left on device";

/// What the kernel says of a process that it kills for its memory (`mm/oom_kill.c`).
const KILLED: &[u8] = b"ut of memory: Killed process ";

/// A reason, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What happened.
    pub text: String,
    /// What helps, if something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What a run left behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traces<'a> {
    pub(crate) verdict: &'a Verdict,
    /// The console.
    pub(crate) console: &'a [u8],
    /// The command's last lines on stderr.
    pub(crate) stderr: &'a [String],
    /// The guest's memory.
    pub(crate) memory_bytes: u64,
    /// Process 1 is vmtest's.
    pub(crate) has_agent: bool,
}

/// The reasons that show in what a run left behind; none for one that passed.
pub(crate) fn of(traces: Traces<'_>) -> Vec<Reason> {
    if traces.verdict.passed() {
        return Vec::new();
    }
    let more = format!("--memory {}", doubled(traces.memory_bytes));
    let mut reasons: Vec<Reason> = traces
        .console
        .split(|byte| *byte == b'\n')
        .filter(|line| line.windows(KILLED.len()).any(|part| part == KILLED))
        .filter_map(|line| out_of_memory(&String::from_utf8_lossy(line), &more))
        .take(3)
        .collect();
    reasons.dedup();
    match traces.verdict {
        Verdict::Panicked { text } => reasons.extend(panicked(text, &more, traces.has_agent)),
        Verdict::QemuDied { status, .. } if status == "killed by signal 9" => {
            reasons.push(Reason {
                text: "something on the host killed QEMU: an out-of-memory killer does that".into(),
                fix: Some(
                    "`dmesg` or the container's limits say so; --memory takes less of the host"
                        .into(),
                ),
            });
        }
        _ => {}
    }
    let refused = match traces.verdict {
        Verdict::CouldNotStart { error, .. } | Verdict::NotStarted { error, .. } => {
            error.contains(FULL)
        }
        _ => false,
    };
    if refused || traces.stderr.iter().any(|line| line.contains(FULL)) {
        reasons.push(Reason {
            text: "something in the guest is full: its root file system is in memory, and may take half \
                   of that"
                .into(),
            fix: Some(format!("{more}; or write to a --share")),
        });
    }
    reasons
}

/// `Out of memory: Killed process 117 (tail) total-vm:…`
fn out_of_memory(line: &str, more: &str) -> Option<Reason> {
    let (_, rest) = line.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    let (name, _) = rest.split_once(')')?;
    if line.contains("cgroup out of memory") {
        let text = format!("the kernel killed `{name}` ({pid}): a memory cgroup was at its limit");
        return Some(Reason { text, fix: Some("raise the cgroup's memory.max".into()) });
    }
    let text = format!("the guest was out of memory, and its kernel killed `{name}` ({pid})");
    Some(Reason { text, fix: Some(more.to_owned()) })
}

fn panicked(text: &str, more: &str, has_agent: bool) -> Option<Reason> {
    let reason = |text: String, fix: Option<String>| Some(Reason { text, fix });
    if let Some((_, rest)) = text.split_once("Attempted to kill init! exitcode=0x") {
        let code = u32::from_str_radix(rest.get(..8)?, 16).ok()?;
        let how = match (code & 0x7f, (code >> 8) & 0xff) {
            (0, status) => format!("ended with status {status}"),
            (signal, _) => format!("was killed by signal {signal}"),
        };
        let who = if has_agent { "process 1, vmtest's agent," } else { "the guest's init" };
        let fix = match (has_agent, code & 0x7f) {
            (true, _) => {
                "the console says why in a line that begins with `init failed`, if it could"
            }
            (false, 0) => {
                "an init must not end: `exec` a program that stays, or `poweroff -f` at its end"
            }
            (false, _) => "the console's lines above the panic say what it did",
        };
        return reason(
            format!("{who} {how}, and Linux does not go on without it"),
            Some(fix.into()),
        );
    }
    if text.contains("deadlocked on memory") || text.contains("Out of memory") {
        return reason("the guest was out of memory".into(), Some(more.to_owned()));
    }
    if text.contains("No working init found") || text.contains("Requested init ") {
        let fix = "`vmtest initramfs ls FILE` shows what is in an image; it is `/init`, executable, and of \
                   the guest's architecture";
        return reason("the image has no program that can be init".into(), Some(fix.into()));
    }
    if text.contains("Unable to mount root fs") {
        let fix = format!(
            "the kernel needs CONFIG_BLK_DEV_INITRD and the image's compression (`vmtest kernel check`), \
             and memory to unpack it: {more}"
        );
        return reason("the kernel could not use the image".into(), Some(fix));
    }
    None
}

/// Twice as much, as `--memory` takes it.
fn doubled(bytes: u64) -> String {
    let mib = (bytes >> 20).max(1) * 2;
    if mib.is_multiple_of(1024) { format!("{}G", mib >> 10) } else { format!("{mib}M") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmtest_guest::proto::ExitStatus;

    fn reasons(verdict: &Verdict, console: &str, stderr: &[&str], has_agent: bool) -> Vec<Reason> {
        let stderr: Vec<String> = stderr.iter().map(|line| (*line).to_owned()).collect();
        let memory_bytes = 512 << 20;
        let console = console.as_bytes();
        of(Traces { verdict, console, stderr: &stderr, memory_bytes, has_agent })
    }

    const OOM: &str = "[    5.000001] tail invoked oom-killer: gfp_mask=0x140dca, order=0, oom_score_adj=0\n\
        [    5.000002] Call Trace:\n[    5.000003]  out_of_memory+0x219/0x4b0\n\
        [    5.000004] Out of memory: Killed process 117 (tail) total-vm:480000kB, anon-rss:420000kB\n";

    #[test]
    fn what_died_for_its_memory_is_named_with_what_helps() {
        let killed = Verdict::Exited(ExitStatus::Signal(9));
        let [reason] = &reasons(&killed, OOM, &[], true)[..] else { panic!() };
        assert_eq!(reason.text, "the guest was out of memory, and its kernel killed `tail` (117)");
        assert_eq!(reason.fix.as_deref(), Some("--memory 1G"));
        assert!(reasons(&Verdict::Exited(ExitStatus::Code(0)), OOM, &[], true).is_empty());
        let cgroup = OOM.replace("Out of memory:", "Memory cgroup out of memory:");
        assert!(reasons(&killed, &cgroup, &[], true)[0].text.contains("a memory cgroup"));
    }

    #[test]
    fn a_full_root_and_a_dead_init_are_named() {
        let failed = Verdict::Exited(ExitStatus::Code(1));
        let full = reasons(&failed, "", &["dd: write error: No space left on device"], true);
        assert!(full[0].text.contains("is full") && full[0].fix.as_ref().unwrap().contains("1G"));
        let dead = |code: &str| Verdict::Panicked {
            text: format!("Kernel panic - not syncing: Attempted to kill init! exitcode=0x{code}"),
        };
        let told = |code: &str, agent| reasons(&dead(code), "", &[], agent)[0].text.clone();
        assert!(told("00000300", false).starts_with("the guest's init ended with status 3"));
        assert!(told("0000000b", true).contains("vmtest's agent, was killed by signal 11"));
        assert!(reasons(&dead("zz"), "", &[], true).is_empty());
    }

    #[test]
    fn memory_is_suggested_as_the_option_takes_it() {
        assert_eq!(
            (doubled(512 << 20), doubled(300 << 20), doubled(0)),
            ("1G".into(), "600M".into(), "2M".into())
        );
    }
}
