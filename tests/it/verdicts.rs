//! Verdicts tell the truth, limits hold, nothing that left the guest is lost: real guests, and QEMUs that are none.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

/// A "QEMU" that greets, answers the first command, and then does what the script says: `say JSON`, `hear`.
fn fake_qemu(script: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qemu");
    let text = format!(
        "#!/bin/bash\n\
         for word; do case $word in socket,id=char1,fd=*) fd=${{word##*fd=}};; esac; done\n\
         say() {{ echo \"$1\" >&$fd; }}\n\
         hear() {{ read -r line <&$fd; }}\n\
         say '{{\"QMP\":{{\"version\":{{\"qemu\":{{\"major\":10,\"minor\":0,\"micro\":2}}}}}}}}'\n\
         hear; say '{{\"return\":{{}}}}'\n{script}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let flag = format!("--qemu={}", path.display());
    (dir, flag)
}

#[test]
fn a_qemu_that_stops_its_machine_by_itself_is_reported_at_once() {
    assets(Arch::Amd64);
    let (_dir, qemu) = fake_qemu(
        "echo 'KVM internal error. Suberror: 1' >&2\n\
         say '{\"event\":\"STOP\"}'\n\
         hear; say '{\"return\":{\"status\":\"internal-error\",\"running\":false}}'\n\
         hear; say '{\"return\":\"RIP=0010:ffffffff81000000\"}'\n\
         sleep 1000",
    );
    let done = vmtest([&qemu, "--warm=off", "--", "true"]).run();
    done.code(71).says("internal-error").says("KVM internal error").says("RIP=0010").seen();
    assert!(done.elapsed < Duration::from_secs(10), "{:?}", done.elapsed);
}

#[test]
fn a_qemu_that_does_not_answer_its_monitor_is_ended_soon_after_the_limit() {
    assets(Arch::Amd64);
    let (_dir, qemu) = fake_qemu("trap '' TERM\nwhile :; do sleep 1; done");
    let done = vmtest([&qemu, "--warm=off", "--timeout=3s", "--", "true"]).run();
    done.code(124).says("the run took over 3s").seen();
    assert!(done.elapsed < Duration::from_secs(8), "{:?}", done.elapsed);
}

#[test]
fn what_qemu_refuses_after_its_greeting_could_not_start() {
    assets(Arch::Amd64);
    let words = ["--qemu-arg=-device", "--qemu-arg=nosuchdevice", "--", "true"];
    vmtest(words).run().code(69).says("could not start").says("nosuchdevice").seen();
}

/// Anybody may write to the console.
#[test]
fn text_that_looks_like_a_panic_is_none() {
    assets(Arch::Amd64);
    let script = "echo 'Kernel panic - not syncing: just text' >/dev/console; sleep 4; echo alive";
    vmtest(["--", "sh", "-c", script]).run().code(0).stdout("alive\n");
}

#[test]
fn a_guest_that_halts_is_lost_at_once() {
    for arch in [Arch::Amd64, Arch::Arm64] {
        assets(arch);
        let done = vmtest(["--arch", arch.name(), "--", "halt", "-f"]).run();
        done.code(71).says("halted the system").seen();
        assert!(done.elapsed < Duration::from_secs(60), "{:?}", done.elapsed);
    }
}

/// What had left the guest before its kernel panicked is delivered, however slowly it is read.
#[test]
fn output_before_a_panic_is_delivered_to_a_slow_reader() {
    assets(Arch::Amd64);
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["--", "sh", "-c", "seq 1 30000; sleep 3; echo c >/proc/sysrq-trigger"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // Long enough for the panic to come first.
    std::thread::sleep(Duration::from_secs(12));
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: String = (1..=30000).map(|n| format!("{n}\n")).collect();
    assert_eq!(text.len(), expected.len());
    assert!(text == expected.as_bytes());
}

/// A console that is shown to somebody who does not look disarms no limit.
#[test]
fn a_limit_holds_though_nobody_reads_stderr() {
    assets(Arch::Amd64);
    let script =
        "while :; do echo 'a line for the log of the kernel, and for the console' >/dev/kmsg; done";
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["-v", "--timeout=8s", "--append=printk.devkmsg=on", "--", "sh", "-c", script])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // QEMU is gone in time; the program then waits only to tell its last words.
    let qemu = || {
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let of = std::fs::read_to_string(children).unwrap_or_default();
        of.split_whitespace().any(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(11).any(|part| part == b"qemu-system"))
        })
    };
    std::thread::sleep(Duration::from_secs(5));
    while started.elapsed() < Duration::from_secs(20) && qemu() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = started.elapsed();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stderr, &mut text);
        text
    });
    let status = child.wait().unwrap();
    let text = reader.join().unwrap();
    assert_eq!(status.code(), Some(124), "{}", String::from_utf8_lossy(&text));
    assert!(took < Duration::from_secs(15), "QEMU was there for {took:?}");
}

/// An earlier run's record does not stand for one that did not start.
#[test]
fn the_record_is_always_this_runs() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let artifacts = format!("--artifacts={}", dir.path().display());
    let record = || -> Value {
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("run.json")).unwrap())
            .unwrap()
    };
    vmtest([&artifacts, "--", "sh", "-c", "exit 37"]).run().code(37).seen();
    assert_eq!(record()["exit_code"], 37);
    vmtest([&artifacts, "--kernel=/no/such", "--", "true"]).run().code(69).seen();
    assert_eq!(
        (&record()["verdict"], &record()["exit_code"]),
        (&"could-not-start".into(), &69.into())
    );
}

/// A broken line fails the run, and the channel is read on: the guest does not block.
#[test]
fn a_broken_event_fails_the_run_and_blocks_nobody() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events");
    let script = "port=$(grep -l ids /sys/class/virtio-ports/*/name | cut -d/ -f5); \
        for i in 1 2 3; do echo \"{\\\"id\\\":$i}\" >/dev/$port; done; head -c 300000 /dev/zero >/dev/$port; \
        echo through";
    let done =
        vmtest([format!("--event=ids={}", file.display()).as_str(), "--", "sh", "-c", script])
            .run();
    done.code(71).stdout("through\n").says("broken line `{\"id\":1}`").seen();
}

#[test]
fn a_megabyte_of_arguments_that_are_no_text_arrives() {
    assets(Arch::Amd64);
    let word = [0xffu8; 110_000];
    let mut run = vmtest(["--", "sh", "-c", "echo $#; printf %s \"$9\" | wc -c", "sh"]);
    for _ in 0..10 {
        run = run.arg(OsStr::from_bytes(&word));
    }
    run.run().code(0).stdout("10\n110000\n").seen();
}
