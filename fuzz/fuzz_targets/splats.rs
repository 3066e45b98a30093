//! A kernel's log: nothing panics, chunks make no difference, memory is bounded, and nothing that a
//! terminal would obey comes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::diagnosis::{MAX_LINES, Reader, Splat};

fn read(bytes: &[u8], chunk: usize) -> Vec<Splat> {
    let mut reader = Reader::default();
    let mut splats = Vec::new();
    for chunk in bytes.chunks(chunk) {
        splats.extend(reader.feed(chunk));
    }
    splats.extend(reader.finish());
    splats
}

fuzz_target!(|bytes: &[u8]| {
    let splats = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, 7), splats);
    for splat in &splats {
        assert!(!splat.title.is_empty() && splat.title.chars().count() < 5000);
        assert!(splat.begin.byte <= splat.end.byte && splat.end.byte <= bytes.len() as u64);
        assert!(splat.begin.line >= 1 && splat.begin.line <= splat.end.line);
        assert!(splat.lines.len() <= MAX_LINES + 6);
        let texts = splat.lines.iter().chain([&splat.title, &splat.message]);
        for text in texts {
            assert!(!text.chars().any(|c| c.is_control() && c != '\t'), "{text:?}");
        }
        serde_json::to_string(splat).unwrap();
    }
});
