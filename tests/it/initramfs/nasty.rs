//! Inputs that break other builders. The numbers are those of the table in `docs/images.md`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use vmtest::formats::cpio::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK};
use vmtest::initramfs::archive::Source;
use vmtest::initramfs::extract::{ExtractOptions, extract};
use vmtest::initramfs::{Attributes, Node, Problem};

use super::{
    archive, builder, finish, is_root, members, on_disk, paths, problems, refused, temp, write,
};

#[test]
fn row_1_garbage_is_a_file_but_no_program() {
    let dir = temp();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0xff);
    let path = write(dir.path(), "garbage", &elf);
    let as_file = archive(builder().file(&path, Some("garbage")));
    assert_eq!(members(&as_file)["garbage"].1, elf);
    refused(builder().binary(&path, Some("bin/garbage")), &["garbage", "ELF file"]);
}

#[test]
fn row_2_a_program_without_section_headers_is_resolved() {
    let dir = temp();
    let mut elf = fs::read("/proc/self/exe").unwrap();
    // e_shoff, e_shnum and e_shstrndx of a 64-bit file.
    elf[40..48].fill(0);
    elf[60..64].fill(0);
    let path = write(dir.path(), "stripped", &elf);
    let paths = paths(&archive(builder().binary(path, Some("bin/stripped"))));
    assert!(paths.iter().any(|path| path.contains("libc.")), "{paths:?}");
}

#[test]
fn row_3_what_is_missing_is_told_with_who_asked() {
    let dir = temp();
    let script = write(dir.path(), "script", "#!/no/such/interpreter\n");
    let mut builder = builder();
    builder.by("--bin script").binary(script, Some("bin/script"));
    refused(&builder, &["--bin script", "/no/such/interpreter", "script"]);
}

#[test]
fn row_8_dangling_links_are_data_and_no_programs() {
    let dir = temp();
    let link = dir.path().join("link");
    symlink("nowhere", &link).unwrap();
    let mut as_data = builder();
    as_data.file(&link, Some("data"));
    assert_eq!(members(&archive(&as_data))["data"].1, b"nowhere");
    let notices = finish(&as_data).notices().to_vec();
    assert!(notices[0].contains("/data") && notices[0].contains("`nowhere`"), "{notices:?}");
    as_data.bytes("nowhere", 0o644, *b"");
    assert_eq!(finish(&as_data).notices(), [] as [String; 0]);
    refused(builder().binary(&link, Some("bin/x")), &["link"]);
    let mut with_init = builder();
    with_init.symlink("bin/sh", "nowhere");
    with_init.by("--init /bin/sh").command(vmtest::initramfs::Role::Init, "/bin/sh");
    refused(&with_init, &["--init", "/bin/sh"]);
}

#[test]
fn row_9_files_below_a_linked_directory_are_put_where_it_leads() {
    let mut linked = builder();
    linked.bytes("lib/x86/a.so", 0o644, *b"a").symlink("lib", "usr/lib");
    linked.bytes("usr/lib/b.so", 0o644, *b"b").dir("lib", 0o755);
    linked.symlink("alias", "/lib/x86").bytes("alias/c.so", 0o644, *b"c");
    let all = members(&archive(&linked));
    let names: Vec<_> = all.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "alias",
            "lib",
            "usr",
            "usr/lib",
            "usr/lib/b.so",
            "usr/lib/x86",
            "usr/lib/x86/a.so",
            "usr/lib/x86/c.so"
        ]
    );
    assert_eq!(all["lib"].0.file_type(), S_IFLNK);
    let mut circle = builder();
    circle.symlink("a", "b").symlink("b", "a").bytes("a/f", 0o644, *b"");
    refused(&circle, &["/a/f", "circle"]);
}

#[test]
fn row_10_one_path_with_two_contents_is_a_conflict() {
    let dir = temp();
    let (one, two) = (write(dir.path(), "one", "1"), write(dir.path(), "two", "2"));
    let equal = write(dir.path(), "equal", "1");
    assert_eq!(
        members(&archive(builder().file(&one, Some("x")).file(&equal, Some("x"))))["x"].1,
        b"1"
    );
    let mut twice = builder();
    twice.by("--file one:x").file(&one, Some("x")).by("--file two:x").file(&two, Some("x"));
    refused(&twice, &["`/x`", "--file one:x", "--file two:x", "--override"]);
    assert_eq!(members(&archive(twice.take_later(true)))["x"].1, b"2");
    // Equal content with another mode is different.
    let mut modes = builder();
    modes.file(&one, Some("x")).bytes("x", 0o755, *b"1");
    refused(&modes, &["`/x`"]);
}

#[test]
fn row_11_nothing_is_below_a_file() {
    let mut below = builder();
    below.by("--file a").bytes("a", 0o644, *b"").by("--file a/b").bytes("a/b", 0o644, *b"");
    refused(&below, &["/a/b", "no directory", "--file a)"]);
}

#[test]
fn row_12_destinations_are_normalised_or_refused() {
    assert_eq!(paths(&archive(builder().bytes("//a/./b//c/", 0o644, *b""))), ["a", "a/b", "a/b/c"]);
    for (dest, word) in [
        ("../../x", "`..`"),
        ("a/../b", "`..`"),
        ("", "names no file"),
        (".", "names no file"),
        ("/", "names no file"),
        ("TRAILER!!!", "TRAILER!!!"),
        ("a\0b", "NUL"),
    ] {
        let mut bad = builder();
        bad.by("--file x:y").bytes(dest, 0o644, *b"");
        refused(&bad, &["--file x:y", word]);
    }
    refused(builder().symlink("l", ""), &["empty target"]);
    refused(builder().symlink("l", "a\0"), &["NUL"]);
    refused(builder().symlink("l", "x".repeat(4096)), &["4095"]);
}

#[test]
fn row_13_a_file_over_4_gib_is_refused_before_anything_is_written() {
    let dir = temp();
    let path = dir.path().join("big");
    fs::File::create(&path).unwrap().set_len(1 << 32).unwrap();
    refused(builder().file(&path, Some("big")), &["4294967296 bytes", "4294967295"]);
    fs::File::options().write(true).open(&path).unwrap().set_len((1 << 32) - 1).unwrap();
    let image = finish(builder().file(&path, Some("big")));
    assert!(image.archive_bytes() > 1 << 32);
}

#[test]
fn row_15_a_file_that_changes_is_an_error() {
    let dir = temp();
    let path = write(dir.path(), "log", "0123456789");
    let large = write(dir.path(), "large", vec![1; 3 << 20]);
    for change in ["grow", "shrink", "same size", "vanish"] {
        fs::write(&path, "0123456789").unwrap();
        fs::write(&large, vec![1; 3 << 20]).unwrap();
        let image = finish(builder().file(&path, Some("log")).file(&large, Some("large")));
        std::thread::sleep(std::time::Duration::from_millis(20));
        for path in [&path, &large] {
            match change {
                "grow" => fs::write(path, vec![2; 4 << 20]).unwrap(),
                "shrink" => fs::write(path, "1").unwrap(),
                "same size" => {
                    let same = vec![3; fs::metadata(path).unwrap().len() as usize];
                    fs::write(path, same).unwrap();
                }
                _ => fs::remove_file(path).unwrap(),
            }
        }
        let mut out = Vec::new();
        let problems = image.write_to(&mut out).expect_err(change);
        let text = problems.to_string();
        // Both are told.
        assert!(text.contains("log`") && text.contains("large`"), "{change}: {text}");
        let file = tempfile::tempfile().unwrap();
        let text = image.write_to_file(&file).expect_err(change).to_string();
        assert!(text.contains("log`") && text.contains("large`"), "{change}: {text}");
    }
}

#[test]
fn row_16_everything_that_cannot_be_read_is_told_at_once() {
    let dir = temp();
    let mut missing = builder();
    missing.file(dir.path().join("absent"), Some("a"));
    missing.file(dir.path().join("absent too"), Some("b"));
    missing.binary(dir.path().join("absent program"), None);
    let locked = dir.path().join("tree/locked");
    write(dir.path(), "tree/unreadable", "");
    fs::create_dir(&locked).unwrap();
    let private = dir.path().join("tree/unreadable");
    for path in [&locked, &private] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    missing.tree(dir.path().join("tree"), Some("t"));
    let problems = problems(&missing);
    let text = problems.to_string();
    for word in ["absent`", "absent too`", "absent program"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    if !is_root() {
        assert!(text.contains("locked`") && text.contains("unreadable`"), "{text}");
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn row_17_hard_links_have_their_data_once() {
    let dir = temp();
    let one = write(dir.path(), "t/one", "content");
    fs::hard_link(&one, dir.path().join("t/two")).unwrap();
    fs::create_dir(dir.path().join("t/sub")).unwrap();
    fs::hard_link(&one, dir.path().join("t/sub/three")).unwrap();
    // A fourth name outside of the set does not count.
    fs::hard_link(&one, dir.path().join("outside")).unwrap();
    let all = members(&archive(builder().tree(dir.path().join("t"), Some("/"))));
    let links: Vec<_> = ["one", "sub/three", "two"].map(|name| &all[name]).to_vec();
    assert!(links.iter().all(|(member, _)| member.nlink == 3 && member.ino == links[0].0.ino));
    let sizes: Vec<_> = links.iter().map(|(_, body)| body.len()).collect();
    assert_eq!(sizes, [0, 0, 7]);
    // Alone it is a file like others.
    let alone = members(&archive(builder().file(&one, Some("alone"))));
    assert_eq!((alone["alone"].0.nlink, &alone["alone"].1[..]), (1, &b"content"[..]));
    // Never across archives.
    let first = archive(builder().tree(dir.path().join("t"), Some("/a")));
    let second = archive(builder().tree(dir.path().join("t"), Some("/b")));
    let both = [first, second].concat();
    let merged = members(&archive(builder().base(&*on_disk(both))));
    assert!(["a/one", "b/two"].iter().all(|name| merged[*name].0.nlink == 3));
    assert_ne!(merged["a/one"].0.ino, merged["b/one"].0.ino);
    assert_eq!(
        (&merged["a/two"].1[..], &merged["b/two"].1[..]),
        (&b"content"[..], &b"content"[..])
    );
}

#[test]
fn row_18_a_sparse_file_counts_in_full_and_says_so() {
    let dir = temp();
    let path = dir.path().join("disk");
    fs::File::create(&path).unwrap().set_len(10 << 30).unwrap();
    refused(builder().file(&path, Some("disk")), &["10737418240", "sparse", "--drive"]);
}

#[test]
fn row_19_special_files_become_nodes_without_being_opened() {
    let dir = temp();
    let tree = dir.path().join("t");
    fs::create_dir(&tree).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let image = finish(builder().tree(&tree, Some("/")));
    assert!(image.notices()[0].contains("/socket"), "{:?}", image.notices());
    let mut out = Vec::new();
    image.write_to(&mut out).unwrap();
    let all = members(&out);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["fifo"]);
    assert_eq!(all["fifo"].0.mode, S_IFIFO | 0o640 & all["fifo"].0.mode);
    let mut nodes = builder();
    nodes.node("c", 0o600, Node::Char, (4, 64)).node("b", 0o660, Node::Block, (259, 70_000));
    let all = members(&archive(&nodes));
    assert_eq!((all["c"].0.mode, all["c"].0.rdev), (S_IFCHR | 0o600, (4, 64)));
    assert_eq!((all["b"].0.mode, all["b"].0.rdev), (S_IFBLK | 0o660, (259, 70_000)));
    // The host's own devices, with their numbers.
    let null = members(&archive(builder().file("/dev/null", None)));
    assert_eq!(null["dev/null"].0.rdev, (1, 3));
}

#[test]
fn row_20_names_are_bytes() {
    let dir = temp();
    let odd: [&[u8]; 8] = [
        b"new\nline",
        b"tab\t",
        b"-dash",
        b"#hash",
        b"sp ace",
        b"co:lon",
        b"\xff\xfe",
        &[b'x'; 255],
    ];
    for name in odd {
        fs::write(dir.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let bytes = archive(builder().tree(dir.path(), Some("/")));
    let all = members(&bytes);
    assert_eq!(all.len(), odd.len());
    for name in odd {
        assert_eq!(all[&name.escape_ascii().to_string()].1, name);
    }
    let long = "x".repeat(256);
    refused(builder().bytes(&long, 0o644, *b""), &["256 bytes", "Linux drops"]);
    let deep = "abcdefg/".repeat(512);
    assert!(builder().bytes(&deep[..4095], 0o644, *b"").finish().is_ok());
    refused(builder().bytes(format!("{deep}x"), 0o644, *b""), &["4097 bytes", "Linux drops"]);
    // A tree whose destination makes a path too long.
    let mut moved = builder();
    moved.tree(dir.path(), Some(&deep[..4000]));
    assert!(moved.finish().is_err());
}

#[test]
fn row_21_depth_and_numbers_are_no_problem() {
    let dir = temp();
    let mut deep = dir.path().join("t");
    fs::create_dir(&deep).unwrap();
    let room = 4000 - deep.as_os_str().len();
    for _ in 0..room / 2 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    let image = finish(builder().tree(dir.path().join("t"), Some("/")));
    assert_eq!(image.entries().len(), room / 2);
    let mut many = builder();
    for i in 0..100_000 {
        many.bytes(format!("d/{i}"), 0o644, *b"");
    }
    assert_eq!(finish(&many).entries().len(), 100_001);
}

#[test]
fn row_22_special_bits_are_kept_and_times_and_owners_are_not() {
    let dir = temp();
    let path = write(dir.path(), "suid", "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    fs::set_permissions(dir.path().join("tmp"), fs::Permissions::from_mode(0o1770)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let before_1970 = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1000);
    file.set_times(fs::FileTimes::new().set_modified(before_1970)).unwrap();
    let mut with = builder();
    with.tree(dir.path(), Some("/"));
    let all = members(&archive(&with));
    assert_eq!(all["suid"].0.mode & 0o7777, 0o4755);
    assert_eq!(all["tmp"].0.mode & 0o7777, 0o1777);
    assert!(all.values().all(|(member, _)| (member.uid, member.gid, member.mtime) == (0, 0, 0)));
    with.attributes(Attributes { preserve_modes: true, preserve_owner: true }).mtime(u32::MAX);
    let all = members(&archive(&with));
    assert_eq!(all["suid"].0.mode & 0o7777, 0o4711);
    assert_eq!(all["suid"].0.mtime, u32::MAX);
    assert_eq!(all["suid"].0.uid, rustix::process::geteuid().as_raw());
}

#[test]
fn row_22_capabilities_are_told() {
    let dir = temp();
    let path = write(dir.path(), "ping", "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    // Version 2, CAP_NET_RAW permitted and effective.
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set =
        rustix::fs::setxattr(&path, "security.capability", &value, rustix::fs::XattrFlags::empty());
    if set.is_err() {
        return eprintln!("capabilities cannot be set here");
    }
    let image = finish(builder().file(&path, Some("bin/ping")));
    assert!(image.notices().iter().any(|n| n.contains("capabilities")), "{:?}", image.notices());
}

/// An archive with members that want out: through `..`, through a planted link, by absolute names.
fn hostile(outside: &Path) -> Vec<u8> {
    use vmtest::formats::cpio::{Fields, S_IFREG, Writer};
    let mut writer = Writer::new(Vec::new());
    let mut put = |name: &[u8], mode: u32, nlink: u32, body: &[u8]| {
        let fields = Fields { ino: 7, mode, nlink, ..Fields::default() };
        writer.append(name, &fields, body.len() as u64, body).unwrap();
    };
    let outside = outside.as_os_str().as_bytes();
    put(b"../escape", S_IFREG | 0o644, 1, b"x");
    put(b"planted", S_IFLNK | 0o777, 1, outside);
    put(b"planted/file", S_IFREG | 0o644, 1, b"x");
    put(b"up", S_IFLNK | 0o777, 1, b"../../..");
    put(b"up/file", S_IFREG | 0o644, 1, b"x");
    put(&[b"/", &outside[1..], b"/absolute"].concat(), S_IFREG | 0o644, 1, b"x");
    // A link over a file that is then written through its other name.
    put(b"hard", S_IFREG | 0o666, 2, b"");
    put(b"hard", S_IFLNK | 0o777, 1, &[outside, b"/victim"].concat());
    put(b"other", S_IFREG | 0o666, 2, b"overwritten");
    // A directory that is a link, and modes for it.
    put(b"planted", S_IFDIR | 0o777, 1, b"");
    writer.finish().unwrap()
}

#[test]
fn row_23_extraction_never_leaves_its_directory() {
    let dir = temp();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    write(&outside, "victim", "mine");
    fs::set_permissions(outside.join("victim"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
    let dest = dir.path().join("deep/dest");
    fs::create_dir_all(&dest).unwrap();
    let source = Source::Bytes(hostile(&outside).into());
    let err = extract(&source, &dest, ExtractOptions::default()).unwrap_err();
    assert!(err.to_string().contains("escape"), "{err}");
    let mut seen: Vec<_> =
        fs::read_dir(&outside).unwrap().map(|i| i.unwrap().file_name()).collect();
    seen.sort();
    assert_eq!(seen, ["victim"]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"mine");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&outside.join("victim")), 0o600);
    assert_eq!(mode(&outside), 0o700);
    assert!(!dir.path().join("escape").exists() && !dir.path().join("deep/escape").exists());
    // What is below a link lies where it leads within the destination.
    assert_eq!(fs::read(dest.join("file")).unwrap(), b"x");
    assert_eq!(fs::read(dest.join("other")).unwrap(), b"overwritten");
    // A second time it is refused.
    let err = extract(&source, &dest, ExtractOptions::default()).unwrap_err();
    assert!(err.to_string().contains("not empty"), "{err}");
    // As a base the member that leaves the root is refused.
    refused(builder().base(&*on_disk(hostile(&outside))), &["../escape"]);
}

#[test]
fn row_24_modules_that_are_missing_are_told() {
    let dir = temp();
    let mut modules = builder();
    modules.by("--modules").modules(vmtest::initramfs::ModulesRequest {
        dir: dir.path().join("lib/modules/6.1"),
        modules: vec![vmtest::initramfs::modules::Request::new("virtio_net")],
        firmware: None,
    });
    assert!(matches!(problems(&modules).iter().next(), Some(Problem::Module { .. })));
}

#[test]
fn duplicates_and_directories_merge() {
    let dir = temp();
    write(dir.path(), "a/d/x", "x");
    write(dir.path(), "b/d/y", "y");
    let mut both = builder();
    both.tree(dir.path().join("a"), Some("/")).tree(dir.path().join("b"), Some("/"));
    both.tree(dir.path().join("a"), Some("/"));
    assert_eq!(paths(&archive(&both)), ["d", "d/x", "d/y"]);
    // A mode that was asked for wins over a tree's; two of them are a conflict.
    both.dir("d", 0o700);
    let all = members(&archive(&both));
    assert_eq!(all["d"].0.mode, S_IFDIR | 0o700);
    refused(both.dir("d", 0o711), &["`/d`", "0700", "0711"]);
}

#[test]
fn images_do_not_depend_on_umask_order_threads_or_sink() {
    let dir = temp();
    let tree = dir.path().join("t");
    for i in 0..200 {
        write(&tree, &format!("d{}/f{i}", i % 7), vec![i as u8; i * 200]);
    }
    write(&tree, "large", vec![9; (3 << 20) + 5]);
    let mut forward = builder();
    forward.tree(&tree, Some("/")).bytes("z", 0o644, *b"z").dir("e", 0o755);
    let first = archive(&forward);
    for entry in fs::read_dir(&tree).unwrap() {
        let path = entry.unwrap().path();
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut backward = builder();
    backward.dir("e", 0o755).bytes("z", 0o644, *b"z").tree(&tree, Some("/"));
    assert!(archive(&backward) == first, "the order of requests or the modes show");
    let large = &members(&first)["large"].0;
    assert_eq!(large.body_offset % 4096, 0, "data of large files begins at a page");
    let image = finish(&forward);
    let file = tempfile::tempfile().unwrap();
    let summary = image.write_to_file(&file).unwrap();
    let mut bytes = Vec::new();
    use std::io::{Read, Seek};
    let mut file = file;
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == first, "a file and a pipe differ");
    assert_eq!(summary.bytes, first.len() as u64);
    assert_eq!(summary.blake3.0, *blake3::hash(&first).as_bytes());
}

#[test]
fn of_a_file_with_several_names_whose_data_comes_twice_the_last_is_shown() {
    use vmtest::formats::cpio::{Fields, S_IFREG, Writer};
    let mut writer = Writer::new(Vec::new());
    for (name, body) in [("one", &b"first"[..]), ("two", b"second!"), ("three", b"")] {
        let fields = Fields { ino: 7, mode: S_IFREG | 0o644, nlink: 3, ..Fields::default() };
        writer.append(name.as_bytes(), &fields, body.len() as u64, body).unwrap();
    }
    let source = Source::Bytes(writer.finish().unwrap().into());
    let dir = temp();
    extract(&source, dir.path(), ExtractOptions::default()).unwrap();
    for name in ["one", "two", "three"] {
        let mut shown = Vec::new();
        vmtest::initramfs::inspect::cat(&source, name.as_bytes(), &mut shown).unwrap();
        assert_eq!(shown, b"second!", "{name}");
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"second!", "extracted {name}");
    }
}
