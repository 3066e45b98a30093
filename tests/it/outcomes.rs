//! The rows of `docs/verdicts.md`: each end that a guest can come to, on every architecture, and what
//! vmtest says of it. The page names the test of each row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use vmtest::arch::Arch;

use crate::support::{Done, assets, vmtest};

/// Boots a guest of each architecture, without what was saved before.
fn on_all(args: &[&str], look: impl Fn(&Done)) {
    for arch in Arch::ALL {
        assets(arch);
        let done = vmtest(["--arch", arch.name(), "--warm=off"]).args(args).run();
        look(&done);
        done.seen();
        assert!(done.elapsed < Duration::from_secs(90), "{arch}: {:?}", done.elapsed);
    }
}

#[test]
fn an_argument_that_qemu_does_not_know_could_not_start() {
    on_all(&["--qemu-arg=-nosuchoption", "--", "true"], |done| {
        done.code(69).says("could not start: QEMU refused").says("nosuchoption");
    });
}

#[test]
fn a_device_that_qemu_does_not_know_could_not_start() {
    on_all(&["--qemu-arg=-device", "--qemu-arg=nosuchdevice", "--", "true"], |done| {
        done.code(69).says("could not start: QEMU refused").says("nosuchdevice");
    });
}

#[test]
fn a_guest_that_resets_itself_is_lost() {
    on_all(&["--", "sh", "-c", "echo before; sync; sleep 1; reboot -f; sleep 60"], |done| {
        done.code(71).stdout("before\n").says("it was reset while the command ran");
    });
}

#[test]
fn a_guest_that_switches_itself_off_is_lost() {
    on_all(&["--", "sh", "-c", "echo before; sleep 1; poweroff -f; sleep 60"], |done| {
        done.code(71).stdout("before\n").says("it switched itself off while the command ran");
    });
}

#[test]
fn a_guest_that_halts_is_lost() {
    on_all(&["--", "halt", "-f"], |done| {
        // The firmware of riscv64 has but one way to end: it switches off.
        let off = done.stderr.contains("riscv64 guest");
        let said = if off { "it switched itself off" } else { "its kernel halted the system" };
        done.code(71).says(said).says("while the command ran");
    });
}

#[test]
fn a_panic_is_one_with_pvpanic_and_without() {
    const NO_PVPANIC: &str = "--append=module_blacklist=pvpanic,pvpanic_pci,pvpanic_mmio \
        initcall_blacklist=pvpanic_pci_driver_init,pvpanic_mmio_driver_init";
    for more in [&[][..], &[NO_PVPANIC]] {
        let args = [more, &["--", "sh", "-c", "echo c >/proc/sysrq-trigger"]].concat();
        on_all(&args, |done| {
            done.code(70)
                .says("the guest panicked: Kernel panic - not syncing: sysrq triggered crash");
        });
    }
}

#[test]
fn the_text_of_a_panic_is_none() {
    let script = "echo 'Kernel panic - not syncing: just text' >/dev/console; sleep 4; echo alive";
    on_all(&["--", "sh", "-c", script], |done| {
        done.code(0).stdout("alive\n");
    });
}

/// The archive is cut in the middle of a file.
#[test]
fn an_initramfs_that_does_not_unpack_could_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("broken.cpio.gz");
    let mut archive = Vec::new();
    let header = |name: &str, mode: u32, size: usize| {
        let fields = [0, mode, 0, 0, 1, 0, size as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        format!("070701{fields}{name}\0")
    };
    archive.extend_from_slice(header("file", 0o100_644, 100).as_bytes());
    archive.resize(archive.len().next_multiple_of(4) + 100, b'x');
    archive.extend_from_slice(b"no header of an archive, where one has to be");
    archive.resize(archive.len().next_multiple_of(512), b'y');
    fs::write(&image, &archive).unwrap();
    // Also where somebody else's init would run.
    for command in [&["--", "true"][..], &[]] {
        let image = format!("--initramfs={}", image.display());
        let args = [&[image.as_str()], command].concat();
        on_all(&args, |done| {
            done.code(69).says("could not start: the kernel could not unpack the initramfs");
        });
    }
}

#[test]
fn an_image_without_an_init_is_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("empty.cpio");
    let output = format!("--output={}", image.display());
    for arch in Arch::ALL {
        vmtest(["initramfs", "build", "--arch", arch.name(), &output]).run().code(0).seen();
        let image = format!("--initramfs={}", image.display());
        let done = vmtest(["--arch", arch.name(), &image]).run();
        done.code(70).says("the guest panicked").seen();
    }
}

#[test]
fn a_kernel_without_a_driver_for_ports_could_not_start() {
    let without = "--append=module_blacklist=virtio_console initcall_blacklist=virtio_console_init";
    on_all(&[without, "--", "true"], |done| {
        done.code(69).says("the guest has no way to the host").says("CONFIG_VIRTIO_CONSOLE");
    });
}

/// The kernel kills the command, and the rest of the guest lives on.
#[test]
fn a_command_that_takes_all_memory_is_killed() {
    on_all(&["--memory=256M", "--", "sh", "-c", "exec tail /dev/zero"], |done| {
        done.code(137).says("killed by signal 9 (SIGKILL)");
    });
}

#[test]
fn a_guest_with_too_little_memory_to_boot_gets_a_hint() {
    assets(Arch::Amd64);
    let done = vmtest(["--arch=amd64", "--memory=32M", "--", "true"]).run();
    done.code(71).says("it was reset while it booted").says("hint: its kernel said nothing");
}

/// Each row of the page names a test that there is, and the exit codes are those of the program.
#[test]
fn the_page_of_verdicts_has_a_test_for_each_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/verdicts.md")).unwrap();
    let mut tests = String::new();
    for file in [
        "outcomes.rs",
        "verdicts.rs",
        "boot.rs",
        "hostile.rs",
        "environment.rs",
        "cli.rs",
        "hangs.rs",
        "profile.rs",
    ] {
        tests.push_str(&fs::read_to_string(root.join("tests/it").join(file)).unwrap());
    }
    let mut rows = 0;
    let mut codes = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && line.contains("`fn ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let test = line.split("`fn ").nth(1).unwrap().split('`').next().unwrap();
        assert!(tests.contains(&format!("fn {test}()")), "there is no test `{test}`");
        codes.extend(cells[3].split_whitespace().next().and_then(|code| code.parse::<u8>().ok()));
        rows += 1;
    }
    assert!(rows >= 15, "{rows} rows");
    for code in [0, 69, 70, 71, 124, 130] {
        assert!(codes.contains(&code), "no row ends with {code}");
    }
}
