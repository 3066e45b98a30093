//! `vmtest initramfs` as its users call it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{temp, write};

/// Runs `vmtest initramfs` in a directory, with a cache of its own.
pub(super) fn vmtest(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .arg("initramfs")
        .args(args)
        .current_dir(dir)
        .env("VMTEST_CACHE", dir.join("cache"))
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap()
}

#[track_caller]
pub(super) fn ok(dir: &Path, args: &[&str]) -> (String, String) {
    let output = vmtest(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?}: {}\n{err}", output.status);
    (out, err)
}

#[track_caller]
pub(super) fn fails(dir: &Path, code: i32, args: &[&str], words: &[&str]) {
    let output = vmtest(dir, args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{args:?}: `{word}` is not in {err}");
    }
}

#[test]
fn build_and_look() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "a:b", "odd");
    write(dir, "tree/x", "content");
    let (out, err) = ok(
        dir,
        &[
            "build",
            "-o",
            "i.cpio",
            "--no-base",
            "--file",
            "a\\:b:etc/odd",
            "--file",
            "tree:/t",
            "--symlink",
            "/l:t/x",
            "--node",
            "/dev/kmsg:c:1:11:0644",
            "--dir",
            "/tmp:1777",
            "--report",
            "r.json",
            "--sizes",
        ],
    );
    assert_eq!(out, "");
    assert!(err.contains("i.cpio: 8 entries") && err.contains("blake3"), "{err}");
    assert!(err.contains("--file tree:/t"), "{err}");
    let (out, _) = ok(dir, &["ls", "i.cpio"]);
    assert_eq!(out, "dev\ndev/kmsg\netc\netc/odd\nl\nt\nt/x\ntmp\n");
    let (out, _) = ok(dir, &["ls", "-l", "i.cpio", "/tmp", "dev/kmsg", "l"]);
    assert_eq!(
        out,
        "crw-r--r--  1     0     0      1, 11 dev/kmsg\n\
         lrwxrwxrwx  1     0     0          3 l -> t/x\n\
         drwxrwxrwt  2     0     0          0 tmp\n"
    );
    let (out, _) = ok(dir, &["ls", "--tree", "i.cpio", "t"]);
    assert_eq!(out, "           7  t/\n           7    x\n");
    let (out, _) = ok(dir, &["ls", "--json", "i.cpio", "l"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json[0]["target"], "t/x");
    assert_eq!(ok(dir, &["cat", "i.cpio", "/l"]).0, "content");
    let (out, _) = ok(dir, &["why", "t/x", "--report", "r.json"]);
    assert_eq!(out, "/t/x: in the tree of --file tree:/t\n");
    fails(dir, 69, &["why", "absent", "--report", "r.json"], &["no `/absent`"]);
    fails(dir, 69, &["ls", "i.cpio", "absent"], &["no `/absent`"]);
    fails(dir, 69, &["cat", "i.cpio", "absent"], &["absent"]);
    fails(dir, 69, &["cat", "i.cpio", "t"], &["no regular file"]);
    ok(dir, &["extract", "--skip-nodes", "i.cpio", "out"]);
    assert_eq!(fs::read(dir.join("out/t/x")).unwrap(), b"content");
}

#[test]
fn every_compression_unpacks_to_the_same() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "tree/x", vec![b'x'; 100_000]);
    ok(dir, &["build", "-o", "plain", "--file", "tree:/"]);
    for compress in ["gzip", "zstd:1", "lz4", "xz:0"] {
        ok(dir, &["build", "-o", compress, "--compress", compress, "--file", "tree:/"]);
        assert!(fs::metadata(dir.join(compress)).unwrap().len() < 10_000);
        assert_eq!(ok(dir, &["diff", "plain", compress]).0, "");
        let name = compress.split(':').next().unwrap();
        assert!(ok(dir, &["ls", "--segments", compress]).0.contains(name));
    }
    write(dir, "config", "CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_XZ=y\n");
    let args = [
        "build",
        "-o",
        "auto",
        "--compress",
        "auto",
        "--kernel-config",
        "config",
        "--file",
        "tree:/",
    ];
    let (_, err) = ok(dir, &args);
    assert!(err.contains("xz:6") && err.contains("`config` unpacks"), "{err}");
    fails(dir, 2, &["build", "-o", "x", "--compress", "zst"], &["unknown compression", "zstd"]);
    fails(dir, 2, &["build", "-o", "x", "--compress", "zstd:20"], &["no level `20`", "1 to 19"]);
    fails(dir, 2, &["build", "-o", "x", "--format", "tar"], &["tar", "cpio"]);
}

#[test]
fn diff_tells_what_changed() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "a/same", "1");
    write(dir, "a/gone", "12345");
    write(dir, "a/changed", "1");
    write(dir, "b/same", "1");
    write(dir, "b/new", "123");
    write(dir, "b/changed", "22");
    for name in ["a", "b"] {
        ok(dir, &["build", "-o", &format!("{name}.cpio"), "--file", &format!("{name}:/")]);
    }
    let output = vmtest(dir, &["diff", "a.cpio", "b.cpio"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "~         +1  changed  (content, 1 to 2 bytes)\n-         -5  gone\n+         +3  new\n"
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("1 added, 1 removed, 1 changed, -1 bytes")
    );
}

#[test]
fn a_failed_build_leaves_the_old_image_and_nothing_else() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "out.cpio", "old");
    write(dir, "f", "");
    fails(
        dir,
        69,
        &[
            "build", "-o", "out.cpio", "--file", "absent", "--file", "absent2", "--file", "f:x",
            "--file", "f:../y",
        ],
        &["absent`", "absent2`", "../y", "--file absent2"],
    );
    assert_eq!(fs::read(dir.join("out.cpio")).unwrap(), b"old");
    fails(dir, 69, &["build", "-o", "no/such/dir/x", "--file", "f"], &["cannot write"]);
    fails(dir, 2, &["build", "-o", "x", "--file", ""], &["is empty", "pattern of the shell"]);
    fails(dir, 2, &["build", "-o", "x", "--file", "f:"], &["empty part"]);
    fails(dir, 2, &["build", "-o", "x", "--file", "-o"], &["--file"]);
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["f", "out.cpio"]);
}

#[test]
fn the_cache_gives_the_same_image_and_notices_changes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let dir = dir.path();
    write(dir, "tree/f", "1");
    let build = |name: &str, more: &[&str]| {
        let mut args = vec!["build", "-o", name, "--file", "tree:/"];
        args.extend(more);
        ok(dir, &args).1
    };
    std::thread::sleep(std::time::Duration::from_millis(60));
    assert!(!build("one", &[]).contains("from the cache"));
    assert!(build("two", &[]).contains("from the cache"));
    assert!(build("two", &[]).contains("from the cache"));
    assert_eq!(fs::read(dir.join("one")).unwrap(), fs::read(dir.join("two")).unwrap());
    assert!(!build("three", &["--no-cache"]).contains("from the cache"));
    assert!(!build("four", &["--compress", "zstd"]).contains("from the cache"));
    // What somebody writes to an output does not come back.
    fs::set_permissions(dir.join("one"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(dir.join("one"), "spoilt").unwrap();
    assert!(build("five", &[]).contains("from the cache"));
    assert_eq!(fs::read(dir.join("five")).unwrap(), fs::read(dir.join("two")).unwrap());
    write(dir, "tree/f", "2");
    std::thread::sleep(std::time::Duration::from_millis(60));
    assert!(!build("six", &[]).contains("from the cache"));
    // Many at once.
    let builds: Vec<_> = (0..4)
        .map(|i| {
            let dir = dir.to_owned();
            std::thread::spawn(move || {
                ok(&dir, &["build", "-o", &format!("c{i}"), "--file", "tree:/"])
            })
        })
        .collect();
    builds.into_iter().for_each(|build| drop(build.join().unwrap()));
    let first = fs::read(dir.join("c0")).unwrap();
    assert!((1..4).all(|i| fs::read(dir.join(format!("c{i}"))).unwrap() == first));
}

#[test]
fn manifests_say_the_same_as_options() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "m/src", "content");
    write(
        dir,
        "m/vm.toml",
        "no-base = true\ncompress = \"gzip\"\n\
         [[file]]\nsrc = \"src\"\ndest = \"/etc/f\"\n\
         [[symlink]]\ndest = \"/l\"\ntarget = \"etc/f\"\n\
         [[node]]\ndest = \"/dev/x\"\ntype = \"block\"\nmajor = 8\nminor = 1\n\
         [[dir]]\ndest = \"/tmp\"\nmode = \"1777\"\n\
         [[text]]\ndest = \"/etc/t\"\ncontent = \"hi\\n\"\nuid = 7\n",
    );
    ok(dir, &["build", "-o", "a", "--manifest", "m/vm.toml"]);
    assert!(ok(dir, &["ls", "--segments", "a"]).0.contains("gzip"));
    let (out, _) = ok(dir, &["why", "/etc/f", "--manifest", "m/vm.toml"]);
    assert_eq!(out, "/etc/f: manifest m/vm.toml, line 3\n");
    let (out, _) = ok(dir, &["ls", "-l", "a", "etc/t", "dev/x"]);
    assert!(out.contains("    7     0          3 etc/t") && out.contains("8, 1 dev/x"), "{out}");
    write(dir, "bad.toml", "[[file]]\nsource = \"x\"\n");
    fails(dir, 69, &["build", "-o", "b", "--manifest", "bad.toml"], &["line 2", "source"]);
    let (schema, _) = ok(dir, &["build", "--print-schema"]);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manifest.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&committed, &schema).unwrap();
    }
    assert_eq!(fs::read_to_string(committed).unwrap(), schema, "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn templates_of_mkuimage_are_found_above() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "f", "x");
    write(
        dir,
        ".mkuimage.yaml",
        "configs:\n  small:\n    files: ['f:etc/f']\n    init: /etc/f\n  go:\n    commands:\n      - builder: bb\n        commands: [cmds/core/ls]\n",
    );
    fs::create_dir(dir.join("below")).unwrap();
    // Paths are relative to where one is, as in mkuimage.
    write(dir, "below/f", "y");
    ok(&dir.join("below"), &["build", "-o", "a", "--config", "small"]);
    assert_eq!(ok(dir, &["cat", "below/a", "init"]).0, "y");
    ok(dir, &["build", "-o", "b", "--config", "small", "--init="]);
    assert!(!ok(dir, &["ls", "b"]).0.contains("init"));
    fails(
        dir,
        69,
        &["build", "-o", "c", "--config", "go"],
        &["Go commands", "cmds/core/ls", "--nocmd"],
    );
    ok(dir, &["build", "-o", "c", "--config", "go", "--nocmd"]);
    fails(dir, 69, &["build", "-o", "c", "--config", "none"], &["no config `none`", "go, small"]);
}

#[test]
fn a_directory_is_written_like_an_archive() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "f", "x");
    let args = [
        "build",
        "--format",
        "dir",
        "--no-base",
        "--file",
        "f:a/b",
        "--symlink",
        "l:a",
        "-o",
        "out",
    ];
    ok(dir, &args);
    assert_eq!(fs::read(dir.join("out/l/b")).unwrap(), b"x");
    fails(dir, 69, &args, &["out"]);
    assert_eq!(fs::read(dir.join("out/l/b")).unwrap(), b"x");
}

#[test]
fn microcode_is_an_early_segment() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "fw/amd-ucode/microcode_amd.bin", "amd");
    write(dir, "fw/amd-ucode/microcode_amd.bin.asc", "signature");
    write(dir, "fw/intel-ucode/06-55-04", "intel");
    write(dir, "f", "x");
    ok(
        dir,
        &[
            "build",
            "--arch",
            "amd64",
            "-o",
            "a",
            "--microcode",
            "fw",
            "--compress",
            "zstd",
            "--file",
            "f",
        ],
    );
    let (out, _) = ok(dir, &["ls", "--segments", "a"]);
    assert!(out.contains("none") && out.contains("zstd"), "{out}");
    assert_eq!(ok(dir, &["cat", "a", "kernel/x86/microcode/AuthenticAMD.bin"]).0, "amd");
    assert_eq!(ok(dir, &["cat", "a", "kernel/x86/microcode/GenuineIntel.bin"]).0, "intel");
    fails(dir, 69, &["build", "--arch", "arm", "-o", "a", "--microcode", "fw"], &["x86"]);
    fails(dir, 69, &["build", "--arch", "amd64", "-o", "a", "--microcode", "f"], &["no microcode"]);
}

#[test]
fn row_14_an_image_that_the_guest_cannot_hold_is_told() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "f", vec![0; 3 << 20]);
    let args = ["build", "-o", "a", "--file", "f", "--memory", "4M"];
    let (_, err) = ok(dir, &args);
    assert!(err.contains("4.0 MiB of memory") && err.contains("3.0 MiB"), "{err}");
    fails(dir, 69, &[&args[..], &["--strict"]].concat(), &["--strict"]);
    assert!(!ok(dir, &["build", "-o", "a", "--file", "f", "--memory", "64M"]).1.contains("note:"));
}

#[test]
fn row_20_a_colon_in_a_name_can_be_said() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "a:b\\c", "x");
    ok(dir, &["build", "-o", "i", "--no-base", "--file", "a\\:b\\c:d\\:e"]);
    assert_eq!(ok(dir, &["ls", "i"]).0, "d:e\n");
}

#[test]
fn row_23_stdin_and_stdout_are_files_like_others() {
    let dir = temp();
    write(dir.path(), "f", "x");
    let image = vmtest(dir.path(), &["build", "-o", "-", "--no-base", "--file", "f"]);
    assert!(image.status.success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["initramfs", "ls", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &image.stdout).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"f\n");
}

#[test]
fn missing_libraries_are_explained() {
    let dir = temp();
    let dir = dir.path();
    write(dir, "s", "#!/bin/sh\n");
    fails(
        dir,
        69,
        &["why", "--missing", "libabsent.so", "--bin", "s"],
        &["nothing in the image misses"],
    );
}
