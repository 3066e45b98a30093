//! Imports go down only, and the pure layers touch nothing (`docs/architecture.md`).

use std::path::{Path, PathBuf};

/// The layers, lowest first, by module.
const LAYERS: [&[&str]; 8] = [
    &["arch", "causes", "duration", "size", "quote"],
    &["cmdline", "accel"],
    &["formats"],
    &["options", "plan", "qemu"],
    &["initramfs", "vfat", "assets", "environment", "coverage"],
    &["sys", "vm"],
    &["report", "configure", "blocking", "testing", "session", "library"],
    &["cli", "main", "lib"],
];

/// Modules below this layer touch no files, environment, processes, clock or randomness.
const FIRST_THAT_TOUCHES: usize = 4;

/// What a pure module must not say, and the only places that may talk to tokio.
const IMPURE: &[&str] = &[
    "fs::read",
    "fs::write",
    "fs::metadata",
    "fs::symlink",
    "std::env::var",
    "std::process",
    "Instant::now",
    "SystemTime",
    "tokio::",
    "tempfile::",
    "File::",
    "rustix::fs",
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file's code without comments and unit tests, which may use anything.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The top-level modules that a text names through `crate::` or, in the program, `vmtest::`.
fn named<'a>(text: &'a str, root: &str) -> Vec<&'a str> {
    let mut modules = Vec::new();
    for rest in text.split(&format!("{root}::")).skip(1) {
        let group = rest.strip_prefix('{').map_or(rest, |group| group.split('}').next().unwrap());
        let braced = rest.starts_with('{');
        for path in group.split(',').take(if braced { usize::MAX } else { 1 }) {
            let name = path.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next();
            modules.extend(name.filter(|name| !name.is_empty()));
        }
    }
    modules
}

fn check() -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let mut problems = Vec::new();
    for path in files {
        let relative = path.strip_prefix(&src).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = module.strip_suffix(".rs").unwrap_or(module);
        let is_test = relative.components().any(|part| part.as_os_str() == "tests.rs");
        let Some(own) = layer(module) else {
            problems.push(format!("{module} is in no layer: name it in tests/it/layers.rs"));
            continue;
        };
        let text = code(&path);
        for other in named(&text, "crate") {
            if let Some(layer) = layer(other)
                && layer > own
                && !is_test
            {
                problems.push(format!("{} imports {other}, which is above it", relative.display()));
            }
        }
        if own < FIRST_THAT_TOUCHES && module != "sys" && !is_test {
            for word in IMPURE.iter().filter(|word| text.contains(**word)) {
                problems.push(format!("{} says `{word}`; it has to be pure", relative.display()));
            }
        }
    }
    problems
}

#[test]
fn imports_go_down_and_pure_layers_touch_nothing() {
    let problems = check();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_check_can_fail() {
    assert_eq!(
        named("use crate::vm::Vm; crate::{plan, qemu::Device}", "crate"),
        ["vm", "plan", "qemu"]
    );
    assert!(layer("formats") < layer("vm"));
    assert_eq!(layer("no_such_module"), None);
}
