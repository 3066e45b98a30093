//! The lines with which reports begin.
//!
//! A pattern is bound to the line's beginning: what stands in the middle of a line is often said by a
//! program, or quoted. Some messages have their subsystem before them (`rcu: INFO: …`).

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet};

use super::frame;
use super::kind::Kind;
use super::patterns::{PATTERNS, Pattern};

use super::title;

pub use super::patterns::Certainty;

/// A line that begins a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the report is about.
    pub kind: Kind,
    /// The title's first part: the same in every run.
    pub what: String,
    /// The function that the line names.
    pub function: Option<String>,
    /// A second one, of data races.
    pub other: Option<String>,
    /// How sure it is.
    pub certainty: Certainty,
}

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS.iter().map(expression))
        .expect("the patterns are valid: a test compiles them")
});

static REGEXES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    PATTERNS
        .iter()
        .map(|pattern| Regex::new(&expression(pattern)))
        .collect::<Result<_, _>>()
        .expect("the patterns are valid: a test compiles them")
});

/// Messages of the kernel are ASCII; classes of Unicode would cost megabytes.
fn expression(pattern: &Pattern) -> String {
    format!("(?-u)^(?:{})", pattern.regex)
}

/// Words of which every head has one: most lines need no look at the patterns.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        "(?-u)BUG|WARNING: |INFO:|UBSAN: |nable to handle |Oops|fault|kernel tried|: [0-9a-f]{4,8} \\[#|\
         refcount_t: |ernel bug|nternal error|overflow|Insufficient stack|Unhandled |Alignment trap|\
         Bad mode|sercopy|ernel memory |list_add|list_del|plist_|panicked at|LOCKUP|CSD lock|\
         rcu_tasks|page allocation|oom-killer|unreferenced object|unregister_netdevice|\
         VFS: |Kernel panic|Watchdog CPU",
    )
    .expect("the pattern is valid: a test compiles it")
});

/// What report begins with this message, if one does.
pub fn recognise(message: &str) -> Option<Head> {
    let message = message.trim_start();
    if !WORDS.is_match(message.as_bytes()) {
        return None;
    }
    // As it is, then without the subsystems that say who is speaking.
    std::iter::successors(Some(message), |message| without_subsystem(message))
        .take(3)
        .find_map(head)
}

/// `rcu: INFO: …` without `rcu: `.
fn without_subsystem(message: &str) -> Option<&str> {
    let (subsystem, rest) = message.split_once(": ")?;
    let is_name = subsystem.len() <= 24
        && subsystem.starts_with(|c: char| c.is_ascii_alphabetic())
        && subsystem.bytes().all(|b| b.is_ascii_alphanumeric() || b"_ -.".contains(&b));
    is_name.then(|| rest.trim_start())
}

fn head(message: &str) -> Option<Head> {
    let index = SET.matches(message.as_bytes()).iter().next()?;
    let pattern = &PATTERNS[index];
    let groups = REGEXES[index].captures(message.as_bytes())?;
    let group = |name| groups.name(name).map(|found| String::from_utf8_lossy(found.as_bytes()));
    let what = group("what").unwrap_or_default();
    let mut what = match pattern.kind {
        // The number in a cache's name is its objects' size.
        Kind::SlabCorruption => what.chars().take(64).collect(),
        _ => title::normalise(&what),
    };
    if pattern.kind == Kind::Panic {
        what = panic_reason(&what);
    }
    let mut title = pattern.title.replace("{}", &what);
    if let Some(second) = group("what2") {
        title = title.replace("{what2}", &title::normalise(&second));
    }
    let place = |name| group(name).and_then(|text| frame::place(&text)).map(|place| place.function);
    Some(Head {
        kind: pattern.kind,
        what: title.trim_end_matches([':', ' ']).to_owned(),
        function: place("at").or_else(|| corrupted_in(pattern.kind, message)),
        other: place("other"),
        certainty: pattern.certainty,
    })
}

/// A panic's reason without what differs from run to run.
fn panic_reason(what: &str) -> String {
    let what = what.trim_end_matches([' ', '.']);
    for (start, reason) in [
        ("stack-protector: Kernel stack is corrupted", "stack is corrupted"),
        ("corrupted stack end detected", "corrupted stack end"),
        ("Attempted to kill init", "Attempted to kill init"),
        ("Attempted to kill the idle task", "Attempted to kill the idle task"),
        ("VFS: Unable to mount root fs", "VFS: Unable to mount root fs"),
        ("Out of memory", "Out of memory"),
    ] {
        if what.starts_with(start) {
            return reason.to_owned();
        }
    }
    what.to_owned()
}

/// `stack-protector: Kernel stack is corrupted in: f+0x1/0x2`.
fn corrupted_in(kind: Kind, message: &str) -> Option<String> {
    let (_, place) = message.split_once("Kernel stack is corrupted in: ")?;
    (kind == Kind::Panic).then(|| frame::place(place)).flatten().map(|place| place.function)
}

/// Whether a panic's reason says that something else, reported before, led to it.
pub fn is_consequence(message: &str) -> bool {
    let Some((_, reason)) = message.split_once("Kernel panic - not syncing") else { return false };
    const REASONS: [&str; 16] = [
        "panic_on_warn",
        "Fatal exception",
        "hung_task: blocked tasks",
        "softlockup: hung tasks",
        "Hard LOCKUP",
        "hard LOCKUP",
        "RCU Stall",
        "panic_on_",
        "kasan.fault",
        "kfence.fault",
        "Fatal hardware error",
        "Machine halted",
        "Attempted to kill the idle task",
        "Aiee, killing interrupt handler",
        "System is deadlocked",
        "workqueue",
    ];
    REASONS.iter().any(|known| reason.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First lines, and the kind, title and function they give.
    const CASES: &[(&str, Kind, &str, Option<&str>)] = &[
        (
            "BUG: KASAN: slab-out-of-bounds in foo+0x1/0x2",
            Kind::Kasan,
            "KASAN: slab-out-of-bounds",
            Some("foo"),
        ),
        (
            "BUG: KASAN: double-free or invalid-free in foo+0x1/0x2",
            Kind::Kasan,
            "KASAN: invalid-free",
            Some("foo"),
        ),
        ("BUG: KASAN: null-ptr-deref on address 0", Kind::Kasan, "KASAN: null-ptr-deref", None),
        (
            "BUG: KCSAN: data-race in a+0x1/0x2 / b+0x3/0x4",
            Kind::Kcsan,
            "KCSAN: data-race",
            Some("a"),
        ),
        (
            "BUG: KMSAN: uninit-value in foo+0x1/0x2",
            Kind::Kmsan,
            "KMSAN: uninit-value",
            Some("foo"),
        ),
        (
            "BUG: KFENCE: use-after-free read in foo+0x1/0x2",
            Kind::Kfence,
            "KFENCE: use-after-free read",
            Some("foo"),
        ),
        (
            "UBSAN: shift-out-of-bounds in lib/a.c:12:3",
            Kind::Ubsan,
            "UBSAN: shift-out-of-bounds",
            None,
        ),
        (
            "WARNING: CPU: 0 PID: 1 at lib/a.c:12 foo+0x1/0x2 [mod]",
            Kind::Warning,
            "WARNING",
            Some("foo"),
        ),
        (
            "WARNING: lib/a.c:12 at foo+0x1/0x2, CPU#0: init/1",
            Kind::Warning,
            "WARNING",
            Some("foo"),
        ),
        ("kernel BUG at mm/a.c:12!", Kind::Bug, "kernel BUG", None),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            Kind::NullPointer,
            "NULL pointer dereference",
            None,
        ),
        (
            "BUG: unable to handle page fault for address: ffffffffffffffd8",
            Kind::PageFault,
            "page fault",
            None,
        ),
        (
            "Oops: general protection fault, probably for non-canonical address 0xd: 0000 [#1] SMP",
            Kind::ProtectionFault,
            "general protection fault",
            None,
        ),
        ("divide error: 0000 [#1] PREEMPT SMP", Kind::Exception, "divide error", None),
        ("traps: PANIC: double fault, error_code: 0x0", Kind::DoubleFault, "double fault", None),
        (
            "WARNING: possible circular locking dependency detected",
            Kind::Deadlock,
            "possible deadlock",
            None,
        ),
        (
            "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
            Kind::Deadlock,
            "possible deadlock",
            None,
        ),
        ("[ BUG: Invalid wait context ]", Kind::Locking, "invalid wait context", None),
        (
            "BUG: using smp_processor_id() in preemptible [00000000] code: init/1",
            Kind::Locking,
            "using smp_processor_id() in preemptible code",
            None,
        ),
        ("BUG: spinlock bad magic on CPU#0, init/1", Kind::Locking, "spinlock bad magic", None),
        (
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [init:1]",
            Kind::SoftLockup,
            "soft lockup",
            None,
        ),
        ("watchdog: Watchdog detected hard LOCKUP on cpu 0", Kind::HardLockup, "hard lockup", None),
        (
            "watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1",
            Kind::HardLockup,
            "hard lockup",
            None,
        ),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", Kind::RcuStall, "RCU stall", None),
        (
            "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }",
            Kind::RcuStall,
            "RCU stall",
            None,
        ),
        (
            "INFO: task kworker/0:1:12 blocked for more than 120 seconds.",
            Kind::HungTask,
            "hung task",
            None,
        ),
        (
            "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 32s!",
            Kind::WorkqueueStall,
            "workqueue lockup",
            None,
        ),
        ("BUG: Bad page state in process init  pfn:12345", Kind::BadPage, "Bad page state", None),
        (
            "BUG kmalloc-64 (Not tainted): Poison overwritten",
            Kind::SlabCorruption,
            "slab kmalloc-64: Poison overwritten",
            None,
        ),
        (
            "init: page allocation failure: order:4, mode:0x40dc0",
            Kind::PageAllocation,
            "page allocation failure",
            None,
        ),
        ("unreferenced object 0xffff888012345678 (size 64):", Kind::Leak, "memory leak", None),
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
            Kind::Panic,
            "kernel panic: Attempted to kill init",
            None,
        ),
        (
            "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: foo+0x1/0x2",
            Kind::Panic,
            "kernel panic: stack is corrupted",
            Some("foo"),
        ),
        (
            "refcount_t: underflow; use-after-free.",
            Kind::Refcount,
            "refcount: underflow; use-after-free",
            None,
        ),
        (
            "list_add corruption. next->prev should be prev (ffff), but was 0.",
            Kind::ListCorruption,
            "list corruption",
            None,
        ),
        (
            "BUG: something new 12 at 0xffff1234",
            Kind::OtherBug,
            "BUG: something new NUM at ADDR",
            None,
        ),
    ];

    fn head(message: &str) -> (Kind, String, Option<String>) {
        let head = recognise(message).unwrap_or_else(|| panic!("not recognised: {message}"));
        (head.kind, head.what, head.function)
    }

    #[test]
    fn each_kind_of_head_is_recognised() {
        for &(message, kind, what, function) in CASES {
            assert_eq!(
                head(message),
                (kind, what.to_owned(), function.map(str::to_owned)),
                "{message}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_a_head_is_none() {
        for message in [
            "traps: app[12] general protection fault ip:7f sp:7f error:0 in app[40+1]",
            "DEBUG: all is well",
            "fuse: Unknown parameter 'BUG: KASAN: x in y'",
            "audit: text=\"Kernel panic - not syncing\"",
            "app[12]: segfault at 0 ip 0 sp 0 error 4",
        ] {
            assert_eq!(recognise(message), None, "{message}");
        }
    }

    #[test]
    fn panics_that_follow_are_told_from_those_that_stand_alone() {
        assert!(is_consequence("Kernel panic - not syncing: Fatal exception in interrupt"));
        assert!(is_consequence("Kernel panic - not syncing: kernel: panic_on_warn set ..."));
        assert!(!is_consequence("Kernel panic - not syncing: Attempted to kill init!"));
        assert!(!is_consequence("no panic"));
    }
}
