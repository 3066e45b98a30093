//! What kinds of reports the kernel makes of itself.

use serde::Serialize;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// What a report is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Kind { $($(#[doc = $doc])+ $name,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)+];

            /// The word that stands for it in tables and in JSON.
            pub fn word(self) -> &'static str {
                match self { $(Kind::$name => $word,)+ }
            }
        }
    };
}

kinds! {
    /// The address sanitizer.
    Kasan = "kasan",
    /// The concurrency sanitizer: data races.
    Kcsan = "kcsan",
    /// The memory sanitizer: uninitialised values.
    Kmsan = "kmsan",
    /// The sampling memory checker.
    Kfence = "kfence",
    /// The sanitizer of undefined behaviour.
    Ubsan = "ubsan",
    /// `WARN_ON` and its like, and lines that call themselves warnings.
    Warning = "warning",
    /// A reference counter that wrapped or was used after it was zero.
    Refcount = "refcount",
    /// A linked list whose pointers do not fit.
    ListCorruption = "list-corruption",
    /// `BUG_ON`: an assertion that the kernel does not survive.
    Bug = "bug",
    /// A line that begins with `BUG:` and is nothing more special.
    OtherBug = "other-bug",
    /// An address near zero was used.
    NullPointer = "null-pointer",
    /// Another address that is not mapped was used.
    PageFault = "page-fault",
    /// An address that cannot exist, or a forbidden operation.
    ProtectionFault = "protection-fault",
    /// Another exception: a division by zero, an unknown instruction, an abort.
    Exception = "exception",
    /// An exception while another one was entered.
    DoubleFault = "double-fault",
    /// The kernel's stack is full or overwritten.
    StackOverflow = "stack-overflow",
    /// A copy from or to user space that leaves its object.
    Usercopy = "usercopy",
    /// Locks taken in an order or a context in which they can deadlock.
    Deadlock = "deadlock",
    /// Another rule of locks is broken: not held, held too long, damaged.
    Locking = "locking",
    /// A pointer read without the protection of RCU.
    RcuUsage = "rcu-usage",
    /// Code that may sleep where it must not.
    AtomicSleep = "atomic-sleep",
    /// A processor that runs kernel code for too long.
    SoftLockup = "soft-lockup",
    /// A processor that takes no interrupts.
    HardLockup = "hard-lockup",
    /// RCU waits too long for a processor or task.
    RcuStall = "rcu-stall",
    /// A task that waits too long.
    HungTask = "hung-task",
    /// A pool of workers that makes no progress.
    WorkqueueStall = "workqueue-stall",
    /// The bookkeeping of memory pages is wrong.
    BadPage = "bad-page",
    /// An object of the slab allocator is damaged.
    SlabCorruption = "slab-corruption",
    /// Memory could not be had.
    PageAllocation = "page-allocation",
    /// The kernel killed a program for its memory.
    OutOfMemory = "out-of-memory",
    /// Memory that nobody can free any more.
    Leak = "leak",
    /// Something that should be gone is still in use.
    StillInUse = "still-in-use",
    /// Rust code of the kernel panicked.
    RustPanic = "rust-panic",
    /// The kernel ended without a report before it.
    Panic = "panic",
    /// The machine started again.
    Reboot = "reboot",
}

impl Kind {
    /// Whether the report is about code that does not go on: which function is to blame is then where
    /// it was called from.
    pub fn is_hang(self) -> bool {
        matches!(
            self,
            Kind::SoftLockup
                | Kind::HardLockup
                | Kind::RcuStall
                | Kind::HungTask
                | Kind::WorkqueueStall
        )
    }

    /// Whether it is an exception of the processor: several lines of different form begin such a report.
    pub(super) fn is_oops(self) -> bool {
        matches!(
            self,
            Kind::Bug
                | Kind::NullPointer
                | Kind::PageFault
                | Kind::ProtectionFault
                | Kind::Exception
                | Kind::DoubleFault
                | Kind::StackOverflow
                | Kind::Usercopy
                | Kind::ListCorruption
        )
    }

    /// Whether a report of this kind has a trace; one without is cut.
    pub(super) fn wants_trace(self) -> bool {
        !matches!(
            self,
            Kind::OtherBug
                | Kind::Panic
                | Kind::Reboot
                | Kind::WorkqueueStall
                | Kind::StillInUse
                | Kind::SlabCorruption
                | Kind::BadPage
                | Kind::OutOfMemory
                | Kind::RustPanic
        )
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_word() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
