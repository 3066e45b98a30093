//! Real boots under emulation, of all five architectures.

use std::time::Duration;

use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

/// One boot that uses everything at once: a program's status and both its streams, stdin, a share in
/// both directions, a read-only share, a read-only directory, events, environment, artifacts.
fn everything(arch: Arch) {
    // A static Rust program, in a place of our choice.
    let event = assets(arch).guest.expect("checked").path;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["rw, dir", "ro", "vfat"] {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("from host"), format!("host's {name}\n")).unwrap();
    }
    let script = "\
        cat; \
        cat '/mount/9p/rw/from host' /mount/9p/ro/'from host' /mount/vfat/sda1/'from host'; \
        echo \"$GREETING from $PWD\"; \
        echo guest > /mount/9p/rw/from-guest; \
        echo no > /mount/9p/ro/no && echo 'a read-only share was written to'; \
        echo no > /mount/vfat/sda1/no && echo 'a read-only directory was written to'; \
        /.vmtest/guest event facts '{\"n\":1}'; \
        event facts '{\"n\":2}'; \
        uname -m >&2; \
        exit 7";
    let done =
        vmtest(["--arch", arch.name(), "--stdin", "--cwd", "/tmp", "--env", "GREETING=hello"])
            .arg(format!("--share={}:rw", path("rw, dir").display()))
            .arg(format!("--share={}:ro:ro", path("ro").display()))
            .arg(format!("--ro-dir={}", path("vfat").display()))
            .arg(format!("--event=facts={}", path("facts.json").display()))
            .arg(format!("--bin={}:/usr/local/bin/event", event.display()))
            .arg(format!("--artifacts={}", path("artifacts").display()))
            .arg("--")
            .arg("sh")
            .arg("-c")
            .arg(script)
            .stdin("typed\n")
            .run();
    done.code(7).says("failed with status 7").says("Read-only file system");
    done.stdout("typed\nhost's rw, dir\nhost's ro\nhost's vfat\nhello from /tmp\n");
    let machine = match arch {
        Arch::Amd64 => "x86_64",
        Arch::I386 => "i686",
        Arch::Arm64 => "aarch64",
        Arch::Arm => "armv7l",
        Arch::Riscv64 => "riscv64",
        other => panic!("what does `uname -m` say on {other}?"),
    };
    done.says(machine);
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    assert_eq!(read("rw, dir/from-guest"), "guest\n");
    assert_eq!(read("facts.json"), "{\"n\":1}\n{\"n\":2}\n");
    assert_eq!(read("artifacts/stdout").as_bytes(), done.stdout);
    assert!(read("artifacts/stderr").contains(machine));
    assert!(read("artifacts/console.log").contains("Run /.vmtest/guest as init process"));

    let report: Value = serde_json::from_str(&read("artifacts/run.json")).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["verdict"], "failed");
    assert_eq!((&report["status"], &report["exit_code"]), (&7.into(), &7.into()));
    assert_eq!(report["arch"], arch.name());
    assert_eq!(report["guest"]["machine"], machine);
    assert!(!report["accelerator"]["reason"].as_str().unwrap().is_empty());
    assert!(report["qemu_version"].as_str().unwrap().contains('.'));
    for hash in [&report["kernel"]["sha256"], &report["initramfs"]["blake3"]] {
        assert_eq!(hash.as_str().unwrap().len(), 64);
    }
    for phase in ["boot_secs", "setup_secs", "command_secs", "shutdown_secs", "total_secs"] {
        assert!(report["phases"][phase].as_f64().unwrap() >= 0.0, "{phase}");
    }
}

/// A panic ends the run at once, with its reason and its own exit code. What was written in the very
/// last moment is in a pipe of the guest's that nobody empties any more, hence the second between.
fn panics(arch: Arch) {
    assets(arch);
    let dir = tempfile::tempdir().unwrap();
    let done = vmtest(["--arch", arch.name()])
        .arg(format!("--artifacts={}", dir.path().display()))
        .args(["--", "sh", "-c", "echo before; sleep 1; echo c > /proc/sysrq-trigger; sleep 60"])
        .run();
    done.code(70).stdout("before\n").says("sysrq triggered crash");
    let report = std::fs::read_to_string(dir.path().join("run.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["verdict"], "guest-panicked");
    // From the command's start: the panic itself, the kernel's trace, and QEMU's end.
    let command = report["phases"]["command_secs"].as_f64();
    assert!(command.is_none_or(|seconds| seconds < 10.0), "{command:?}");
}

/// A command that takes too long ends with 124, and the message says which limit.
fn times_out(arch: Arch) {
    assets(arch);
    let done = vmtest(["--arch", arch.name(), "--timeout", "45s", "--", "sleep", "1000"]).run();
    done.code(124).says("the run took over 45s (--timeout)").says("hint:");
    assert!(done.elapsed < Duration::from_secs(60), "{:?}", done.elapsed);
}

macro_rules! on_each_arch {
    ($($module:ident: $arch:expr;)*) => {$(
        mod $module {
            #[test]
            fn everything_at_once() {
                super::everything($arch);
            }
            #[test]
            fn a_panic_is_a_verdict() {
                super::panics($arch);
            }
        }
    )*};
}

on_each_arch! {
    amd64: super::Arch::Amd64;
    i386: super::Arch::I386;
    arm64: super::Arch::Arm64;
    arm: super::Arch::Arm;
    riscv64: super::Arch::Riscv64;
}

#[test]
fn a_time_out_says_which_limit_and_shows_the_console() {
    times_out(Arch::Amd64);
}

#[test]
fn a_guest_that_is_not_ready_in_time_is_a_boot_time_out() {
    assets(Arch::Riscv64);
    // One that is resumed may be ready by then.
    let words = ["--arch", "riscv64", "--warm=off", "--boot-timeout", "600ms", "--", "true"];
    let done = vmtest(words).run();
    done.code(124).says("the guest was not ready after 600ms (--boot-timeout)");
}

#[test]
fn without_a_command_the_guest_says_what_it_found() {
    assets(Arch::Riscv64);
    let done = vmtest(["--arch", "riscv64"]).run();
    done.code(0).says("the guest works");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    for word in ["guest        riscv64", "kernel       Linux", "accelerator  tcg: ", "userspace"] {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
}

#[test]
fn programs_of_the_host_run_with_all_they_need() {
    let Some(arch) = Arch::host() else { panic!("these tests need one of the five hosts") };
    assets(arch);
    // A dynamically linked program of the host, and a script of ours with an interpreter of the host's.
    let done = vmtest(["--", "/usr/bin/git", "--version"]).run();
    let host = std::process::Command::new("/usr/bin/git").arg("--version").output();
    let host = host.expect("git is installed: these tests are in its checkout");
    done.code(0).stdout(&String::from_utf8_lossy(&host.stdout));

    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/bash\necho \"$BASH_VERSION $1\"\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let done = vmtest(["--"]).arg(&script).arg("with arguments").run();
    done.code(0);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.ends_with(" with arguments\n") && text.contains('.'), "{text}");
}

#[test]
fn much_output_arrives_whole_though_the_reader_is_slow() {
    assets(Arch::Riscv64);
    let script = "seq 1 2000000; seq 1 2000000 >&2";
    let dir = tempfile::tempdir().unwrap();
    let done = vmtest(["--arch", "riscv64", "--message-format", "json"])
        .arg(format!("--artifacts={}", dir.path().display()))
        .args(["--", "sh", "-c", script])
        .run();
    // One object of JSON a line.
    done.seen().code(0);
    let wanted: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    assert!(done.stdout == wanted.as_bytes(), "stdout differs: {} bytes", done.stdout.len());
    let stderr = std::fs::read(dir.path().join("stderr")).unwrap();
    assert!(stderr == wanted.as_bytes(), "stderr differs: {} bytes", stderr.len());
}

#[test]
fn signals_and_missing_programs_have_the_status_a_shell_gives_them() {
    assets(Arch::Amd64);
    vmtest(["--", "sh", "-c", "kill -SEGV $$"])
        .run()
        .code(139)
        .says("killed by signal 11 (SIGSEGV)");
    vmtest(["--", "no-such-program"]).run().code(127).says("no-such-program");
    let file = concat!("--file=", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml:/not-a-program");
    vmtest([file, "--", "/not-a-program"]).run().code(126).says("the command did not start");
}

/// The agent waits for SIGCHLD in its own way; a command's shell does in its own.
#[test]
fn a_shell_hears_of_its_children() {
    assets(Arch::Amd64);
    let script = "for i in 1 2 3; do sleep 0.2 & done; wait; grep SigBlk /proc/self/status";
    let done = vmtest(["--timeout=60s", "--", "sh", "-c", script]).run();
    done.code(0).stdout("SigBlk:\t0000000000000000\n");
}

#[test]
fn an_init_that_fails_says_why() {
    assets(Arch::Riscv64);
    // Fewer threads than the kernel has itself; what may take long is done by one.
    let few = "--append=sysctl.kernel.threads-max=20";
    let done = vmtest(["--arch", "riscv64", "--share=.:src", few, "--", "true"]).run();
    done.code(70)
        .says("init failed: failed to spawn thread")
        .says("process 1, vmtest's agent, ended");
}

#[test]
fn a_guest_that_switches_itself_off_is_lost() {
    assets(Arch::Amd64);
    let done = vmtest(["--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"]).run();
    done.code(71).says("it switched itself off while the command ran");
}

#[test]
fn an_image_made_by_others_boots_with_its_own_init_or_with_our_command() {
    let guest = assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    // A name that no host has: a program of the host would be taken along.
    std::fs::copy(guest.shell.unwrap().path, root.join("bin/busybox-theirs")).unwrap();
    let init = "#!/bin/busybox-theirs sh\n/bin/busybox-theirs echo their init\n/bin/busybox-theirs poweroff -f\n";
    std::fs::write(root.join("init"), init).unwrap();
    std::fs::set_permissions(
        root.join("init"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let image = dir.path().join("theirs.cpio.gz");
    // Made with GNU cpio, as people do.
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg("find . | cpio --quiet -o -H newc | gzip > \"$1\"")
        .arg("sh")
        .arg(&image)
        .current_dir(&root)
        .status()
        .unwrap();
    assert!(status.success(), "GNU cpio is needed: apt-get install cpio");

    let flag = format!("--initramfs={}", image.display());
    // The console of an own init goes to stderr.
    vmtest([&flag]).run().seen().code(0).says("their init").says("the guest switched itself off");
    let done = vmtest([&flag, "--", "/bin/busybox-theirs", "head", "-n", "1", "/init"]).run();
    done.code(0).stdout("#!/bin/busybox-theirs sh\n");
}
