//! What the environment may decide, and what it may not; numbers and options that would silently be
//! something else than what was written.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Run, vmtest};

/// The program with no variable that says where anything is, but `HOME`.
fn without_a_place<'a>(args: impl IntoIterator<Item = &'a str>, home: &str) -> Run {
    let run = vmtest(args).env("HOME", home);
    let unset = ["VMTEST_ASSETS", "VMTEST_CACHE", "XDG_CACHE_HOME", "VMTEST_QEMU"];
    unset.into_iter().fold(run, |run, name| run.env(name, ""))
}

#[test]
fn a_strangers_manifest_in_the_current_directory_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let evil = r#"{"schema": 1, "generator": "a stranger", "guests": {}}"#;
    fs::create_dir_all(dir.path().join(".cache/vmtest")).unwrap();
    for place in ["assets.json", "vmtest/assets.json", ".cache/vmtest/assets.json"] {
        fs::create_dir_all(dir.path().join(place).parent().unwrap()).unwrap();
        fs::write(dir.path().join(place), evil).unwrap();
    }
    for home in ["", ".", "x/.."] {
        let done = without_a_place(["assets", "path"], home).cwd(dir.path()).run();
        let place = String::from_utf8(done.stdout.clone()).unwrap();
        let decided = done.code == 0 && !place.starts_with('/');
        assert!(!decided && !place.starts_with(dir.path().to_str().unwrap()), "{home}: {place}");
        // The same by a relative directory of XDG.
        let run = without_a_place(["assets", "list"], "/no/such/home").cwd(dir.path());
        run.env("XDG_CACHE_HOME", ".").run().code(69).says("VMTEST_ASSETS").says("HOME");
    }
}

#[test]
fn make_looks_for_the_cache_where_the_program_does() {
    let says = |home: &str, variables: &[(&str, &str)]| {
        let output = Command::new("make")
            .args(["--no-print-directory", "-s", "-f", "Makefile", "-f", "-", "print-cache"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(text("print-cache: ; @echo '$(CACHE)'"))
            .env_remove("VMTEST_CACHE")
            .env_remove("XDG_CACHE_HOME")
            .env("HOME", home)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(says("/h o", &[]), "/h o/.cache/vmtest");
    assert_eq!(says("/h", &[("XDG_CACHE_HOME", "/x")]), "/x/vmtest");
    assert_eq!(says("/h", &[("XDG_CACHE_HOME", "x")]), "/h/.cache/vmtest");
    assert_eq!(says("/h", &[("VMTEST_CACHE", "/c")]), "/c");
    let own = says("", &[]);
    assert!(own.starts_with('/') && own.ends_with("/.cache/vmtest"), "{own}");
    assert_eq!(says("relative", &[]), own);
}

/// A file to read `text` from.
fn text(text: &str) -> fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_home_that_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("homeless-shelter");
    let image = dir.path().join("x.cpio");
    fs::write(dir.path().join("f"), "x").unwrap();
    for home in [home.to_str().unwrap(), "."] {
        without_a_place(["initramfs", "build", "--file", "f:/f", "-o", "x.cpio"], home)
            .cwd(dir.path())
            .run()
            .code(0);
        let done = without_a_place(["--dry-run", "--", "true"], home).cwd(dir.path()).run();
        let done = done.aside("it is not known where the asset manifest is");
        assert!(done.code == 69 || done.code == 0, "{}", done.stderr);
    }
    assert!(image.is_file());
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["f", "x.cpio"]);
}

#[test]
fn where_nothing_says_where_the_manifest_is_the_variables_are_named() {
    let done = without_a_place(["--arch", "amd64", "--", "true"], "/no/such/home").run();
    done.code(69).says("neither VMTEST_ASSETS nor VMTEST_CACHE is set").says("HOME");
}

#[test]
fn memory_is_what_was_written_or_refused() {
    for (size, said) in [
        ("512", "did you mean `512M`?"),
        ("1536K", "`1M` and `2M` are the nearest"),
        ("0", "give a size from `1M` to `4T`"),
        ("5T", "give a size from `1M` to `4T`"),
        ("1.5G", "invalid size"),
    ] {
        vmtest(["--memory", size, "--dry-run"])
            .run()
            .code(2)
            .says("for '--memory <SIZE>'")
            .says(said);
    }
}

#[test]
fn a_limit_of_zero_is_wrong_usage() {
    for option in ["--timeout", "--boot-timeout"] {
        for zero in ["0", "0s", "0h0m0s"] {
            let done = vmtest([option, zero, "--", "true"]).run();
            done.code(2).says("leaves no time at all").says("24h");
        }
    }
    vmtest(["--", "true"]).env("VMTEST_TIMEOUT", "0").run().code(2).says("leaves no time at all");
}

#[test]
fn a_setting_that_is_given_twice_is_refused() {
    let file = Path::new("/etc/passwd").display();
    for (option, value, key) in [
        ("--net", "user,cidr=192.168.0.0/24,cidr=192.169.0.0/24".to_owned(), "cidr"),
        ("--net", "user,cidr=fd00::/64,cidr=fd01::/64".into(), "IPv6 cidr"),
        ("--net", "user,nic=virtio,nic=e1000".into(), "nic"),
        ("--net", "user,pcap=a,pcap=b".into(), "pcap"),
        ("--net", "user,mac=52:54:00:00:00:01,mac=52:54:00:00:00:02".into(), "mac"),
        ("--drive", format!("{file},if=scsi,if=virtio"), "if"),
        ("--drive", format!("{file},format=raw,format=qcow2"), "format"),
        ("--drive", format!("{file},ro,ro"), "ro"),
        ("--drive", format!("{file},snapshot,snapshot"), "snapshot"),
    ] {
        let done = vmtest([option, &value, "--dry-run"]).run();
        done.code(2).says(&format!("`{key}` is given twice"));
    }
    // Two networks of two protocols, and any number of forwards.
    let both = "user,cidr=192.168.0.0/24,cidr=fd00::/64,hostfwd=tcp::0-:1,hostfwd=tcp::0-:2";
    vmtest(["--net", both, "--dry-run", "--", "true"]).run().code(0);
}
