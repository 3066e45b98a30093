//! `docs/words.md`: the words that stand for a type of Rust have one, and the picture of a run's life is
//! the same wherever it is.

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn all_sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &all_sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// Whether a public type of this name is defined.
fn is_type(sources: &str, name: &str) -> bool {
    ["struct", "enum", "trait"].iter().any(|kind| {
        sources
            .split(&format!("pub {kind} {name}"))
            .skip(1)
            .any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

#[test]
fn the_words_for_types_have_their_type() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = all_sources(&root.join("src")) + &all_sources(&root.join("guest/src"));
    let page = read("docs/words.md");
    let section = page.split("## A run, from wish to record").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut found = 0;
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let Some(name) = line.split('|').nth(2).and_then(|cell| cell.split('`').nth(1)) else {
            continue;
        };
        found += 1;
        let known = is_type(&sources, name);
        assert!(known, "docs/words.md: there is no type `{name}`");
    }
    assert!(found > 8, "the words were not found");
    assert!(!is_type(&sources, "Confi"), "the check can fail");
}

#[test]
fn there_is_one_picture_of_a_runs_life() {
    let picture = read("docs/life-cycle.txt");
    let first = picture.lines().next().unwrap();
    for path in ["docs/words.md", "docs/architecture.md", "docs/library.md"] {
        let text = read(path);
        assert!(text.contains(first), "{path} does not show the picture of docs/life-cycle.txt");
        assert!(text.contains("life-cycle.txt"), "{path} does not say where the picture is");
    }
    assert!(read("src/lib.rs").contains("include_str!(\"../docs/life-cycle.txt\")"));
}
