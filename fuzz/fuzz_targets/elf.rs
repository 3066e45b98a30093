//! Any bytes as an ELF file: no panic, no endless loop, bounded memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::formats::elf;

fuzz_target!(|data: &[u8]| {
    match elf::parse(&data) {
        Ok(info) => {
            // Names come from the file, so they cannot be longer than it.
            assert!(info.needed.iter().all(|name| name.len() <= data.len()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = elf::parse_dlopen(data);
});
