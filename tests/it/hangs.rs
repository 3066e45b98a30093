//! Guests that hang, guests that are slow, and what is found in them: real ones.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{Done, assets, vmtest};

/// Freezes process 1, the agent: it can no more be stopped by a signal.
const FREEZE: &str = "mkdir /sys/fs/cgroup/f; echo 1 >/sys/fs/cgroup/f/cgroup.procs; \
    echo 1 >/sys/fs/cgroup/f/cgroup.freeze;";

fn record(dir: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("run.json")).unwrap()).unwrap()
}

/// A command that computes is slow, not hung: the limit ends it, and its stacks say what it did.
fn a_busy_command_is_slow_and_its_stack_is_told(arch: Arch) {
    assets(arch);
    let dir = tempfile::tempdir().unwrap();
    let done = vmtest(["--arch", arch.name(), "--hang-after=2s", "--timeout=15s", "--artifacts"])
        .arg(dir.path())
        .args(["--", "sh", "-c", "echo begun; while :; do :; done"])
        .run();
    done.code(124).stdout("begun\n").says("the run took over 15s").seen();
    let stacks = std::fs::read_to_string(dir.path().join("stacks.txt")).unwrap();
    assert!(stacks.contains("task:sh "), "{stacks}");
    let registers = std::fs::read_to_string(dir.path().join("registers.txt")).unwrap();
    assert!(registers.contains("CPU#0"), "{registers}");
    let record = record(dir.path());
    let hang = &record["hang"];
    assert_eq!(hang["stage"], "while the command ran", "{record:#}");
    assert_eq!(hang["processors"][0]["number"], 0, "{record:#}");
    // QEMU's translator writes it down now and then only: what is read from a processor that runs may be 0.
    assert!(hang["registers"][0]["pc"].is_u64(), "{record:#}");
    assert_eq!(hang["stdout_tail"], serde_json::json!(["begun"]));
    assert!(hang["took_secs"].as_f64() < Some(3.0), "{record:#}");
    let told = std::fs::read_to_string(dir.path().join("hang.txt")).unwrap();
    assert!(told.contains("the command, `sh` ("), "{told}");
}

macro_rules! on_each_architecture {
    ($($name:ident $arch:ident,)*) => {
        $(mod $name {
            #[test]
            fn a_busy_command_is_slow_and_its_stack_is_told() {
                super::a_busy_command_is_slow_and_its_stack_is_told(vmtest::arch::Arch::$arch);
            }

            #[test]
            fn an_agent_that_does_not_answer_is_a_hang() {
                super::an_agent_that_does_not_answer_is_a_hang(vmtest::arch::Arch::$arch);
            }
        })*
    };
}
on_each_architecture! { amd64 Amd64, i386 I386, arm64 Arm64, arm Arm, riscv64 Riscv64, }

fn an_agent_that_does_not_answer_is_a_hang(arch: Arch) {
    assets(arch);
    let script = format!("{FREEZE} sleep 1000");
    let done = vmtest(["--arch", arch.name(), "--hang-after=3s", "--", "sh", "-c", &script]).run();
    done.code(72)
        .says("the guest hangs: its agent does not answer")
        .says("vmtest's agent does not answer")
        .says("nanosleep")
        .seen();
}

/// A person that has said how long a silence may be means it; nobody else's command hangs by waiting.
#[test]
fn a_command_that_waits_hangs_only_where_that_is_asked_for() {
    assets(Arch::Amd64);
    let run = |flag: &str| vmtest([flag, "--timeout=12s", "--", "sleep", "1000"]).run();
    run("--hang-after=3s").code(72).says("the guest hangs: it does nothing").seen();
    run("--hang-after=off").code(124).says("the run took over 12s").seen();
    let done = vmtest([
        "--hang-after=2s",
        "--",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo $i; sleep 1; done",
    ]);
    done.run().code(0).stdout("1\n2\n3\n4\n5\n");
    vmtest(["--hang-after=soon", "--", "true"]).run().code(2).says("soon").seen();
}

/// What the kernel says of itself, as its log has it.
#[test]
fn the_kernels_own_words_prove_a_hang() {
    assets(Arch::Amd64);
    let reports = [
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:117]", "soft lockup"),
        ("watchdog: Watchdog detected hard LOCKUP on cpu 0", "hard lockup"),
        ("INFO: task sh:117 blocked for more than 120 seconds.", "hung task"),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", "RCU stall"),
        ("BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!", "workqueue"),
    ];
    let mut proved = 0;
    for (line, told) in reports {
        let script = format!(
            "say() {{ echo \"<3>$1\" >/dev/kmsg; }}; say '{line}'; say 'Call Trace:'; \
             say ' queue_take+0xd/0x1000'; sleep 1; say 'back to work'; while :; do :; done"
        );
        let done = vmtest(["--append=printk.devkmsg=on", "--hang-after=6s", "--timeout=30s"])
            .args(["--", "sh", "-c", &script])
            .run();
        // On a host that is too busy just then a report proves nothing, and the limit passes.
        if done.code != 124 {
            done.code(72).says("the guest hangs: its kernel reported").says(told);
            proved += 1;
        }
        done.seen();
    }
    assert!(proved > 0, "the host was too busy for every one of them");
}

/// A real one: the kernel's own threads do not get a processor any more.
#[test]
fn a_processor_that_is_taken_from_the_kernel_is_a_hang() {
    assets(Arch::Amd64);
    let script = "echo 4 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; \
        echo 0 >/sys/kernel/debug/sched/fair_server/cpu0/runtime; \
        echo -1 >/proc/sys/kernel/sched_rt_runtime_us; exec chrt -f 99 sh -c 'while :; do :; done'";
    let done =
        vmtest(["--bin=/usr/bin/chrt", "--hang-after=8s", "--timeout=60s", "--", "sh", "-c"])
            .arg(script)
            .run();
    done.code(72).says("the guest hangs").says("processor 0 ran `sh`").seen();
}

/// Each of the kernel's reports has its verdict.
#[test]
fn faults_of_each_kind_have_their_verdict() {
    assets(Arch::Amd64);
    let reports = [
        ("kernel BUG at drivers/queue.c:3!", "kernel BUG"),
        ("WARNING: CPU: 0 PID: 7 at drivers/queue.c:3 queue_take+0xd/0x1000", "WARNING"),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "NULL pointer dereference",
        ),
        ("divide error: 0000 [#1] PREEMPT SMP NOPTI", "divide error"),
        ("list_del corruption. prev->next should be ffff888, but was ffff999", "corruption"),
        (
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
            "sleeping",
        ),
        ("BUG: KASAN: slab-use-after-free in queue_take+0xd/0x1000", "KASAN"),
        ("UBSAN: array-index-out-of-bounds in drivers/queue.c:3:4", "UBSAN"),
    ];
    for (line, told) in reports {
        let script = format!(
            "say() {{ echo \"<3>$1\" >/dev/kmsg; }}; say '{line}'; \
             say 'CPU: 0 UID: 0 PID: 7 Comm: sh Not tainted 6.12.0 #1'; say 'Call Trace:'; \
             say ' queue_take+0xd/0x1000'; say '---[ end trace 0000000000000000 ]---'; exec sleep 0.1"
        );
        let done =
            vmtest(["--append=printk.devkmsg=on", "--splats=fail", "--", "sh", "-c", &script])
                .run();
        done.code(73).says("the kernel reported").seen();
        let said = done.stderr.to_lowercase();
        assert!(said.contains(&told.to_lowercase()), "{told}: {}", done.stderr);
    }
    let done = vmtest(["--splats=fail", "--", "sh", "-c", "echo c >/proc/sysrq-trigger"]).run();
    done.code(70).says("sysrq triggered crash").seen();
}

/// A QEMU that somebody has stopped: named at once, and every limit holds.
#[test]
fn a_stopped_qemu_is_named_and_deadlines_hold() {
    assets(Arch::Amd64);
    let stopped = |flags: &[&str]| -> (Done, Duration) {
        let running = vmtest(["--warm=off"]).args(flags).args(["--", "sleep", "1000"]).start();
        running.wait_for_qemu();
        std::thread::sleep(Duration::from_millis(500));
        for pid in running.survivor_pids() {
            let _ = kill_process(pid, Signal::STOP);
        }
        let begun = Instant::now();
        (running.wait(), begun.elapsed())
    };
    let (done, _) = stopped(&["--hang-after=3s"]);
    done.code(72).says("QEMU's process is stopped").seen();
    let (done, took) = stopped(&["--hang-after=off", "--timeout=4s"]);
    done.code(124).says("the run took over 4s").says("QEMU's process is stopped").seen();
    assert!(took < Duration::from_secs(8), "{took:?}");
    let (done, took) = stopped(&["--hang-after=off", "--boot-timeout=4s"]);
    done.code(124).says("was not ready after 4s").says("QEMU's process is stopped").seen();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

/// A kernel of nothing but a jump to itself.
#[test]
fn a_kernel_that_never_prints_is_told_by_its_registers() {
    assets(Arch::Riscv64);
    let dir = tempfile::tempdir().unwrap();
    let mut image = vec![0; 4096];
    // `j .` and a header (Documentation/arch/riscv/boot-image-header.rst).
    image[..4].copy_from_slice(&0x0000_006f_u32.to_le_bytes());
    image[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
    image[32..36].copy_from_slice(&2_u32.to_le_bytes());
    image[48..56].copy_from_slice(b"RISCV\0\0\0");
    image[56..60].copy_from_slice(b"RSC\x05");
    let kernel = dir.path().join("Image");
    std::fs::write(&kernel, image).unwrap();
    let done = vmtest(["--arch=riscv64", "--boot-timeout=5s", "--kernel"])
        .arg(&kernel)
        .args(["--", "true"])
        .run();
    done.code(124)
        .says("was not ready after 5s")
        .says("processor 0 was at 0x")
        .says("vmtest's agent has not said hello")
        .seen();
}
