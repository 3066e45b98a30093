//! Options that take a file, given something else; kernels that are packed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmtest::arch::Arch;

use crate::support::{assets, vmtest};

fn pipe(dir: &Path) -> PathBuf {
    let path = dir.join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path
}

#[test]
fn a_pipe_a_device_or_a_directory_for_a_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = pipe(dir.path());
    for (path, said) in [
        (pipe.as_path(), "it is a named pipe"),
        (Path::new("/dev/zero"), "it is a character device"),
        (dir.path(), "it is a directory"),
    ] {
        let path = path.display();
        let good = "/etc/passwd";
        for (option, value) in [
            ("--drive", format!("{path}")),
            ("--kernel", format!("{path}")),
            ("--initramfs", format!("{path}")),
            ("--firmware", format!("{path}:{good}")),
            ("--firmware", format!("{good}:{path}")),
        ] {
            let done = vmtest(["--arch", "amd64", option, &value, "--", "true"]).run();
            // A directory may be a kernel's tree, or a root with one.
            let is_dir = option == "--kernel" && said.ends_with("directory");
            done.code(69).says(if is_dir { "there is no kernel in" } else { said });
            assert!(done.elapsed < Duration::from_secs(10), "{option} {value}: {:?}", done.elapsed);
        }
        let run = vmtest(["--arch", "amd64", "--", "true"]);
        run.env("VMTEST_INITRAMFS_OVERRIDE", path.to_string()).run().code(69).says(said);
    }
}

/// What a pipe without a name gives is read; a named one would be waited for, a device never ends.
#[test]
fn every_command_that_reads_a_file_refuses_a_pipe_or_a_device_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = pipe(dir.path());
    let out = dir.path().join("out");
    let out = out.to_str().unwrap();
    for (path, said) in
        [(pipe.to_str().unwrap(), "it is a named pipe"), ("/dev/zero", "it is a character device")]
    {
        for words in [
            vec!["initramfs", "ls", path],
            vec!["initramfs", "cat", path, "x"],
            vec!["initramfs", "extract", path, out],
            vec!["initramfs", "diff", path, path],
            vec!["initramfs", "build", "-o", out, "--manifest", path],
            vec!["initramfs", "build", "-o", out, "--config", "x", "--config-file", path],
            vec!["initramfs", "build", "-o", out, "--base", path],
            vec!["initramfs", "why", "--report", path, "x"],
            vec!["coverage", "report", path],
            vec!["coverage", "merge", path, "--format", "lcov", "-o", out],
            vec!["splats", path],
            vec!["splats", "/dev/stdin", "--allow-splat-file", path],
            vec!["decode", "--vmlinux", path, "/dev/stdin"],
        ] {
            let done = vmtest(&words).run();
            done.code(69).says(said);
            let done = done.aside("error: nothing could be read");
            assert!(done.elapsed < Duration::from_secs(5), "{words:?}: {:?}", done.elapsed);
        }
    }
    let script = format!(
        "{} splats <(echo '[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2')",
        env!("CARGO_BIN_EXE_vmtest")
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_event_file_that_is_a_pipe_without_a_reader_is_refused_at_once() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let event = format!("--event=x={}", pipe(dir.path()).display());
    vmtest([event.as_str(), "--", "true"]).run().code(69).says("a named pipe that nobody reads");
}

#[test]
fn a_read_only_root_without_dev_is_refused_before_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let root = format!("{}:ro", dir.path().display());
    let done = vmtest(["--root", &root, "--", "true"]).run();
    done.code(69).says("has no directory `dev`").says("without `:ro`");
    assert!(done.elapsed < Duration::from_secs(10), "{:?}", done.elapsed);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What the kernel's build makes: a header, the packed kernel, for gzip without its last four bytes
/// in the size.
fn zboot(name: &str, payload: &[u8], uncounted: usize) -> Vec<u8> {
    let mut image = vec![0; 512];
    image[..2].copy_from_slice(b"MZ");
    image[4..8].copy_from_slice(b"zimg");
    image[8..12].copy_from_slice(&512u32.to_le_bytes());
    let size = u32::try_from(payload.len() - uncounted).unwrap();
    image[12..16].copy_from_slice(&size.to_le_bytes());
    image[24..24 + name.len()].copy_from_slice(name.as_bytes());
    image.extend_from_slice(payload);
    image.extend_from_slice(&[0xff; 100]);
    image
}

#[test]
fn a_packed_kernel_boots_where_qemu_cannot_unpack_it() {
    let arch = Arch::Riscv64;
    let kernel = assets(arch).kernel.unwrap().to_boot().path.clone();
    let kernel = fs::read(kernel).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let zstd = zstd::encode_all(kernel.as_slice(), 1).unwrap();
    for (name, bytes) in [
        ("gzip", gzip(&kernel)),
        ("zboot gzip", zboot("gzip", &gzip(&kernel), 4)),
        ("zboot zstd", zboot("zstd", &zstd, 0)),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let done =
            vmtest(["--arch", arch.name(), "--kernel"]).arg(path).args(["--", "echo", name]).run();
        done.code(0).stdout(&format!("{name}\n"));
    }
}

#[test]
fn a_packed_kernel_that_is_none_or_broken_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    let arm = zboot("gzip", &gzip(b"no kernel at all"), 4);
    let good = gzip(&[7; 100_000]);
    for (bytes, said) in [
        (gzip(b"no kernel at all"), "is no kernel image that vmtest knows"),
        (arm, "is no kernel image that vmtest knows"),
        (good[..good.len() / 2].to_vec(), "which is packed with gzip"),
        (zboot("lzma4000", b"x", 0), "which is an EFI zboot image with an unknown compression"),
        (b"\x28\xb5\x2f\xfdrubbish".to_vec(), "which is packed with zstd"),
    ] {
        fs::write(&path, bytes).unwrap();
        let done = vmtest(["--arch", "riscv64", "--kernel"]).arg(&path).args(["--", "true"]).run();
        done.code(69).says(said);
    }
}

#[test]
fn a_file_that_nobody_else_may_read_stays_one_in_the_guest() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (key, tree) = (dir.path().join("key"), dir.path().join("tree"));
    fs::create_dir(&tree).unwrap();
    for (path, mode) in [(&key, 0o600), (&tree.join("tool"), 0o750)] {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    vmtest(["--arch", "amd64"])
        .arg(format!("--file={}:/key", key.display()))
        .arg(format!("--file={}:/tree", tree.display()))
        .args(["--", "stat", "-c", "%a", "/key", "/tree/tool"])
        .run()
        .code(0)
        .stdout("600\n750\n");
}

#[test]
fn a_library_of_a_build_tree_is_found_with_lib_dir_as_the_hint_says() {
    let dir = tempfile::tempdir().unwrap();
    let (program, library) = (dir.path().join("m"), dir.path().join("build/libown.so"));
    fs::create_dir(dir.path().join("build")).unwrap();
    let source = dir.path().join("x.c");
    let cc = |args: &[&std::ffi::OsStr]| {
        let status = std::process::Command::new("cc").args(args).status().expect("a C compiler");
        assert!(status.success());
    };
    fs::write(&source, "int own(void) { return 7; }\n").unwrap();
    let out = std::ffi::OsStr::new("-o");
    cc(&["-shared".as_ref(), "-fPIC".as_ref(), out, library.as_ref(), source.as_ref()]);
    fs::write(&source, "int own(void);\nint main(void) { return own(); }\n").unwrap();
    let search = std::ffi::OsString::from(format!("-L{}", dir.path().join("build").display()));
    cc(&[out, program.as_ref(), source.as_ref(), &search, "-lown".as_ref()]);
    let run = |args: &[&str]| vmtest(args).arg("--").arg(&program).run();
    let refused = run(&[]);
    refused.code(69).says("libown.so").says("--lib-dir DIR");
    run(&[&format!("--lib-dir={}", dir.path().join("build").display())]).code(7);
    // One that the image gets anyway is found where the loader looks.
    let to = "/usr/local/lib/libown.so";
    run(&[&format!("--file={}:{to}", library.display())]).code(7);
    run(&[&format!("--bin={}:{to}", library.display())]).code(7);
    run(&[&format!("--file={}:/opt/libown.so", library.display())]).code(69).says("libown.so");
    // Its other hint works as it is printed.
    let hint = refused.stderr.split('`').find(|text| text.starts_with("vmtest initramfs why"));
    let words = vmtest::quote::split(hint.expect("a command").as_ref()).expect("it is quoted");
    vmtest(&words[1..]).run().code(0);
    // A hint of the same message: it starts, and the loader in the guest says what it lacks.
    run(&["--allow-missing", "libown.so"])
        .code(127)
        .says("not found (allowed)")
        .says("error while loading shared libraries: libown.so");
}

/// The directory of a base's that a link stands for is where the new link is.
#[test]
fn a_raw_disk_that_is_none_or_has_half_a_sector_is_said() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    for (bytes, said) in [
        (&[b"QFI\xfb".as_slice(), &[0; 2044]].concat(), "is a qcow2 image"),
        (&vec![0; 1000], "has 1000 bytes: the guest sees 1024"),
    ] {
        fs::write(&disk, bytes).unwrap();
        let done = vmtest(["--arch=amd64", &format!("--drive={},ro", disk.display()), "--"])
            .args(["sh", "-c", "wc -c < /dev/vda"])
            .run();
        let sectors = bytes.len().next_multiple_of(512);
        done.code(0).stdout(&format!("{sectors}\n")).says(said);
    }
}

/// It would have been passed over, and the library that it was for be missing for no reason.
#[test]
fn a_directory_that_is_named_and_not_there_is_said() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    for (place, why) in
        [(none.as_path(), "No such file"), (Path::new("/etc/passwd"), "no directory")]
    {
        let option = format!("--lib-dir={}", place.display());
        let done = vmtest(["--arch=amd64", &option, "--bin=/bin/true", "--", "true"]).run();
        done.code(69).says(&format!("lib-dir {}", place.display())).says(why).says("hint: ");
        let image = dir.path().join("image");
        let done =
            vmtest(["initramfs", "build", "--bin=/bin/true", &option, "-o"]).arg(&image).run();
        done.code(69).says(&format!("lib-dir {}", place.display())).says(why).says("hint: ");
        assert!(!image.exists());

        let option = format!("--modules={}", place.display());
        let done = vmtest(["--arch=amd64", &option, "--", "true"]).run();
        done.code(69).says(&place.display().to_string()).says("hint: --modules");
        let kernel = assets(Arch::Amd64).kernel.expect("checked").image.path;
        let done = vmtest(["kernel", "check", &option]).arg(&kernel).run();
        done.code(69).says(&place.display().to_string()).says("hint: --modules");
    }
}

#[test]
fn a_link_that_dangles_below_a_linked_directory_of_a_base_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir_all(dir.path().join("tree/usr/bin")).unwrap();
    std::os::unix::fs::symlink("usr/bin", dir.path().join("tree/bin")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("lost")).unwrap();
    let base = at("base.cpio");
    let tree = format!("--file={}:/", at("tree"));
    vmtest(["initramfs", "build", "--no-base", "-o", &base, &tree]).run().code(0);
    let lost = format!("--file={}:/bin/lost", at("lost"));
    let build = vmtest(["initramfs", "build", "--strict", "-o", &at("o"), "--base", &base, &lost]);
    build
        .run()
        .code(69)
        .says("/bin/lost is a symbolic link to `nowhere`, which is not in the image")
        .says("`--strict` was given");
    assert!(!dir.path().join("o").exists());
}
