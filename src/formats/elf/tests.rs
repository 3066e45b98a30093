use proptest::prelude::*;

use super::build::ElfBuilder;
use super::*;

fn sample() -> ElfBuilder {
    ElfBuilder::new()
        .interp("/lib/ld.so")
        .needs(&["libc.so.6", "libm.so.6"])
        .soname("libx.so.1")
        .rpath("/a:/b")
        .runpath("$ORIGIN/../lib")
        .dlopen(r#"[{"soname":["liba.so.2","liba.so.1"],"priority":"required","feature":"f"}]"#)
        .dlopen(r#"{"soname":"libb.so","description":"d"}"#)
}

#[test]
fn every_class_and_byte_order_is_read() {
    for class64 in [false, true] {
        for little_endian in [false, true] {
            let file = ElfBuilder { class64, little_endian, flags_1: 0x800, ..sample() }.build();
            let info = parse(&&file[..]).unwrap();
            assert_eq!((info.class64, info.little_endian), (class64, little_endian));
            assert_eq!((info.machine, info.kind), (62, ElfKind::Dyn));
            assert_eq!(info.interp.as_deref(), Some(&b"/lib/ld.so"[..]));
            assert_eq!(info.needed, [b"libc.so.6", b"libm.so.6"]);
            assert_eq!(info.soname.as_deref(), Some(&b"libx.so.1"[..]));
            assert_eq!(info.rpath.as_deref(), Some(&b"/a:/b"[..]));
            assert_eq!(info.runpath.as_deref(), Some(&b"$ORIGIN/../lib"[..]));
            assert!(info.nodeflib);
            assert_eq!(info.dlopen.len(), 2);
            assert_eq!(info.dlopen[0].soname, ["liba.so.2", "liba.so.1"]);
            assert_eq!(info.dlopen[0].priority, Priority::Required);
            assert_eq!(info.dlopen[0].feature.as_deref(), Some("f"));
            assert_eq!(info.dlopen[1].soname, ["libb.so"]);
            assert_eq!(info.dlopen[1].priority, Priority::Recommended);
            assert_eq!(info.load_end, file.len() as u64);
            assert!(info.bad_notes.is_empty());
        }
    }
}

#[test]
fn every_cut_is_an_error_or_leaves_the_program_truncated() {
    let file = sample().build();
    for len in 0..file.len() {
        match parse(&&file[..len]) {
            Ok(info) => assert!(info.load_end > len as u64, "cut at {len}"),
            Err(ElfError::NotElf) => assert!(len < 4),
            Err(e) => assert!(e.to_string().contains("offset 0x"), "{e}"),
        }
    }
}

#[test]
fn a_damaged_dlopen_note_does_not_hide_the_rest() {
    let file = sample().dlopen("{]").dlopen(r#"[{"soname":["libz.so"]}]"#).build();
    let info = parse(&&file[..]).unwrap();
    assert_eq!(info.bad_notes.len(), 1);
    assert!(info.bad_notes[0].starts_with("dlopen note at offset 0x"), "{:?}", info.bad_notes);
    assert_eq!(info.dlopen.last().unwrap().soname, ["libz.so"]);
}

#[test]
fn wild_values_are_errors_and_no_allocation() {
    let file = sample().build();
    // e_phoff, e_phnum, p_offset and p_filesz of each program header (64-bit layout)
    let mut fields = vec![(32, 8), (56, 2)];
    fields.extend((0..4).flat_map(|i| [(64 + 56 * i + 8, 8), (64 + 56 * i + 32, 8)]));
    for (at, len) in fields {
        for value in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40, u32::MAX.into()] {
            let mut bad = file.clone();
            bad[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            let result = parse(&&bad[..]);
            let load = at == 64 + 8 || at == 64 + 32;
            assert!(load || result.is_err(), "{at}: {result:?}");
        }
    }
}

#[test]
fn one_string_named_thousands_of_times_is_refused() {
    let long = "x".repeat(4000);
    let mut builder = ElfBuilder::new();
    builder.needed = vec![long.into_bytes(); 600];
    let error = parse(&&builder.build()[..]).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge { .. }), "{error}");
}

#[test]
fn this_test_program_itself_is_read() {
    let file = std::fs::read("/proc/self/exe").unwrap();
    let info = parse(&&file[..]).unwrap();
    assert!(info.needed.iter().any(|n| n.starts_with(b"libc.")), "{info:?}");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&&bytes[..]);
        let mut bytes = bytes;
        bytes.splice(0..0, *b"\x7fELF\x02\x01\x01");
        let _ = parse(&&bytes[..]);
        let _ = parse_dlopen(&bytes);
    }

    #[test]
    fn mutations_never_panic_or_grow(
        class64: bool,
        little_endian: bool,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = ElfBuilder { class64, little_endian, ..sample() }.build();
        for (at, value) in edits {
            let at = at.index(file.len());
            file[at] = value;
        }
        for bytes in [&file[..], &file[..cut.index(file.len())]] {
            if let Ok(info) = parse(&bytes) {
                let names: usize = info.needed.iter().map(Vec::len).sum();
                prop_assert!(names <= 1 << 20);
            }
        }
    }
}
