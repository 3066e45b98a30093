//! `#[vmtest::test]`, under this very `cargo test`: bodies run in guests.

use std::process::Command;

use vmtest::arch::Arch;

use crate::support::assets;

fn in_guest() -> bool {
    std::env::var("VMTEST_IN_GUEST").is_ok_and(|value| value == "1")
}

#[vmtest::test(memory = "300M", cpus = 2, cmdline = "vmtest.word=7", timeout = "4m")]
fn a_body_runs_in_the_guest_that_was_asked_for() -> Result<(), Box<dyn std::error::Error>> {
    assert!(in_guest());
    assert!(std::fs::read_to_string("/proc/cmdline")?.contains("vmtest.word=7"));
    assert_eq!(std::fs::read_to_string("/proc/cpuinfo")?.matches("processor\t").count(), 2);
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total: u64 = meminfo.split_whitespace().nth(1).ok_or("no MemTotal")?.parse()?;
    assert!((150 << 10..300 << 10).contains(&total), "{total} KiB");
    // The crate is here, at its own path.
    assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").is_file());
    Ok(())
}

#[vmtest::test(memory = "256M", cpus = 2, timeout = "1m", cmdline = "quiet")]
fn has_two_processors() -> std::io::Result<()> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
    assert_eq!(cpuinfo.matches("processor\t").count(), 2);
    Ok(())
}

/// The test above is what docs/testing.md shows.
#[test]
fn the_documented_test_is_one() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let block = docs.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(
        include_str!("attribute.rs").contains(block),
        "docs/testing.md has another test:\n{block}"
    );
}

#[vmtest::test]
#[should_panic(expected = "an expected panic in a guest: true")]
fn a_panic_that_is_expected_is_the_bodys() {
    panic!("an expected panic in a guest: {}", in_guest());
}

// What fails is run by the tests below, each in a test program of its own.

#[vmtest::test]
#[ignore = "a test below runs it"]
fn fails_by_a_panic() {
    println!("written in the guest: {}", in_guest());
    assert_eq!(1 + 1, 3, "a panic in the guest");
}

#[vmtest::test]
#[ignore = "a test below runs it"]
fn fails_by_an_error() -> Result<(), String> {
    Err(format!("an error, in a guest: {}", in_guest()))
}

#[vmtest::test]
#[ignore = "a test below runs it"]
fn fails_by_the_guests_end() {
    std::fs::write("/proc/sysrq-trigger", "c").unwrap();
}

#[vmtest::test(timeout = "3s")]
#[ignore = "a test below runs it"]
fn fails_by_time() {
    std::thread::sleep(std::time::Duration::from_secs(600));
}

#[vmtest::test(memory = "much")]
#[ignore = "a test below runs it"]
fn fails_by_its_arguments() {
    unreachable!("no guest has much memory");
}

#[cfg(target_arch = "x86_64")]
#[vmtest::test(arch = "riscv64")]
#[ignore = "a test below runs it"]
fn fails_by_its_architecture() {
    unreachable!("the test program is amd64");
}

/// This program with one of its tests, ignored or not.
fn failed(name: &str) -> String {
    assets(Arch::host().unwrap());
    let name = format!("runner::attribute::{name}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--include-ignored"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains(&format!("test {name} ... FAILED")), "{text}");
    text
}

#[test]
fn what_fails_in_the_guest_fails_here_for_the_same_reason() {
    let text = failed("fails_by_a_panic");
    for said in [
        "written in the guest: true",
        "failed in the guest: panicked at",
        "a panic in the guest",
        "right: 3",
    ] {
        assert!(text.contains(said), "`{said}` is missing in:\n{text}");
    }
    let text = failed("fails_by_an_error");
    assert!(text.contains("Error: \"an error, in a guest: true\""), "{text}");
    let text = failed("fails_by_the_guests_end");
    assert!(
        text.contains("`runner::attribute::fails_by_the_guests_end`: the guest panicked: "),
        "{text}"
    );
    let text = failed("fails_by_time");
    assert!(text.contains("timed out: the run took over 3s"), "{text}");
}

#[test]
fn what_cannot_be_says_why() {
    let text = failed("fails_by_its_arguments");
    assert!(text.contains("cannot run in a guest: `memory = \"much\"`: "), "{text}");
    #[cfg(target_arch = "x86_64")]
    {
        let text = failed("fails_by_its_architecture");
        assert!(text.contains("hint: build the tests for it"), "{text}");
    }
}
