//! What programs rely on: run.json, the lines of `--message-format json`, exit codes, variables. Each has a
//! page, and the page is held against the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vmtest::arch::Arch;

use crate::support::{Done, assets, vmtest};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A JSON schema, as far as ours need one: a keyword that is not known here fails.
struct Schema(Value);

impl Schema {
    fn read(name: &str) -> Schema {
        let text = fs::read_to_string(root().join("docs").join(name)).unwrap();
        Schema(serde_json::from_str(&text).unwrap())
    }

    /// What is wrong with a value.
    fn problems(&self, value: &Value) -> Vec<String> {
        self.check(&self.0, value, "")
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => {}
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix('#').unwrap();
                    found.extend(self.check(self.0.pointer(name).unwrap(), value, at));
                }
                "anyOf" => {
                    let tries = rule.as_array().unwrap().iter();
                    let tries: Vec<_> = tries.map(|one| self.check(one, value, at)).collect();
                    if !tries.iter().any(Vec::is_empty) {
                        found.extend(tries.into_iter().flatten());
                    }
                }
                "type" => {
                    let names = match rule {
                        Value::Array(names) => names.clone(),
                        one => vec![one.clone()],
                    };
                    if !names.iter().any(|name| is(value, name.as_str().unwrap())) {
                        found.push(format!("{at}: {value} is not of type {rule}"));
                    }
                }
                "enum" if rule.as_array().unwrap().contains(value) => {}
                "const" if rule == value => {}
                "enum" | "const" => found.push(format!("{at}: {value} is not {rule}")),
                "required" if value.is_object() => found.extend(
                    rule.as_array()
                        .unwrap()
                        .iter()
                        .filter(|name| value.get(name.as_str().unwrap()).is_none())
                        .map(|name| format!("{at}: {name} is missing")),
                ),
                "properties" => {
                    for (name, rule) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            found.extend(self.check(rule, value, &format!("{at}/{name}")));
                        }
                    }
                }
                "additionalProperties" if value.is_object() => {
                    assert_eq!(*rule, Value::Bool(false));
                    let known = schema["properties"].as_object().unwrap();
                    let unknown =
                        value.as_object().unwrap().keys().filter(|k| !known.contains_key(*k));
                    found.extend(unknown.map(|name| format!("{at}: {name} is not in the schema")));
                }
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        found.extend(self.check(rule, item, &format!("{at}/{n}")));
                    }
                }
                "required" | "additionalProperties" => {}
                other => panic!("the schema's keyword `{other}` is not known here"),
            }
        }
        found
    }

    #[track_caller]
    fn holds(&self, value: &Value) {
        let problems = self.problems(value);
        assert!(problems.is_empty(), "{}\n{value:#}", problems.join("\n"));
    }
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

#[test]
fn run_json_keeps_to_its_schema_whatever_the_verdict() {
    assets(Arch::Amd64);
    let schema = Schema::read("run.schema.json");
    let mut verdicts = BTreeSet::new();
    for words in [
        &["--", "true"][..],
        &["--", "sh", "-c", "kill -9 $$"],
        &["--", "nosuch"],
        &["--net=user,hostfwd=tcp::0-:80", "--share=/usr:u:ro", "--", "true"],
        &["--warm=off", "--", "sh", "-c", "echo c >/proc/sysrq-trigger"],
        &["--timeout=3s", "--", "sleep", "100"],
        &["--", "poweroff", "-f"],
        &["--kernel=/no/such", "--", "true"],
        &["--qemu-arg=-device", "--qemu-arg=nosuchdevice", "--", "true"],
        &[],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = format!("--artifacts={}", dir.path().display());
        let done = vmtest([artifacts.as_str(), "--arch=amd64"]).args(words).run();
        done.seen();
        let text = fs::read_to_string(dir.path().join("run.json")).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        schema.holds(&record);
        assert_eq!(record["exit_code"], done.code);
        verdicts.insert(record["verdict"].as_str().unwrap().to_owned());
        // The schema is no sieve that lets everything through.
        for wrong in ["/exit_code", "/verdict", "/message"] {
            let mut broken = record.clone();
            *broken.pointer_mut(wrong).unwrap() = Value::Array(Vec::new());
            assert!(!schema.problems(&broken).is_empty(), "{wrong}");
        }
    }
    let expected =
        ["could-not-start", "failed", "guest-lost", "guest-panicked", "passed", "timed-out"];
    assert_eq!(verdicts.into_iter().collect::<Vec<_>>(), expected);
}

/// The lines of a run as objects; each keeps to the schema.
fn lines(done: &Done) -> Vec<Value> {
    let schema = Schema::read("messages.schema.json");
    let lines: Vec<Value> = done
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    lines.iter().for_each(|line| schema.holds(line));
    lines
}

#[test]
fn message_format_json_is_one_object_a_line() {
    assets(Arch::Amd64);
    let run = |words: &[&str]| vmtest(["--message-format=json", "--arch=amd64"]).args(words).run();
    let types = |lines: &[Value]| -> Vec<String> {
        lines.iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
    };
    let done = run(&["--net=user,hostfwd=tcp::0-:80", "--", "sh", "-c", "exit 3"]);
    let said = lines(&done);
    assert_eq!(types(&said), ["start", "ready", "forward", "verdict"]);
    assert_eq!((done.code, &said[3]["exit_code"]), (3, &3.into()));
    assert_ne!(said[2]["host_port"], 0);
    // What is wrong before there is a guest is a line, too.
    let done = run(&["--kernel=/no/such", "--", "true"]);
    let said = lines(&done);
    assert_eq!((types(&said), done.code), (vec!["error".to_owned()], 69));
    assert!(said[0]["text"].as_str().unwrap().contains("/no/such"));
}

/// Codes of the program's own that the README and the page of verdicts name are those of the enum.
#[test]
fn the_exit_codes_that_are_documented_are_those_of_the_program() {
    let source = fs::read_to_string(root().join("src/vm/verdict.rs")).unwrap();
    let table = source.split("pub fn exit_code").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let mut codes: BTreeSet<u8> = table
        .lines()
        .filter_map(|line| line.split("=> ").nth(1)?.trim_end_matches(',').parse().ok())
        .collect();
    // Wrong usage has no verdict.
    codes.insert(2);
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme.split("| exit code | verdict |").nth(1).unwrap();
    let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut documented: BTreeSet<u8> =
        rows.filter_map(|row| row.split('|').nth(1)?.trim().parse().ok()).collect();
    documented.insert(0);
    assert_eq!(documented, codes);
}

/// Every variable that the program, the guest program or the set-up reads is on the page, and nothing else.
#[test]
fn the_page_of_variables_names_what_the_source_reads() {
    let page = fs::read_to_string(root().join("docs/environment.md")).unwrap();
    let word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let ours = |text: &str, found: &mut BTreeSet<String>| {
        for part in text.split(|c: char| !word(c)) {
            if part.starts_with("VMTEST_") && part.len() > 7 {
                found.insert(part.to_owned());
            }
        }
    };
    let mut read = BTreeSet::new();
    let mut named = BTreeSet::new();
    ours(&page, &mut named);
    let mut todo: Vec<PathBuf> =
        ["src", "guest/src", "setup", "Makefile"].map(|dir| root().join(dir)).into();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            ours(&text, &mut read);
            // What has no name of ours: asked for by name.
            for call in ["env::var(\"", "env::var_os(\"", "get(\"", "absolute(\"", "path(\""] {
                for rest in text.split(call).skip(1) {
                    let name = rest.split('"').next().unwrap();
                    let upper = !name.is_empty() && name.chars().all(word);
                    if upper && is_environment(&path) {
                        assert!(
                            page.contains(&format!("`{name}`")),
                            "{name} of {}",
                            path.display()
                        );
                    }
                }
            }
        }
    }
    // Names of tests' own files and of the guest's shares.
    read.retain(|name| !name.starts_with("VMTEST_MOUNT9P") && !name.starts_with("VMTEST_TEST_"));
    named.retain(|name| !name.starts_with("VMTEST_MOUNT9P"));
    assert_eq!(named, read);
}

/// Where the process's environment is asked, and not a map with other names.
fn is_environment(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.contains("env::var") || path.ends_with("src/options/environment.rs")
}
