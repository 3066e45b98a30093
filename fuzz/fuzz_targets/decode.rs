//! Frames in a log's lines with a file that lies: nothing panics, lines stay lines.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmtest::diagnosis::symbols::{Decoder, Image};
use vmtest::diagnosis::{frame, text};

fuzz_target!(|input: (&str, &[u8])| {
    let (log, file) = input;
    let mut decoder = Image::parse(&Arc::from(file)).ok().map(Decoder::new);
    for line in log.lines() {
        let line = text::clean(line.as_bytes());
        let parsed = frame::parse(&line);
        if let Some(frame) = &parsed {
            assert!(!frame.function.is_empty());
        }
        if let Some(decoder) = &mut decoder {
            for name in Decoder::modules_of(&line) {
                assert!(!name.is_empty());
                decoder.add_module(name, Image::parse(&Arc::from(file)).ok());
            }
            let lines = decoder.decode_line(&line);
            assert!(lines.iter().all(|line| !line.contains('\n')));
            if let Some(frame) = &parsed {
                decoder.locate(frame);
            }
        }
    }
});
