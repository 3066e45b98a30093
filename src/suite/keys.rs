//! The keys of `vmtest.toml`: one table, of which the parser, its errors and the JSON schema are made.

use serde_json::{Value, json};

/// Whether an option may be given several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// A later one replaces it.
    No,
    /// A later one is added; in `vmtest.toml` it may be a list.
    Yes,
    /// It is there or not: `true` or `false`.
    Flag,
}

/// The options of `vmtest run` that a suite may set, by name. (A test of the program compares them with its
/// own.) Not among them: what says something of one run alone, and what a suite has keys of its own for.
pub const MACHINE_OPTIONS: [(&str, Repeats); 37] = [
    ("accel", Repeats::No),
    ("allow-missing", Repeats::Yes),
    ("append", Repeats::Yes),
    ("bin", Repeats::Yes),
    ("boot-budget", Repeats::No),
    ("boot-timeout", Repeats::No),
    ("coverage", Repeats::No),
    ("cpus", Repeats::No),
    ("cwd", Repeats::No),
    ("drive", Repeats::Yes),
    ("env", Repeats::Yes),
    ("file", Repeats::Yes),
    ("firmware", Repeats::No),
    ("initramfs", Repeats::No),
    ("kernel-log", Repeats::No),
    ("lib-dir", Repeats::Yes),
    ("memory", Repeats::No),
    ("modules", Repeats::No),
    ("net", Repeats::Yes),
    ("on-panic", Repeats::No),
    ("qemu", Repeats::No),
    ("qemu-arg", Repeats::Yes),
    ("rng", Repeats::Flag),
    ("ro-dir", Repeats::Yes),
    ("root", Repeats::No),
    ("share", Repeats::Yes),
    ("sysroot", Repeats::No),
    ("timeout", Repeats::No),
    ("warm", Repeats::No),
    ("kernel", Repeats::No),
    ("splats", Repeats::No),
    ("allow-splat", Repeats::Yes),
    ("allow-splat-file", Repeats::Yes),
    ("deny-splat-file", Repeats::Yes),
    ("vmlinux", Repeats::No),
    ("hang-after", Repeats::No),
    ("require", Repeats::Yes),
];

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Texts,
    /// A text or several.
    TextOrTexts,
    Number,
    Format,
    Expect,
}

/// A key of the suite's own.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// It may also be in `[defaults]` and `[arch.NAME]`.
    pub(super) shared: bool,
    pub(super) doc: &'static str,
}

pub(super) const KEYS: [Key; 10] = [
    Key {
        name: "name",
        kind: Kind::Text,
        shared: false,
        doc: "The test's name, which no other test has.",
    },
    Key {
        name: "command",
        kind: Kind::Texts,
        shared: false,
        doc: "Program and arguments, as behind `vmtest run --`.",
    },
    Key {
        name: "script",
        kind: Kind::Text,
        shared: false,
        doc: "A script for the guest's `sh -e`, instead of a command.",
    },
    Key {
        name: "arch",
        kind: Kind::TextOrTexts,
        shared: true,
        doc: "Architectures to run it on. Default: VMTEST_ARCH, else the host's.",
    },
    Key {
        name: "kernel",
        kind: Kind::TextOrTexts,
        shared: true,
        doc: "Kernels to run it with, as `--kernel` takes them; `default` is the pinned one.",
    },
    Key {
        name: "retries",
        kind: Kind::Number,
        shared: true,
        doc: "How often a failure is tried again. Default: 0.",
    },
    Key {
        name: "expect",
        kind: Kind::Expect,
        shared: false,
        doc: "What the command must do. Default: status 0.",
    },
    Key {
        name: "format",
        kind: Kind::Format,
        shared: true,
        doc: "What its output is. Default: exit, the status alone.",
    },
    Key {
        name: "requires",
        kind: Kind::Texts,
        shared: true,
        doc: "Options that the kernel must have: CONFIG_NET_9P.",
    },
    Key {
        name: "tags",
        kind: Kind::TextOrTexts,
        shared: true,
        doc: "Words to choose it by: `vmtest test --tag`.",
    },
];

/// The keys of `expect`.
pub(super) const EXPECT_KEYS: [(&str, &str); 4] = [
    ("status", "Exit status, or several. Default: 0."),
    ("skip", "Exit status that means that the test was skipped, or several."),
    ("text", "Text that must be in its stdout, or several."),
    ("regex", "Regular expression that its stdout must match, or several."),
];

/// The keys of a section: a test's, or those of `[defaults]`.
pub(super) fn known(test: bool) -> impl Iterator<Item = &'static str> {
    let own = KEYS.iter().filter(move |key| test || key.shared).map(|key| key.name);
    own.chain(MACHINE_OPTIONS.iter().map(|(name, _)| *name).filter(|name| *name != "kernel"))
}

/// The known word that is most like the given one, unless none is.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|word| (distance(given, word), word));
    scored.filter(|(distance, word)| *distance * 2 <= word.len().max(3)).min().map(|it| it.1)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in b.chars().enumerate() {
            let cost = diagonal + usize::from(c != d);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn kind_schema(kind: Kind) -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    match kind {
        Kind::Text => text,
        Kind::Texts => texts,
        Kind::TextOrTexts => json!({ "oneOf": [text, texts] }),
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::Format => json!({ "enum": crate::results::Format::ALL.map(|format| format.name()) }),
        Kind::Expect => {
            let status = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
            let several =
                |one: &Value| json!({ "oneOf": [one, { "type": "array", "items": one }] });
            let properties: serde_json::Map<_, _> = EXPECT_KEYS
                .iter()
                .map(|(name, doc)| {
                    let is_status = matches!(*name, "status" | "skip");
                    let mut schema = several(if is_status { &status } else { &text });
                    schema["description"] = (*doc).into();
                    ((*name).to_owned(), schema)
                })
                .collect();
            json!({ "type": "object", "additionalProperties": false, "properties": properties })
        }
    }
}

fn section(test: bool) -> Value {
    let mut properties = serde_json::Map::new();
    for key in KEYS.iter().filter(|key| test || key.shared) {
        let mut schema = kind_schema(key.kind);
        schema["description"] = key.doc.into();
        properties.insert(key.name.to_owned(), schema);
    }
    for (name, repeats) in MACHINE_OPTIONS.iter().filter(|(name, _)| *name != "kernel") {
        let one = json!({ "type": ["string", "integer"] });
        let mut schema = match repeats {
            Repeats::No => one,
            Repeats::Yes => json!({ "oneOf": [one, { "type": "array", "items": one }] }),
            Repeats::Flag => json!({ "type": "boolean" }),
        };
        schema["description"] = format!("`--{name}` of `vmtest run`.").into();
        properties.insert((*name).to_owned(), schema);
    }
    let mut section =
        json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if test {
        section["required"] = json!(["name"]);
        section["oneOf"] = json!([{ "required": ["command"] }, { "required": ["script"] }]);
    }
    section
}

/// The JSON schema of `vmtest.toml`.
pub fn schema() -> String {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vmtest.toml",
        "description": "A project's suite of tests in virtual machines.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "defaults": section(false),
            "arch": {
                "description": "Defaults of one architecture.",
                "type": "object",
                "additionalProperties": section(false)
            },
            "test": { "description": "The tests.", "type": "array", "items": section(true) }
        }
    });
    format!("{schema:#}\n")
}
