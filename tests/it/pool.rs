//! Templates as values, and pools of ready guests: real guests of all five architectures.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmtest::accel::AccelOption;
use vmtest::arch::Arch;
use vmtest::blocking::{Guest, Original, Pool, Template};
use vmtest::configure::{Configure, device, options, p9_directory, with_accel, with_image};
use vmtest::qemu::Drive;
use vmtest_guest::proto::{Bytes, Exec, ExitStatus};

use crate::support::assets;

fn shell(guest: &Guest, script: &str) -> String {
    let argv = ["sh", "-ec", script].map(Bytes::from).to_vec();
    let output = guest.output(Exec { argv, ..Exec::default() }).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status, ExitStatus::Code(0), "{script}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A machine of its own: what other tests save is not used.
fn machine(memory_mib: u64) -> impl Configure {
    (with_accel(AccelOption::Tcg), options(move |options| options.memory_mib = memory_mib))
}

/// Fresh guests of one template in several threads: what one writes no other sees, none draws another's
/// numbers, and each has what the configurator asks for.
fn a_guest_for_each_thread(arch: Arch) {
    assets(arch);
    let share = tempfile::tempdir().unwrap();
    let configurator = (
        machine(256),
        p9_directory(share.path(), "out"),
        with_image(|image| {
            image.bytes("etc/given", 0o644, b"given\n".to_vec());
        }),
    );
    let template = Template::new(arch, configurator).unwrap();
    let threads = ["a", "b", "c"].map(|name| {
        let template = template.clone();
        std::thread::spawn(move || {
            let guest = template.clone_guest().unwrap();
            let script = format!(
                "test ! -e /mine; echo {name} > /mine; echo {name} > /mount/9p/out/{name}; \
                 cat /etc/given; head -c 16 /dev/urandom | od -An -tx1"
            );
            let said = shell(&guest, &script);
            assert!(guest.shutdown().is_empty());
            said
        })
    });
    let said = threads.map(|thread| thread.join().unwrap());
    assert!(said.iter().all(|said| said.starts_with("given\n")), "{said:?}");
    assert_eq!(BTreeSet::from(said).len(), 3, "two drew the same numbers");
    assert_eq!(std::fs::read_dir(share.path()).unwrap().count(), 3);
}

/// What was done before the guest was saved is there in each clone, a process that runs included.
fn what_is_set_up_once_is_there_in_each(arch: Arch) {
    assets(arch);
    let original = Original::boot(arch, machine(192)).unwrap();
    let script = "echo ready > /state; (while sleep 0.1; do date +%s%N > /b; mv /b /beat; done) \
        > /dev/null 2>&1 &";
    shell(original.guest(), script);
    let template = Template::save(original).unwrap();
    for _ in 0..2 {
        let guest = template.clone_guest().unwrap();
        let said = shell(
            &guest,
            "cat /state; sleep 0.5; a=$(cat /beat); sleep 1; b=$(cat /beat); \
             test $a != $b; rm /state",
        );
        assert_eq!(said, "ready\n");
    }
}

/// Parked guests take no processor time, are handed out once each, and have the clock of the moment.
fn parked_guests_are_ready(arch: Arch) {
    assets(arch);
    let template = Template::new(arch, machine(160)).unwrap();
    let pool = Pool::new(&template, 2);
    pool.filled(2);
    let pids = pool.pids();
    let before: Vec<u64> = pids.iter().map(|pid| ticks(*pid)).collect();
    std::thread::sleep(Duration::from_secs(2));
    let after: Vec<u64> = pids.iter().map(|pid| ticks(*pid)).collect();
    let spent: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    assert!(spent <= 3, "parked guests took {spent} ticks in two seconds");

    let guests = [pool.take().unwrap(), pool.take().unwrap()];
    let said: BTreeSet<String> = guests
        .iter()
        .map(|guest| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let said = shell(
                guest,
                "test ! -e /used; touch /used; date +%s; cat /proc/sys/kernel/random/uuid",
            );
            let (clock, drawn) = said.split_once('\n').unwrap();
            let clock: u64 = clock.parse().unwrap();
            assert!(clock.abs_diff(now) <= 1, "{clock} in the guest, {now} here");
            drawn.to_owned()
        })
        .collect();
    assert_eq!(said.len(), 2, "two drew the same numbers");
    // One more than there are at once, and one whose QEMU has died while it was parked.
    drop(guests);
    pool.filled(1);
    for pid in pool.pids() {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    shell(&pool.take().unwrap(), "test ! -e /used");
    let left = pool.pids();
    drop(pool);
    std::thread::sleep(Duration::from_millis(300));
    assert!(left.iter().all(|pid| ticks(*pid) == 0), "a parked guest outlives its pool");
}

/// Processor time of a process in ticks; 0 for one that is gone.
fn ticks(pid: u32) -> u64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // A zombie has ended.
    if fields[0] == "Z" {
        return 0;
    }
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

macro_rules! on_each {
    ($($name:ident: $arch:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn a_guest_for_each_thread() {
                super::a_guest_for_each_thread($arch);
            }

            #[test]
            fn what_is_set_up_once_is_there_in_each() {
                super::what_is_set_up_once_is_there_in_each($arch);
            }

            #[test]
            fn parked_guests_are_ready() {
                super::parked_guests_are_ready($arch);
            }
        }
    )*};
}

on_each! {
    amd64: Arch::Amd64;
    i386: Arch::I386;
    arm64: Arch::Arm64;
    arm: Arch::Arm;
    riscv64: Arch::Riscv64;
}

#[test]
fn a_machine_that_has_to_boot_says_why_it_is_no_template() {
    assets(Arch::Amd64);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let error = Template::new(Arch::Amd64, device(Drive::new(file.path()))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("has to boot") && text.contains("drive"), "{text}");
    assert!(error.hint().is_some());
}
