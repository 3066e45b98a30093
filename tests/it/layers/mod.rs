//! Imports go down only, no files import each other in a circle, and the pure layers touch nothing
//! (`docs/architecture.md`).

pub(crate) mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imports::{Crate, circles};

/// The layers, lowest first, by module.
const LAYERS: [&[&str]; 8] = [
    &["arch", "causes", "duration", "fields", "net", "quote", "size"],
    &["cmdline", "accel"],
    &["formats", "diagnosis", "results"],
    &["argv", "plan", "qemu", "options"],
    &[
        "initramfs",
        "programs",
        "templates",
        "vfat",
        "assets",
        "environment",
        "coverage",
        "named_file",
        "debug_files",
        "preflight",
        "host",
    ],
    &["sys", "vm"],
    &[
        "run_record",
        "configure",
        "blocking",
        "pool",
        "testing",
        "session",
        "runner",
        "hang_report",
        "reasons",
        "suite",
    ],
    &["cli", "main", "lib"],
];

/// Modules below this layer touch no files, environment, processes, clock or randomness.
const FIRST_THAT_TOUCHES: usize = 4;

/// What a pure module must not say. Words are parts of paths: `fs::read` is `std::fs::read` too.
const IMPURE: &[&str] = &[
    "fs::read",
    "fs::write",
    "fs::metadata",
    "fs::symlink_metadata",
    "fs::File",
    "fs::OpenOptions",
    "fs::canonicalize",
    "env::var",
    "env::var_os",
    "env::vars",
    "env::current_dir",
    "std::process",
    "Command::new",
    "Instant::now",
    "SystemTime",
    "tokio",
    "tempfile",
    "File::open",
    "File::create",
    "rustix",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The host's library and program, and the guest's.
fn crates() -> [Crate; 4] {
    ["src/lib.rs", "src/main.rs", "guest/src/lib.rs", "guest/src/main.rs"]
        .map(|file| Crate::read(&root().join(file)))
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix(root()).unwrap()
}

/// The top-level module of a file below `src/`.
fn module(path: &Path) -> &str {
    let first = relative(path).components().nth(1).unwrap().as_os_str().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Whether a file's code says a word, which is a path's end or a part of it.
fn says(tokens: &[String], word: &str) -> bool {
    let parts: Vec<&str> = word.split("::").flat_map(|part| [part, "::"]).collect();
    let parts = &parts[..parts.len() - 1];
    tokens.windows(parts.len()).any(|window| window.iter().zip(parts).all(|(a, b)| a == b))
}

#[test]
fn imports_go_down_only() {
    let mut problems = Vec::new();
    for krate in &crates()[..2] {
        for (file, imported) in krate.graph() {
            let own = module(file);
            let Some(height) = layer(own) else {
                problems.push(format!("{own} is in no layer: name it in tests/it/layers/mod.rs"));
                continue;
            };
            for other in imported.iter().filter(|other| layer(module(other)) > Some(height)) {
                let (file, other) = (relative(file).display(), relative(other).display());
                problems.push(format!("{file} imports {other}, which is above it"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut problems = Vec::new();
    for krate in crates() {
        for circle in circles(&krate.graph()) {
            let files: Vec<String> =
                circle.iter().map(|file| relative(file).display().to_string()).collect();
            problems.push(format!("these files import each other: {}", files.join(", ")));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn pure_layers_touch_nothing() {
    let [library, ..] = crates();
    let mut problems = Vec::new();
    for (file, tokens) in library.files() {
        if layer(module(file)) < Some(FIRST_THAT_TOUCHES) {
            for word in IMPURE.iter().filter(|word| says(tokens, word)) {
                let file = relative(file).display();
                problems.push(format!("{file} says `{word}`; it has to be pure"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_layers_are_the_modules_there_are() {
    let src = root().join("src");
    let there: BTreeSet<String> = std::fs::read_dir(src)
        .unwrap()
        .map(|entry| module(&entry.unwrap().path()).to_owned())
        .collect();
    let named: Vec<&str> = LAYERS.concat();
    let named_once: BTreeSet<String> = named.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(named_once, there);
    assert_eq!(named.len(), named_once.len(), "a module is in two layers");
}

#[test]
fn every_source_is_part_of_a_crate() {
    let known: BTreeSet<PathBuf> =
        crates().iter().flat_map(|krate| krate.all_files().map(Path::to_owned)).collect();
    let mut found = BTreeSet::new();
    for dir in ["src", "guest/src"] {
        sources(&root().join(dir), &mut found);
    }
    assert!(found.len() > 150, "the sources were not found");
    assert_eq!(found.difference(&known).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

fn sources(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
}

#[test]
fn the_checks_can_fail() {
    assert!(layer("formats") < layer("vm"));
    assert_eq!(layer("no_such_module"), None);
    let code = imports::tokens("fn f() { std::env::var_os(\"HOME\"); /* fs::read */ }");
    assert!(says(&code, "env::var_os"));
    assert!(!says(&code, "env::var"));
    assert!(!says(&code, "fs::read"));
}
