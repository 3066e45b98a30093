//! What mkuimage does, held to by `docs/images.md`.

use std::fs;

use vmtest::formats::cpio::{S_IFCHR, S_IFLNK};
use vmtest::initramfs::Role;

use super::{archive, builder, members, paths, refused, temp, write};

#[test]
fn the_default_base_has_all_of_u_roots() {
    let all = members(&archive(builder().default_base()));
    let mode = |path: &str| all[path].0.mode & 0o7777;
    for dir in
        ["bin", "dev", "env", "etc", "lib64", "proc", "sys", "tcz", "ubin", "usr", "usr/lib", "var"]
    {
        assert_eq!(mode(dir), 0o755, "{dir}");
    }
    // With the sticky bit that u-root leaves out.
    for dir in ["tmp", "var/log", "var/lock"] {
        assert_eq!(mode(dir), 0o1777, "{dir}");
    }
    for (path, bits, rdev) in [
        ("dev/console", 0o600, (5, 1)),
        ("dev/tty", 0o666, (5, 0)),
        ("dev/null", 0o666, (1, 3)),
        ("dev/port", 0o640, (1, 4)),
        ("dev/urandom", 0o666, (1, 9)),
    ] {
        assert_eq!((all[path].0.mode, all[path].0.rdev), (S_IFCHR | bits, rdev), "{path}");
    }
    assert_eq!(all["etc/resolv.conf"].1, b"nameserver 8.8.8.8\n");
    assert!(all["etc/localtime"].1.starts_with(b"TZif2"));
    // And what programs miss there.
    for path in ["bbin", "root", "run", "mnt", "dev/ttyS0", "dev/zero", "dev/kmsg"] {
        assert!(all.contains_key(path), "{path}");
    }
}

#[test]
fn commands_are_relative_links() {
    let dir = temp();
    let static_program = write(dir.path(), "bb", "#!/bbin/sh\n");
    let mut image = builder();
    image.provided(["/bbin/sh"]);
    image.multicall(&static_program, ["init", "gosh", "echo"]);
    image.command(Role::Init, "init").command(Role::Shell, "gosh");
    image.command(Role::Uinit, "echo a 'b c' d");
    let all = members(&archive(&image));
    for (path, target) in [
        ("init", "bbin/init"),
        ("bin/sh", "../bbin/gosh"),
        ("bin/defaultsh", "../bbin/gosh"),
        ("bin/uinit", "../bbin/echo"),
        ("bbin/gosh", "bb"),
    ] {
        assert_eq!(all[path].0.mode, S_IFLNK | 0o777, "{path}");
        assert_eq!(all[path].1, target.as_bytes(), "{path}");
    }
    assert_eq!(all["etc/uinit.flags"].1, b"\"a\"\n\"b c\"\n\"d\"");
    assert_eq!(all["etc/uinit.flags"].0.mode & 0o7777, 0o444);
    assert_eq!(all["bbin/bb"].1, b"#!/bbin/sh\n");
}

#[test]
fn links_to_commands_survive_linked_directories() {
    let mut image = builder();
    image.symlink("bin", "usr/bin").bytes("usr/bin/bash", 0o755, *b"");
    image.command(Role::Shell, "/bin/bash").command(Role::Init, "/bin/bash");
    image.command(Role::Uinit, "bash");
    let all = members(&archive(&image));
    assert_eq!(all["usr/bin/sh"].1, b"bash");
    assert_eq!(all["usr/bin/uinit"].1, b"bash");
    assert_eq!(all["init"].1, b"usr/bin/bash");
}

#[test]
fn an_unknown_command_names_the_option_that_silences_it() {
    let mut image = builder();
    image.default_base().by("--default-sh gosh").command(Role::Shell, "gosh");
    refused(&image, &["--default-sh gosh", "no command `gosh`", "`--default-sh=`"]);
    let mut quote = builder();
    quote.command(Role::Uinit, "echo 'open");
    refused(&quote, &["unbalanced quotes"]);
}

#[test]
fn a_link_that_meets_a_file_is_a_conflict() {
    let mut image = builder();
    image.bytes("bin/bash", 0o755, *b"").bytes("bin/sh", 0o755, *b"another");
    image.by("--default-sh").command(Role::Shell, "/bin/bash");
    refused(&image, &["/bin/sh", "--default-sh"]);
    let mut twice = builder();
    twice.symlink("a", "b").symlink("a", "c");
    refused(&twice, &["`/a`"]);
}

#[test]
fn what_is_asked_for_wins_over_the_base_and_init_is_kept() {
    let base = archive(builder().bytes("init", 0o755, *b"base").bytes("etc/f", 0o644, *b"base"));
    let base = super::on_disk(base);
    let mut image = builder();
    image.base(&*base).bytes("init", 0o755, *b"own").bytes("etc/f", 0o644, *b"own");
    let all = members(&archive(&image));
    assert_eq!((&all["init"].1[..], &all["inito"].1[..]), (&b"own"[..], &b"base"[..]));
    assert_eq!(all["etc/f"].1, b"own");
    let all = members(&archive(image.use_init(true)));
    assert_eq!((&all["init"].1[..], &all["inito"].1[..]), (&b"base"[..], &b"own"[..]));
    // Without one of its own the image has the base's.
    assert_eq!(members(&archive(builder().base(&*base)))["init"].1, b"base");
}

#[test]
fn files_bring_their_libraries_as_in_mkuimage() {
    let dir = temp();
    let tree = dir.path().join("t");
    write(&tree, "text", "plain");
    fs::copy("/proc/self/exe", tree.join("program")).unwrap();
    let mut image = builder();
    image.file_with_libraries(&tree, Some("/opt".as_ref()));
    let paths = paths(&archive(&image));
    assert!(paths.contains(&"opt/text".to_owned()) && paths.contains(&"opt/program".to_owned()));
    assert!(paths.iter().any(|path| path.contains("libc.")), "{paths:?}");
    // The host's own path of the program is not in the image.
    assert!(!paths.iter().any(|path| path.contains("tmp")), "{paths:?}");
}

#[test]
fn object_files_cores_debug_information_and_what_is_for_another_machine_are_data() {
    let dir = temp();
    let tree = dir.path().join("t");
    fs::create_dir(&tree).unwrap();
    let program = fs::read("/bin/true").unwrap();
    let patched = |name: &str, at: usize, value: u16| {
        let mut bytes = program.clone();
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        fs::write(tree.join(name), bytes).unwrap();
    };
    // e_type: an object file (as modules and BPF programs are) and a core; e_machine: RISC-V.
    patched("x.ko", 16, 1);
    patched("core", 16, 4);
    patched("foreign", 18, 243);
    fs::write(tree.join("cut"), &program[..200]).unwrap();
    let status = std::process::Command::new("objcopy")
        .args(["--only-keep-debug", "/bin/true"])
        .arg(tree.join("true.debug"))
        .status()
        .expect("binutils are there");
    assert!(status.success());
    let mut image = builder();
    image.file_with_libraries(&tree, Some("/opt".as_ref()));
    let paths = paths(&archive(&image));
    assert_eq!(paths, ["opt", "opt/core", "opt/cut", "opt/foreign", "opt/true.debug", "opt/x.ko"]);
}

#[test]
fn order_is_that_of_bytes_and_parents_come_first() {
    let mut image = builder();
    image.bytes("a/b", 0o644, *b"").bytes("a-b", 0o644, *b"").bytes("a.b/c/d", 0o644, *b"");
    assert_eq!(paths(&archive(&image)), ["a", "a-b", "a.b", "a.b/c", "a.b/c/d", "a/b"]);
    let all = members(&archive(&image));
    assert_eq!(all["a.b/c"].0.mode & 0o7777, 0o755);
    let inodes: Vec<u32> = {
        let mut members: Vec<_> = all.values().map(|(member, _)| member).collect();
        members.sort_by_key(|member| member.offset);
        members.iter().map(|member| member.ino).collect()
    };
    assert_eq!(inodes, (1..=6).collect::<Vec<_>>());
}

#[test]
fn a_destination_can_be_left_out() {
    let dir = temp();
    let path = write(dir.path(), "f", "");
    let image = archive(builder().file(&path, None));
    assert!(paths(&image).last().unwrap().ends_with("/f"));
    refused(builder().file("../x", None), &["`..`", "SRC:DEST"]);
}
