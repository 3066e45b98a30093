//! What a command finds in its guest without asking for it: names, a clock, a root that is a share.

use std::fs;
use std::process::Command;

use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

#[test]
fn users_and_hosts_have_names() {
    for arch in Arch::ALL {
        assets(arch);
        let script = "id -un; id -gn; ping -c1 -W5 localhost >/dev/null && echo localhost";
        let done = vmtest(["--arch", arch.name(), "--", "sh", "-c", script]).run();
        done.code(0).stdout("root\nroot\nlocalhost\n").seen();
    }
}

#[test]
fn the_users_own_names_stay() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, "me:x:0:0::/:/bin/sh\n").unwrap();
    let file = format!("--file={}:/etc/passwd", users.display());
    // Resumed, and with all of it in one image.
    for warm in ["auto", "off"] {
        let run = vmtest([&format!("--warm={warm}"), &file, "--", "id", "-un"]).run();
        run.code(0).stdout("me\n").seen();
    }
}

/// The kernel cannot read the machine's clock, and began with 1970.
#[test]
fn a_guest_without_a_clock_has_the_hosts_time() {
    assets(Arch::Riscv64);
    let without = "--append=initcall_blacklist=goldfish_rtc_init";
    let script =
        "dmesg | grep -c 'setting system clock'; test $(date +%s) -gt 1700000000 && echo now";
    let done = vmtest(["--arch=riscv64", "--warm=off", without, "--", "sh", "-c", script]).run();
    done.code(0).stdout("0\nnow\n").seen();
}

/// A share's tag is no device that has to appear.
#[test]
fn a_root_share_is_there_at_once() {
    assets(Arch::Amd64);
    let words = ["--message-format=json", "--warm=off", "--root=/", "--", "true"];
    let done = vmtest(words).run();
    let lines =
        done.code(0).stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ready = lines.into_iter().find(|line| line["type"] == "ready").unwrap();
    let secs = |name: &str| ready["guest"][name].as_f64().unwrap();
    assert!(secs("ready_secs") - secs("init_secs") < 8.0, "{ready}");
}

/// As on any other share.
#[test]
fn a_file_of_a_root_share_can_be_mapped_shared() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("m.c");
    fs::write(
        &source,
        "#include <fcntl.h>\n#include <sys/mman.h>\nint main(void) { int fd = open(\"/x\", O_RDWR);\n\
         char *p = mmap(0, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);\n\
         if (p == MAP_FAILED) return 1; p[0] = 'B'; return msync(p, 4, MS_SYNC) ? 2 : 0; }\n",
    )
    .unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("x"), "abc\n").unwrap();
    let status =
        Command::new("cc").args(["-static", "-o"]).arg(tree.join("m")).arg(&source).status();
    assert!(status.expect("a C compiler").success());
    let root = format!("--root={}", tree.display());
    vmtest([root.as_str(), "--", "/m"]).run().code(0).seen();
    assert_eq!(fs::read_to_string(tree.join("x")).unwrap(), "Bbc\n");
}
