//! Our own kernels: the check of their configuration, their entries in the manifest, and what they can.
//! Tests that need a built kernel are run by `make kernels-test`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmtest::arch::Arch;
use vmtest::assets::{Assets, GcovFormat, GuestAssets, KernelName};
use vmtest::options::Environment;

use crate::support::vmtest;

fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A tree that configures itself as Linux does, but drops options that start with `LOST`.
fn pretended_linux(dir: &Path) -> PathBuf {
    let source = dir.join("linux");
    fs::create_dir_all(source.join("kernel/configs")).unwrap();
    fs::write(source.join("kernel/configs/tiny-base.config"), "").unwrap();
    let kconfig =
        "config LOST_BY_DEPENDENCY\n\tbool \"x\"\n\tdepends on TEA && CAKE\n\nconfig OTHER\n";
    fs::write(source.join("Kconfig"), kconfig).unwrap();
    let makefile = "allnoconfig:\n\tgrep -v LOST_ $(KCONFIG_ALLCONFIG) > $(O)/.config\n\
        \tsed -i 's/^# CONFIG_MADE_LOST is not set/CONFIG_MADE_LOST=y/' $(O)/.config\n\
        olddefconfig:\n\t:\n";
    fs::write(source.join("Makefile"), makefile).unwrap();
    source
}

fn configure(dir: &Path, source: &Path, fragment: &str) -> Output {
    fs::write(dir.join("more.config"), fragment).unwrap();
    Command::new(repo().join("nix/kernel/build"))
        .args(["--configure-only", "--arch", "riscv64", "--jobs", "1", "--source"])
        .arg(source)
        .arg("--out")
        .arg(dir.join("out"))
        .arg("--fragment")
        .arg(dir.join("more.config"))
        .env("TMPDIR", dir)
        .output()
        .expect("the script starts")
}

#[track_caller]
fn refused(output: &Output, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a lost option was not noticed:\n{stderr}");
    for text in says {
        assert!(stderr.contains(text), "`{text}` is missing in:\n{stderr}");
    }
}

#[test]
fn options_that_do_not_survive_are_told_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let source = pretended_linux(dir.path());
    // As the fragments are, all survives.
    let output = configure(dir.path(), &source, "# A comment.\nCONFIG_GOOD=\"text\"\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let config = fs::read_to_string(dir.path().join("out/config")).unwrap();
    assert!(config.contains("CONFIG_GOOD=\"text\"\n") && config.contains("CONFIG_FPU=y\n"));

    let lost =
        "CONFIG_LOST_BY_DEPENDENCY=y\nCONFIG_LOST_AND_UNKNOWN=m\n# CONFIG_MADE_LOST is not set\n";
    refused(
        &configure(dir.path(), &source, lost),
        &[
            "CONFIG_LOST_BY_DEPENDENCY=y became nothing: it cannot be chosen here (depends on TEA && CAKE)",
            "CONFIG_LOST_AND_UNKNOWN=m became nothing: this Linux has no such option",
            "CONFIG_MADE_LOST=n became y",
            "error: 3 of ",
        ],
    );
    // The last fragment decides what is asked for.
    let twice = "CONFIG_LOST_AND_UNKNOWN=m\n# CONFIG_LOST_AND_UNKNOWN is not set\n";
    assert!(configure(dir.path(), &source, twice).status.success());
    refused(
        &configure(dir.path(), &source, "CONFIG_NO VALUE\n"),
        &["is neither an option nor a comment"],
    );
    refused(&configure(dir.path(), dir.path(), ""), &["is not Linux' source"]);
}

/// A cache with entries as setup/kernels makes them, and the manifest that setup/assets writes of it.
fn manifest_of(cache: &Path) -> Assets {
    let script = format!(
        "set -eu; repo={0}; . {0}/setup/lib/common.sh; . {0}/setup/lib/qemu.sh; . {0}/setup/lib/manifest.sh; write_manifest",
        repo().display()
    );
    let status =
        Command::new("bash").arg("-c").arg(script).env("VMTEST_CACHE", cache).status().unwrap();
    assert!(status.success());
    Assets::load(&cache.join("assets.json")).unwrap()
}

#[test]
fn the_manifest_names_built_kernels_beside_the_distributions() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path();
    let entry = |name: &str, more: &str| {
        let kernel = cache.join("kernel").join(name);
        fs::create_dir_all(&kernel).unwrap();
        let text = format!(
            "{{\"path\": \"kernel/{name}/vmlinuz\", \"version\": \"{name}\", \"sha256\": \"00\"{more}}}"
        );
        fs::write(kernel.join("entry.json"), text).unwrap();
    };
    entry("amd64", ", \"modules\": \"kernel/amd64/lib\"");
    let version = |assets: &Assets, name| {
        let kernel = assets.guest(Arch::Amd64).kernel_by_name(name).cloned();
        kernel.map(|kernel| kernel.image.version)
    };
    let names = |assets: &Assets| KernelName::ALL.map(|name| version(assets, name));
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(names(&manifest_of(cache)), [some("amd64"), some("amd64"), None]);
    entry("amd64-built", "");
    entry(
        "amd64-gcov",
        ", \"gcov\": {\"notes\": \"kernel/amd64-gcov/notes\", \"format\": \"llvm\", \"tool\": \"llvm-cov gcov\", \
         \"compiler\": \"clang\", \"build_dir\": \"/objects\", \"source\": \"/linux\"}",
    );
    let assets = manifest_of(cache);
    assert_eq!(names(&assets), [some("amd64-built"), some("amd64"), some("amd64-gcov")]);
    let gcov = assets.guest(Arch::Amd64).gcov_kernel.unwrap().gcov.unwrap();
    assert_eq!(gcov.notes, cache.join("kernel/amd64-gcov/notes"));
    // `setup/kernels --forget`, and back.
    let forget = |args: &[&str]| {
        let mut command = Command::new(repo().join("setup/kernels"));
        assert!(command.args(args).env("VMTEST_CACHE", cache).status().unwrap().success());
        Assets::load(&cache.join("assets.json")).unwrap()
    };
    let assets = forget(&["--forget", "x86_64"]);
    assert_eq!(names(&assets), [some("amd64"), some("amd64"), some("amd64-gcov")]);
    assert_eq!(assets.guest(Arch::Amd64).distribution_kernel, None);
    fs::remove_file(cache.join("kernel/amd64-built/spare")).unwrap();
    assert_eq!(version(&manifest_of(cache), KernelName::Default), some("amd64-built"));
}

#[test]
fn a_kernel_without_a_name_here_is_an_error_that_says_what_there_is() {
    let done = vmtest(["--arch", "riscv64", "--kernel", "@nonsense"]).run();
    done.code(69).says("there is no kernel `@nonsense` for riscv64").says("@distribution");
    done.says("the names are @default, @distribution, @gcov");
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("assets.json");
    fs::write(&manifest, r#"{"schema": 1, "guests": {"i386": {}}}"#).unwrap();
    let done = vmtest(["--arch", "i386", "--dry-run"])
        .env("VMTEST_KERNEL", "@gcov")
        .env("VMTEST_ASSETS", &manifest)
        .run();
    done.code(69).says("there is no kernel `@gcov` for i386");
    done.says("make kernels GCOV=1 ARCH=i386");
}

#[test]
fn the_distributions_kernel_comes_with_its_modules() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "shared\n").unwrap();
    let done = vmtest(["--kernel=@distribution", "--arch=amd64"])
        .arg(format!("--share={}:s", dir.path().display()))
        .args(["--", "sh", "-c", "cat /mount/9p/s/file; grep -c '^9p ' /proc/modules"])
        .run();
    done.code(0).stdout("shared\n1\n");
    // Images are compressed as the kernel's configuration allows.
    let image = dir.path().join("image");
    vmtest([
        "initramfs",
        "build",
        "--arch=amd64",
        "--compress=auto",
        "--kernel=@distribution",
        "-o",
    ])
    .arg(&image)
    .run()
    .code(0)
    .says("compression: zstd");
}

fn guests() -> Assets {
    let environment = Environment::read().expect("the environment is usable");
    Assets::find(&environment).expect("a manifest")
}

/// The kernels in the manifest that are ours.
fn built() -> Vec<(Arch, &'static str)> {
    let assets = guests();
    let ours = |guest: &GuestAssets, name| {
        guest.kernel_by_name(name).is_some_and(|kernel| kernel.image.version.contains("-vmtest"))
    };
    let mut found = Vec::new();
    for arch in Arch::ALL {
        let guest = assets.guest(arch);
        for name in [KernelName::Default, KernelName::Gcov] {
            if ours(&guest, name) {
                found.push((arch, name.as_str()));
            }
        }
    }
    assert!(!found.is_empty(), "the manifest names no kernel of ours: run `make kernels-test`");
    found
}

/// One boot with all that vmtest can attach, and a look at what programs expect.
#[test]
#[ignore = "needs a kernel of ours: make kernels-test"]
fn built_kernels_have_all_that_vmtest_attaches() {
    let script = r#"
        uname -r
        cat /mount/9p/s/file /mount/vfat/sda1/file
        for disk in /dev/vda /dev/sdb /dev/sdc; do head -c 6 $disk; done
        for card in /sys/class/net/eth*; do basename $(readlink $card/device/driver); done
        for name in debug security config; do grep -q " /sys/kernel/$name " /proc/mounts && echo $name; done
        tr ' ' '\n' < /sys/fs/cgroup/cgroup.controllers | sort | xargs
        zcat /proc/config.gz | grep -c '^CONFIG_SMP=y'
        test -c /dev/hwrng && echo random
        test -e /sys/bus/pci/drivers/pvpanic-pci/0* && echo pvpanic
        mkdir /tmp/a /tmp/b /tmp/w /tmp/m
        mount -t overlay none -o lowerdir=/tmp/a,upperdir=/tmp/b,workdir=/tmp/w /tmp/m && echo overlay
        unshare -m -u -i -n -p -f true && echo namespaces
        grep -c . /proc/cpuinfo > /dev/null && nproc
        date +%Y | grep -v 1970 > /dev/null && echo clock
        for fs in ext4 squashfs fuse virtiofs; do grep -w $fs /proc/filesystems; done | xargs
    "#;
    for (arch, name) in built() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["share", "vfat"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), format!("{name}\n")).unwrap();
        }
        for name in ["virtio", "ahci", "scsi"] {
            let mut image = vec![0; 1 << 20];
            let text = format!("{name}      ");
            image[..5].copy_from_slice(&text.as_bytes()[..5]);
            image[5] = b'\n';
            fs::write(path(name), image).unwrap();
        }
        let done =
            vmtest(["--arch", arch.name(), "--cpus=2", "--net=user", "--net=user,nic=e1000"])
                .arg(format!("--kernel=@{name}"))
                .arg(format!("--share={}:s", path("share").display()))
                .arg(format!("--ro-dir={}", path("vfat").display()))
                .args(["virtio", "ahci", "scsi"].map(|interface| {
                    format!("--drive={},if={interface}", path(interface).display())
                }))
                .args(["--qemu-arg=-device", "--qemu-arg=virtio-rng-pci"])
                .args(["--", "sh", "-c", script])
                .run();
        done.code(0);
        let version = guests().guest(arch);
        let version = &version.kernel_by_name(name.parse().unwrap()).unwrap().image.version;
        done.stdout(&format!(
            "{version}\nshare\nvfat\nvirti\nscsi \nahci \nvirtio_net\ne1000\ndebug\nsecurity\nconfig\n\
             cpu cpuset io memory pids\n1\nrandom\npvpanic\noverlay\nnamespaces\n2\nclock\n\
             ext4 squashfs nodev fuse nodev virtiofs\n"
        ));
    }
}

#[test]
#[ignore = "needs a kernel of ours: make kernels-test"]
fn built_kernels_panic_as_others_do() {
    for (arch, name) in built() {
        let done = vmtest(["--arch", arch.name(), &format!("--kernel=@{name}"), "--"])
            .args(["sh", "-c", "echo c > /proc/sysrq-trigger"])
            .run();
        done.code(70).says("sysrq triggered crash");
    }
}

#[test]
#[ignore = "needs a gcov kernel: make kernels-test"]
fn gcov_kernels_count_what_their_notes_describe() {
    let assets = guests();
    let mut seen = 0;
    for arch in Arch::ALL {
        let Some(kernel) = assets.guest(arch).gcov_kernel else { continue };
        seen += 1;
        let gcov = kernel.gcov.expect("notes and source");
        assert_eq!(gcov.format, GcovFormat::Llvm);
        assert!(gcov.source.join("fs/open.c").exists(), "{}", gcov.source.display());
        for file in ["fs/open", "fs/read_write", "net/9p/trans_virtio", "init/main"] {
            let note = gcov.notes.join(format!("{file}.gcno"));
            assert!(fs::metadata(&note).is_ok_and(|note| note.len() > 100), "{}", note.display());
        }
        let counters = format!("/sys/kernel/debug/gcov{}", gcov.build_dir.display());
        let done = vmtest(["--arch", arch.name(), "--kernel=@gcov", "--", "sh", "-c"])
            .arg(format!("head -c 4 {counters}/fs/open.gcda; test -L {counters}/fs/open.gcno && echo; ls -d {counters}/net/ipv4"))
            .run();
        // The magic number, in the order of a little-endian machine.
        done.code(0).stdout(&format!("adcg\n{counters}/net/ipv4\n"));
    }
    assert!(seen > 0, "the manifest names no gcov kernel: run `make kernels-test`");
}

#[test]
fn the_scripts_can_be_run() {
    for script in ["nix/kernel/build", "setup/kernels"] {
        let mode = fs::metadata(repo().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script}");
        let output = Command::new(repo().join(script)).arg("--help").output().unwrap();
        assert!(output.status.success() && output.stdout.starts_with(b"usage: "), "{script}");
        let output = Command::new(repo().join(script)).arg("--bogus").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{script}");
    }
}
