//! Real programs: Debian's own, linked dynamically, from a sysroot, and scripts for them.
//!
//! A static Rust program runs in `boot`, on all five architectures.

use std::path::{Path, PathBuf};

use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::options::Environment;

use crate::support::{Done, Run, assets, vmtest};

/// SHA-256 of `abc`, from FIPS 180-2, appendix B.1.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Debian's programs for `arch`, beside the asset manifest.
fn sysroot(arch: Arch) -> PathBuf {
    let environment = Environment::read().expect("the environment is usable");
    let manifest = Assets::location(&environment).unwrap();
    let dir =
        manifest.parent().expect("a file is in a directory").join("sysroot").join(arch.name());
    assert!(dir.is_dir(), "no `{}`: run `setup/assets programs` first", dir.display());
    dir
}

/// A script of ours, and the argument that puts it into the guest's /usr/local/bin.
fn script(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    format!("--bin={}:/usr/local/bin/{name}", path.display())
}

fn with_sysroot(arch: Arch) -> Run {
    assets(arch);
    let sysroot = format!("--sysroot={}", sysroot(arch).display());
    vmtest(["--arch", arch.name(), &sysroot])
}

fn lines(done: &Done) -> Vec<&str> {
    done.code(0);
    std::str::from_utf8(&done.stdout).expect("text").lines().collect()
}

/// bash, coreutils and openssl with their loader, libraries and a merged /usr. Nothing but the scripts
/// asks for bash, unless it is the `shell`.
fn debians_own(arch: Arch, shell: &str) {
    let dir = tempfile::tempdir().unwrap();
    let by_path = "#!/bin/bash\nprintf '%s\\n' \"path ${BASH_VERSINFO[0]} $1\"\n";
    let by_name = "#!/usr/bin/env bash\nreadlink \"/proc/$$/exe\"\n[[ $BASH_VERSION ]] && declare -A a=([k]=v) && echo \"name ${a[k]}\"\n";
    let done = with_sysroot(arch)
        .args(["--bin=/usr/bin/openssl", "--bin=/bin/sha256sum", "--bin=/usr/bin/readlink"])
        .arg(script(dir.path(), "by-path", by_path))
        .arg(script(dir.path(), "by-name", by_name))
        .args(["--", shell, "-ec"])
        .arg(
            "openssl version | cut -d ' ' -f 1
            printf abc | openssl dgst -sha256 -r
            printf abc | /bin/sha256sum
            by-path 'an argument'
            by-name",
        )
        .run();
    assert_eq!(
        lines(&done),
        [
            "OpenSSL",
            &format!("{ABC} *stdin"),
            &format!("{ABC}  -"),
            "path 5 an argument",
            "/usr/bin/bash",
            "name v",
        ]
    );
}

#[test]
fn programs_of_debian_run_on_riscv64() {
    debians_own(Arch::Riscv64, "sh");
}

#[test]
fn programs_of_debian_run_on_arm64() {
    debians_own(Arch::Arm64, "/bin/bash");
}

#[test]
fn a_language_with_a_library_of_its_own_and_a_database_run() {
    let dir = tempfile::tempdir().unwrap();
    let library = std::fs::read_dir(sysroot(Arch::Amd64).join("usr/lib"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("json").is_dir())
        .expect("a sysroot with Python's library");
    let version = library.file_name().unwrap().display().to_string();
    let python = "#!/usr/bin/env python3\n\
        import hashlib, json, sqlite3, subprocess, sys\n\
        two = sqlite3.connect(':memory:').execute('select 1 + 1').fetchone()\n\
        out = subprocess.run(['sqlite3', ':memory:', 'select 6 * 7'], capture_output=True).stdout\n\
        abc = hashlib.sha256(b'abc').hexdigest()\n\
        print(json.dumps({'two': two, 'out': out.decode(), 'abc': abc, 'args': sys.argv[1:]}))\n";
    let done = with_sysroot(Arch::Amd64)
        .arg(format!("--file={}:/usr/lib/{version}", library.display()))
        .arg("--bin=/usr/bin/sqlite3")
        .arg(script(dir.path(), "facts", python))
        .args(["--", "facts", "a b"])
        .run();
    let [line] = lines(&done)[..] else { panic!("{done:?}") };
    let facts: serde_json::Value = serde_json::from_str(line).unwrap();
    let wanted = serde_json::json!({"two": [2], "out": "42\n", "abc": ABC, "args": ["a b"]});
    assert_eq!(facts, wanted);
}
