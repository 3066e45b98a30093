//! Any bytes as an archive: no panic, bounded memory, and the same members whether bodies are read
//! or passed over.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use vmtest::formats::cpio::{Member, Reader, S_IFLNK, Streaming};

fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(data);
    let mut skipped: Vec<Member> = Vec::new();
    let skipping = loop {
        match reader.next_member() {
            Ok(Some(member)) => skipped.push(member),
            Ok(None) => break true,
            Err(err) => {
                let _ = (err.to_string(), err.hint());
                break false;
            }
        }
    };
    let mut reader = Reader::new(Streaming(data));
    let mut index = 0;
    let reading = loop {
        match reader.next_member() {
            Ok(Some(member)) => {
                assert_eq!(skipped.get(index), Some(&member));
                index += 1;
                let mut body = Vec::new();
                if member.file_type() == S_IFLNK && index % 2 == 0 {
                    let _ = reader.link_target();
                } else {
                    let _ = reader.body().read_to_end(&mut body);
                    assert!(body.len() as u64 <= u64::from(member.size));
                }
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    // Only reading finds a wrong checksum.
    assert!(skipping || !reading);
});
