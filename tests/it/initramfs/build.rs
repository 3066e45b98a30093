//! Images built by the library: the cache, the destination, and who has the last word.

use std::path::Path;

use vmtest::initramfs::manifest::Manifest;
use vmtest::initramfs::{self, Build, BuildError, Cache, Compression, ImageSpec, Role};

use super::{builder, finish, temp, write};

fn spec(dir: &Path) -> ImageSpec {
    let mut spec = builder();
    spec.file(dir.join("motd"), Some("/etc/motd"));
    spec
}

#[test]
fn an_image_of_the_same_inputs_comes_from_the_cache() {
    let dir = temp();
    write(dir.path(), "motd", b"hello\n");
    // A file that was written just now could still change unseen.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let build = |name: &str| {
        let cache = Cache::new(&dir.path().join("cache"));
        let dest = dir.path().join(name);
        let built = initramfs::build(&spec(dir.path()), Compression::NONE, Some(cache), &dest);
        (built.unwrap(), std::fs::read(dest).unwrap())
    };
    let (first, bytes) = build("first.cpio");
    assert!(!first.cached && first.not_kept.is_none(), "{first:?}");
    assert_eq!(first.stored_bytes, bytes.len() as u64);
    let (second, same) = build("second.cpio");
    assert!(second.cached, "{second:?}");
    assert_eq!((second.summary, same), (first.summary, bytes));
}

#[test]
fn what_is_changed_in_place_does_not_come_from_the_cache_though_its_time_was_set_back() {
    let dir = temp();
    write(dir.path(), "motd", b"hello\n");
    let build = |name: &str| {
        // A file that was written just now could still change unseen.
        std::thread::sleep(std::time::Duration::from_millis(60));
        let cache = Cache::new(&dir.path().join("cache"));
        let dest = dir.path().join(name);
        let built = initramfs::build(&spec(dir.path()), Compression::NONE, Some(cache), &dest);
        (built.unwrap().cached, std::fs::read(dest).unwrap())
    };
    let spoil = |path: &Path| {
        let time = std::fs::metadata(path).unwrap().modified().unwrap();
        let text = std::fs::read(path).unwrap();
        let at = text.windows(5).position(|part| part == b"hello").unwrap();
        let mut permissions = std::fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(path, permissions).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"HELLO", at as u64).unwrap();
        file.set_modified(time).unwrap();
    };
    let (_, good) = build("first.cpio");
    // An output is nobody's but the user's.
    for output in ["first.cpio", "second.cpio"] {
        spoil(&dir.path().join(output));
        assert_eq!(build("second.cpio"), (true, good.clone()), "after {output}");
    }
    // The cached image itself.
    let images = std::fs::read_dir(dir.path().join("cache/images")).unwrap();
    let mut images = images.map(|item| item.unwrap().path());
    spoil(&images.find(|path| path.extension().is_none()).unwrap());
    assert_eq!(build("third.cpio"), (false, good.clone()));
    assert_eq!(build("fourth.cpio"), (true, good));
    // What it was made of.
    spoil(&dir.path().join("motd"));
    let (cached, bytes) = build("fifth.cpio");
    assert!(!cached && bytes.windows(5).any(|part| part == b"HELLO"));
}

#[test]
fn what_is_refused_or_cannot_be_written_leaves_nothing() {
    let dir = temp();
    write(dir.path(), "motd", b"hello\n");
    let dest = dir.path().join("image.cpio");
    let build = Build::gather(&spec(dir.path())).unwrap();
    #[derive(Debug)]
    struct TooLarge(u64);
    impl From<BuildError> for TooLarge {
        fn from(error: BuildError) -> TooLarge {
            panic!("{error}")
        }
    }
    let refused = build.to_file(&dest, |bytes| Err(TooLarge(bytes))).unwrap_err();
    assert_eq!(Some(refused.0), build.stored_bytes());
    assert!(!dest.exists());
    let nowhere = dir.path().join("absent/image.cpio");
    let error = initramfs::build(&spec(dir.path()), Compression::NONE, None, &nowhere).unwrap_err();
    assert!(matches!(error, BuildError::Output(_)), "{error}");
    assert!(error.hint().is_some());
    let mut missing = builder();
    missing.file(dir.path().join("absent"), None);
    let error = initramfs::build(&missing, Compression::NONE, None, &dest).unwrap_err();
    assert!(matches!(error, BuildError::Image(_)), "{error}");
    assert!(!dest.exists());
}

#[test]
fn what_is_said_later_has_the_last_word() {
    let path = Path::new("vm.toml");
    let text = "init = \"/bin/a\"\nuinit = \"b\"\nno-base = true\ncompress = \"zstd\"\nmtime = 7\n\
                [[text]]\ndest = \"bin/a\"\ncontent = \"a\"\n[[text]]\ndest = \"bin/c\"\ncontent = \"c\"\n";
    let manifest = Manifest::parse(path, text).unwrap();
    let mut spec = builder();
    spec.mtime(3);
    manifest.fill(path, text, &mut spec);
    // As the command line does it: another init, no uinit, and the manifest's wish for no base stays.
    spec.by("--init /bin/c").command(Role::Init, "/bin/c").command(Role::Uinit, "");
    spec.default_base_if_none();
    assert_eq!(spec.compression(), Some("zstd"));
    let image = finish(&spec);
    assert_eq!(image.mtime(), 7);
    let paths: Vec<_> =
        image.entries().iter().map(|entry| entry.path().escape_ascii().to_string()).collect();
    assert_eq!(paths, ["bin", "bin/a", "bin/c", "init"]);
    let why = image.entries()[3].reason().to_string();
    assert!(why.contains("--init"), "{why}");
}
