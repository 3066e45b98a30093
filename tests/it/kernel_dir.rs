//! `--kernel DIR`: build trees, roots, /boot, with real kernels put where a build leaves them.

use std::path::{Path, PathBuf};
use std::process::Command;

use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

/// Modules that the devices of a run need, and what they stand on.
const MODULES: [&str; 7] = ["virtio", "9p", "netfs", "fscache", "failover", "vsock", "rng-core"];

/// A kernel of the distribution as a build leaves it: the image below `arch/`, modules as plain files beside
/// their objects, `modules.order`, the release.
fn tree(arch: Arch, image: &str) -> tempfile::TempDir {
    let kernel = assets(arch).kernel.expect("a kernel of the manifest");
    let installed = kernel.modules.expect("its modules");
    let release = installed.file_name().unwrap().to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    std::fs::copy(&kernel.image.path, at(image)).unwrap();
    std::fs::write(at("include/config/kernel.release"), format!("{release}\n")).unwrap();
    std::fs::write(at("Kconfig"), "").unwrap();
    std::fs::copy(installed.join("modules.builtin"), at("modules.builtin")).unwrap();
    let mut order = String::new();
    for path in modules(&installed) {
        let below = path.strip_prefix(installed.join("kernel")).unwrap().to_str().unwrap();
        let stem = below.split(".ko").next().unwrap();
        let unpacked = Command::new("xz").args(["-dc"]).arg(&path).output().expect("xz(1)");
        assert!(unpacked.status.success(), "{}", path.display());
        std::fs::write(at(&format!("{stem}.ko")), unpacked.stdout).unwrap();
        order.push_str(&format!("{stem}.o\n"));
    }
    assert!(order.contains("9pnet_virtio"), "{order}");
    std::fs::write(at("modules.order"), order).unwrap();
    dir
}

fn modules(installed: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![installed.join("kernel")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                dirs.push(path);
            } else if MODULES.iter().any(|word| name.contains(word)) && name.ends_with(".ko.xz") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A tree boots with its own modules, and again, warm; a module that was built again is taken.
fn a_build_tree_boots(arch: Arch, image: &str) {
    let tree = tree(arch, image);
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("note"), "shared\n").unwrap();
    let run = || {
        vmtest(["--arch", arch.name(), "--kernel"])
            .arg(tree.path())
            .arg(format!("--share={}:s", share.path().display()))
            .args(["--", "cat", "/mount/9p/s/note"])
            .run()
    };
    run().code(0).stdout("shared\n");
    run().code(0).stdout("shared\n");
    let module = tree.path().join("net/9p/9pnet_virtio.ko");
    std::fs::write(&module, "not a module any more").unwrap();
    run().code(69).says("9pnet_virtio.ko").says("no kernel module");
}

#[test]
fn a_build_tree_of_amd64_boots() {
    a_build_tree_boots(Arch::Amd64, "arch/x86/boot/bzImage");
}

#[test]
fn a_build_tree_of_riscv64_boots() {
    a_build_tree_boots(Arch::Riscv64, "arch/riscv/boot/Image.gz");
}

#[test]
fn whoever_is_in_a_build_tree_and_says_nothing_boots_it() {
    let tree = tree(Arch::Amd64, "arch/x86/boot/bzImage");
    let done = vmtest(["--arch=amd64"]).cwd(tree.path()).run();
    done.code(0).says("booting the kernel tree here").says("--kernel @default");
    // With something to run it is named, or it is not meant.
    let done = vmtest(["--arch=amd64", "--", "true"]).cwd(tree.path()).run();
    assert!(!done.code(0).stderr.contains("kernel tree"), "{}", done.stderr);
}

#[test]
fn a_root_with_a_kernel_boots_the_newest() {
    let kernel = assets(Arch::Amd64).kernel.expect("a kernel of the manifest");
    let modules = kernel.modules.expect("its modules");
    let release = modules.file_name().unwrap().to_str().unwrap();
    let root = tempfile::tempdir().unwrap();
    let boot = root.path().join("boot");
    std::fs::create_dir_all(root.path().join("lib/modules")).unwrap();
    std::fs::create_dir_all(&boot).unwrap();
    std::fs::write(boot.join("vmlinuz-5.4.0"), "an old one that is none").unwrap();
    std::fs::copy(&kernel.image.path, boot.join(format!("vmlinuz-{release}"))).unwrap();
    std::os::unix::fs::symlink(&modules, root.path().join("lib/modules").join(release)).unwrap();
    for dir in [root.path(), &boot] {
        let done = vmtest(["--arch=amd64", "--kernel"]).arg(dir).args(["--", "uname", "-r"]).run();
        done.code(0).stdout(&format!("{release}\n"));
    }
}

#[test]
fn a_directory_without_a_kernel_says_what_is_missing() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let run = |dir: &Path| vmtest(["--arch=amd64", "--kernel"]).arg(dir).args(["--", "true"]).run();
    run(dir.path()).code(69).says("there is no kernel in").says("build tree");
    std::fs::write(dir.path().join(".config"), "CONFIG_X86_64=y\n").unwrap();
    run(dir.path()).code(69).says("configured, and not built").says("bzImage modules");
}
