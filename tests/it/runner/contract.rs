//! As if the program ran here: streams, status, signals, paths, environment; and what is not: writes.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use vmtest::arch::Arch;

use super::{host, runner, sh, tree};
use crate::support::{DEADLINE, assets, vmtest};

/// How the last run's guest came to be.
fn state(artifacts: &Path) -> String {
    let text = std::fs::read_to_string(artifacts.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    record["warm"]["state"].as_str().unwrap().to_owned()
}

fn host_arch() -> Arch {
    let arch = Arch::host().unwrap();
    assets(arch);
    arch
}

/// Names with all that separates words anywhere between here and there.
#[test]
fn a_program_runs_as_if_it_ran_here_and_what_it_writes_stays_there() {
    host_arch();
    let cache = tempfile::tempdir().unwrap();
    let artifacts = tempfile::tempdir().unwrap();
    let keep = format!("--artifacts={}", artifacts.path().display());
    let script = "pwd; cat data; cat; echo err >&2; echo new > data; rm ../kept; mkdir made; \
        echo home > ../out/home; cat data; ls ..; exit 7";
    for (expected, name) in [("saved", "plain"), ("warm", "a b,c:d=e\\f'\"ü")] {
        let sub = format!("{name}/data");
        let dir = tree(&[(".git/HEAD", ""), (&sub, "data\n"), ("out/x", ""), ("kept", "kept\n")]);
        // Other directories than before: the guest is the same.
        let cwd = dir.path().join(name);
        let done = sh(&cwd, &["--write", "../out", &keep], script)
            .env("VMTEST_CACHE", cache.path())
            .env("VMTEST_WARM", "auto")
            .stdin("typed\n")
            .run();
        done.code(7).says("err");
        assert_eq!(done.stderr, "err\n");
        let listed = if name == "plain" { "out\nplain\n".into() } else { format!("{name}\nout\n") };
        done.stdout(&format!("{}\ndata\ntyped\nnew\n{listed}", cwd.display()));
        assert_eq!(std::fs::read_to_string(cwd.join("data")).unwrap(), "data\n");
        assert!(dir.path().join("kept").exists() && !cwd.join("made").exists());
        assert_eq!(std::fs::read_to_string(dir.path().join("out/home")).unwrap(), "home\n");
        assert_eq!(state(artifacts.path()), expected);
    }
}

#[test]
fn it_gets_the_variables_that_tests_read_and_no_secret() {
    host_arch();
    let dir = tree(&[]);
    let run =
        sh(dir.path(), &["--pass-env=MINE", "--env=GIVEN=here", "--env=RUST_LOG=flag"], "env")
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "0")
            .env("TEST_TOKEN", "secret")
            .env("MINE", "mine")
            .env("OTHER", "other")
            .run();
    let text = String::from_utf8(run.stdout.clone()).unwrap();
    run.code(0);
    for line in ["RUST_LOG=flag", "RUST_BACKTRACE=0", "MINE=mine", "GIVEN=here"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
    for name in ["TEST_TOKEN", "OTHER", "VMTEST_ASSETS"] {
        assert!(!text.contains(name), "{name} is in {text}");
    }
}

#[test]
fn a_crash_is_a_crash_and_nothing_is_said() {
    host_arch();
    let dir = tree(&[]);
    // One that Rust has a handler for, one that it has not, one that no process can catch.
    for signal in [11, 6, 9] {
        let done = sh(dir.path(), &[], format!("kill -{signal} $$")).run();
        assert_eq!((done.signal, &*done.stderr), (Some(signal), ""));
    }
}

#[test]
fn the_guests_own_end_is_told_in_a_line() {
    host_arch();
    let dir = tree(&[]);
    let done = sh(dir.path(), &[], "echo out; sleep 1; echo c > /proc/sysrq-trigger").run();
    done.code(70).says("vmtest: the guest panicked: ").says("sysrq").stdout("out\n");
    let done = sh(dir.path(), &["--timeout=10s"], "echo out; sleep 100").run();
    done.code(124).says("vmtest: timed out: the run took over 10s (--timeout)").stdout("out\n");
}

#[test]
fn a_signal_is_the_programs_own_and_ends_one_that_does_not_care() {
    host_arch();
    for (trap, code, says) in
        [("trap 'echo term; exit 3' TERM", 3, ""), ("trap '' TERM", 130, "interrupted by SIGTERM")]
    {
        let dir = tree(&[("out/x", "")]);
        let script = format!("{trap}; : > out/go; while :; do sleep 0.1; done");
        let running = sh(dir.path(), &["--write=out"], script).start();
        let started = Instant::now();
        while !dir.path().join("out/go").exists() {
            assert!(started.elapsed() < DEADLINE, "the program did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_process(running.pid(), Signal::TERM).unwrap();
        let sent = Instant::now();
        // What the shell says of its child, which gets the signal too.
        let done = running.wait().aside("Terminated");
        done.code(code).says(says);
        assert!(sent.elapsed() < Duration::from_secs(60), "it took {:?}", sent.elapsed());
    }
}

#[test]
fn a_program_of_the_hosts_runs_here_when_the_hook_is_anothers() {
    let other = if host_arch() == Arch::Riscv64 { "amd64" } else { "riscv64" };
    let dir = tree(&[]);
    let echo = host("echo");
    // No guest is looked for: there is nothing that could be started.
    let quiet = runner(dir.path(), &["--arch", other])
        .env("VMTEST_ASSETS", "/nonexistent")
        .arg("--")
        .arg(&echo)
        .arg("here")
        .run();
    quiet.code(0).stdout("here\n");
    assert_eq!(quiet.stderr, "");
    let said = runner(dir.path(), &["--arch", other, "-v"]).arg("--").arg(&echo).arg("here").run();
    said.code(0).stdout("here\n").says("runs on the host: it is");
    // The same by what cargo is told, and not by what it is told for this host.
    let variable = format!(
        "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
        if other == "amd64" { "X86_64" } else { "RISCV64GC" }
    );
    let hook = runner(dir.path(), &["-v"]).env(&variable, "vmtest runner --");
    let done = hook.arg("--").arg(&echo).arg("here").run();
    done.code(0).stdout("here\n").says("runs on the host: it is");
    let list = runner(dir.path(), &["-v"]).arg("--").arg(&echo);
    let done = list.args(["--list", "--format", "terse"]).run();
    done.code(0).stdout("--list --format terse\n").says("it only lists its tests");
}

#[test]
fn a_program_from_elsewhere_has_its_own_path_in_the_guest() {
    host_arch();
    let dir = tree(&[("project/.git/HEAD", ""), ("elsewhere/x", "")]);
    let program = dir.path().join("elsewhere/my-cat");
    std::fs::copy(host("cat"), &program).unwrap();
    let done = runner(&dir.path().join("project"), &[])
        .arg("--")
        .arg(&program)
        .args(["/proc/self/cmdline"])
        .run();
    done.code(0).stdout(&format!("{}\0/proc/self/cmdline\0", program.display()));
    // A name that depends on the working directory means the same file there.
    let done = runner(&dir.path().join("elsewhere"), &[])
        .args(["--", "./my-cat", "/proc/self/cmdline"])
        .run();
    done.code(0).stdout("./my-cat\0/proc/self/cmdline\0");
}

#[test]
fn a_script_can_name_the_runner_as_its_interpreter() {
    host_arch();
    let line = format!("#!{} runner", env!("CARGO_BIN_EXE_vmtest"));
    let dir = tree(&[("t", &format!("{line}\necho \"$0 $1 $(uname -s) $VMTEST_IN_GUEST\"\n"))]);
    // The kernel gives an interpreter one argument: `env -S` splits it, and so does this.
    let done = runner(dir.path(), &["--", "./t", "word"]).run();
    done.code(0).stdout("./t word Linux 1\n");
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    host_arch();
    let dir = tree(&[("empty", ""), ("file", "x")]);
    vmtest(["runner"])
        .run()
        .code(2)
        .says("error: the following required arguments were not provided:")
        .says("<PROGRAM>");
    let here =
        |options: &[&str], program: &str| runner(dir.path(), options).args(["--", program]).run();
    here(&["--write", "missing"], "sh")
        .code(69)
        .says("error: cannot read the directory `")
        .says("missing`");
    here(&["--write", "file"], "sh").code(69).says("error: cannot read the directory `");
    here(&["--project", "/usr"], "sh").code(2).says("the guest has its own one there");
    here(&[], "./empty").code(69).says("empty").seen();
    here(&[], "./nothing").code(127).says("./nothing");
    here(&["--project", "/proc"], "sh").code(2).says("cannot be at its own path");
}
