//! Lines that look like reports and are none.

/// A line that says something alarming and means nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harmless {
    /// What the message contains.
    pub text: &'static str,
    /// Why it does not count.
    pub reason: &'static str,
}

const fn harmless(text: &'static str, reason: &'static str) -> Harmless {
    Harmless { text, reason }
}

/// All that are known. `docs/splats.md` has the same list.
pub const HARMLESS: &[Harmless] = &[
    harmless(
        "Unprivileged eBPF is enabled with eIBRS",
        "about the processor and the configuration",
    ),
    harmless("kernel not compiled with", "about the configuration"),
    harmless("for mitigation options", "about the processor"),
    harmless("mand mount option", "a program's option is out of use"),
    harmless("deprecated v2 capabilities", "a program's interface is out of use"),
    harmless("uses deprecated", "a program's interface is out of use"),
    harmless("uses wireless extensions", "a program's interface is out of use"),
    harmless("lockdep is turned off", "follows from an earlier report"),
    harmless("NMI handler", "a slow host"),
    harmless("recovery required on readonly filesystem", "a file system was not unmounted"),
    harmless("Stall ended before state dump start", "what it was about is over"),
    harmless("workqueue cpumask", "about the configuration"),
    harmless("ODEBUG: Out of memory", "a debugging aid turned itself off"),
    harmless("ODEBUG disabled", "a debugging aid turned itself off"),
    harmless("does not exist, using fixed modulus", "a program's"),
    harmless("Permanently added", "a program's"),
    harmless("WARNING: Reset corrupted AGFL", "a file system repaired itself"),
    harmless("debugging is enabled", "about the configuration"),
    harmless("This kernel is not", "about the configuration"),
    harmless("trace_printk() being used", "about the configuration"),
    harmless("Boot with nokaslr", "about the configuration"),
    harmless("kasan: bad access detected", "the middle of an old address sanitizer's report"),
    harmless("missed to adjust virtual screen size", "about a driver's settings"),
    harmless("unsafe firmware", "about the machine"),
];

/// Why a message is harmless, if it is.
pub fn reason(message: &str) -> Option<&'static str> {
    let lower = message.to_ascii_lowercase();
    let known = HARMLESS.iter().find(|known| lower.contains(&known.text.to_ascii_lowercase()));
    known.map(|known| known.reason).or_else(|| file_system(message))
}

/// `XFS (loop4): WARNING: …` and its like speak about a volume, not about the kernel.
fn file_system(message: &str) -> Option<&'static str> {
    let (start, rest) = message.split_once(" (")?;
    let name = !start.is_empty() && start.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (_, rest) = rest.split_once("): ")?;
    let warns = rest.starts_with("WARNING: ") || rest.starts_with("INFO: ");
    (name && warns).then_some("about a volume's contents")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_harmless_and_other_things_are_not() {
        assert!(
            reason("Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on").is_some()
        );
        assert!(reason("XFS (loop4): WARNING: Reset something").is_some());
        assert!(reason("WARNING: CPU: 0 PID: 1 at fs/a.c:1 f+0x1/0x2").is_none());
        assert!(reason("EXT4-fs (sda): mounted").is_none());
    }

    #[test]
    fn the_documentation_lists_all() {
        let docs = include_str!("../../docs/splats.md");
        for known in HARMLESS {
            assert!(docs.contains(known.text), "docs/splats.md lacks `{}`", known.text);
        }
    }
}
