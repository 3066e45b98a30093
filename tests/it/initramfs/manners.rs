//! What `vmtest initramfs` leaves behind, refuses and says when something is in its way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vmtest::formats::cpio::{Fields, S_IFDIR, S_IFLNK, S_IFREG};
use vmtest::initramfs::Problem;

use super::cli::{fails, ok, vmtest};
use super::{builder, finish, temp, write};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn strict_publishes_nothing_and_keeps_the_old_image() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "f", vec![0; 100_000]);
    write(dir, "out", "old");
    // What has just been written may still change unnoticed, and is not cached.
    std::thread::sleep(Duration::from_millis(60));
    let large = ["build", "-o", "out", "--no-base", "--strict", "--memory", "1K", "--file", "f"];
    let kept = &["`--strict`", "nothing was written"];
    symlink("nowhere", dir.join("l")).unwrap();
    let dangling = ["build", "--no-base", "--strict", "--file", "l", "-o"];
    for _ in 0..2 {
        fails(dir, 69, &[&large[..], &["--no-cache"]].concat(), kept);
        fails(dir, 69, &[&large[..], &["--compress", "gzip", "--report", "r"]].concat(), kept);
        fails(dir, 69, &[&dangling[..], &["out"]].concat(), kept);
        fails(dir, 69, &[&dangling[..], &["d", "--format", "dir"]].concat(), kept);
        assert_eq!(fs::read(dir.join("out")).unwrap(), b"old");
        // The second time the image is in the cache.
        ok(dir, &["build", "-o", "cached", "--no-base", "--file", "f"]);
    }
    fails(dir, 69, &large, kept);
    assert_eq!(fs::read(dir.join("out")).unwrap(), b"old");
    assert_eq!(names(dir), ["cache", "cached", "f", "l", "out"]);
    let output = vmtest(dir, &[&dangling[..], &["-"]].concat());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0));
}

/// Starts it, and sends a signal as soon as `begun`.
fn interrupted(
    dir: &Path,
    args: &[&str],
    signal: rustix::process::Signal,
    begun: impl Fn() -> bool,
) {
    let mut child: Child = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .arg("initramfs")
        .args(args)
        .current_dir(dir)
        .env("VMTEST_CACHE", dir.join("cache"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !begun() {
        assert!(start.elapsed() < Duration::from_secs(60), "{args:?} does not begin");
        assert!(child.try_wait().unwrap().is_none(), "{args:?} was faster than the signal");
        std::thread::sleep(Duration::from_millis(1));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{args:?}: {err}");
    assert!(err.contains("interrupted by SIG"), "{err}");
}

#[test]
fn signals_leave_nothing_half_done() {
    use rustix::process::Signal;
    let dir = temp();
    let dir = dir.path();
    // Sparse: it takes no room here, but long to write.
    let large = fs::File::create(dir.join("large")).unwrap();
    large.set_len(3 << 30).unwrap();
    let mut header = Vec::new();
    // The head of a large member, and nothing behind it but zeros.
    let fields = Fields { ino: 1, mode: S_IFREG | 0o644, nlink: 1, ..Fields::default() };
    vmtest::formats::cpio::encode(&mut header, b"big", &fields, 3 << 30).unwrap();
    let archive = dir.join("archive");
    fs::write(&archive, &header).unwrap();
    fs::File::options().write(true).open(&archive).unwrap().set_len((3 << 30) + 4096).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let before = names(dir);
        let temporary = || names(dir).iter().any(|name| name.starts_with(".vmtest-"));
        let build = ["build", "--format", "dir", "--no-base", "--file", "large:l", "-o", "d"];
        interrupted(dir, &build, signal, temporary);
        interrupted(dir, &["extract", "archive", "x"], signal, || dir.join("x/big").exists());
        assert_eq!(names(dir), before);
    }
    // A directory that was there stays, and what is in it is named.
    fs::create_dir(dir.join("mine")).unwrap();
    let begun = || dir.join("mine/big").exists();
    interrupted(dir, &["extract", "archive", "mine"], Signal::TERM, begun);
    fails(dir, 69, &["extract", "archive", "mine"], &["not empty"]);
}

#[test]
fn a_failed_extraction_can_be_tried_again() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "t/a", "a");
    write(dir, "t/big", vec![b'x'; 300_000]);
    fs::create_dir(dir.join("t/closed")).unwrap();
    ok(dir, &["build", "-o", "whole", "--no-base", "--no-cache", "--file", "t:/"]);
    let bytes = fs::read(dir.join("whole")).unwrap();
    fs::write(dir.join("cut"), &bytes[..200_000]).unwrap();
    for _ in 0..2 {
        fails(dir, 69, &["extract", "cut", "x"], &["cut off"]);
        assert!(!dir.join("x").exists());
    }
    fs::create_dir(dir.join("mine")).unwrap();
    fails(dir, 69, &["extract", "cut", "mine"], &["cut off", "`mine` is incomplete", "empty it"]);
    assert_eq!(fs::read(dir.join("mine/a")).unwrap(), b"a");
    // A link to nothing says what it is, and nothing is made where it leads.
    symlink("planted", dir.join("link")).unwrap();
    fails(dir, 69, &["extract", "whole", "link"], &["symbolic link to `planted`", "remove it"]);
    assert!(!dir.join("planted").exists());
    fails(dir, 69, &["build", "--format", "dir", "-o", "link", "--file", "t:/"], &["`link`"]);
}

#[test]
fn every_member_that_is_not_unpacked_is_named() {
    let dir = temp();
    let dir = dir.path();
    let put = |members: &[(&[u8], u32, &[u8])]| {
        let mut out = Vec::new();
        for (name, mode, body) in members {
            let fields = Fields { ino: 1, mode: *mode, nlink: 1, ..Fields::default() };
            let start = out.len();
            // Named by a letter at first: our own writer refuses a member without a name.
            let given: &[u8] = if name.is_empty() { b"?" } else { name };
            vmtest::formats::cpio::encode(&mut out, given, &fields, body.len() as u64).unwrap();
            if name.is_empty() {
                out[start + 94..start + 102].copy_from_slice(b"00000001");
                out[start + 110] = 0;
            }
            out.extend_from_slice(body);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        vmtest::formats::cpio::encode_trailer(&mut out);
        fs::write(dir.join("i"), out).unwrap();
    };
    let long = vec![b'x'; 5000];
    put(&[(b"long", S_IFLNK | 0o777, &long[..]), (b"none", S_IFLNK | 0o777, b"")]);
    fails(dir, 69, &["extract", "i", "x"], &["`/long`", "longer than", "`/none`", "no target"]);
    put(&[(b"nul", S_IFLNK | 0o777, b"\0"), (b"", S_IFREG | 0o644, b"x")]);
    fails(dir, 69, &["extract", "i", "x"], &["`/nul`", "no target", "names no file", "offset"]);
    put(&[(b"d", S_IFDIR | 0o755, b"body")]);
    fails(dir, 69, &["extract", "i", "x"], &["`/d`", "only files and links"]);
    assert!(!dir.join("x").exists());
    // The root itself is no member that is missing.
    put(&[(b".", S_IFDIR | 0o755, b""), (b"./f", S_IFREG | 0o644, b"x")]);
    assert!(ok(dir, &["extract", "i", "x"]).1.contains("1 entries"));
}

#[test]
fn outputs_that_would_be_something_else_are_refused() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "f", "x");
    let with = |more: &[&'static str]| [&["build", "--no-base", "--file", "f"], more].concat();
    fails(dir, 2, &with(&["-o", "-", "--format", "dir"]), &["stdout"]);
    fails(dir, 2, &with(&["-o", "-", "--report", "-"]), &["both"]);
    symlink("same", dir.join("link")).unwrap();
    write(dir, "same", "old");
    for report in ["same", "./same", "link"] {
        fails(dir, 2, &with(&["-o", "same", "--report", report]), &["both", "`same`"]);
    }
    fails(dir, 2, &with(&["-o", "new", "--report", "./new"]), &["both"]);
    assert_eq!(names(dir), ["f", "link", "same"]);
    assert_eq!(fs::read(dir.join("same")).unwrap(), b"old");
    let (out, _) = ok(dir, &with(&["-o", "new", "--report", "-"]));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["entries"][0]["path"], "f");
    assert!(!dir.join("-").exists());
}

#[test]
fn an_output_that_cannot_be_written_is_named_once() {
    let dir = temp();
    write(dir.path(), "f", vec![7; 2 << 20]);
    for compress in ["none", "zstd"] {
        let output = vmtest(
            dir.path(),
            &["build", "-o", "/dev/full", "--no-base", "--compress", compress, "--file", "f"],
        );
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{err}");
        assert_eq!(err.matches("error:").count(), 1, "{err}");
        assert!(err.contains("`/dev/full`") && err.contains("hint: make room"), "{err}");
    }
    // A file that no thread can write to.
    let file = fs::File::open("/dev/null").unwrap();
    let image = finish(builder().bytes("large", 0o644, vec![1; 8 << 20]));
    let problems = image.write_to_file(&file).unwrap_err();
    let problems: Vec<_> = problems.iter().collect();
    assert!(matches!(problems[..], [Problem::Write { .. }]), "{problems:?}");
}

#[test]
fn options_that_contradict_each_other_or_do_nothing_are_refused() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "f", "x");
    write(dir, "r.json", "{}");
    write(dir, "both.toml", "base = [\"f\"]\nno-base = true\n");
    write(dir, "init.toml", "use-init = true\n");
    write(dir, "base.toml", "base = [\"absent\"]\n");
    let build = |code, more: &[&str], words: &[&str]| {
        fails(dir, code, &[&["build", "-o", "x", "--file", "f"], more].concat(), words);
    };
    for option in [&["--compress", "zstd"][..], &["--memory", "1G"], &["--kernel", "f"]] {
        build(2, &[&["--format", "dir"], option].concat(), &[option[0], "--format dir"]);
    }
    build(2, &["--format", "cpio", "--skip-nodes"], &["--skip-nodes", "--format dir"]);
    build(2, &["--firmware", "/x"], &["--modules"]);
    build(2, &["--use-init", "--no-base"], &["--use-init", "--no-base"]);
    build(2, &["--nocmd"], &["--config"]);
    build(69, &["--manifest", "both.toml"], &["both.toml", "`base`", "no-base"]);
    build(2, &["--manifest", "init.toml", "--no-base"], &["no base", "init.toml"]);
    for more in [&["--bin", "f"][..], &["--file", "f"], &["--arch", "arm"], &["--no-base"]] {
        let words = &["--report", "change nothing"];
        fails(dir, 2, &[&["why", "f", "--report", "r.json"], more].concat(), words);
    }
    assert_eq!(names(dir), ["base.toml", "both.toml", "f", "init.toml", "r.json"]);
    // The command line replaces what the manifest says.
    ok(dir, &["build", "-o", "x", "--file", "f", "--manifest", "base.toml", "--no-base"]);
    assert_eq!(ok(dir, &["ls", "x"]).0, "f\n");
}

#[test]
fn messages_say_what_is_wrong_and_how_to_write_it() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "tree/f", "x");
    let build = |code, more: &[&str], words: &[&str]| {
        fails(dir, code, &[&["build", "-o", "x"], more].concat(), words);
    };
    build(2, &["--multicall", "x"], &["no colon", "FILE:NAME,"]);
    build(2, &["--symlink", "x"], &["no colon", "`DEST:TARGET`"]);
    build(2, &["--dir", "/d:999"], &["the mode `999`", "octal"]);
    build(2, &["--dir", "/d:+7"], &["the mode `+7`"]);
    build(2, &["--node", "/n:c:99999:99999999"], &["at most 4095", "at most 1048575"]);
    build(2, &["--node", "/n:c:1:1:9"], &["the mode `9`", "octal"]);
    build(69, &["--bin", "tree"], &["`", "tree", "directory"]);
    build(69, &["--modules", "/nothere"], &["/nothere", "No such file"]);
    build(69, &["--bin", "../x"], &["--bin SRC:DEST"]);
    build(69, &["--file", "../x"], &["--file SRC:DEST"]);
    let wrong = vmtest(dir, &["build", "-o", "x", "--compress", "lz4:3", "--no-base"]);
    let err = String::from_utf8_lossy(&wrong.stderr);
    assert!(err.contains("lz4 has no levels") && !err.contains("auto"), "{err}");
    write(dir, "frame", b"\x04\x22\x4d\x18\x64\x40\xa7");
    fails(dir, 69, &["ls", "frame"], &["offset 0", "lz4 -l"]);
    build(69, &["--base", "frame"], &["offset 0", "lz4 -l"]);
    write(dir, "init", "mine");
    ok(dir, &["build", "-o", "base", "--no-base", "--file", "init:etc/f"]);
    write(dir, "other", "other");
    let (_, err) = ok(dir, &["build", "-o", "x", "--base", "base", "--file", "other:etc/f"]);
    assert!(err.contains("taken from --file other:etc/f, not from --base base"), "{err}");
}

#[test]
fn an_output_within_a_tree_is_not_packed() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "self/f", "x");
    write(dir, "self/sub/out", "another of this name");
    let here = dir.join("self");
    let args = ["build", "-o", "out", "--report", "sub/r.json", "--no-base", "--file", ".:/"];
    let (_, first) = ok(&here, &args);
    let image = fs::read(here.join("out")).unwrap();
    let (_, second) = ok(&here, &args);
    assert_eq!(fs::read(here.join("out")).unwrap(), image);
    assert!(!first.contains("left out") && second.matches("left out").count() == 2, "{second}");
    // `cache` is there, for this test puts it there.
    let listed = ok(&here, &["ls", "out"]).0;
    assert!(listed.contains("f\n") && listed.contains("sub/out\n"), "{listed}");
    assert!(!listed.contains("\nout\n") && !listed.contains("r.json"), "{listed}");
    // Neither by another way to it, nor as a directory. Asked for by name it is there.
    symlink("self", dir.join("way")).unwrap();
    ok(dir, &["build", "-o", "way/out", "--no-base", "--strict", "--file", "self:/"]);
    assert!(!ok(dir, &["ls", "self/out"]).0.contains("\nout\n"));
    fs::create_dir(here.join("d")).unwrap();
    ok(dir, &["build", "--format", "dir", "-o", "self/d", "--no-base", "--file", "self:/"]);
    assert!(here.join("d/out").exists() && !here.join("d/d").exists());
    ok(dir, &["build", "-o", "self/out", "--no-base", "--file", "self/out:/old"]);
    assert_eq!(ok(dir, &["ls", "self/out"]).0, "old\n");
}
