//! What a kernel can, before it is booted: real kernels, and configurations that say less.

use std::path::{Path, PathBuf};

use serde_json::Value;
use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::options::Environment;

use crate::support::{assets, vmtest};

/// The pinned kernel's image and configuration.
fn pinned(arch: Arch) -> (PathBuf, PathBuf, PathBuf) {
    assets(arch);
    let all = Assets::find(&Environment::read().unwrap()).unwrap();
    let kernel = all.guest(arch).kernel.unwrap();
    (kernel.image.path, kernel.config.unwrap(), kernel.modules.unwrap())
}

/// A kernel with a configuration beside it that lacks some lines.
fn without(kernel: &(PathBuf, PathBuf, PathBuf), options: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&kernel.0, dir.path().join("kernel")).unwrap();
    let text = std::fs::read_to_string(&kernel.1).unwrap();
    let kept = text.lines().filter(|line| {
        !options.iter().any(|option| line.starts_with(&format!("CONFIG_{option}=")))
    });
    std::fs::write(dir.path().join(".config"), kept.collect::<Vec<_>>().join("\n")).unwrap();
    dir
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
fn what_a_run_lacks_is_named_before_the_boot() {
    let kernel = pinned(Arch::Amd64);
    let dir = without(&kernel, &["9P_FS", "VFAT_FS"]);
    let image = flag("kernel", &dir.path().join("kernel"));
    let run = |flags: &[&str]| {
        vmtest(["--arch=amd64", "--warm=off", &image]).args(flags).args(["--", "true"]).run()
    };
    // No directory of modules: what is a module cannot be had.
    let share = format!("--share={}:work", dir.path().display());
    let done = run(&[&share]);
    done.code(69)
        .says("lacks what this run needs")
        .says("CONFIG_9P_FS for --share, --root, --coverage: not set")
        .says("CONFIG_NET_9P_VIRTIO for --share, --root, --coverage: a module, and no directory")
        .says("--modules")
        .seen();
    assert!(done.elapsed.as_secs() < 10, "{:?}", done.elapsed);
    // The module is there, whatever the configuration says.
    let modules = flag("modules", &kernel.2);
    run(&[&share, &modules]).code(0);
}

#[test]
fn what_is_required_has_to_be_known() {
    assets(Arch::Amd64);
    let run = |option: &str| vmtest(["--arch=amd64", "--require", option, "--", "true"]).run();
    run("BPF_SYSCALL").code(0);
    run("CONFIG_LKDTM")
        .code(69)
        .says("CONFIG_LKDTM for --require: not set")
        .says("CONFIG_LKDTM=y")
        .seen();
    run("no such").code(2).says("is no name of a kernel's option").seen();
}

#[test]
fn check_prints_a_table_of_each_architectures_kernel() {
    for arch in Arch::ALL {
        let (image, config, modules) = pinned(arch);
        let done = vmtest(["kernel", "check"])
            .arg(&image)
            .args([flag("config", &config), flag("modules", &modules)])
            .args(["--arch", arch.name()])
            .run();
        done.code(0);
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        let row = |option: &str| {
            let line =
                text.lines().find(|line| line.trim_start().starts_with(&format!("{option} ")));
            line.unwrap_or_else(|| panic!("{option} is missing in:\n{text}")).to_owned()
        };
        assert!(row("BLK_DEV_INITRD").contains("built in"), "{text}");
        assert!(row("9P_FS").contains("module  "), "{text}");
        assert!(row("GCOV_KERNEL").contains("not set"), "{text}");
    }
}

#[test]
fn check_fails_where_something_necessary_is_missing() {
    let kernel = pinned(Arch::Riscv64);
    let dir = without(&kernel, &["VIRTIO_PCI"]);
    let check = |flags: &[&str]| {
        vmtest(["kernel", "check"]).arg(dir.path().join("kernel")).args(flags).run()
    };
    let done = check(&["--json", "--require=LKDTM"]);
    done.code(1);
    let table: Value = serde_json::from_slice(&done.stdout).unwrap();
    let options = table["options"].as_array().unwrap();
    let of = |name: &str| options.iter().find(|row| row["option"] == name).unwrap();
    assert_eq!(of("VIRTIO_PCI")["state"], "missing", "{table:#}");
    assert_eq!(of("BLK_DEV_INITRD")["state"], "built-in", "{table:#}");
    assert_eq!(table["missing_required"][0]["option"], "LKDTM", "{table:#}");
    vmtest(["kernel", "check", "/no/such/kernel"]).run().code(69).says("/no/such/kernel");
    std::fs::write(dir.path().join("text"), "no kernel").unwrap();
    vmtest(["kernel", "check"])
        .arg(dir.path().join("text"))
        .run()
        .code(69)
        .says("is no kernel image");
}

#[test]
fn a_configuration_of_another_kernel_is_not_believed() {
    let kernel = pinned(Arch::Amd64);
    let dir = without(&kernel, &[]);
    let other = "# Linux/x86 5.10.1 Kernel Configuration\nCONFIG_BLK_DEV_INITRD=y\n";
    std::fs::write(dir.path().join(".config"), other).unwrap();
    let done = vmtest(["kernel", "check"]).arg(dir.path().join("kernel")).run();
    done.code(0).says("is of another kernel: 5.10.1");
    assert!(String::from_utf8_lossy(&done.stdout).contains("not known: no configuration"));
}
