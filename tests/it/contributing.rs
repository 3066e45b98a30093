//! What CONTRIBUTING.md promises: the paths and tests that it names exist, and so do the parts that go
//! with a device or a form of report.

use std::collections::BTreeSet;
use std::path::Path;

fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repo().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of all sources below a directory.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &read(path);
        }
    }
    text
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn the_paths_and_tests_that_are_named_exist() {
    let text = read("CONTRIBUTING.md");
    let all = sources(&repo().join("tests")) + &sources(&repo().join("src"));
    let mut tests = 0;
    for word in quoted(&text) {
        let path = word.strip_prefix("src/coverage/FORM.rs").map_or(word, |_| "src/coverage");
        if path.contains('/') && !path.contains(' ') {
            assert!(
                repo().join(path).exists(),
                "CONTRIBUTING.md names `{word}`, which is not there"
            );
        }
        let is_test = word.matches('_').count() > 1
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte));
        if is_test {
            tests += 1;
            assert!(all.contains(&format!("fn {word}()")), "there is no test `{word}`");
        }
    }
    assert!(tests > 10, "the tests were not found");
}

/// The types that are devices.
fn devices() -> BTreeSet<String> {
    let text = sources(&repo().join("src/qemu"));
    let names = text
        .split("impl Device for ")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned());
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() > 10, "the devices were not found");
    names
}

#[test]
fn every_device_has_a_golden_case() {
    let text = read("tests/it/golden.rs");
    for device in devices() {
        let known = match device.as_str() {
            // Every case has one, and a link's card is made by joining the link.
            "Machine" | "LinkNic" => continue,
            // Its tests compare the command line without a directory of the run's.
            "CoverageShare" => sources(&repo().join("src/qemu")).contains("CoverageShare {"),
            name => text.contains(name),
        };
        assert!(known, "tests/it/golden.rs has no case with {device}");
    }
    assert!(text.contains("InterVm"), "tests/it/golden.rs has no case with a link");
}

#[test]
fn every_device_is_documented() {
    let text = read("docs/devices.md") + &read("docs/coverage.md") + &read("docs/library.md");
    for device in devices() {
        // What there is no choice about is no device of the user's.
        if !matches!(device.as_str(), "Machine" | "AgentPorts" | "CoverageShare" | "LinkNic") {
            assert!(text.contains(&device), "docs/devices.md does not speak of {device}");
        }
    }
}

#[test]
fn every_form_of_report_is_documented() {
    let program = read("src/cli/coverage.rs");
    let forms = program.split("enum Format {").nth(1).unwrap().split('}').next().unwrap();
    let lines = forms.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let forms: Vec<&str> = lines.filter_map(|line| line.strip_suffix(',')).collect();
    assert!(forms.len() >= 3, "{forms:?}");
    let text = read("docs/coverage.md");
    for form in forms {
        let option = format!("--{}", form.to_lowercase());
        assert!(text.contains(&option), "docs/coverage.md does not speak of `{option}`");
    }
}
