//! Why a guest did not get ready, where its kernel or QEMU has said so in words that vmtest knows.
//!
//! Only what comes before the first program of the guest is looked at: after that anybody may write to
//! the console.

/// Why nothing could be started, and a way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) error: String,
    pub(super) hint: Option<String>,
}

/// What Linux prints when an archive of the initramfs is broken or does not fit (`init/initramfs.c`).
const UNPACKING: &str = "Initramfs unpacking failed: ";

/// What Linux prints before it runs the first program (`init/main.c`).
const FIRST_PROGRAM: &str = " as init process";

/// What the guest program prints when the kernel has no driver for its ports.
const NO_PORT: &str = "vmtest-guest: no way to the host: ";

/// What Linux prints first.
const BANNER: &str = "Linux version ";

/// What the kernel or the guest program has said of a boot that cannot end well.
pub(super) fn failed_boot(console: &[u8]) -> Option<Explanation> {
    let text = String::from_utf8_lossy(console);
    let first_program = text.lines().position(|line| line.contains(FIRST_PROGRAM));
    let before = text.lines().take(first_program.unwrap_or(usize::MAX));
    if let Some(why) = before.filter_map(|line| behind(line, UNPACKING)).next() {
        let hint = if why.starts_with("write error") {
            "it did not fit: the guest needs more with --memory, some three times the image's files"
        } else {
            "the archive is broken, or packed as this kernel does not know (CONFIG_RD_…); \
             `vmtest initramfs ls FILE` reads it as the kernel does"
        };
        return Some(Explanation {
            error: format!("the kernel could not unpack the initramfs: {why}"),
            hint: Some(hint.to_owned()),
        });
    }
    // Only the guest program says this, and nothing of the user's runs where it does.
    let why = text.lines().filter_map(|line| behind(line, NO_PORT)).next()?;
    Some(Explanation { error: format!("the guest has no way to the host: {why}"), hint: None })
}

/// What may help a guest that was lost while it booted.
pub(super) fn lost_boot_hint(console: &[u8]) -> Option<String> {
    let said = |text: &str| String::from_utf8_lossy(console).contains(text);
    if ["System is deadlocked on memory", "Out of memory and no killable"].into_iter().any(said) {
        return Some("the kernel ran out of memory: give the guest more with --memory".to_owned());
    }
    (!said(BANNER)).then(|| {
        "its kernel said nothing: it may need more --memory, be made for another machine, or have no \
         console (CONFIG_PRINTK, and the serial port's driver)"
            .to_owned()
    })
}

/// What helps against a refusal of QEMU's.
pub(super) fn refusal_hint(stderr: &str) -> Option<String> {
    const KNOWN: [(&str, &str); 3] = [
        (
            "Could not set up host forwarding rule",
            "the port of the host is taken, or may not be used; `hostfwd=tcp::0-:GUEST` takes one that is \
             free, and says which",
        ),
        (
            "Failed to get \"write\" lock",
            "another QEMU has the image open: `,snapshot` or `,ro` lets both use it",
        ),
        ("Image is not in qcow2 format", "leave `format=qcow2` out for a raw image"),
    ];
    KNOWN.iter().find(|(said, _)| stderr.contains(said)).map(|(_, hint)| (*hint).to_owned())
}

/// What stands behind `mark` in a line of the kernel's, which begins with a time in brackets or with the
/// mark itself.
fn behind<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let (before, after) = line.split_once(mark)?;
    let before = before.trim();
    let kernels = before.is_empty() || (before.starts_with('[') && before.ends_with(']'));
    kernels.then(|| after.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_does_not_fit_asks_for_memory() {
        let console =
            b"[    0.0] Linux version 6\r\n[    1.2] Initramfs unpacking failed: write error\r\n\
            [    3.0] Kernel panic - not syncing: VFS\r\n";
        let found = failed_boot(console).unwrap();
        assert_eq!(found.error, "the kernel could not unpack the initramfs: write error");
        assert!(found.hint.unwrap().contains("--memory"));
        assert_eq!(lost_boot_hint(console), None);
    }

    #[test]
    fn what_a_program_prints_explains_nothing() {
        let console = b"[    1.2] Run /init as init process\nInitramfs unpacking failed: a joke\n";
        assert_eq!(failed_boot(console), None);
        assert_eq!(failed_boot(b"echo Initramfs unpacking failed: a joke\n"), None);
    }

    #[test]
    fn a_kernel_without_a_driver_for_ports_is_named() {
        let console = b"[ 2.0] vmtest-guest: no way to the host: the kernel needs CONFIG_X\r\n";
        let found = failed_boot(console).unwrap();
        assert_eq!(found.error, "the guest has no way to the host: the kernel needs CONFIG_X");
    }

    #[test]
    fn a_silent_kernel_and_one_without_memory_get_a_hint() {
        assert!(lost_boot_hint(b"SeaBIOS\nBooting from ROM..\n").unwrap().contains("said nothing"));
        let console =
            b"Linux version 6\nKernel panic - not syncing: System is deadlocked on memory\n";
        assert!(lost_boot_hint(console).unwrap().contains("ran out of memory"));
    }
}
