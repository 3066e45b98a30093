//! What the kernel's reports of its faults mean for a run: real guests.

use std::path::Path;

use serde_json::Value;
use vmtest::arch::Arch;

use crate::decode::built;
use crate::support::{assets, vmtest};

/// Has the kernel log what a report looks like: to a reader of the console it is one.
const REPORT: &str = "\
    say() { echo \"<4>$1\" >/dev/kmsg; }; \
    say 'WARNING: CPU: 0 PID: 7 at drivers/queue.c:3 queue_take+0xd/0x1000'; \
    say 'Call Trace:'; say ' queue_take+0xd/0x1000'; \
    say '---[ end trace 0000000000000000 ]---'; exec sleep 0.1";

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join(name)).unwrap()).unwrap()
}

#[test]
fn a_report_is_shown_fails_the_run_or_is_nothing() {
    assets(Arch::Amd64);
    let run = |flags: &[&str]| {
        let run = vmtest(["--append=printk.devkmsg=on"]).args(flags);
        run.args(["--", "sh", "-c", REPORT]).run()
    };
    let told = "note: the kernel reported WARNING in queue_take (line ";
    run(&[]).code(0).says(", and its kernel reported a fault\n").says(told);
    run(&["--splats=fail"])
        .code(73)
        .says("vmtest: the kernel reported WARNING in queue_take; all else passed")
        .says(told);
    for flags in [
        &["--splats=off"][..],
        &["--splats=fail", "--allow-splat=^WARNING in queue_"],
        &["--splats=fail", "--allow-splat=drivers/queue.c"],
    ] {
        let done = run(flags);
        done.code(0);
        assert!(!done.stderr.contains("reported"), "{flags:?}: {}", done.stderr);
    }
    run(&["--splats=fail", "--allow-splat=("]).code(2).says("`(` is no regular expression").seen();
    run(&["--splats=never"]).code(2).says("`never` is none of fail, warn, off");
    run(&["--allow-splat-file=/no/such/list"]).code(69).says("/no/such/list");
    run(&["--vmlinux=/no/such/file"]).code(69).says("cannot read the vmlinux `/no/such/file`");
}

#[test]
fn lists_are_files_and_a_command_that_fails_keeps_its_status() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let list = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        format!("--{name}-splat-file={}", dir.path().join(name).display())
    };
    let (allow, deny) = (list("allow", "# all\n.\n"), list("deny", "queue_\n"));
    let run = |flags: &[&str], script: &str| {
        let run = vmtest(["--append=printk.devkmsg=on", "--splats=fail"]).args(flags);
        run.args(["--", "sh", "-c", script]).run()
    };
    run(&[&allow], REPORT).code(0);
    run(&[&allow, &deny], REPORT).code(73).says("WARNING in queue_take");
    let script = REPORT.replace("exec sleep 0.1", "sleep 0.1; exit 5");
    run(&[], &script).code(5).says("failed with status 5").says("reported WARNING in queue_take");
}

#[test]
fn the_record_and_the_artifacts_have_the_reports_with_files_and_lines() {
    assets(Arch::Amd64);
    let (symbols, dir) = (built(), tempfile::tempdir().unwrap());
    let run = |script: &str| {
        vmtest(["--append=printk.devkmsg=on", "--vmlinux"])
            .arg(symbols.path().join("vmlinux"))
            .arg("--artifacts")
            .arg(dir.path())
            .args(["--", "sh", "-c", script])
            .run()
    };
    let done = run(REPORT);
    done.code(0).says("queue_take+0xd/0x1000 (").says("queue.c:").says("WARNING in queue_take");
    let record = json(dir.path(), "run.json");
    assert_eq!(record["verdict"], "passed");
    assert_eq!(record["splats"]["counting"], 1);
    let report = &record["splats"]["reports"][0];
    assert_eq!((&report["kind"], &report["counts"]), (&"warning".into(), &true.into()));
    let splats = json(dir.path(), "splats.json");
    let frame = &splats["reports"][0]["traces"][0]["frames"][0];
    assert!(frame["locations"][0]["file"].as_str().unwrap().ends_with("queue.c"), "{splats:#}");
    // A later run has none of it.
    run("true").code(0);
    assert_eq!(json(dir.path(), "run.json")["splats"]["counting"], 0);
    assert!(!dir.path().join("splats.json").exists());
}

/// No text of a test's: the kernel itself reports, on two architectures.
#[test]
fn a_real_report_counts() {
    for arch in [Arch::Amd64, Arch::Riscv64] {
        assets(arch);
        let victim = "(echo 1000 >/proc/self/oom_score_adj; exec sleep 1000)";
        let script = format!("{victim} & sleep 0.1; echo f >/proc/sysrq-trigger; wait; exit 0");
        vmtest(["--splats=fail", "--arch", arch.name(), "--", "sh", "-c", &script])
            .run()
            .code(73)
            .says("the kernel reported out of memory");
    }
}
