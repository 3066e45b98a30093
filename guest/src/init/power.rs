//! The end of the machine.

use rustix::system::{RebootCommand, reboot};
use std::path::Path;

/// Writes everything back and powers off.
///
/// Without ACPI an x86 kernel cannot power off and would halt instead, forever; then it restarts,
/// which ends a QEMU with `-no-reboot` as well.
pub(crate) fn off() -> ! {
    rustix::fs::sync();
    let x86 = cfg!(any(target_arch = "x86", target_arch = "x86_64"));
    if !x86 || Path::new("/sys/firmware/acpi").exists() {
        let _ = reboot(RebootCommand::PowerOff);
    }
    if let Err(errno) = reboot(RebootCommand::Restart) {
        eprintln!("vmtest-guest: cannot power off: {errno}");
    }
    if std::process::id() != 1 {
        std::process::exit(1);
    }
    loop {
        std::thread::park();
    }
}
