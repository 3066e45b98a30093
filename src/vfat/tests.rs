//! Images of real directories, judged by `fsck.vfat` and read back by mtools.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;

/// A host program these tests cannot do without.
fn tool(name: &str) -> Command {
    let program = which::which(name)
        .or_else(|_| which::which_in(name, Some("/usr/sbin:/sbin"), "/"))
        .unwrap_or_else(|_| panic!("no `{name}`; hint: apt-get install dosfstools mtools"));
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").env("MTOOLS_SKIP_CHECK", "0");
    command
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}");
    text.into_owned()
}

/// Writes a file with holes for pages of zeros, to spare the disk.
fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (i, page) in bytes.chunks(4096).enumerate() {
        if *page != [0; 4096][..page.len()] {
            file.write_all_at(page, i as u64 * 4096).unwrap();
        }
    }
}

/// The image of a directory, which `fsck.vfat` finds nothing to say about.
struct Made {
    temp: TempDir,
    notices: Vec<String>,
}

fn make(dir: &Path, options: &Options) -> Made {
    let image = DirImage::scan(dir, options).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, image.bytes());
    write_sparse(&temp.path().join("disk"), &bytes);
    let part = temp.path().join("part");
    write_sparse(&part, &bytes[1 << 20..]);
    let text = run(tool("fsck.vfat").arg("-n").arg("-v").arg(&part));
    for bad in ["rror", "ifferences", "wrong", "nvalid", "irty", "ad ", "orrupt"] {
        assert!(!text.contains(bad), "{text}");
    }
    Made { temp, notices: image.notices().iter().map(Notice::to_string).collect() }
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        fs::read(self.temp.path().join("disk")).unwrap()
    }

    /// What mtools find in the image.
    fn content(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let out = self.temp.path().join("out");
        fs::create_dir(&out).unwrap();
        let disk = format!("{}@@1M", self.temp.path().join("disk").display());
        // mcopy copies no empty directory's content and says so; the root may be empty.
        run(tool("mcopy").args(["-s", "-n", "-m", "-i", &disk, "::*"]).arg(&out));
        content(&out)
    }
}

/// Files with their bytes, directories without; links are followed.
fn content(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(root).unwrap().to_owned();
            match fs::metadata(&path).unwrap() {
                meta if meta.is_dir() => {
                    found.insert(below, None);
                    pending.push(path);
                }
                _ => {
                    found.insert(below, Some(fs::read(&path).unwrap()));
                }
            }
        }
    }
    found
}

fn temp_tree(files: &[(&str, &[u8])]) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    // Other users' tests below walk through it.
    fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for (path, body) in files {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }
    temp
}

const FOLLOW: Options =
    Options { symlinks: Symlinks::Follow, times: Times::Fixed(0), disk: Disk::Partitioned };

/// As `assert_eq`, without megabytes of message.
fn assert_same(made: &Made, dir: &Path) {
    let (found, expected) = (made.content(), content(dir));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, body) in expected {
        assert!(found[&path] == body, "{}", path.display());
    }
}

#[test]
fn a_tree_of_all_kinds_of_names_is_clean_and_read_back() {
    // Characters beyond the first 65,536 are unknown to mtools; `fatfs` and guests read them.
    let temp = temp_tree(&[
        ("a", b"1"),
        ("README", b"2"),
        ("Mixed Case.txt", b"3"),
        ("dir/sub dir/deep/er/file.tar.gz", b"4"),
        ("dir/empty", b""),
        ("日本/テキスト", b"5"),
        ("aux", b"6"),
        ("lib/libc.so.6", &[1; 5000]),
        ("lib/libcrypto.so.3", &[2; 4096]),
        ("lib/libcrypto.so.3.1", &[3; 4097]),
        (&"long".repeat(63), b"7"),
    ]);
    fs::create_dir(temp.path().join("empty dir")).unwrap();
    let made = make(temp.path(), &FOLLOW);
    assert_eq!(made.notices, [""; 0]);
    assert_same(&made, temp.path());
}

#[test]
fn all_kinds_of_fat_are_clean() {
    for (size, kind) in
        [(0, FatKind::Fat12), (17 << 20, FatKind::Fat16), (257 << 20, FatKind::Fat32)]
    {
        let temp = temp_tree(&[("dir/small", b"small"), ("zlast", b"last")]);
        for i in 0..300 {
            fs::write(temp.path().join(format!("dir/file {i}")), [i as u8; 10]).unwrap();
        }
        File::create(temp.path().join("hole")).unwrap().set_len(size).unwrap();
        assert_eq!(DirImage::scan(temp.path(), &FOLLOW).unwrap().kind(), kind);
        let made = make(temp.path(), &FOLLOW);
        let disk = format!("{}@@1M", made.temp.path().join("disk").display());
        assert_eq!(run(tool("mtype").args(["-i", &disk, "::zlast"])), "last");
        assert_eq!(run(tool("mtype").args(["-i", &disk, "::dir/small"])), "small");
    }
}

#[test]
fn empty_directories_and_large_ones_are_clean() {
    let temp = tempfile::tempdir().unwrap();
    make(temp.path(), &FOLLOW);
    for dir in ["sub", "full"] {
        fs::create_dir(temp.path().join(dir)).unwrap();
    }
    for i in 0..3_000 {
        File::create(temp.path().join(format!("sub/a file with a long name {i}"))).unwrap();
    }
    // With `.` and `..`, 63 files of two records fill a cluster to its last byte.
    for i in 0..63 {
        File::create(temp.path().join(format!("full/{i}"))).unwrap();
    }
    let made = make(temp.path(), &FOLLOW);
    assert_same(&made, temp.path());
}

#[test]
fn equal_trees_give_equal_bytes() {
    let image = |order: &[usize]| {
        let temp = tempfile::tempdir().unwrap();
        for i in order {
            fs::create_dir(temp.path().join(format!("d{i}"))).unwrap();
            fs::write(temp.path().join(format!("d{i}/file")), i.to_string()).unwrap();
        }
        make(temp.path(), &FOLLOW).bytes()
    };
    let forward: Vec<usize> = (0..40).collect();
    let backward: Vec<usize> = (0..40).rev().collect();
    assert!(image(&forward) == image(&backward));
}

#[test]
fn times_are_fixed_or_kept() {
    let temp = temp_tree(&[("f", b"x")]);
    let file = File::options().write(true).open(temp.path().join("f")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    file.set_modified(time).unwrap();
    let listed = |times| {
        let made = make(temp.path(), &Options { times, ..FOLLOW });
        let disk = format!("{}@@1M", made.temp.path().join("disk").display());
        run(tool("mdir").args(["-i", &disk, "::f"]))
    };
    assert!(listed(Times::Kept).contains("2023-11-14  22:13"));
    assert!(listed(Options::default().times).contains("2023-11-14  22:13"), "of `--ro-dir`");
    assert!(listed(Times::Fixed(1_000_000_000)).contains("2001-09-09   1:46"));
    assert!(listed(Times::Fixed(0)).contains("1980-01-01   0:00"));
}

/// Links of every kind.
fn linked_tree() -> TempDir {
    let temp = temp_tree(&[("dir/file", b"content"), ("dir/sub/other", b"other")]);
    for (target, link) in [
        ("dir/file", "to-file"),
        ("to-file", "to-link"),
        ("dir/sub", "to-dir"),
        ("..", "dir/up"),
        ("nowhere", "dangling"),
        ("circle2", "circle1"),
        ("circle1", "circle2"),
        ("/etc/passwd", "out"),
        ("../..", "dir/far-out"),
        ("dir/file/x", "through-file"),
    ] {
        symlink(target, temp.path().join(link)).unwrap();
    }
    temp
}

#[test]
fn links_are_followed_inside_of_the_directory() {
    let temp = linked_tree();
    let made = make(temp.path(), &FOLLOW);
    assert_eq!(
        made.notices,
        [
            "left out symbolic link `circle1`: it leads nowhere",
            "left out symbolic link `circle2`: it leads nowhere",
            "left out symbolic link `dangling`: it leads nowhere",
            "left out symbolic link `dir/far-out`: it leads out of the directory",
            "left out symbolic link `dir/up`: it leads to a directory it lies in",
            "left out symbolic link `out`: it leads out of the directory",
            "left out symbolic link `through-file`: it leads nowhere",
        ]
    );
    let content = made.content();
    let at = |path: &str| content[Path::new(path)].as_deref();
    assert_eq!(at("to-file"), Some(&b"content"[..]));
    assert_eq!(at("to-link"), Some(&b"content"[..]));
    assert_eq!(at("to-dir/other"), Some(&b"other"[..]));
    assert_eq!(content.len(), 8);
}

#[test]
fn links_are_left_out_or_refused_on_request() {
    let temp = linked_tree();
    let made = make(temp.path(), &Options { symlinks: Symlinks::Skip, ..FOLLOW });
    assert_eq!(made.notices.len(), 10);
    assert_eq!(made.notices[0], "left out symbolic link `circle1`");
    assert_eq!(made.content().len(), 4);

    let options = Options { symlinks: Symlinks::Refuse, ..FOLLOW };
    let err = DirImage::scan(temp.path(), &options).unwrap_err();
    assert_eq!(err.to_string().matches("is a symbolic link").count(), 10);
}

#[test]
fn links_that_multiply_without_end_are_an_error() {
    let temp = tempfile::tempdir().unwrap();
    // Every directory leads to the next one ten times: 10^10 entries.
    for level in 0..10 {
        let dir = temp.path().join(format!("d{level}"));
        fs::create_dir(&dir).unwrap();
        for i in 0..10 {
            symlink(format!("../d{}", level + 1), dir.join(format!("l{i}"))).unwrap();
        }
    }
    fs::create_dir(temp.path().join("d10")).unwrap();
    let err = DirImage::scan(temp.path(), &FOLLOW).unwrap_err();
    assert!(err.to_string().contains("leads to more than"), "{err}");
}

#[test]
fn special_files_are_left_out_and_not_waited_for() {
    let temp = temp_tree(&[("file", b"x")]);
    mknodat(CWD, temp.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = UnixListener::bind(temp.path().join("socket")).unwrap();
    let made = make(temp.path(), &FOLLOW);
    assert_eq!(made.notices, ["left out fifo `pipe`", "left out socket `socket`"]);
    assert_eq!(made.content().len(), 1);
}

#[test]
fn names_vfat_cannot_hold_are_listed_all_at_once() {
    let temp = temp_tree(&[("ok", b""), ("d/a:b", b""), ("d/x ", b""), ("d/y.", b""), ("Ok", b"")]);
    fs::write(temp.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
    File::create(temp.path().join("4g")).unwrap().set_len(1 << 32).unwrap();
    let err = DirImage::scan(temp.path(), &FOLLOW).unwrap_err();
    let Error::Content { problems, .. } = &err else { panic!("{err}") };
    assert_eq!(problems.len(), 6, "{err}");
    assert!(err.hint().contains("--share"));
}

#[test]
fn files_that_cannot_be_read_are_listed_all_at_once() {
    let temp = temp_tree(&[("a", b"1"), ("b", b"2"), ("c", b"3"), ("closed/d", b"4")]);
    let close = |path: &str| {
        fs::set_permissions(temp.path().join(path), PermissionsExt::from_mode(0o000)).unwrap();
    };
    // Root reads everything, so a thread of root's becomes somebody else.
    let as_nobody = |test: &(dyn Fn() -> Error + Sync)| {
        std::thread::scope(|scope| {
            let nobody = || {
                if rustix::process::geteuid().is_root() {
                    let uid = rustix::process::Uid::from_raw(65534);
                    rustix::thread::set_thread_uid(uid).unwrap();
                }
                test()
            };
            scope.spawn(nobody).join().unwrap()
        })
    };
    close("a");
    close("c");
    let err = as_nobody(&|| {
        let image = DirImage::scan(temp.path(), &FOLLOW).unwrap();
        image.write(&mut io::sink()).unwrap_err()
    });
    let text = err.to_string();
    assert!(text.contains("`a` cannot be read") && text.contains("`c` cannot be read"), "{text}");
    assert_eq!(text.lines().count(), 3);

    close("closed");
    let err = as_nobody(&|| DirImage::scan(temp.path(), &FOLLOW).unwrap_err());
    assert!(err.to_string().contains("`closed` cannot be read: Permission denied"), "{err}");
    let open = PermissionsExt::from_mode(0o755);
    fs::set_permissions(temp.path().join("closed"), open).unwrap();
}

#[test]
fn a_tree_that_changes_meanwhile_is_an_error() {
    let changed = |change: &dyn Fn(&Path)| {
        let temp = temp_tree(&[("a", b"before"), ("f", b"before")]);
        let image = DirImage::scan(temp.path(), &FOLLOW).unwrap();
        change(&temp.path().join("f"));
        let err = image.write(&mut io::sink()).unwrap_err();
        let source = std::error::Error::source(&err).map(|s| s.to_string());
        format!("{err}: {}", source.unwrap_or_default())
    };
    for change in [
        &(|f: &Path| fs::write(f, "longer than before").unwrap()) as &dyn Fn(&Path),
        &|f| fs::write(f, "less").unwrap(),
        &|f| fs::write(f, "").unwrap(),
        &|f| {
            // Equal in size, later in time.
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::write(f, "BEFORE").unwrap();
        },
        &|f| {
            fs::remove_file(f).unwrap();
            mknodat(CWD, f, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        },
    ] {
        let text = changed(change);
        assert!(text.contains("is incomplete: ") && text.contains("`f`"), "{text}");
    }
    for change in [&(|f: &Path| fs::remove_file(f).unwrap()) as &dyn Fn(&Path), &|f| {
        fs::remove_file(f).unwrap();
        symlink("a", f).unwrap();
    }] {
        let text = changed(change);
        assert!(text.contains("`f` cannot be read"), "{text}");
    }
}

#[test]
fn what_is_no_directory_is_an_error_about_it() {
    let temp = temp_tree(&[("file", b"")]);
    for (name, reason) in [("file", "not a directory"), ("missing", "No such file")] {
        let dir = temp.path().join(name);
        let err = DirImage::scan(&dir, &FOLLOW).unwrap_err();
        assert_eq!(err.to_string(), format!("cannot make a vfat image of `{}`", dir.display()));
        let source = std::error::Error::source(&err).unwrap().to_string();
        assert!(source.contains(reason), "{source}");
    }
}

#[test]
fn directories_nested_deeper_than_paths_are_long_are_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let name = "d".repeat(250);
    let make = |levels: usize| {
        // Relative steps, since the path as a whole is too long for the kernel.
        let mut at = rustix::fs::open(temp.path(), OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..levels {
            let _ = rustix::fs::mkdirat(&at, &name, Mode::RWXU);
            at = rustix::fs::openat(&at, &name, OFlags::PATH, Mode::empty()).unwrap();
        }
    };
    make(10);
    assert!(DirImage::scan(temp.path(), &FOLLOW).is_ok());
    make(20);
    let err = DirImage::scan(temp.path(), &FOLLOW).unwrap_err();
    assert!(err.to_string().contains("File name too long"), "{err}");
    run(Command::new("rm").arg("-r").arg(temp.path().join(name)));
}

#[test]
fn an_image_is_written_by_one_call() {
    let temp = temp_tree(&[("f", b"x")]);
    symlink("nowhere", temp.path().join("l")).unwrap();
    let mut bytes = Vec::new();
    let notices = write_image(temp.path(), &mut bytes).unwrap();
    assert_eq!(notices.len(), 1);
    assert_eq!(bytes, make(temp.path(), &Options::default()).bytes());
}
