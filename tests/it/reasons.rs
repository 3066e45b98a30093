//! Runs that fail for a reason that can be told: real guests without memory, without space, without an init.

use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

#[test]
fn a_command_that_dies_for_its_memory_is_told_what_helps() {
    for arch in [Arch::Amd64, Arch::Riscv64] {
        assets(arch);
        let hog = "BEGIN { while (1) a[i++] = sprintf(\"%100000d\", 1) }";
        let run = vmtest(["--arch", arch.name(), "--memory=192M", "--", "awk", hog]);
        run.run()
            .code(137)
            .says("the guest was out of memory, and its kernel killed `awk` (")
            .says("hint: --memory 384M")
            .says("the kernel reported out of memory")
            .seen();
        // What died may be what the command has started.
        let script = format!("awk '{hog}'; exit 3");
        let words = ["--arch", arch.name(), "--memory=192M", "--splats=off", "--", "sh", "-c"];
        let done = vmtest(words).arg(&script).run();
        done.code(3).says("its kernel killed `awk` (").says("hint: --memory 384M").seen();
    }
}

#[test]
fn a_full_root_is_told() {
    assets(Arch::Amd64);
    let script = "dd if=/dev/zero of=/file bs=1M count=2000";
    let done = vmtest(["--", "sh", "-c", script]).run();
    done.says("No space left on device")
        .says("something in the guest is full")
        .says("--memory 1G")
        .seen();
    assert_ne!(done.code, 0);
}

#[test]
fn an_init_that_dies_is_told() {
    assets(Arch::Amd64);
    // Process 1 is a program that ends.
    let done = vmtest(["--warm=off", "--append=rdinit=/.vmtest/bin/false", "--", "true"]).run();
    done.code(70).says("ended with status 1, and Linux does not go on without it").seen();
    let done = vmtest(["--warm=off", "--append=rdinit=/no/such/init", "--", "true"]).run();
    assert_ne!(done.code, 0);
    done.seen();
}
