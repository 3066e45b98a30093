//! Whole pages of help and whole messages of failures are golden files: what a user reads is looked at as
//! a whole, and changes only where somebody means it. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Done, vmtest};

fn golden(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/texts").join(dir)
}

/// Compares texts with the files of a directory, in which nothing else may be.
fn check(dir: &str, texts: &[(String, String)]) {
    let dir = golden(dir);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in texts {
            fs::write(dir.join(name), text).unwrap();
        }
    }
    let mut problems = Vec::new();
    for (name, text) in texts {
        let known = fs::read_to_string(dir.join(name)).unwrap_or_default();
        if known != *text {
            problems.push(format!("{name} is now:\n{text}\nand was:\n{known}"));
        }
    }
    let wanted: BTreeSet<String> = texts.iter().map(|(name, _)| name.clone()).collect();
    let there = fs::read_dir(&dir).unwrap();
    let there: BTreeSet<String> =
        there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    problems.extend(there.difference(&wanted).map(|name| format!("{name} is of no use")));
    assert!(
        problems.is_empty(),
        "UPDATE_GOLDEN=1 writes {}\n{}",
        dir.display(),
        problems.join("\n")
    );
}

/// The commands that a page of help lists.
fn commands(page: &str) -> Vec<&str> {
    let Some(list) = page.split("\nCommands:\n").nth(1) else { return Vec::new() };
    let lines = list.lines().take_while(|line| line.starts_with(' '));
    // Lines that only go on with a description are further in.
    let lines = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    lines.filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn every_help_page_is_golden() {
    let mut pages = Vec::new();
    let mut todo: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = todo.pop() {
        let done = vmtest(&words).arg("--help").env("COLUMNS", "100").run();
        done.code(0);
        let page = String::from_utf8(done.stdout.clone()).unwrap();
        for command in commands(&page) {
            todo.push([words.clone(), vec![command.to_owned()]].concat());
        }
        let name = if words.is_empty() { "vmtest".to_owned() } else { words.join("-") };
        pages.push((format!("{name}.txt"), page));
    }
    assert!(pages.len() > 10, "the commands were not found");
    check("help", &pages);
}

/// What a run printed, without what differs from machine to machine.
fn shown(args: &[&str], done: &Done, dir: &Path) -> String {
    let dir = dir.to_str().unwrap();
    let words = vmtest::quote::join(args);
    let stdout = String::from_utf8_lossy(&done.stdout);
    let text =
        format!("$ vmtest {}\n{stdout}{}exit code {}\n", words.display(), done.stderr, done.code);
    done.seen();
    text.replace(dir, "DIR")
}

/// Runs each command line in a directory with a few files.
fn failures(dir: &Path, cases: &[(&str, &[&str])]) -> Vec<(String, String)> {
    fs::write(dir.join("note.txt"), "no archive\n").unwrap();
    fs::write(dir.join("script"), "#!/no/such/shell\n").unwrap();
    fs::write(dir.join("vm.toml"), "arch = \"arm\"\nsysrot = \"/x\"\n").unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    let results = cases.iter().map(|(name, args)| {
        let run = vmtest(*args)
            .cwd(dir)
            .env("COLUMNS", "100")
            .env("VMTEST_ASSETS", dir.join("absent.json"));
        (format!("{name}.txt"), shown(args, &run.run(), dir))
    });
    results.collect()
}

#[test]
fn wrong_usage_is_told_whole() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 12] = [
        ("accelerator", &["--accel", "xen"]),
        ("architecture", &["--arch", "vax"]),
        ("command", &["initramfs", "bild"]),
        ("compression", &["initramfs", "build", "-o", "x", "--compress", "zstd:99"]),
        ("drive", &["--drive", "x,rw"]),
        ("env", &["--env", "=x"]),
        ("memory", &["--memory", "lots"]),
        ("mode", &["initramfs", "build", "-o", "x", "--dir", "tmp:888"]),
        ("network", &["--net", "tap"]),
        ("option", &["--no-such-option"]),
        ("port-forward", &["--net", "user,hostfwd=tcp::80"]),
        ("timeout", &["--timeout", "900"]),
    ];
    check("usage", &failures(dir.path(), &cases));
}

#[test]
fn failures_are_told_whole() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 12] = [
        ("asset-manifest", &["assets", "verify"]),
        ("cat", &["initramfs", "cat", "note.txt", "etc/motd"]),
        ("coverage-nothing", &["coverage", "report", "empty"]),
        ("coverage-read", &["coverage", "report", "absent"]),
        (
            "conflict",
            &["initramfs", "build", "-o", "x", "--file", "note.txt:/a", "--file", "script:/a"],
        ),
        ("extract", &["initramfs", "extract", "absent.cpio", "out"]),
        ("file", &["initramfs", "build", "-o", "x", "--file", "absent:/a", "--file", "gone:/b"]),
        ("interpreter", &["initramfs", "build", "-o", "x", "--no-base", "--bin", "./script"]),
        ("why", &["initramfs", "why", "sh", "--no-base"]),
        ("listing", &["initramfs", "ls", "note.txt"]),
        ("manifest", &["initramfs", "build", "-o", "x", "--manifest", "vm.toml"]),
        ("share", &["--arch", "amd64", "--share", "absent:tag"]),
    ];
    check("failures", &failures(dir.path(), &cases));
}
