//! Any bytes as the tables that describe kernel modules: no panic, bounded output.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::formats::kmod;

fuzz_target!(|data: &[u8]| {
    let _ = kmod::modinfo(data);
    kmod::builtin_modinfo(data).for_each(drop);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().count();
    assert!(kmod::dep_lines(text).count() <= lines);
    assert!(kmod::softdeps(text).count() <= lines);
    assert!(kmod::weakdeps(text).count() <= lines);
    assert!(kmod::builtin(text).count() <= lines);
    assert!(kmod::find_aliases(text, "pci:v00001AF4d00001000").len() <= lines);
    let _ = (kmod::normal_name(text), kmod::module_name(text));
});
