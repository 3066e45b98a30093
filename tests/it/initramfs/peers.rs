//! Archives of others: the tools that are installed make them here; the rest is in bytes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use vmtest::formats::cpio::{Fields, S_IFDIR, S_IFREG, encode, encode_trailer};
use vmtest::initramfs::archive::{ArchiveError, Source};
use vmtest::initramfs::inspect::Listing;
use vmtest::initramfs::{Codec, Compression, Encoder};

use super::{archive, builder, members, paths, temp, write};

fn source(bytes: &[u8]) -> Source {
    Source::Bytes(bytes.into())
}

fn listed(bytes: &[u8]) -> Vec<String> {
    let listing = Listing::read(&source(bytes), false).unwrap_or_else(|err| panic!("{err:?}"));
    listing.items.iter().map(|item| item.path.escape_ascii().to_string()).collect()
}

fn pack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Compression::new(codec, None).unwrap(), Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn simple(name: &str) -> Vec<u8> {
    archive(builder().bytes(name, 0o644, name.as_bytes()))
}

/// Runs a filter. One that is not installed fails the test: an archive that nobody compared proves
/// nothing.
fn filter(program: &str, args: &[&str], dir: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|_| panic!("`{program}` is not installed: run `setup/test-tools`"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", output.status);
    output.stdout
}

#[test]
fn gnu_cpio_reads_ours_and_we_read_its() {
    let dir = temp();
    write(dir.path(), "in/a", "one");
    std::fs::hard_link(dir.path().join("in/a"), dir.path().join("in/b")).unwrap();
    // Large enough for data that begins at a page.
    write(dir.path(), "in/d/c", vec![7; 300_000]);
    std::os::unix::fs::symlink("d/c", dir.path().join("in/l")).unwrap();
    let list = ".\na\nb\nd\nd/c\nl\n";
    let args = ["-o", "-H", "newc", "--quiet"];
    let theirs = filter("cpio", &args, &dir.path().join("in"), list.as_bytes());
    let mut names = listed(&theirs);
    names.sort();
    assert_eq!(names, ["", "a", "b", "d", "d/c", "l"]);
    // As a base it gives the same image as the tree.
    let from_base = archive(builder().base(&*super::on_disk(&theirs)));
    let ours = archive(builder().tree(dir.path().join("in"), Some("/")));
    let bodies = |bytes: &[u8]| {
        members(bytes)
            .into_iter()
            .map(|(path, (member, body))| (path, member.nlink, body))
            .collect::<Vec<_>>()
    };
    assert_eq!(bodies(&from_base), bodies(&ours));
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    filter("cpio", &["-i", "-d", "--quiet"], &out, &ours);
    assert_eq!(std::fs::read(out.join("b")).unwrap(), b"one");
    assert_eq!(std::fs::read(out.join("l")).unwrap(), vec![7; 300_000]);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(out.join("a")).unwrap().nlink(), 2);
}

#[test]
fn bsdcpio_reads_ours_and_we_read_its() {
    let dir = temp();
    write(dir.path(), "in/a", "one");
    std::fs::hard_link(dir.path().join("in/a"), dir.path().join("in/b")).unwrap();
    let input = dir.path().join("in");
    write(dir.path(), "in/large", vec![7; 300_000]);
    let theirs = filter("bsdcpio", &["-o", "-H", "newc"], &input, b"a\nb\n");
    assert_eq!(listed(&theirs), ["a", "b"]);
    let ours = archive(builder().tree(&input, Some("/")));
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    filter("bsdcpio", &["-i"], &out, &ours);
    assert_eq!(std::fs::read(out.join("a")).unwrap(), b"one");
    assert_eq!(std::fs::read(out.join("b")).unwrap(), b"one");
    assert_eq!(std::fs::read(out.join("large")).unwrap(), vec![7; 300_000]);
}

#[test]
fn compressors_of_others_are_read() {
    let plain = simple("file");
    let dir = temp();
    for (program, args) in [
        ("gzip", &["-9"][..]),
        ("pigz", &["-p2"]),
        ("zstd", &["-q", "-3", "-T0"]),
        ("lz4", &["-l", "-9"]),
        ("xz", &["--check=crc32"]),
        ("xz", &["--format=lzma"]),
        ("bzip2", &[]),
    ] {
        let packed = filter(program, args, dir.path(), &plain);
        assert_eq!(listed(&packed), ["file"], "{program} {args:?}");
    }
}

#[test]
fn compressors_of_others_read_ours() {
    let plain = simple("file");
    let dir = temp();
    for (codec, program) in
        [(Codec::Gzip, "gzip"), (Codec::Zstd, "zstd"), (Codec::Lz4, "lz4"), (Codec::Xz, "xz")]
    {
        let unpacked = filter(program, &["-d", "-c"], dir.path(), &pack(codec, &plain));
        assert_eq!(unpacked, plain, "{program}");
    }
}

#[test]
fn segments_of_any_compression_follow_each_other() {
    let (a, b, c) = (simple("a"), simple("b"), simple("c"));
    let mut image = a.clone();
    image.extend(pack(Codec::Gzip, &b));
    image.resize(image.len().next_multiple_of(4), 0);
    image.extend(&c);
    image.extend([0; 512]);
    for codec in [Codec::Zstd, Codec::Xz, Codec::Lz4] {
        image.extend(pack(codec, &simple(codec.name())));
        // lz4 has no end of its own.
        image.extend([0; 4]);
    }
    let listing = Listing::read(&source(&image), false).unwrap();
    let names: Vec<_> = listing.items.iter().map(|i| i.path.escape_ascii().to_string()).collect();
    assert_eq!(names, ["a", "b", "c", "zstd", "xz", "lz4"]);
    let codecs: Vec<_> = listing.segments.iter().map(|segment| segment.codec).collect();
    use Codec::{Gzip, Lz4, None, Xz, Zstd};
    assert_eq!(codecs, [None, Gzip, None, Zstd, Xz, Lz4]);
    assert_eq!(listing.segments[0].offset, 0);
    assert_eq!(listing.segments[1].offset, a.len() as u64);
    // From a file, where bodies are passed over by seeking, it is the same.
    let dir = temp();
    let path = write(dir.path(), "image", &image);
    let again = Listing::read(&Source::open(&path).unwrap(), true).unwrap();
    assert_eq!(again.segments, listing.segments);
    // And as base all of it is in the image.
    assert_eq!(paths(&archive(builder().base(path))), ["a", "b", "c", "lz4", "xz", "zstd"]);
}

#[test]
fn what_linux_does_not_read_is_an_error() {
    let plain = simple("a");
    let read = |bytes: &[u8]| Listing::read(&source(bytes), false).unwrap_err();
    let mut junk = plain.clone();
    junk.extend(b"junk");
    assert!(
        matches!(read(&junk), ArchiveError::Junk { offset, .. } if offset == plain.len() as u64)
    );
    // A second archive at an odd place is lost in the guest.
    let mut odd = pack(Codec::Gzip, &plain);
    while odd.len() % 4 != 1 {
        odd.push(0);
    }
    odd.extend(&plain);
    assert!(matches!(read(&odd), ArchiveError::Unaligned { .. }));
    // An archive that is spread over two members.
    let (left, right) = plain.split_at(50);
    let split = [pack(Codec::Gzip, left), pack(Codec::Gzip, right)].concat();
    assert!(matches!(read(&split), ArchiveError::Packed { .. }), "{:?}", read(&split));
    let mut cut = pack(Codec::Zstd, &plain);
    cut.truncate(cut.len() - 3);
    assert!(matches!(read(&cut), ArchiveError::Unpack { .. }));
    assert!(matches!(read(b""), ArchiveError::Empty));
    assert!(matches!(read(b"\x89LZO\0\r\n"), ArchiveError::Unsupported { codec: Codec::Lzo, .. }));
    let inside = pack(Codec::Xz, &[&plain[..], b"junk"].concat());
    assert!(matches!(read(&inside), ArchiveError::JunkInside { .. }));
}

#[test]
fn the_last_member_of_a_path_wins_as_in_linux() {
    let fields = |mode| Fields { mode, nlink: 1, ino: 1, ..Fields::default() };
    let mut bytes = Vec::new();
    let mut put = |name: &[u8], mode, body: &[u8]| {
        encode(&mut bytes, name, &fields(mode), body.len() as u64).unwrap();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    put(b"./f", S_IFREG | 0o600, b"old");
    put(b"d", S_IFDIR | 0o700, b"");
    put(b"d/in", S_IFREG | 0o600, b"in");
    put(b"/f", S_IFREG | 0o640, b"new");
    // Linux cannot replace a directory with content.
    put(b"d", S_IFREG | 0o600, b"lost");
    encode_trailer(&mut bytes);
    let mut with_base = builder();
    let base = super::on_disk(&bytes);
    with_base.base(&*base);
    let image = super::finish(&with_base);
    assert!(image.notices().iter().any(|n| n.contains("/d")), "{:?}", image.notices());
    let members = members(&archive(&with_base));
    assert_eq!(members["f"].1, b"new");
    assert_eq!(members["f"].0.mode & 0o777, 0o640);
    assert_eq!(members["d"].0.file_type(), S_IFDIR);
    assert_eq!(members["d/in"].1, b"in");
}

#[test]
fn memory_is_bounded_by_what_is_there() {
    // Lengths that promise more than there is.
    let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
    lz4.extend(8_000_000u32.to_le_bytes());
    lz4.extend(b"short");
    let err = Listing::read(&Source::Bytes(Arc::from(lz4)), false).unwrap_err();
    assert!(matches!(err, ArchiveError::Unpack { .. }));
    let mut huge = simple("a");
    huge[54..62].copy_from_slice(b"FFFFFFF0");
    assert!(Listing::read(&source(&huge), true).is_err());
}

/// 3cpio is in no release of Debian yet; this is an archive of its version 0.14.0, of
/// `3cpio --data-align 64 -c 3cpio.img`, whose manifest begins with `#cpio` and goes on with `#cpio: zstd -19`.
#[test]
fn an_archive_of_3cpio_is_read() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/initramfs/peers/3cpio.img");
    let done = crate::support::vmtest(["initramfs", "ls", "-l"]).arg(&file).run();
    done.code(0);
    let expected = "\
drwxr-xr-x  2     0     0          0 kernel
drwxr-xr-x  2     0     0          0 kernel/x86
-rw-r--r--  1     0     0         10 kernel/x86/GenuineIntel.bin
-rwxr-xr-x  1     0     0         21 init
drwxr-x---  2    12    34          0 bin
lrwxrwxrwx  1     0     0          7 bin/sh -> busybox
crw-------  1     0     0       5, 1 dev/console
brw-rw----  1     0     6     254, 0 dev/vda
";
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
    let done = crate::support::vmtest(["initramfs", "cat"]).args([&file, Path::new("/init")]).run();
    done.code(0);
    assert_eq!(done.stdout, b"#!/bin/sh\necho hello\n");
}
