//! Which function a report is about.
//!
//! The innermost function of a trace is often the messenger: the code that prints reports, a lock, an
//! allocator, a copy. The one to name is the first that does something of its own. When code does not
//! come to an end, it is where the kernel entered a subsystem: what is deeper differs from run to run.

use std::sync::LazyLock;

use super::frame::{Frame, Role};
use super::kind::Kind;
use super::splat::Trace;

/// What the functions' names say, from `functions.txt`.
struct Names {
    reporting: Vec<&'static str>,
    primitives: Vec<&'static str>,
    waiting: Vec<&'static str>,
    hanging: Vec<&'static str>,
    dispatchers: Vec<&'static str>,
    tick: Vec<&'static str>,
    idle: Vec<&'static str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let text = include_str!("functions.txt");
    let section = |name: &str| -> Vec<&'static str> {
        let title = format!("[{name}]");
        let lines = text.lines().skip_while(|line| *line != title).skip(1);
        lines
            .take_while(|line| !line.starts_with('['))
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_ascii_whitespace)
            .collect()
    };
    Names {
        reporting: section("reporting"),
        primitives: section("primitives"),
        waiting: section("waiting"),
        hanging: section("hanging"),
        dispatchers: section("dispatchers"),
        tick: section("tick"),
        idle: section("idle"),
    }
});

fn matches(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.split_once('*') {
        None => *pattern == name,
        Some((start, "")) => name.starts_with(start),
        Some((start, rest)) => {
            let Some(behind) = name.strip_prefix(start) else { return false };
            match rest.strip_suffix('*') {
                Some(middle) => behind.contains(middle),
                None => behind.ends_with(rest),
            }
        }
    })
}

/// Whether a function's name says nothing about a report's reason.
pub(super) fn is_generic(name: &str) -> bool {
    matches(name, &NAMES.reporting) || matches(name, &NAMES.primitives)
}

/// What a report's parts say about the function to blame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    /// What the report is about.
    pub(super) kind: Kind,
    /// The function that the report's own words name.
    pub(super) named: Option<&'a str>,
    /// Its traces in the order of the log.
    pub(super) traces: &'a [Trace],
}

/// The function that a report is about, if its parts tell.
pub(super) fn blame(evidence: Evidence<'_>) -> Option<String> {
    // Traces of the report itself before those that it quotes: who freed it, who holds the lock.
    let mut traces: Vec<&Trace> = evidence.traces.iter().collect();
    traces.sort_by_key(|trace| !is_own(&trace.title));
    let waits = |name: &str| is_generic(name) || matches(name, &NAMES.waiting);
    let found = match evidence.kind {
        Kind::HungTask => first(&traces, &|name| waits(name) || matches(name, &NAMES.hanging)),
        Kind::SoftLockup | Kind::RcuStall | Kind::HardLockup | Kind::WorkqueueStall => {
            entered(&traces)
        }
        // What is innermost when a stack is full is chance.
        Kind::StackOverflow => entered(&traces),
        Kind::Panic if evidence.named.is_none() => entered(&traces),
        Kind::AtomicSleep => first(&traces, &waits),
        Kind::Leak => first(&traces, &|name| is_generic(name) || name.contains("alloc")),
        _ => caused(&traces, evidence.named),
    };
    let found = found.or_else(|| evidence.named.map(str::to_owned));
    // A generic name is better than none.
    let found = found.or_else(|| {
        let hangs = evidence.kind.is_hang();
        first(&traces, &|_| hangs)
    });
    found.map(|name| readable_call(&name))
}

/// Titles of traces that show the code that was running.
fn is_own(title: &str) -> bool {
    let title = title.to_ascii_lowercase();
    ["", "call trace", "stack backtrace", "backtrace"].contains(&title.as_str())
        || title.starts_with("backtrace")
}

/// The named function if it is not generic, else who called it.
fn caused(traces: &[&Trace], named: Option<&str>) -> Option<String> {
    if let Some(name) = named {
        if !is_generic(name) {
            return Some(name.to_owned());
        }
        // From where it stands in a trace outwards.
        for trace in traces {
            let is_it = |frame: &Frame| frame.role != Role::Guess && frame.function == name;
            let at = trace.frames.iter().position(is_it);
            if let Some(at) = at
                && let Some(found) = first_of(&trace.frames[at..], &is_generic)
            {
                return Some(found);
            }
        }
    }
    first(traces, &is_generic)
}

/// The first function of the first trace with one that does not belong to `skipped`.
fn first(traces: &[&Trace], skipped: &dyn Fn(&str) -> bool) -> Option<String> {
    traces.iter().find_map(|trace| first_of(&trace.frames, skipped))
}

fn first_of(frames: &[Frame], skipped: &dyn Fn(&str) -> bool) -> Option<String> {
    let sure = frames.iter().filter(|frame| matches!(frame.role, Role::Call | Role::Instruction));
    let any = frames.iter().filter(|frame| frame.role == Role::Guess);
    sure.chain(any).map(|frame| &frame.function).find(|name| !skipped(name)).cloned()
}

/// Where a processor entered the code that does not end.
fn entered(traces: &[&Trace]) -> Option<String> {
    let mut fallback = None;
    for trace in traces {
        let sure = trace.frames.iter().filter(|frame| frame.role != Role::Guess);
        let names: Vec<&str> = sure
            .map(|frame| frame.function.as_str())
            .filter(|name| !matches(name, &NAMES.reporting))
            .collect();
        // The tick that noticed it lies on top; without one, the trace is the code itself.
        let top = names.iter().position(|name| !matches(name, &NAMES.tick)).unwrap_or(names.len());
        let names = &names[top..];
        let says = |name: &&&str| !is_generic(name) && !matches(name, &NAMES.waiting);
        let own = names.iter().find(says);
        if own.is_some_and(|name| matches(name, &NAMES.idle)) {
            continue;
        }
        // A processor that waits for another one is not at fault.
        if own.is_some_and(|name| name.starts_with("smp_call_function")) {
            return Some("smp_call_function".to_owned());
        }
        let mut inside = None;
        for name in names {
            match (matches(name, &NAMES.dispatchers), inside.take()) {
                (true, Some(inside)) => return Some(inside),
                (true, None) => {}
                (false, last) if matches(name, &NAMES.tick) => inside = last,
                (false, _) => inside = Some((*name).to_owned()),
            }
        }
        fallback = fallback.or_else(|| own.map(|name| (*name).to_owned()));
    }
    fallback
}

/// A system call has one name on all architectures: `sys_mount` for `__x64_sys_mount`, `SyS_mount`, ….
fn readable_call(name: &str) -> String {
    const WRAPPERS: [&str; 13] = [
        "__x64_sys_",
        "__ia32_sys_",
        "__arm64_sys_",
        "__riscv_sys_",
        "__se_sys_",
        "__do_sys_",
        "__x32_sys_",
        "SyS_",
        "SYSC_",
        "compat_SyS_",
        "__ia32_compat_sys_",
        "__se_compat_sys_",
        "ksys_",
    ];
    match WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        Some(call) => format!("sys_{call}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    fn trace(functions: &[&str]) -> Vec<Trace> {
        let frames = functions.iter().filter_map(|name| frame::parse(&format!(" {name}+0x1/0x2")));
        vec![Trace { title: "Call Trace".into(), frames: frames.collect() }]
    }

    fn blamed(kind: Kind, named: Option<&str>, functions: &[&str]) -> Option<String> {
        blame(Evidence { kind, named, traces: &trace(functions) })
    }

    #[test]
    fn messengers_are_passed_over() {
        let functions = ["dump_stack", "kasan_report", "memcpy", "mine", "yours"];
        assert_eq!(blamed(Kind::Kasan, Some("memcpy"), &functions).unwrap(), "mine");
        assert_eq!(blamed(Kind::Kasan, None, &functions).unwrap(), "mine");
        assert_eq!(blamed(Kind::Kasan, Some("yours"), &functions).unwrap(), "yours");
    }

    #[test]
    fn a_generic_name_is_better_than_none() {
        assert_eq!(blamed(Kind::Kasan, Some("memcpy"), &[]).unwrap(), "memcpy");
        assert_eq!(blamed(Kind::Kasan, None, &[]), None);
    }

    #[test]
    fn a_hung_task_is_named_after_the_code_that_waits() {
        let functions = ["__schedule", "schedule", "mutex_lock", "my_open", "do_sys_open"];
        assert_eq!(blamed(Kind::HungTask, None, &functions).unwrap(), "my_open");
    }

    #[test]
    fn endless_code_is_named_after_its_entrance() {
        let functions = [
            "dump_stack",
            "tick_sched_timer",
            "apic_timer_interrupt",
            "deep",
            "my_write",
            "vfs_write",
            "do_syscall_64",
        ];
        assert_eq!(blamed(Kind::RcuStall, None, &functions).unwrap(), "my_write");
        assert_eq!(
            blamed(Kind::SoftLockup, None, &["deep", "__x64_sys_mount", "do_syscall_64"]).unwrap(),
            "sys_mount"
        );
        assert_eq!(blamed(Kind::RcuStall, None, &["schedule_timeout", "rcu_gp_kthread"]), None);
    }

    #[test]
    fn stars_stand_for_any_text() {
        assert!(matches("copy_from_user", &["copy_*_user*"]));
        assert!(matches("abc", &["a*c"]) && !matches("abd", &["a*c"]));
        assert!(matches("abc", &["abc"]) && !matches("abcd", &["abc"]));
        assert!(matches("my_panic", &["*_panic"]));
    }

    #[test]
    fn the_list_of_functions_has_all_sections() {
        let all = [
            &NAMES.reporting,
            &NAMES.primitives,
            &NAMES.waiting,
            &NAMES.hanging,
            &NAMES.dispatchers,
            &NAMES.tick,
            &NAMES.idle,
        ];
        assert!(all.iter().all(|names| names.len() > 3));
        assert!(is_generic("kasan_report") && is_generic("memcpy") && !is_generic("my_write"));
    }
}
