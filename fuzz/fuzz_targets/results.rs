//! What test programs print, in every format: nothing panics, chunks make no difference, memory is bounded,
//! and a program that was lost is never all good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::results::{Case, End, Format, MAX_CASES, Reader};

fn read(format: Format, bytes: &[u8], chunk: usize, end: &End) -> Vec<Case> {
    let mut reader = Reader::new(format);
    bytes.chunks(chunk).for_each(|chunk| reader.feed(chunk));
    reader.finish(end)
}

fuzz_target!(|bytes: &[u8]| {
    for format in Format::ALL {
        let lost = End::Lost("gone".into());
        let cases = read(format, bytes, bytes.len().max(1), &lost);
        assert_eq!(read(format, bytes, 7, &lost), cases);
        assert!(!cases.is_empty() && cases.len() <= MAX_CASES + 2);
        assert!(cases.iter().any(|case| !case.status.good()));
        let passed = read(format, bytes, 4096, &End::Exited(0));
        assert!(!passed.is_empty());
    }
});
