//! What people type: durations, sizes, shell words, kernel parameters. Nothing panics, errors show
//! what was given, and what is accepted survives being written and read again.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use vmtest::arch::Arch;
use vmtest::cmdline::Cmdline;
use vmtest::size::{Bytes, Mib};
use vmtest::{duration, quote};

fuzz_target!(|bytes: &[u8]| {
    let words = quote::split(OsStr::from_bytes(bytes));
    match &words {
        Ok(words) => assert_eq!(quote::split(&quote::join(words)).as_ref(), Ok(words)),
        Err(err) => assert!(!err.hint().is_empty()),
    }

    let Ok(text) = str::from_utf8(bytes) else { return };
    match duration::parse(text) {
        Ok(parsed) => {
            assert!(parsed <= duration::MAX);
            assert_eq!(duration::parse(&duration::display(parsed).to_string()), Ok(parsed));
        }
        Err(err) => assert!(err.to_string().contains(text) && !err.hint().is_empty()),
    }
    match text.parse::<Bytes>() {
        Ok(size) => assert_eq!(size.to_string().parse(), Ok(size)),
        Err(err) => assert!(err.to_string().contains(text) && !err.hint().is_empty()),
    }
    match text.parse::<Mib>() {
        Ok(size) => assert_eq!(size.to_string().parse(), Ok(size)),
        Err(err) => assert!(!err.hint().is_empty()),
    }

    let mut line = Cmdline::new();
    match line.append(text) {
        Ok(_) => {
            // What is written is read as the same line.
            let mut again = Cmdline::new();
            again.append(&line.to_string()).unwrap();
            assert_eq!(again.to_string(), line.to_string());
            if let Err(err) = line.for_arch(Arch::Arm) {
                assert!(!err.hint().is_empty());
            }
        }
        Err(err) => assert!(line.is_empty() && !err.hint().is_empty()),
    }
    if let Some((name, value)) = text.split_once('=') {
        let mut line = Cmdline::new();
        match line.set(name, value) {
            Ok(_) => assert!(line.contains(name)),
            Err(err) => assert!(!err.hint().is_empty()),
        }
    }
});
