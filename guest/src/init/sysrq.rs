//! The kernel's "magic" keys: what a kernel says of itself when asked.

use super::failure::Failure;
use std::fs::OpenOptions;
use std::io::Write;

/// Has the kernel listen to the keys on the console too: a distribution's default allows only some, and
/// the host may want to ask for stacks when nobody here answers. A kernel without them is no problem.
pub(crate) fn allow() {
    let _ = std::fs::write("/proc/sys/kernel/sysrq", "1");
}

/// Presses keys, in order.
///
/// # Errors
/// The kernel has none (CONFIG_MAGIC_SYSRQ).
pub(crate) fn press(keys: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::of("cannot use /proc/sysrq-trigger (CONFIG_MAGIC_SYSRQ)", &error)
    };
    let mut trigger = OpenOptions::new().write(true).open("/proc/sysrq-trigger").map_err(failed)?;
    for key in keys.bytes() {
        trigger.write_all(&[key]).map_err(failed)?;
    }
    Ok(())
}
