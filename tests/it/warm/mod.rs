//! Warm start: real guests of all five architectures, saved and resumed.

mod faults;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{Done, Run, assets, vmtest};

/// A cache of its own: what other tests save is not in it.
fn cache() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn run(cache: &Path, arch: Arch) -> Run {
    vmtest(["--arch", arch.name()])
        .env("VMTEST_CACHE", cache)
        .env("VMTEST_WARM", "auto")
        .arg(format!("--artifacts={}", cache.join("artifacts").display()))
}

fn record(cache: &Path) -> Value {
    let text = std::fs::read_to_string(cache.join("artifacts/run.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// How the last run's guest came to be.
fn state(cache: &Path) -> String {
    record(cache)["warm"]["state"].as_str().unwrap().to_owned()
}

fn sh(run: Run, script: &str) -> Done {
    run.args(["--", "sh", "-c", script]).run()
}

/// Saves a template with the shape of a run without devices.
fn saved(arch: Arch) -> tempfile::TempDir {
    assets(arch);
    let cache = cache();
    sh(run(cache.path(), arch), "echo first").code(0).stdout("first\n");
    assert_eq!(state(cache.path()), "saved");
    cache
}

/// A resumed guest does all that one which has booted does: shares in both directions, files with what they
/// need, stdin, both outputs, events, environment, status.
fn everything(arch: Arch) {
    let event = assets(arch).guest.expect("checked").path;
    let cache = cache();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for expected in ["saved", "warm", "warm"] {
        let _ = std::fs::remove_dir_all(path("rw"));
        std::fs::create_dir(path("rw")).unwrap();
        std::fs::write(path("rw/from-host"), format!("host {expected}\n")).unwrap();
        std::fs::write(path("data"), format!("data {expected}\n")).unwrap();
        let script = "cat; cat /mount/9p/rw/from-host /etc/data; echo \"$GREETING from $PWD\"; \
            echo guest > /mount/9p/rw/from-guest; event facts '{\"n\":1}'; echo err >&2; \
            test -x /usr/local/bin/event; exit 7";
        let done = run(cache.path(), arch)
            .args(["--stdin", "--cwd", "/tmp", "--env", "GREETING=hello"])
            .arg(format!("--share={}:rw", path("rw").display()))
            .arg(format!("--file={}:/etc/data", path("data").display()))
            .arg(format!("--bin={}:/usr/local/bin/event", event.display()))
            .arg(format!("--event=facts={}", path("facts.json").display()))
            .args(["--", "sh", "-c", script])
            .stdin("typed\n")
            .run();
        done.code(7).says("err");
        let text = format!("typed\nhost {expected}\ndata {expected}\nhello from /tmp\n");
        done.stdout(&text);
        assert_eq!(std::fs::read_to_string(path("rw/from-guest")).unwrap(), "guest\n");
        assert_eq!(std::fs::read_to_string(path("facts.json")).unwrap(), "{\"n\":1}\n");
        assert_eq!(state(cache.path()), expected);
    }
}

/// No two guests of one template draw the same random numbers, have the same boot id, or the same
/// addresses. `VMTEST_CLONES=200` tries more than the default of 12.
fn own_random_numbers(arch: Arch) {
    let clones = std::env::var("VMTEST_CLONES").map_or(12, |n| n.parse().expect("a number"));
    let cache = saved(arch);
    let script = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; \
        cat /proc/sys/kernel/random/uuid; sed -n 's/ .*stack.*//p' /proc/self/maps; mktemp -u";
    let mut seen = std::collections::BTreeSet::new();
    let mut stacks = std::collections::BTreeSet::new();
    for _ in 0..clones {
        let done = sh(run(cache.path(), arch), script);
        done.code(0);
        assert_eq!(state(cache.path()), "warm");
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        assert_eq!(text.lines().count(), 5, "{text}");
        for (line, content) in text.lines().enumerate() {
            if line == 3 {
                stacks.insert(content.to_owned());
            } else {
                assert!(seen.insert((line, content.to_owned())), "drawn twice: {content}");
            }
        }
    }
    // A stack has few random bits, 11 (32-bit) to 22 (amd64): of 200 some may meet by chance, of equal guests all would.
    assert!(2 * stacks.len() > clones, "{} stacks of {clones}", stacks.len());
}

/// The clock is the host's within 50 ms, and time goes on: a second of sleep is a second.
fn own_clock(arch: Arch) {
    let cache = saved(arch);
    std::thread::sleep(Duration::from_secs(2));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let before = now();
    let script = "touch /x; stat -c %y /x; cut -d' ' -f1 /proc/uptime; sleep 1; \
        cut -d' ' -f1 /proc/uptime";
    let done = sh(run(cache.path(), arch), script);
    let after = now();
    done.code(0);
    assert_eq!(state(cache.path()), "warm");
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    let [stamp, up, later] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let clock = stamp.split_whitespace().nth(1).unwrap();
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    let guest = 3600.0 * parts[0] + 60.0 * parts[1] + parts[2];
    // Seconds of the day, wherever midnight is.
    let since = |from: f64| (guest - from % 86400.0 + 43200.0).rem_euclid(86400.0) - 43200.0;
    // The file's time is that of the kernel's last tick.
    assert!(
        since(before) > -0.06 && since(after) < 0.05,
        "{stamp}: {} {}",
        since(before),
        since(after)
    );
    let slept = later.parse::<f64>().unwrap() - up.parse::<f64>().unwrap();
    assert!((0.9..5.0).contains(&slept), "a second of sleep took {slept} s");
}

macro_rules! on_each_arch {
    ($($module:ident: $arch:expr;)*) => {$(
        mod $module {
            #[test]
            fn a_resumed_guest_does_all_that_a_booted_one_does() {
                super::everything($arch);
            }
            #[test]
            fn guests_of_one_template_draw_their_own_random_numbers() {
                super::own_random_numbers($arch);
            }
            #[test]
            fn a_resumed_guest_has_the_hosts_clock_and_sleeps() {
                super::own_clock($arch);
            }
        }
    )*};
}

on_each_arch! {
    amd64: vmtest::arch::Arch::Amd64;
    i386: vmtest::arch::Arch::I386;
    arm64: vmtest::arch::Arch::Arm64;
    arm: vmtest::arch::Arch::Arm;
    riscv64: vmtest::arch::Arch::Riscv64;
}

#[test]
fn a_program_of_the_host_is_warm_after_it_was_changed() {
    let cache = saved(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    for text in ["one", "two"] {
        std::fs::write(&program, format!("#!/bin/sh\necho {text} \"$@\"\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let done = run(cache.path(), Arch::Amd64).arg("--").arg(&program).arg("x").run();
        done.code(0).stdout(&format!("{text} x\n"));
        assert_eq!(state(cache.path()), "warm");
    }
    let done = run(cache.path(), Arch::Amd64).args(["--", "/usr/bin/git", "--version"]).run();
    done.code(0);
    assert!(done.stdout.starts_with(b"git version"));
    assert_eq!(state(cache.path()), "warm");
}

#[test]
fn what_one_guest_does_no_other_sees() {
    let cache = saved(Arch::Amd64);
    for _ in 0..2 {
        let done = sh(
            run(cache.path(), Arch::Amd64),
            "test ! -e /mark && touch /mark; hostname; hostname x",
        );
        done.code(0).stdout("vmtest\n");
        assert_eq!(state(cache.path()), "warm");
    }
}

#[test]
fn a_template_that_was_damaged_is_replaced() {
    let cache = saved(Arch::Amd64);
    let templates = cache.path().join("templates");
    for (file, bytes) in [("memory", 4096), ("state", 1000), ("template.json", 10)] {
        let dir = std::fs::read_dir(&templates).unwrap().next().unwrap().unwrap().path();
        let file = std::fs::OpenOptions::new().write(true).open(dir.join(file)).unwrap();
        file.set_len(bytes).unwrap();
        sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
        let record = record(cache.path());
        assert_eq!(record["warm"]["state"], "saved", "{record}");
        assert!(record["warm"]["reason"].as_str().unwrap().contains("damaged"), "{record}");
        sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
        assert_eq!(state(cache.path()), "warm");
    }
}

/// A state that QEMU refuses, although it is what was written down.
#[test]
fn a_template_that_does_not_resume_is_discarded_and_the_run_boots() {
    let cache = saved(Arch::Amd64);
    let templates = cache.path().join("templates");
    let dir = std::fs::read_dir(&templates).unwrap().next().unwrap().unwrap().path();
    let mut state_bytes = std::fs::read(dir.join("state")).unwrap();
    state_bytes[8..600].fill(0x55);
    std::fs::write(dir.join("state"), &state_bytes).unwrap();
    let record_path = dir.join("template.json");
    let mut about: Value =
        serde_json::from_str(&std::fs::read_to_string(&record_path).unwrap()).unwrap();
    about["state_blake3"] = blake3::hash(&state_bytes).to_hex().as_str().into();
    std::fs::write(&record_path, about.to_string()).unwrap();
    sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
    let record = record(cache.path());
    assert_eq!(record["warm"]["state"], "saved", "{record}");
    assert!(record["warm"]["reason"].as_str().unwrap().contains("did not work"), "{record}");
    sh(run(cache.path(), Arch::Amd64), "echo works").code(0);
    assert_eq!(state(cache.path()), "warm");
}

#[test]
fn many_first_runs_at_once_all_pass_and_leave_one_template() {
    assets(Arch::Amd64);
    let cache = cache();
    let dir = cache.path();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn(move || {
                    let done = vmtest(["--arch", "amd64", "--", "echo", &n.to_string()])
                        .env("VMTEST_CACHE", dir)
                        .env("VMTEST_WARM", "auto")
                        .run();
                    done.code(0).stdout(&format!("{n}\n"));
                })
            })
            .collect();
        started.into_iter().for_each(|run| run.join().unwrap());
    });
    let names: Vec<_> =
        std::fs::read_dir(dir.join("templates")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..16)
            .map(|n| {
                scope.spawn(move || {
                    let done =
                        vmtest(["--arch", "amd64", "--warm", "on", "--", "echo", &n.to_string()])
                            .env("VMTEST_CACHE", dir)
                            .run();
                    done.code(0).stdout(&format!("{n}\n"));
                })
            })
            .collect();
        started.into_iter().for_each(|run| run.join().unwrap());
    });
}

#[test]
fn a_run_that_is_killed_leaves_nothing_in_the_way_of_the_next() {
    assets(Arch::Amd64);
    let cache = cache();
    for after in [100, 1500, 2500, 3500] {
        let running = vmtest(["--arch", "amd64", "--", "sleep", "100"])
            .env("VMTEST_CACHE", cache.path())
            .env("VMTEST_WARM", "auto")
            .start();
        std::thread::sleep(Duration::from_millis(after));
        let _ = rustix::process::kill_process(running.pid(), rustix::process::Signal::KILL);
        running.wait().code(137);
    }
    for _ in 0..2 {
        sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
    }
    assert_eq!(state(cache.path()), "warm");
    vmtest(["template", "prune"]).env("VMTEST_CACHE", cache.path()).run().code(0);
    assert_eq!(std::fs::read_dir(cache.path().join("templates")).unwrap().count(), 0);
}

#[test]
fn a_guest_that_has_to_boot_boots_and_says_why() {
    assets(Arch::Amd64);
    let cache = cache();
    let dir = tempfile::tempdir().unwrap();
    let ro_dir = format!("--ro-dir={}", dir.path().display());
    run(cache.path(), Arch::Amd64).arg(&ro_dir).args(["--", "true"]).run().code(0);
    let cold = record(cache.path());
    assert_eq!(cold["warm"]["state"], "cold");
    assert!(cold["warm"]["reason"].as_str().unwrap().contains("read-only directory"), "{cold}");
    let done = run(cache.path(), Arch::Amd64).args([&ro_dir, "--warm=on", "--", "true"]).run();
    done.code(69).says("a saved guest is asked for").says("read-only directory");
    run(cache.path(), Arch::Amd64).args(["--warm=off", "--", "true"]).run().code(0);
    assert_eq!(state(cache.path()), "cold");
    assert!(!cache.path().join("templates").exists());
    // A cache that cannot be written is no reason not to run.
    let done = vmtest(["--arch", "amd64", "--", "true"])
        .env("VMTEST_CACHE", "/proc/nowhere")
        .env("VMTEST_WARM", "auto")
        .run();
    done.code(0);
}

#[test]
fn templates_are_listed_and_explained() {
    let cache = saved(Arch::Amd64);
    let tool = |words: &[&str]| {
        let done = vmtest(["template"]).args(words).env("VMTEST_CACHE", cache.path()).run();
        done.code(0);
        String::from_utf8(done.stdout.clone()).unwrap()
    };
    let listed = tool(&["list"]);
    assert!(listed.contains("amd64") && listed.contains("MiB"), "{listed}");
    let json: Value = serde_json::from_str(&tool(&["list", "--json"])).unwrap();
    assert_eq!(json["templates"].as_array().unwrap().len(), 1);
    assert!(tool(&["why", "--arch", "amd64"]).starts_with("warm: it goes on from template"));
    let why = tool(&["why", "--arch", "amd64", "--memory", "1G"]);
    assert!(why.starts_with("saved: it boots") && why.contains("-m 1024M"), "{why}");
    let why = tool(&["why", "--arch", "amd64", "--ro-dir", "."]);
    assert!(why.starts_with("cold: ") && why.contains("read-only directory"), "{why}");
    tool(&["prune"]);
    assert_eq!(tool(&["list"]), "");
}
