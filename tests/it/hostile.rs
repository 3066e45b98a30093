//! Bad input and bad luck: each gets its exit code and a message with a hint, and leaves nothing
//! behind (`support::Running::wait` looks for processes and temporary files after every run).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

fn kernel(arch: Arch) -> PathBuf {
    assets(arch).kernel.unwrap().image.path
}

fn executable(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn kernels_that_cannot_be_booted() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "no kernel").unwrap();
    let flag = |path: &Path| format!("--kernel={}", path.display());
    assets(Arch::Amd64);
    for (path, shown) in [
        (Path::new("/no/such/kernel"), "cannot read the kernel `/no/such/kernel`: No such file"),
        (dir.path(), "neither a built kernel tree nor a `vmlinuz` is in it"),
        (&text, "is no kernel image that vmtest knows"),
    ] {
        vmtest(["--arch=amd64", &flag(path)]).run().code(69).says(shown).says("hint:");
    }
    for (arch, other) in [(Arch::Amd64, Arch::Riscv64), (Arch::Arm64, Arch::Arm)] {
        let done = vmtest(["--arch", arch.name()]).arg(flag(&kernel(other))).run();
        done.code(69).says(&format!("is for {other}, the guest is {arch}")).says("hint:");
    }
}

#[test]
fn an_unreadable_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    std::fs::write(&path, "secret").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::File::open(&path).is_ok() {
        // Root reads everything; a loop of links cannot be read by anybody.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
    }
    vmtest(["--arch=amd64"])
        .arg(format!("--kernel={}", path.display()))
        .run()
        .code(69)
        .says("cannot read the kernel")
        .says("hint:");
}

#[test]
fn programs_that_cannot_be_taken_along() {
    assets(Arch::Riscv64);
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let foreign = assets(Arch::Riscv64).guest.unwrap().path;
    std::fs::copy(foreign, path("foreign")).unwrap();
    executable(&path("crlf"), "#!/bin/sh\r\necho hello\r\n");
    executable(&path("orphan"), "#!/no/such/interpreter\n");
    executable(&path("torn"), &std::fs::read(path("foreign")).unwrap()[..50]);
    for (name, shown) in [
        ("foreign", "riscv64"),
        ("crlf", "CR LF"),
        ("orphan", "/no/such/interpreter"),
        ("torn", "torn"),
    ] {
        let done = vmtest(["--arch=amd64", "--"]).arg(path(name)).run();
        done.code(69).says(shown);
        assert!(done.elapsed < Duration::from_secs(20), "{name}: found out before the boot");
    }
}

#[test]
fn a_missing_library_is_an_error_that_names_the_chain() {
    assets(Arch::Amd64);
    // An empty sysroot has no library at all.
    let dir = tempfile::tempdir().unwrap();
    let done = vmtest(["--arch=amd64"])
        .arg(format!("--sysroot={}", dir.path().display()))
        .args(["--", "/usr/bin/git", "--version"])
        .run();
    done.code(69).says("needed by `usr/bin/git` not found").says("ld-linux");
}

#[test]
fn shares_that_cannot_be() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for flag in ["--share", "--ro-dir"] {
        let run = |path: &Path| vmtest([format!("{flag}={}", path.display())]).run();
        run(&file).code(69).says("is no directory").says("hint:");
        run(Path::new("/no/such/dir")).code(69).says("No such file").says("hint:");
    }
}

#[test]
fn a_directory_that_vfat_cannot_hold() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    for name in ["Read", "read", "a:b", "trailing."] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let done = vmtest([format!("--ro-dir={}", dir.path().display())]).run();
    done.code(69).says("a:b").says("read").says("trailing.").says("hint:").says("vfat image of");
}

#[test]
fn odd_paths_are_shared_all_the_same() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let mut run = vmtest(["--arch=amd64"]);
    let names: [&[u8]; 4] = [b"comma,space and=", b"line\nbreak", b"quote'\":\\", b"not-utf8-\xff"];
    for (number, name) in names.iter().enumerate() {
        let path = dir.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("number"), number.to_string()).unwrap();
        // A backslash and a colon of the name's own are written with a backslash.
        let escaped: Vec<u8> = path
            .as_os_str()
            .as_bytes()
            .iter()
            .flat_map(|&byte| {
                let escape: &[u8] = if b"\\:".contains(&byte) { b"\\" } else { b"" };
                escape.iter().copied().chain([byte])
            })
            .collect();
        let mut flag = std::ffi::OsString::from("--share=");
        flag.push(OsStr::from_bytes(&escaped));
        flag.push(format!(":t{number}"));
        run = run.arg(flag);
    }
    let script =
        "cat /mount/9p/t0/number /mount/9p/t1/number /mount/9p/t2/number /mount/9p/t3/number";
    run.args(["--", "sh", "-c", script]).run().code(0).stdout("0123");
}

#[test]
fn odd_arguments_and_variables_reach_the_program_unchanged() {
    assets(Arch::Riscv64);
    let odd = OsStr::from_bytes(b"a b'\"\\\n\xff$HOME");
    let mut env = std::ffi::OsString::from("ODD=");
    env.push(odd);
    let script = "printf '%s|' \"$1\" \"$ODD\" \"$#\"";
    let done = vmtest(["--arch=riscv64", "--env"])
        .arg(env)
        .args(["--", "sh", "-c", script, "sh"])
        .arg(odd)
        .arg("")
        .run();
    done.code(0);
    let wanted = [odd.as_bytes(), b"|", odd.as_bytes(), b"|2|"].concat();
    assert_eq!(done.stdout, wanted);
}

#[test]
fn files_that_cannot_be_written_are_found_before_the_boot() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("below");
    for flag in
        [format!("--artifacts={}", below.display()), format!("--event=e={}", below.display())]
    {
        let done = vmtest([flag]).run();
        done.code(69).says("Not a directory").says("hint:");
        assert!(!done.stderr.contains("guest,"), "nothing was started");
    }
}

#[test]
fn a_full_disk_is_said_and_the_run_goes_on() {
    assets(Arch::Riscv64);
    let dir = tempfile::tempdir().unwrap();
    // /dev/full is a disk with no space left.
    std::os::unix::fs::symlink("/dev/full", dir.path().join("stdout")).unwrap();
    let done = vmtest(["--arch=riscv64"])
        .arg(format!("--artifacts={}", dir.path().display()))
        .args(["--", "echo", "hello"])
        .run();
    // What could not be delivered is no success, whatever the command thinks.
    done.code(69).says("stdout is incomplete: No space left on device").says("the command passed");
}

#[test]
fn no_place_for_temporary_files() {
    assets(Arch::Amd64);
    // A run needs none; a copy of firmware's variables does.
    vmtest(["--", "true"]).env("TMPDIR", "/no/such/directory").run().code(0);
    let dir = tempfile::tempdir().unwrap();
    let ro_dir = format!("--ro-dir={}", dir.path().display());
    let done = vmtest([&ro_dir, "--", "true"]).env("TMPDIR", "/no/such/directory").run();
    done.code(69).says("temporary file").says("/no/such/directory").says("TMPDIR");
}

#[test]
fn qemu_that_is_missing_refuses_or_dies() {
    assets(Arch::Amd64);
    let done = vmtest(["--qemu=/no/such/qemu"]).run();
    done.code(69).says("there is no `/no/such/qemu`").says("hint:");
    vmtest(["--qemu=''"]).run().code(2).says("--qemu").says("no program is named");
    let done = vmtest(["--bin=/no/such/program", "--", "true"]).run();
    done.code(69).says("/no/such/program").says("No such file or directory");
    let done = vmtest(["--qemu-arg=--no-such-option"]).run();
    done.code(69).says("QEMU refused").says("no-such-option");
    let done = vmtest(["--qemu=sh -c 'echo dying >&2; kill -ABRT $$'"]).run();
    done.code(69).says("dying");

    let running = vmtest(["--", "sleep", "1000"]).start();
    running.wait_for_qemu();
    std::thread::sleep(Duration::from_secs(2));
    // Not by its group: the wrapper has become QEMU.
    let qemu = running.survivor_pids();
    for pid in qemu {
        let _ = kill_process(pid, Signal::KILL);
    }
    let done = running.wait();
    done.code(71).says("QEMU died (killed by signal 9)").says("something on the host killed QEMU");
}

#[test]
fn signals_end_the_run_and_qemu() {
    assets(Arch::Amd64);
    for (signal, code, shown) in [
        (Signal::INT, 130, "interrupted by SIGINT"),
        (Signal::TERM, 130, "interrupted by SIGTERM"),
        (Signal::HUP, 130, "interrupted by SIGHUP"),
        // Nobody can say anything then; the kernel takes QEMU with us.
        (Signal::KILL, 137, ""),
    ] {
        for delay_ms in [0, 700] {
            let running = vmtest(["--", "sleep", "1000"]).start();
            running.wait_for_qemu();
            std::thread::sleep(Duration::from_millis(delay_ms));
            kill_process(running.pid(), signal).unwrap();
            let done = running.wait();
            done.code(code).says(shown);
        }
    }
}

#[test]
fn signals_end_a_run_that_has_no_guest_yet() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    // Takes no room here, but long to pack.
    let large = dir.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(4_000_000_000).unwrap();
    for (signal, shown) in [
        (Signal::INT, "interrupted by SIGINT"),
        (Signal::TERM, "interrupted by SIGTERM"),
        (Signal::HUP, "interrupted by SIGHUP"),
    ] {
        let running = vmtest(["--memory=16G", "--coverage"])
            .arg(dir.path().join("coverage"))
            .arg(format!("--file={}:large", large.display()))
            .args(["--", "true"])
            .start();
        running.wait_for_temporary_file();
        kill_process(running.pid(), signal).unwrap();
        running.wait().code(130).says(shown);
        let left = std::fs::read_dir(dir.path().join("coverage")).unwrap().count();
        assert_eq!(left, 0, "directories of runs that have collected nothing");
    }
}

#[test]
fn a_module_that_the_kernel_lacks_is_found_before_the_boot() {
    let guest = assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let kernel = guest.kernel_by_name(vmtest::assets::KernelName::Distribution);
    let modules = kernel
        .and_then(|kernel| kernel.modules.clone())
        .expect("a distribution's kernel has modules");
    // The same kernel with a directory of modules that lacks nearly all.
    let bare = dir.path().join(modules.file_name().unwrap());
    std::fs::create_dir(&bare).unwrap();
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        let _ = std::fs::copy(modules.join(name), bare.join(name));
    }
    std::fs::write(bare.join("modules.dep"), "").unwrap();
    let done = vmtest(["--kernel=@distribution", &format!("--modules={}", bare.display())])
        .arg(format!("--share={}:s", dir.path().display()))
        .run();
    let done = done.says("lacks what this run needs").says("CONFIG_NET_9P_VIRTIO");
    done.code(69).says("CONFIG_9P_FS for --share").says("--modules");
    assert!(done.elapsed < Duration::from_secs(20), "found out before the boot");
}
