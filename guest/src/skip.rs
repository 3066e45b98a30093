//! Tests that know whether they run in a guest.

/// Whether this program runs in a guest that vmtest started: `VMTEST_IN_GUEST=1` is in its
/// environment or on the kernel's command line.
///
/// The command line counts because a program may have been started with an environment of its own;
/// on a host it never has that word.
pub fn in_vm() -> bool {
    std::env::var_os("VMTEST_IN_GUEST").is_some_and(|value| value == "1")
        || std::fs::read_to_string("/proc/cmdline").is_ok_and(|cmdline| says_in_guest(&cmdline))
}

fn says_in_guest(cmdline: &str) -> bool {
    cmdline.split_ascii_whitespace().any(|word| word == "VMTEST_IN_GUEST=1")
}

/// For the first line of a test that must run in a guest: `if skip_if_not_in_vm() { return }`.
/// Prints that it skips; `true` outside a guest.
#[must_use = "the test goes on unless it returns when this is true"]
pub fn skip_if_not_in_vm() -> bool {
    let skip = !in_vm();
    if skip {
        eprintln!("skipped: must run in a guest started by vmtest (VMTEST_IN_GUEST=1)");
    }
    skip
}

/// For the first line of a test that must not run in a guest: `if skip_if_in_vm() { return }`.
/// Prints that it skips; `true` in a guest.
#[must_use = "the test goes on unless it returns when this is true"]
pub fn skip_if_in_vm() -> bool {
    let skip = in_vm();
    if skip {
        eprintln!("skipped: must not run in a guest started by vmtest (VMTEST_IN_GUEST=1)");
    }
    skip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_on_the_command_line_must_be_exact() {
        assert!(says_in_guest("console=ttyS0 VMTEST_IN_GUEST=1 quiet\n"));
        assert!(!says_in_guest("console=ttyS0 VMTEST_IN_GUEST=10 xVMTEST_IN_GUEST=1\n"));
    }

    #[test]
    fn the_two_conditions_exclude_each_other() {
        assert_ne!(skip_if_in_vm(), skip_if_not_in_vm());
    }
}
