//! The newc writer and reader, against each other, against GNU cpio's rules and the crate `cpio`.

use std::io::Read;

use proptest::prelude::*;
use vmtest::formats::cpio::{
    Fields, ReadError, Reader, S_IFLNK, S_IFREG, Streaming, WriteError, Writer, encode_trailer,
};

fn file(nlink: u32) -> Fields {
    Fields { ino: 1, mode: S_IFREG | 0o644, nlink, ..Fields::default() }
}

fn archive(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, body) in entries {
        writer.append(name, &file(1), body.len() as u64, *body).unwrap();
    }
    writer.finish().unwrap()
}

fn names(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut reader = Reader::new(bytes);
    let mut names = Vec::new();
    while let Some(member) = reader.next_member()? {
        names.push(member.name);
    }
    Ok(names)
}

#[test]
fn a_header_is_upper_case_and_normalised() {
    let bytes = archive(&[(b"a", b"xyz")]);
    let expected = "07070100000001000081A400000000000000000000000100000000000000030000000000000000\
                    000000000000000000000002000000000000";
    assert!(expected.len() >= 110);
    assert_eq!(&bytes[..110], &expected.as_bytes()[..110]);
    assert_eq!(&bytes[110..112], b"a\0");
    assert_eq!(&bytes[112..116], b"xyz\0");
    // The trailer, and nothing behind it: no padding to 512 bytes.
    assert_eq!(bytes.len(), 116 + 124);
    assert_eq!(&bytes[116 + 110..116 + 120], b"TRAILER!!!");
}

#[test]
fn bodies_of_another_length_are_errors() {
    let append = |body: &[u8]| Writer::new(Vec::new()).append(b"a", &file(1), 3, body);
    assert!(matches!(append(b"ab"), Err(WriteError::Short { found: 2, .. })));
    assert!(matches!(append(b"abcd"), Err(WriteError::Long { .. })));
    let mut out = Vec::new();
    let huge = Writer::new(&mut out).append(b"a", &file(1), 1 << 32, std::io::empty());
    assert!(matches!(huge, Err(WriteError::TooLarge { .. })));
    assert!(out.is_empty(), "something was written");
    let link = Fields { mode: S_IFLNK | 0o777, ..file(1) };
    let err = Writer::new(Vec::new()).append(b"l", &link, 3, &b"a\0b"[..]);
    assert!(matches!(err, Err(WriteError::NulInTarget { .. })));
}

#[test]
fn names_that_linux_drops_are_errors() {
    let append = |name: &[u8]| Writer::new(Vec::new()).append(name, &file(1), 0, &b""[..]);
    assert!(matches!(append(b""), Err(WriteError::EmptyName)));
    assert!(matches!(append(b"a\0"), Err(WriteError::NulInName { .. })));
    assert!(matches!(append(b"TRAILER!!!"), Err(WriteError::TrailerName)));
    assert!(append(&[b'x'; 255]).is_ok());
    assert!(matches!(append(&[b'x'; 256]), Err(WriteError::ComponentTooLong { length: 256, .. })));
    assert!(append(&b"abcdefg/".repeat(512)[..4095]).is_ok());
    assert!(matches!(append(&b"abcdefg/".repeat(512)), Err(WriteError::NameTooLong { .. })));
}

#[test]
fn everything_that_linux_reads_is_read() {
    let plain = archive(&[(b"a", b"1"), (b"b", b"")]);
    let expected = [b"a".to_vec(), b"b".to_vec()];
    // Lower case digits.
    let lower: Vec<u8> = {
        let mut bytes = plain.clone();
        for start in [0, 116] {
            bytes[start..start + 110].make_ascii_lowercase();
        }
        bytes
    };
    assert_eq!(names(&lower).unwrap(), expected);
    // No trailer; zeros before, between and behind; several archives.
    assert_eq!(names(&plain[..plain.len() - 124]).unwrap(), expected);
    let mut many = vec![0; 8];
    many.extend(&plain);
    many.extend([0; 512]);
    many.extend(&plain);
    many.extend([0; 3]);
    assert_eq!(names(&many).unwrap(), [&expected[..], &expected[..]].concat());
    // A name that is padded with zeros.
    let mut padded = archive(&[(b"abcde", b"")]);
    padded[110..116].copy_from_slice(b"ab\0\0\0\0");
    assert_eq!(names(&padded).unwrap(), [b"ab".to_vec()]);
    // A link's text with its NUL counted, as gen_init_cpio writes it.
    let mut link = Vec::new();
    let fields = Fields { mode: S_IFLNK | 0o777, ..file(1) };
    vmtest::formats::cpio::encode(&mut link, b"l", &fields, 4).unwrap();
    link.extend(b"abc\0");
    encode_trailer(&mut link);
    let mut reader = Reader::new(&link[..]);
    reader.next_member().unwrap();
    assert_eq!(reader.link_target().unwrap(), b"abc");
}

#[test]
fn the_checksum_form_is_read_and_checked() {
    let mut bytes = archive(&[(b"a", b"xyz")]);
    bytes[..6].copy_from_slice(b"070702");
    bytes[102..110].copy_from_slice(format!("{:08X}", 120 + 121 + 122).as_bytes());
    let read = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes);
        reader.next_member()?;
        let mut body = Vec::new();
        reader.body().read_to_end(&mut body).unwrap();
        reader.next_member()
    };
    assert!(read(&bytes).unwrap().is_none());
    bytes[112] ^= 1;
    assert!(matches!(read(&bytes), Err(ReadError::Checksum { offset: 0, .. })));
}

#[test]
fn damage_is_told_with_its_offset() {
    let good = archive(&[(b"a", b"0123456789"), (b"b", b"")]);
    for cut in [1, 50, 111, 115, 120, 130, 240] {
        let err = names(&good[..cut]);
        assert!(matches!(err, Err(ReadError::Truncated { .. })), "{cut}: {err:?}");
    }
    let mut bad = good.clone();
    bad[20] = b'x';
    let err = names(&bad).unwrap_err().to_string();
    assert!(err.contains("offset 0") && err.contains("mode"), "{err}");
    let mut bad = good.clone();
    bad[..6].copy_from_slice(b"070707");
    assert!(names(&bad).unwrap_err().hint().is_some());
    let mut bad = good;
    bad[124..130].copy_from_slice(b"0x0x0x");
    assert!(matches!(names(&bad), Err(ReadError::Magic { offset: 124, .. })));
}

#[derive(Clone, Debug)]
struct Any {
    name: Vec<u8>,
    mode: u32,
    uid: u32,
    mtime: u32,
    rdev: (u32, u32),
    body: Vec<u8>,
}

fn any_entry() -> impl Strategy<Value = Any> {
    (
        "[a-zA-Z0-9 ._-]{1,40}(/[a-zA-Z0-9]{1,9}){0,5}",
        0u32..0o10000,
        any::<u32>(),
        any::<u32>(),
        (0u32..4096, 0u32..1 << 20),
        prop::collection::vec(any::<u8>(), 0..70),
    )
        .prop_map(|(name, mode, uid, mtime, rdev, body)| Any {
            name: name.into_bytes(),
            mode,
            uid,
            mtime,
            rdev,
            body,
        })
        .prop_filter("the trailer", |any| any.name != b"TRAILER!!!")
}

proptest! {
    #[test]
    fn what_is_written_is_read_by_us_and_by_the_crate(entries in prop::collection::vec(any_entry(), 0..12)) {
        let mut writer = Writer::new(Vec::new());
        for (i, any) in entries.iter().enumerate() {
            let fields = Fields {
                ino: i as u32, mode: S_IFREG | any.mode, uid: any.uid, gid: !any.uid, nlink: 1,
                mtime: any.mtime, rdev: any.rdev,
            };
            writer.append(&any.name, &fields, any.body.len() as u64, &any.body[..]).unwrap();
            prop_assert_eq!(writer.position() % 4, 0);
        }
        let bytes = writer.finish().unwrap();
        let mut ours = Reader::new(Streaming(&bytes[..]));
        let mut theirs = &bytes[..];
        for any in &entries {
            let member = ours.next_member().unwrap().unwrap();
            let mut body = Vec::new();
            ours.body().read_to_end(&mut body).unwrap();
            prop_assert_eq!(&member.name, &any.name);
            prop_assert_eq!((member.mode & 0o7777, member.uid, member.gid, member.mtime, member.rdev),
                (any.mode, any.uid, !any.uid, any.mtime, any.rdev));
            prop_assert_eq!(&body, &any.body);
            let mut reader = cpio::newc::Reader::new(theirs).unwrap();
            prop_assert_eq!(reader.entry().name().as_bytes(), &any.name[..]);
            prop_assert_eq!(reader.entry().mode(), member.mode);
            let mut body = Vec::new();
            reader.read_to_end(&mut body).unwrap();
            prop_assert_eq!(&body, &any.body);
            theirs = reader.finish().unwrap();
        }
        prop_assert!(ours.next_member().unwrap().is_none());
        prop_assert!(cpio::newc::Reader::new(theirs).unwrap().entry().is_trailer());
    }

    #[test]
    fn reading_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..300, with in any::<[u8; 4]>()) {
        let _ = names(&bytes);
        let mut damaged = archive(&[(b"dir/a", b"0123456789"), (b"b", b"")]);
        let at = at.min(damaged.len() - 4);
        damaged[at..at + 4].copy_from_slice(&with);
        damaged.append(&mut bytes);
        if let Ok(names) = names(&damaged) {
            prop_assert!(names.len() < 10);
        }
    }
}
