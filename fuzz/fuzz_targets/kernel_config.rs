//! A kernel's configuration and the lists of its modules are text that anybody may have written; so is what a
//! kernel answers when it is asked for stacks, and what QEMU says of registers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::diagnosis::{Stacks, registers};
use vmtest::formats::kconfig::{KernelOptions, is_name, module_names};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let options = KernelOptions::parse(&text);
    for line in text.lines() {
        let _ = options.get(line);
        let _ = options.is_foreign(line);
        // What is set has a name.
        if options.get(line).is_some() {
            assert!(is_name(line.strip_prefix("CONFIG_").unwrap_or(line)));
        }
    }
    for name in module_names(&text) {
        assert!(!name.is_empty() && !name.contains('-') && !name.contains('/'));
    }
    let stacks = Stacks::parse(&text);
    for task in &stacks.tasks {
        let _ = stacks.descendants(task.pid);
    }
    let _ = registers::parse(&text);
});
