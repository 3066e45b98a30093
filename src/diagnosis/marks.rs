//! Lines that only reports have.

/// The long-winded description of older kernels in the words of newer ones.
pub(super) fn undefined(text: &str) -> Option<&'static str> {
    const SAYINGS: [(&str, &str); 9] = [
        ("shift exponent", "shift-out-of-bounds"),
        ("left shift of", "shift-out-of-bounds"),
        ("index ", "array-index-out-of-bounds"),
        ("signed integer overflow", "signed-integer-overflow"),
        ("division by zero", "division-overflow"),
        ("division of", "division-overflow"),
        ("load of value", "invalid-load"),
        ("member access within null", "null-ptr-deref"),
        ("member access within misaligned", "misaligned-access"),
    ];
    SAYINGS.iter().find(|(start, _)| text.starts_with(start)).map(|(_, what)| *what)
}

const SECTION_STARTS: &[&str] = &[
    "Call Trace:",
    "Call trace:",
    "Backtrace:",
    "backtrace",
    "stack backtrace:",
    "Allocated by task",
    "Freed by task",
    "Allocated:",
    "Freed:",
    "Allocated by:",
    "Last potentially related work creation",
    "Second to last potentially related work",
    "Uninit was",
    "Local variable",
    "-> #",
    "read to 0x",
    "write to 0x",
    "read-write to 0x",
    "race at unknown origin",
    "NMI backtrace for cpu",
    "value changed:",
    "Unwind:",
    "The buggy address belongs to",
    "page last",
    "page_owner",
    "Showing all locks",
    "RCU grace-period kthread stack dump",
    "Preemption disabled at",
];

/// Lines above frames.
pub(super) fn is_section(text: &str) -> bool {
    let chains = text.starts_with("kfence-#")
        || text.starts_with("read (")
        || text.starts_with("chain originates")
        || text.starts_with("chain origin");
    SECTION_STARTS.iter().any(|start| text.starts_with(start))
        || chains
        || text.ends_with("] Call Trace:")
        || text.starts_with("origin:")
        || text.starts_with("stack trace:")
}

const DETAIL_STARTS: &[&str] = &[
    "CPU: ",
    "PID: ",
    "Hardware name:",
    "Modules linked in:",
    "Code:",
    "code:",
    "RIP: ",
    "RSP: ",
    "EIP: ",
    "RAX: ",
    "RDX: ",
    "RBP: ",
    "R10: ",
    "R13: ",
    "FS: ",
    "CS: ",
    "CR2: ",
    "DR0: ",
    "DR3: ",
    "PGD ",
    "P4D ",
    "PKRU: ",
    "#PF: ",
    "Oops",
    "Internal error",
    "Process ",
    "Stack: ",
    "Exception stack",
    "Mem abort info",
    "Data abort info",
    "ESR = ",
    "pstate: ",
    "sp : ",
    "x29",
    "x2",
    "x1",
    "x0",
    "x8",
    "x5",
    "Read of size",
    "Write of size",
    "Memory state around",
    "The buggy address",
    "page:",
    "page dumped",
    "raw: ",
    "flags: ",
    "which belongs to the cache",
    "Object ",
    "---[ ",
    "======",
    "------",
    "Kernel Offset",
    "Rebooting in",
    "Dumping ftrace",
    "Tainted:",
    "Workqueue:",
    "Call Trace",
    "Sending NMI",
    "comm ",
];

const DETAIL_PARTS: &[&str] = &[
    "locks held by",
    "lock held by",
    "is trying to acquire",
    "already holding lock",
    "lock at:",
    "at: ",
    "EFLAGS:",
    "Not tainted",
    "disables this message",
    "Possible unsafe locking",
    "CPU0 ",
    "lock(",
    "<Interrupt>",
    "*** DEADLOCK ***",
    "irq event stamp",
    "hardirqs last",
    "softirqs last",
    "kthread starved",
    "detected by ",
    "ticks this GP",
    "running task",
    "jiffies",
];

/// Other lines that reports have.
pub(super) fn is_detail(text: &str) -> bool {
    // Dumps of memory: `ffff88: 00 00`, `>ffff88: fb fb`, words of registers `r7 : 000`.
    let dump = text.split_once(": ").is_some_and(|(start, rest)| {
        let start = start.trim_start_matches(['>', ' ']).trim_end();
        let hex = rest.bytes().take(24).all(|b| b.is_ascii_hexdigit() || b" [](){}<>".contains(&b));
        start.len() <= 24 && hex && !rest.is_empty()
    });
    dump || DETAIL_STARTS.iter().any(|start| text.starts_with(start))
        || DETAIL_PARTS.iter().any(|part| text.contains(part))
}
