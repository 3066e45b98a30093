//! The table of the first lines of reports.

use super::kind::Kind;

/// How sure a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Only the kernel says this.
    Certain,
    /// Programs say such things, too: it counts when the line is known to be the kernel's.
    IfKernel,
    /// A report's later line: it begins one only if none is open.
    Inner,
}

/// What a first line looks like, and what it means.
pub(super) struct Pattern {
    pub(super) kind: Kind,
    pub(super) certainty: Certainty,
    /// The title. `{}` is the group `what`, normalised.
    pub(super) title: &'static str,
    /// Groups: `what` goes into the title, `at` is a place, `other` a second one.
    pub(super) regex: &'static str,
}

const fn certain(kind: Kind, title: &'static str, regex: &'static str) -> Pattern {
    Pattern { kind, certainty: Certainty::Certain, title, regex }
}

const fn if_kernel(kind: Kind, title: &'static str, regex: &'static str) -> Pattern {
    Pattern { kind, certainty: Certainty::IfKernel, title, regex }
}

const fn inner(kind: Kind, title: &'static str, regex: &'static str) -> Pattern {
    Pattern { kind, certainty: Certainty::Inner, title, regex }
}

/// The first that fits counts: special ones stand before general ones.
pub(super) const PATTERNS: &[Pattern] = &[
    // Sanitizers.
    certain(
        Kind::Kasan,
        "KASAN: invalid-free",
        r"BUG: KASAN: (?:double-free or )?(?:invalid|double)-free(?: in (?P<at>.*))?",
    ),
    certain(
        Kind::Kasan,
        "KASAN: {}",
        r"BUG: KASAN: (?P<what>[\w-]+)(?: in (?P<at>.*)| on address .*)?",
    ),
    certain(Kind::Kasan, "KASAN: {}", r"BUG: KASAN: (?P<what>.+)"),
    certain(
        Kind::Kcsan,
        "KCSAN: {}",
        r"BUG: KCSAN: (?P<what>[\w: -]+?) in (?P<at>[^/]+/?[^/]*?)(?: / (?P<other>.*))?$",
    ),
    certain(Kind::Kmsan, "KMSAN: {}", r"BUG: KMSAN: (?P<what>[\w -]+?) in (?P<at>.*)"),
    certain(Kind::Kfence, "KFENCE: {}", r"BUG: KFENCE: (?P<what>[\w -]+?) in (?P<at>.*)"),
    certain(Kind::Ubsan, "UBSAN: {}", r"UBSAN: (?P<what>[\w -]+?)(?: in |$)"),
    // Assertions.
    certain(
        Kind::Refcount,
        "refcount warning",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?(?:at )?lib/refcount\.c:\d+ (?:at )?(?P<at>\S+)",
    ),
    certain(
        Kind::ListCorruption,
        "list corruption",
        r"(?:kernel BUG at |WARNING: (?:CPU: \d+ PID: \d+ )?(?:at )?)lib/list_debug\.c:\d+",
    ),
    certain(
        Kind::Warning,
        "WARNING",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at (?P<src>\S+:\d+)(?: (?P<at>.*))?$",
    ),
    certain(Kind::Warning, "WARNING", r"WARNING: (?P<src>\S+:\d+) at (?P<at>\S+), CPU#\d+"),
    certain(Kind::Bug, "kernel BUG", r"(?:kernel|Kernel) BUG at (?:\S+:\d+!?|(?P<at>.*))"),
    certain(Kind::Bug, "kernel BUG", r"Kernel bug detected\[#\d+\]"),
    certain(Kind::Refcount, "refcount: {}", r"refcount_t: (?P<what>[\w;, +-]+)"),
    // Exceptions.
    certain(
        Kind::NullPointer,
        "NULL pointer dereference",
        r"BUG: (?:unable|Unable) to handle kernel NULL pointer dereference",
    ),
    certain(
        Kind::NullPointer,
        "NULL pointer dereference",
        r"BUG: [Kk]ernel NULL pointer dereference",
    ),
    certain(
        Kind::NullPointer,
        "NULL pointer dereference",
        r"Unable to handle kernel NULL pointer dereference",
    ),
    certain(
        Kind::PageFault,
        "page fault",
        r"BUG: (?:unable|Unable) to handle (?:kernel )?(?:paging request|page fault|data access|instruction fetch)",
    ),
    certain(
        Kind::PageFault,
        "page fault",
        r"Unable to handle kernel (?:paging request|execut|read from unreadable|write to read-only|unknown|NULL|pointer dereference)",
    ),
    certain(
        Kind::PageFault,
        "access to user memory",
        r"Unable to handle kernel access to user memory",
    ),
    certain(Kind::PageFault, "page fault", r"BUG: (?:unable|Unable) to handle kernel"),
    inner(Kind::PageFault, "page fault", r"kernel tried to execute (?:NX-protected|user)"),
    certain(
        Kind::ProtectionFault,
        "general protection fault",
        r"(?:Oops: )?(?:segment-related )?general protection fault(?:, | for |: [0-9a-f]{4,8} \[#|: maybe)",
    ),
    certain(
        Kind::Exception,
        "{}",
        r"(?:Oops: )?(?P<what>stack segment|divide[ _]error|invalid[ _]opcode|int3|bounds|overflow|segment not present|invalid TSS|alignment check|coprocessor error|control protection fault|simd exception|debug): [0-9a-f]{4,8} \[#",
    ),
    certain(
        Kind::DoubleFault,
        "double fault",
        r"(?:PANIC: )?double fault(?:,|: [0-9a-f]{4,8} \[#)",
    ),
    certain(
        Kind::StackOverflow,
        "kernel stack overflow",
        r"BUG: (?:TASK |IRQ |NMI |DF |#VC2? ?)?stack guard page was hit",
    ),
    certain(
        Kind::StackOverflow,
        "kernel stack overflow",
        r"(?:kernel stack overflow|Insufficient stack space to handle exception|Kernel stack overflow|BUG: stack overflow)",
    ),
    certain(Kind::Exception, "unhandled fault", r"Unhandled (?:prefetch abort|fault)(?:: | at)"),
    certain(Kind::Exception, "alignment trap", r"Alignment trap: not handling instruction"),
    certain(Kind::Exception, "bad mode", r"Bad mode in .* (?:handler|abort)"),
    certain(Kind::Exception, "unaligned access", r"Unhandled kernel unaligned access"),
    inner(Kind::Exception, "internal error", r"Internal error: .*\[#\d+\]"),
    inner(Kind::Exception, "oops", r"Oops(?:: | - | \[#).*(?:\[#\d+\]|sig: \d+)"),
    certain(
        Kind::Usercopy,
        "bad usercopy",
        r"(?:usercopy: )?(?:[Kk]ernel memory (?:exposure|overwrite) attempt detected|Bad or missing usercopy whitelist)",
    ),
    certain(
        Kind::ListCorruption,
        "list corruption",
        r"(?:list_add|list_del|list_add_rcu|plist_\w+) (?:corruption|double add)",
    ),
    certain(Kind::RustPanic, "Rust panic: {}", r"rust_kernel: panicked at (?P<what>.*)"),
    // Locks.
    certain(
        Kind::Deadlock,
        "possible deadlock",
        r"(?:\[ )?(?:INFO|WARNING): possible (?:circular locking dependency|recursive locking|irq lock inversion dependency|deadlock)",
    ),
    certain(
        Kind::Deadlock,
        "possible deadlock",
        r"(?:\[ )?(?:INFO|WARNING): \S+-safe -> \S+-unsafe lock order detected",
    ),
    certain(
        Kind::Deadlock,
        "inconsistent lock state",
        r"(?:\[ )?(?:INFO|WARNING): inconsistent lock state",
    ),
    certain(
        Kind::Locking,
        "invalid wait context",
        r"(?:\[ )?(?:BUG|WARNING): Invalid wait context",
    ),
    certain(
        Kind::Locking,
        "bad unlock balance",
        r"(?:\[ )?(?:BUG|WARNING): bad (?:unlock|contention|count) balance detected",
    ),
    certain(
        Kind::Locking,
        "bad unlock balance",
        r"(?:\[ )?(?:BUG|WARNING): bad contention detected",
    ),
    certain(Kind::Locking, "held lock freed", r"(?:\[ )?(?:BUG|WARNING): held lock freed"),
    certain(
        Kind::Locking,
        "lock held when returning to user space",
        r"(?:\[ )?(?:BUG|WARNING): lock held when returning to user space",
    ),
    certain(
        Kind::Locking,
        "locks still held",
        r"(?:\[ )?(?:BUG|WARNING): .{1,64} still has locks held",
    ),
    certain(
        Kind::Locking,
        "nested lock was not taken",
        r"(?:\[ )?(?:BUG|WARNING): Nested lock was not taken",
    ),
    certain(
        Kind::RcuUsage,
        "suspicious RCU usage",
        r"(?:\[ )?(?:INFO|WARNING): suspicious RCU usage",
    ),
    certain(Kind::Locking, "non-static key", r"INFO: trying to register non-static key"),
    certain(
        Kind::Locking,
        "{}",
        r"BUG: (?P<what>(?:spin|rw|raw spin|local_)lock (?:bad magic|lockup suspected|recursion|already unlocked|wrong (?:CPU|owner)|trylock failure\S*|lockup|cpu recursion))",
    ),
    certain(
        Kind::Locking,
        "workqueue leaked lock or atomic",
        r"BUG: workqueue leaked (?:lock|atomic)",
    ),
    certain(
        Kind::Locking,
        "using {} in preemptible code",
        r"BUG: using (?P<what>\w+\(\)) in preemptible",
    ),
    certain(
        Kind::AtomicSleep,
        "sleeping function called from invalid context",
        r"BUG: sleeping function called from invalid context",
    ),
    certain(Kind::AtomicSleep, "scheduling while atomic", r"BUG: scheduling while atomic"),
    // Hangs.
    certain(Kind::SoftLockup, "soft lockup", r"BUG: soft lockup"),
    certain(
        Kind::HardLockup,
        "hard lockup",
        r"Watchdog detected hard LOCKUP|(?:\w+: )?CPU\s?\d+: Watchdog detected hard LOCKUP|Watchdog CPU:\d+ (?:Hard LOCKUP|detected)",
    ),
    certain(
        Kind::RcuStall,
        "RCU stall",
        r"INFO: \w+(?:-\w+)? (?:self-)?detected (?:expedited )?stalls? on (?:CPU|task)",
    ),
    certain(
        Kind::RcuStall,
        "RCU stall",
        r"INFO: \w+ detected expedited stalls|rcu_tasks detected stalls on tasks|INFO: rcu_tasks\w* detected stalls",
    ),
    certain(
        Kind::HungTask,
        "hung task",
        r"INFO: task .{1,64} blocked (?:for more than|in I/O wait|on)",
    ),
    certain(Kind::HungTask, "task cannot die", r"INFO: task .{1,64} can't die for more than"),
    certain(Kind::WorkqueueStall, "workqueue lockup", r"BUG: workqueue lockup"),
    certain(
        Kind::HardLockup,
        "processor does not answer",
        r"(?:csd: )?Detected non-responsive CSD lock",
    ),
    // Memory.
    certain(
        Kind::BadPage,
        "Bad {}",
        r"BUG: Bad (?P<what>page state|page map|rss-counter state|swap file entry|swap offset entry|page cache)",
    ),
    certain(
        Kind::BadPage,
        "page tables of a process that is gone",
        r"BUG: non-zero (?:pgtables_bytes|nr_ptes|nr_pmds)",
    ),
    certain(
        Kind::SlabCorruption,
        "slab {}: {what2}",
        r"BUG (?P<what>[\w.:-]+)\s?\((?:Not tainted|Tainted: [^)]*|[^)]{0,80})\)\s?: (?P<what2>.+)",
    ),
    inner(
        Kind::SlabCorruption,
        "slab corruption",
        r"INFO: (?:Slab|Object) 0x[0-9a-f]+ |INFO: 0x[0-9a-f]+-0x",
    ),
    inner(Kind::SlabCorruption, "slab corruption", r"INFO: (?:Allocated|Freed) in (?P<at>.*)"),
    certain(Kind::SlabCorruption, "slab objects remaining", r"BUG: Objects remaining in"),
    certain(
        Kind::PageAllocation,
        "page allocation failure",
        r"\S.{0,64}: page allocation failure: order:\d+",
    ),
    certain(
        Kind::PageAllocation,
        "page allocation stall",
        r"\S.{0,64}: page allocation stalls for",
    ),
    certain(Kind::OutOfMemory, "out of memory", r"\S.{0,64} invoked oom-killer: "),
    certain(Kind::Leak, "memory leak", r"BUG: memory leak"),
    certain(
        Kind::Leak,
        "memory leak",
        r"unreferenced object (?:\(percpu\) )?0x[0-9a-f]+ \(size \d+\)",
    ),
    certain(
        Kind::StillInUse,
        "network device still in use",
        r"unregister_netdevice: waiting for \S+ to become free",
    ),
    certain(Kind::StillInUse, "dentry still in use", r"BUG: Dentry .* still in use"),
    certain(Kind::StillInUse, "inodes busy after unmount", r"VFS: Busy inodes after unmount"),
    certain(
        Kind::StillInUse,
        "file count is zero at close",
        r"VFS: Close: file count is (?:zero|0)",
    ),
    // The end.
    certain(Kind::Panic, "kernel panic: {}", r"Kernel panic - not syncing(?:: (?P<what>.*))?"),
    // What is left.
    if_kernel(Kind::OtherBug, "BUG: {}", r"BUG: (?P<what>\S.*)"),
    if_kernel(Kind::Warning, "WARNING: {}", r"WARNING: (?P<what>\S.*)"),
    if_kernel(Kind::OtherBug, "INFO cut off", r"INFO:$"),
];
