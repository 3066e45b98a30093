//! `vmtest decode`, with a file that gcc makes.

use std::path::Path;
use std::process::Command;

use crate::support::vmtest;

const SOURCE: &str = "\
static volatile int sink;
__attribute__((noinline)) void poke(int x) {
    sink = x / sink;
}
__attribute__((noinline)) int queue_take(int x) {
    poke(x);
    return sink;
}
";

fn compile(dir: &Path, args: &[&str], output: &str) {
    std::fs::write(dir.join("queue.c"), SOURCE).unwrap();
    let status = Command::new("gcc")
        .args(args)
        .args(["-O1", "-o", output, "queue.c"])
        .current_dir(dir)
        .status()
        .expect("gcc is needed to build this test's files");
    assert!(status.success());
}

/// A kernel with debug information, and a module in a tree like a build's.
pub(crate) fn built() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path(), &["-g", "-shared", "-fPIC", "-Wl,--build-id=sha1"], "vmlinux");
    std::fs::create_dir_all(dir.path().join("drivers")).unwrap();
    compile(dir.path(), &["-g", "-c"], "drivers/my-queue.ko");
    dir
}

const LOG: &str = "\
[    2.000000][    T7] CPU: 1 PID: 7 Comm: x Not tainted 6.1.0 #1 0123456789abcdef0123456789abcdef01234567\r\n\
[    2.000001][    T7] Call Trace:\r\n\
[    2.000002][    T7]  queue_take+0xd/0x1000\r\n\
[    2.000003][    T7]  ? queue_take+0x9/0x1000 [my_queue]\r\n\
[    2.000004][    T7]  unknown+0x1/0x2\x1b[1m\r\n";

#[test]
fn frames_get_files_and_lines() {
    let dir = built();
    let log = dir.path().join("log");
    std::fs::write(&log, LOG).unwrap();
    let done = vmtest(["decode"])
        .arg(&log)
        .arg("--vmlinux")
        .arg(dir.path().join("vmlinux"))
        .arg("--modules")
        .arg(dir.path())
        .run();
    done.code(0).says("lines may be wrong").says("0123456789abcdef0123456789abcdef01234567");
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(lines[1], "[    2.000001][    T7] Call Trace:");
    assert!(lines[2].starts_with("[    2.000002][    T7]  queue_take+0xd/0x1000 ("), "{text}");
    assert!(lines[2].contains("queue.c:6)") || lines[2].contains("queue.c:7)"), "{text}");
    assert!(lines[3].contains("[my_queue] (") && lines[3].contains("queue.c:"), "{text}");
    assert_eq!(lines[4], "[    2.000004][    T7]  unknown+0x1/0x2");
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = built();
    let path = |name: &str| dir.path().join(name).into_os_string();
    let run = |log: &str, vmlinux: &str| {
        vmtest(["decode"]).arg(path(log)).arg("--vmlinux").arg(path(vmlinux)).run()
    };
    std::fs::write(dir.path().join("log"), LOG).unwrap();
    std::fs::write(dir.path().join("text"), "no kernel").unwrap();
    compile(dir.path(), &["-shared", "-fPIC"], "stripped");
    run("no-log", "vmlinux").code(69).says("no-log").says("hint:");
    run("log", "no-kernel").code(69).says("no-kernel").says("hint:");
    run("log", "text").code(69).says("it is no ELF file").says("hint:");
    run("log", "stripped").code(69).says("has no debug information").says("hint:");
    vmtest(["decode", "-"]).run().code(2).says("required arguments").says("--vmlinux");
    let done = run("log", "vmlinux");
    done.code(0).says("lines may be wrong");
    assert!(String::from_utf8_lossy(&done.stdout).contains("[my_queue]\n"), "no --modules");
    vmtest(["decode", "-", "--modules=/no/such/dir", "--vmlinux"])
        .arg(path("vmlinux"))
        .run()
        .code(69)
        .says("/no/such/dir");
}
