//! `vmtest doctor` on this machine, and on ones that lack something.

use std::time::Duration;

use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

fn report(run: crate::support::Run) -> (i32, Value) {
    let done = run.run();
    assert!(done.stderr.is_empty(), "{}", done.stderr);
    (done.code, serde_json::from_slice(&done.stdout).unwrap())
}

fn state<'a>(report: &'a Value, name: &str) -> Vec<(&'a str, &'a str)> {
    let checks = report["checks"].as_array().unwrap();
    let named = checks.iter().filter(|check| check["name"] == name);
    named.map(|c| (c["state"].as_str().unwrap(), c["text"].as_str().unwrap())).collect()
}

#[test]
fn this_machine_is_fit() {
    assets(Arch::Amd64);
    let done = vmtest(["doctor"]).run();
    done.code(0);
    assert!(done.elapsed < Duration::from_secs(4), "{:?}", done.elapsed);
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    for name in [
        "host",
        "memory",
        "kvm",
        "assets",
        "QEMU amd64",
        "cache",
        "limits",
        "nix",
        "toolchains",
        "PATH",
    ] {
        assert!(
            text.lines().any(|line| line[4..].trim_start().starts_with(name)),
            "{name}:\n{text}"
        );
    }
    let home = std::env::var("HOME").unwrap();
    assert!(home.len() < 2 || !text.contains(&home), "the home directory is told:\n{text}");
    let (code, report) = report(vmtest(["doctor", "--json"]));
    assert_eq!((code, report["checks"].as_array().unwrap().len() > 10), (0, true), "{report:#}");
}

#[test]
fn what_is_broken_fails_with_what_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("assets.json");
    let doctor = || vmtest(["doctor", "--json"]).env("VMTEST_ASSETS", &none);
    let (code, found) = report(doctor());
    assert_eq!(code, 1, "{found:#}");
    assert_eq!(state(&found, "assets")[0].0, "fail", "{found:#}");

    // A file that is not as the manifest says, and one that is not there.
    std::fs::write(dir.path().join("kernel"), "x").unwrap();
    let zeros = "0".repeat(64);
    let asset =
        |path: &str| format!("{{\"path\":\"{path}\",\"version\":\"1\",\"sha256\":\"{zeros}\"}}");
    let manifest = format!(
        "{{\"schema\":1,\"guests\":{{\"arm\":{{\"kernel\":{},\"shell\":{}}}}}}}",
        asset("kernel"),
        asset("gone")
    );
    std::fs::write(&none, manifest).unwrap();
    let (code, found) = report(doctor().env("PATH", "relative:/usr/bin:/bin"));
    assert_eq!(code, 1, "{found:#}");
    let assets = state(&found, "assets");
    let fails = assets.iter().filter(|line| line.0 == "fail").count();
    assert_eq!(fails, 2, "{found:#}");
    assert_eq!(state(&found, "PATH")[0].0, "warn", "{found:#}");
    let (code, found) = report(doctor().env("TMPDIR", "/no/such/dir"));
    assert_eq!((code, state(&found, "temporary files")[0].0), (1, "fail"), "{found:#}");
}
