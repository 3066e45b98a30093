//! `vmtest report convert`: results of several machines become one report.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::vmtest;

fn result(arch: &str, suite: &str, attempt: u32, status: &str, output: &str) -> String {
    let line = json!({
        "type": "result", "arch": arch, "kernel": "default", "suite": suite, "name": "",
        "attempt": attempt, "status": status, "started_secs": 1_764_558_001.5, "secs": 0.5,
        "guest_secs": 0.75, "boot_secs": 0.25, "slot": 0, "output": output,
    });
    format!("{line}\n")
}

fn begin() -> String {
    let line = json!({
        "type": "suite", "schema": 1, "vmtest_version": "0.1.0", "started_secs": 1_764_558_000.0, "jobs": 2,
    });
    format!("{line}\n")
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

/// What XML forbids, what HTML would obey, what is no UTF-8 (as JSON has it).
const NASTY: &str = "a\u{0}b\u{1b}[31mred\u{fffe}]]></system-out><script>alert(1)</script>\u{fffd}";

#[test]
fn results_of_several_machines_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let one = begin()
        + &result("amd64", "a", 1, "passed", "")
        + &result("amd64", "b", 1, "failed", NASTY);
    let end = "{\"type\":\"end\",\"secs\":2.5,\"interrupted\":false}\n";
    write(dir.path(), "1.jsonl", &(one + end));
    // This machine was killed in the middle of a line.
    let planned =
        "{\"type\":\"planned\",\"arch\":\"arm\",\"kernel\":\"default\",\"suite\":\"never\"}\n";
    let two = begin() + planned + &result("riscv64", "a", 1, "timed-out", "x") + "{\"type\":\"resu";
    write(dir.path(), "2.jsonl", &two);
    let args =
        ["report", "convert", "1.jsonl", "2.jsonl", "-o", "r.xml", "-o", "r.html", "-o", "r.ktap"];
    let more = ["-o", "all.jsonl", "-o", "r.trace.json", "--report=github"];
    let summary = dir.path().join("summary");
    let done = vmtest(args).args(more).env("GITHUB_STEP_SUMMARY", &summary).cwd(dir.path()).run();
    let text = String::from_utf8(done.code(0).stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("::error file=vmtest.toml,title=a [riscv64]::timed out"), "{text}");

    let xml = Command::new("xmllint").args(["--noout", "r.xml"]).current_dir(dir.path()).output();
    let xml = xml.expect("xmllint is there: setup/test-tools");
    assert!(xml.status.success(), "{}", String::from_utf8_lossy(&xml.stderr));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("r.xml").contains("name=\"never\" classname=\"never[arm]\""));
    assert!(!read("r.html").contains("<script"));
    assert!(read("r.ktap").starts_with("KTAP version 1\n1..4\n"));
    assert!(read("summary").contains("1 passed"));
    serde_json::from_str::<serde_json::Value>(&read("r.trace.json")).unwrap();
    // A joined file is joined again.
    let args = ["report", "convert", "all.jsonl", "--report=ktap=-"];
    let done = vmtest(args).cwd(dir.path()).run();
    assert_eq!(String::from_utf8_lossy(&done.code(0).stdout), read("r.ktap"));
}

#[test]
fn what_cannot_be_joined_is_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "bad.jsonl", &(begin() + "{\"no\":1}\n"));
    write(dir.path(), "later.jsonl", &begin().replace("\"schema\":1", "\"schema\":2"));
    for (args, code, says) in [
        (&["bad.jsonl", "-o", "r.xml"][..], 69, "line 2 is no result of a suite"),
        (&["later.jsonl", "-o", "r.xml"], 69, "its schema is 2"),
        (&["absent.jsonl", "-o", "r.xml"], 69, "cannot use the results `absent.jsonl`"),
        (&["bad.jsonl", "-o", "r.pdf"], 2, "its name says no form"),
        (&["bad.jsonl"], 2, "nothing is to be written"),
    ] {
        let done = vmtest(["report", "convert"]).args(args).cwd(dir.path()).run();
        done.code(code).says(says).seen();
        assert!(!dir.path().join("r.xml").exists());
    }
}
