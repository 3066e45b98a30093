//! Where the time of a run goes.

use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

#[test]
fn the_phases_are_a_table() {
    for arch in [Arch::Amd64, Arch::Riscv64] {
        assets(arch);
        let done = vmtest(["--arch", arch.name(), "--warm=off", "--profile", "--", "true"]).run();
        done.code(0).says("note: where the time went:\n");
        for name in ["QEMU, firmware", "kernel", "agent", "setup", "command", "shutdown", "total"] {
            let line = done.stderr.lines().find(|line| line.starts_with(&format!("  | {name} ")));
            assert!(line.is_some_and(|line| line.contains(" s")), "{name}: {}", done.stderr);
        }
    }
}

#[test]
fn a_boot_over_its_budget_fails_a_run_that_would_have_passed() {
    assets(Arch::Amd64);
    let run = |budget: &str, script: &str| {
        let run = vmtest(["--warm=off", budget, "--", "sh", "-c", script]);
        run.run()
    };
    run("--boot-budget=1ms", "true")
        .code(124)
        .says("1ms were allowed; all else passed (--boot-budget)")
        .seen();
    run("--boot-budget=2m", "true").code(0);
    run("--boot-budget=1ms", "exit 3").code(3).seen();
}
