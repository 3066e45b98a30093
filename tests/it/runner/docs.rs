//! docs/testing.md says what is true.

use vmtest::runner::variables::{NAMES, PREFIXES, SECRETS};

fn text() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_rule_for_variables_is_the_documented_one() {
    let text = text();
    let section = text.split("## Which variables it gets").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let quoted = |text: &str| -> Vec<String> {
        let words = text.split('`').skip(1).step_by(2);
        words.map(|word| word.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let passed: Vec<String> =
        PREFIXES.iter().chain(&NAMES).map(|name| (*name).to_owned()).collect();
    let (first, second) = section.split_once("Never a secret").unwrap();
    assert_eq!(quoted(first), [passed, vec!["LD_LIBRARY_PATH".into()]].concat());
    assert_eq!(quoted(second)[..SECRETS.len()], SECRETS);
}
