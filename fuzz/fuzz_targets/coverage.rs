//! Text of coverage tools and heads of gcov files. Nothing panics, and what was read of an lcov file
//! survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::coverage::model::{Coverage, UNKNOWN_ARCH};
use vmtest::coverage::{go, lcov};
use vmtest::formats::gcov;

fn read(bytes: &[u8]) -> (Coverage, bool) {
    let mut coverage = Coverage::default();
    let wrong = lcov::read(&mut &bytes[..], |test, path, file| {
        let test = coverage.test(test, UNKNOWN_ARCH);
        coverage.add(path, test, file);
    });
    (coverage, wrong.unwrap().is_empty())
}

fn written(coverage: &Coverage) -> Vec<u8> {
    let mut out = Vec::new();
    lcov::write(coverage, &mut out).unwrap();
    out
}

fuzz_target!(|bytes: &[u8]| {
    let once = written(&read(bytes).0);
    let (again, good) = read(&once);
    assert!(good, "what we write is right");
    assert_eq!(written(&again), once);

    go::read(&mut &bytes[..], |_, file| assert!(file.lines().iter().all(|line| line.line > 0)))
        .unwrap();
    if let Some(head) = gcov::head(bytes) {
        head.end(bytes);
    }
});
