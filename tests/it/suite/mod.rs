//! `vmtest test` as a user sees it: suites in real guests, and what is wrong with a suite.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{Run, assets, vmtest};

const BOTH: [Arch; 2] = [Arch::Amd64, Arch::Riscv64];

/// A suite in a directory of its own.
pub(crate) fn suite(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vmtest.toml"), text).unwrap();
    dir
}

/// `vmtest test` there.
fn test(dir: &Path, args: &[&str]) -> Run {
    vmtest(["test"]).args(args).cwd(dir)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `suite/name arch status`, sorted.
fn results(path: &Path) -> Vec<String> {
    let mut told: Vec<String> = lines(path)
        .iter()
        .filter(|line| line["type"] == "result")
        .map(|line| {
            let word = |key: &str| line[key].as_str().unwrap().to_owned();
            format!("{}/{} {} {}", word("suite"), word("name"), word("arch"), word("status"))
        })
        .collect();
    told.sort();
    told
}

const MATRIX: &str = r#"
[defaults]
memory = "256M"
arch = ["amd64", "riscv64"]

[arch.riscv64]
env = ["WORD=other"]

[[test]]
name = "boots"
command = ["uname", "-m"]
expect = { regex = "^(x86_64|riscv64)\n$" }

[[test]]
name = "points"
format = "tap"
script = "echo 1..2; echo ok 1 - one; echo not ok 2 - two; false"

[[test]]
name = "panics"
arch = "amd64"
tags = ["bad"]
# What a command has just printed may be in the guest still when its kernel panics.
script = "echo before; sleep 0.5; echo c > /proc/sysrq-trigger; sleep 100"

[[test]]
name = "skips"
format = "automake"
script = "exit 77"

[[test]]
name = "word"
arch = "riscv64"
script = "[ $WORD = other ]"
"#;

/// A panic in one of many, and a failure within another's output: all others have their results.
#[test]
fn a_matrix_gives_every_test_a_result() {
    BOTH.iter().for_each(|arch| drop(assets(*arch)));
    let dir = suite(MATRIX);
    let reports = ["--report=json=r.jsonl", "--report=junit=r.xml", "--report=html=r.html"];
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    // Found upwards; reports are relative to where the user is.
    let done = vmtest(["test", "-j2"]).args(reports).cwd(&below).run();
    done.code(1).stdout("");
    done.says("panics [amd64]").says("Kernel panic - not syncing: sysrq triggered crash");
    done.says("(1 of 2 tests passed)").says("5 passed, 2 skipped, 2 failed, 1 crashed in").seen();
    assert_eq!(
        results(&below.join("r.jsonl")),
        [
            "boots/ amd64 passed",
            "boots/ riscv64 passed",
            "panics/ amd64 crashed",
            "points/one amd64 passed",
            "points/one riscv64 passed",
            "points/two amd64 failed",
            "points/two riscv64 failed",
            "skips/ amd64 skipped",
            "skips/ riscv64 skipped",
            "word/ riscv64 passed",
        ]
    );
    let xml = std::fs::read_to_string(below.join("r.xml")).unwrap();
    assert!(xml.contains("name=\"two\" classname=\"points[riscv64]\""), "{xml}");
    let page = std::fs::read_to_string(below.join("r.html")).unwrap();
    assert!(page.contains("☠ crashed") && page.contains("before\n"), "{page}");

    // What failed is run again, and nothing else; with a tag, of that.
    let done = test(dir.path(), &["--rerun-failed", "--list"]).run();
    done.code(0).stdout("points [amd64]\npoints [riscv64]\npanics [amd64]\n");
    let done =
        test(dir.path(), &["--rerun-failed", "--tag=bad", "--report=json=again.jsonl"]).run();
    done.code(1).seen();
    assert_eq!(results(&dir.path().join("again.jsonl")), ["panics/ amd64 crashed"]);
}

#[test]
fn a_pass_after_a_failure_is_flaky_and_no_failure() {
    assets(Arch::Amd64);
    let dir = suite(
        "[[test]]\nname = \"flaky\"\narch = \"amd64\"\nretries = 2\nshare = [\".:here\"]\n\
         script = \"cd /mount/9p/here; [ -e seen ] || { touch seen; echo first; exit 1; }\"\n",
    );
    let done = test(dir.path(), &["--report=json=-", "--report=junit=r.xml"]).run();
    done.code(0).says("flaky").says("1 flaky in").seen();
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert_eq!(text.matches("\"type\":\"result\"").count(), 2, "{text}");
    let xml = std::fs::read_to_string(dir.path().join("r.xml")).unwrap();
    assert!(xml.contains("<flakyFailure") && xml.contains("first"), "{xml}");
}

#[test]
fn a_test_that_prints_much_keeps_its_beginning_and_its_end() {
    assets(Arch::Amd64);
    let dir = suite(
        "[[test]]\nname = \"loud\"\narch = \"amd64\"\ntimeout = \"3m\"\n\
         script = \"echo begin; dd if=/dev/zero bs=1M count=48 2>/dev/null; echo; echo end; exit 3\"\n",
    );
    let done = test(dir.path(), &["--jobs=64", "--report=json=r.jsonl"]).run();
    done.code(1).says("exit status 3").seen();
    let result =
        lines(&dir.path().join("r.jsonl")).into_iter().find(|line| line["type"] == "result");
    let output = result.unwrap()["output"].as_str().unwrap().to_owned();
    assert!(output.starts_with("begin\n") && output.ends_with("end\n"));
    assert!(output.contains("bytes left out …]") && output.len() < 200 << 10, "{}", output.len());
}

/// The first signal ends guests, and reports are written.
#[test]
fn an_interrupted_suite_has_its_reports() {
    assets(Arch::Amd64);
    let dir = suite(
        "[defaults]\narch = \"amd64\"\n[[test]]\nname = \"long\"\nscript = \"sleep 1000\"\n\
         [[test]]\nname = \"later\"\nscript = \"true\"\n",
    );
    let args = ["--jobs=1", "--report=json=r.jsonl", "--report=junit=r.xml"];
    let running = test(dir.path(), &args).start();
    running.wait_for_qemu();
    kill_process(running.pid(), Signal::INT).unwrap();
    let done = running.wait();
    done.code(130).says("SIGINT: reports are finished").says("2 not run in").seen();
    assert_eq!(results(&dir.path().join("r.jsonl")), ["long/ amd64 not-run"]);
    assert!(std::fs::read_to_string(dir.path().join("r.xml")).unwrap().contains("later"));
}

/// What was done is in the file; the next run goes on from it.
#[test]
fn a_suite_that_was_killed_goes_on() {
    assets(Arch::Amd64);
    let dir = suite(
        "[defaults]\narch = \"amd64\"\n[[test]]\nname = \"first\"\nscript = \"true\"\n\
         [[test]]\nname = \"second\"\nshare = [\".:here\"]\n\
         script = \"cd /mount/9p/here; [ -e go ] || { touch begun; sleep 1000; }\"\n\
         [[test]]\nname = \"third\"\nscript = \"true\"\n",
    );
    let running = test(dir.path(), &["--jobs=1"]).start();
    let begun = dir.path().join("begun");
    let started = std::time::Instant::now();
    while !begun.exists() {
        assert!(started.elapsed() < Duration::from_secs(200), "the second test does not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(running.pid(), Signal::KILL).unwrap();
    running.wait().code(137).seen();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let done = test(dir.path(), &["--rerun-failed", "--report=json=r.jsonl"]).run();
    done.code(0).says("2 passed in").seen();
    assert_eq!(
        results(&dir.path().join("r.jsonl")),
        ["second/ amd64 passed", "third/ amd64 passed"]
    );
    let done = test(dir.path(), &["--rerun-failed"]).run();
    done.code(0).says("no test to run: nothing failed").seen();
}

#[test]
fn compiled_test_programs_are_run_without_a_suite() {
    let arch = Arch::host().unwrap();
    assets(arch);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("programs.rs");
    let text = "#[test] fn a_passes() {}\n#[test] fn fails() { panic!(\"on purpose\") }\n\
                #[test] #[ignore] fn ignored() {}\n#[test] fn kills() { std::process::abort() }\n\
                #[test] fn later() {}\n";
    std::fs::write(&source, text).unwrap();
    let program = dir.path().join("programs");
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let status = std::process::Command::new(rustc)
        .args(["--test", "--edition", "2021", "-o"])
        .args([&program, &source])
        .status()
        .expect("cargo's rustc can be run");
    assert!(status.success());
    let done = test(dir.path(), &["--report=json=r.jsonl", "--", "./programs"]).run();
    done.code(1).says("programs").seen();
    let told: Vec<String> = results(&dir.path().join("r.jsonl"));
    let expected = ["a_passes", "fails", "ignored", "kills", "later"]
        .iter()
        .zip(["passed", "failed", "skipped", "crashed", "not-run"]);
    let expected: Vec<String> =
        expected.map(|(name, status)| format!("programs/{name} {arch} {status}")).collect();
    assert_eq!(told, expected);
    let missing = test(dir.path(), &["--", "./absent"]).run();
    missing.code(69).says("cannot read the test program").seen();
}

/// Each is told before anything boots: there are no assets.
#[test]
fn what_is_wrong_with_a_suite_is_told_before_the_first_boot() {
    let one = "[[test]]\nname = \"a\"\nscript = \"true\"\n";
    for (text, args, code, says) in [
        ("[defaults]\nmemroy = \"1G\"\n", &[][..], 2, ["2 | memroy", "did you mean `memory`?"]),
        (&format!("{one}{one}"), &[], 2, ["two tests of the name `a`", "the first is in line 1"]),
        (one, &["--report=junit=/no/dir/r.xml"], 69, ["/no/dir/r.xml", "hint: name a file"]),
        (one, &["--report=junit=."], 69, ["cannot write the report", "hint: name a file"]),
        (one, &["nothing"], 2, ["none of 1 tests is chosen", "--list"]),
        (&format!("{one}memory = \"lots\"\n"), &[], 2, ["test `a` (vmtest.toml, line 1)", "lots"]),
        (&format!("{one}share = \"absent\"\n"), &["--list"], 0, ["", ""]),
        ("", &[], 2, ["no test for these machines", "--list"]),
    ] {
        let dir = suite(text);
        let done = test(dir.path(), args).env("VMTEST_ASSETS", "/no/assets").run();
        done.code(code);
        says.iter()
            .for_each(|words| assert!(done.stderr.contains(words), "{words}: {}", done.stderr));
        done.says("").seen();
    }
    let dir = tempfile::tempdir().unwrap();
    let done = test(dir.path(), &[]).run();
    done.code(2).says("there is no vmtest.toml in").seen();
}
