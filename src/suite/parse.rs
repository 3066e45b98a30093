//! `vmtest.toml` read: TOML to a [`File`], and what is wrong with it, with the line. `docs/testing.md` is its reference,
//! `docs/vmtest.schema.json` its schema.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::expect::Expect;
use super::file::{Entry, File, Settings, What};
use super::keys::{self, EXPECT_KEYS, KEYS, MACHINE_OPTIONS, Repeats};
use crate::arch::Arch;
use crate::named_file;
use crate::results::Format;

type Section = BTreeMap<Spanned<String>, Spanned<Value>>;

/// A suite's file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the suite `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says something that it cannot say. The text shows the line.
    #[error("the suite `{}` cannot be used: {text}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, its number, and what is wrong with it.
        text: String,
        /// How to fix it.
        hint: Option<String>,
    },
}

impl FileError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            FileError::Read { .. } => None,
            FileError::Wrong { hint, .. } => hint.clone(),
        }
    }
}

/// What is wrong, and where.
struct Wrong {
    at: usize,
    what: String,
    hint: Option<String>,
    /// The other place, where it takes two.
    first: Option<usize>,
}

impl Wrong {
    fn new(at: usize, what: impl Into<String>) -> Wrong {
        Wrong { at, what: what.into(), hint: None, first: None }
    }

    fn hint(self, hint: impl Into<String>) -> Wrong {
        Wrong { hint: Some(hint.into()), ..self }
    }
}

/// The file's outermost level.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Top {
    defaults: Section,
    arch: BTreeMap<Spanned<String>, Section>,
    test: Vec<Spanned<Section>>,
}

impl File {
    /// Reads a suite's file.
    ///
    /// # Errors
    /// [`FileError`], with the line.
    pub fn read(path: &Path) -> Result<File, FileError> {
        let read = |source| FileError::Read { path: path.to_owned(), source };
        let text = named_file::read_to_string(path).map_err(read)?;
        File::parse(path, &text)
    }

    /// Parses a suite; `path` is for messages.
    ///
    /// # Errors
    /// [`FileError::Wrong`]: what TOML or the file's form forbids, unknown keys among it, and two tests of
    /// one name.
    pub fn parse(path: &Path, text: &str) -> Result<File, FileError> {
        let fail = |text: String, hint| FileError::Wrong { path: path.to_owned(), text, hint };
        let top: Top = toml::from_str(text)
            .map_err(|error| fail(error.to_string().trim_end().into(), None))?;
        let mut file = parse_top(top).map_err(|wrong| fail(shown(text, &wrong), wrong.hint))?;
        for entry in &mut file.entries {
            entry.line = text[..entry.line.min(text.len())].matches('\n').count() + 1;
        }
        Ok(file)
    }
}

fn parse_top(top: Top) -> Result<File, Wrong> {
    let mut file = File { defaults: settings(&top.defaults)?, ..File::default() };
    for (name, section) in &top.arch {
        let arch = name
            .get_ref()
            .parse::<Arch>()
            .map_err(|error| Wrong::new(name.span().start, error.to_string()).hint(error.hint()))?;
        file.by_arch.insert(arch, settings(section)?);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for section in &top.test {
        let entry = entry(section)?;
        let at = section.span().start;
        if let Some(first) = names.insert(entry.name.clone(), at) {
            let what = format!("there are two tests of the name `{}`", entry.name);
            return Err(Wrong { first: Some(first), ..Wrong::new(at, what) }
                .hint("reports tell tests apart by their names: give each its own"));
        }
        file.entries.push(entry);
    }
    Ok(file)
}

/// `[[test]]`
fn entry(section: &Spanned<Section>) -> Result<Entry, Wrong> {
    let at = section.span().start;
    let section = section.get_ref();
    let own = read_section(section, true)?;
    let find = |name: &str| section.iter().find(|(key, _)| key.get_ref() == name);
    let Some((name_key, name)) = find("name") else {
        return Err(Wrong::new(at, "this test has no `name`"));
    };
    let name = text("name", name.get_ref(), name_key.span().start)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Wrong::new(name_key.span().start, "a test's name is a line of text"));
    }
    let what = match (find("command"), find("script")) {
        (Some((key, value)), None) => {
            let words = texts("command", value.get_ref(), key.span().start)?;
            if words.first().is_none_or(String::is_empty) {
                let wrong = Wrong::new(key.span().start, "`command` names no program");
                return Err(wrong.hint("write it as a list: command = [\"./my-test\", \"--fast\"]"));
            }
            What::Command(words)
        }
        (None, Some((key, value))) => {
            What::Script(text("script", value.get_ref(), key.span().start)?)
        }
        _ => {
            let what = format!("`{name}` needs a `command` or a `script`, one of them");
            return Err(Wrong::new(at, what));
        }
    };
    let expect = match find("expect") {
        Some((key, value)) => expect(value.get_ref(), key.span().start)?,
        None => Expect::default(),
    };
    Ok(Entry { name, what, expect, line: at, own })
}

/// `[defaults]`, `[arch.NAME]`
fn settings(section: &Section) -> Result<Settings, Wrong> {
    read_section(section, false)
}

fn read_section(section: &Section, is_test: bool) -> Result<Settings, Wrong> {
    let mut settings = Settings::default();
    for (key, value) in section {
        let (name, at, value) = (key.get_ref().as_str(), key.span().start, value.get_ref());
        if let Some(key) = KEYS.iter().find(|key| key.name == name && (is_test || key.shared)) {
            own_key(&mut settings, key.name, value, at)?;
        } else if let Some((name, repeats)) = MACHINE_OPTIONS.iter().find(|it| it.0 == name) {
            settings.options.insert(name, option(name, *repeats, value, at)?);
        } else {
            let wrong = Wrong::new(at, format!("there is no key `{name}` here"));
            return Err(match keys::nearest(name, keys::known(is_test)) {
                Some(near) => wrong.hint(format!("did you mean `{near}`?")),
                None => wrong.hint(
                    "a test has name, command or script, arch, kernel, retries, expect, format, requires, \
                     tags, and the options of `vmtest run` by their names",
                ),
            });
        }
    }
    Ok(settings)
}

fn own_key(settings: &mut Settings, name: &str, value: &Value, at: usize) -> Result<(), Wrong> {
    match name {
        "arch" => {
            let parse = |text: &String| {
                text.parse::<Arch>()
                    .map_err(|error| Wrong::new(at, error.to_string()).hint(error.hint()))
            };
            let mut arches = Vec::new();
            for text in &texts(name, value, at)? {
                let arch = parse(text)?;
                // One machine, however often and by whatever names it is said.
                if !arches.contains(&arch) {
                    arches.push(arch);
                }
            }
            settings.arch = Some(arches);
        }
        "kernel" => settings.kernel = Some(texts(name, value, at)?),
        "retries" => {
            let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
            let wrong = || Wrong::new(at, "`retries` is a number from 0");
            settings.retries = Some(number.filter(|number| *number <= 100).ok_or_else(wrong)?);
        }
        "format" => {
            let parsed = text(name, value, at)?.parse::<Format>();
            let wrong = |error: crate::results::UnknownFormat| {
                Wrong::new(at, error.to_string()).hint(error.hint())
            };
            settings.format = Some(parsed.map_err(wrong)?);
        }
        "requires" => settings.requires = texts(name, value, at)?,
        "tags" => settings.tags = texts(name, value, at)?,
        // An entry's alone.
        _ => {}
    }
    Ok(())
}

fn option(name: &str, repeats: Repeats, value: &Value, at: usize) -> Result<Vec<String>, Wrong> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err(Wrong::new(at, format!("`{name}` takes text, as on the command line"))),
    };
    match (repeats, value) {
        (Repeats::Flag, Value::Boolean(on)) => Ok(vec![on.to_string()]),
        (Repeats::Flag, _) => Err(Wrong::new(at, format!("`{name}` is true or false"))),
        (Repeats::Yes, Value::Array(values)) => values.iter().map(one).collect(),
        (_, value) => Ok(vec![one(value)?]),
    }
}

fn text(name: &str, value: &Value, at: usize) -> Result<String, Wrong> {
    let wrong = || Wrong::new(at, format!("`{name}` takes text, not {}", value.type_str()));
    value.as_str().map(str::to_owned).ok_or_else(wrong)
}

fn texts(name: &str, value: &Value, at: usize) -> Result<Vec<String>, Wrong> {
    match value {
        Value::Array(values) => values.iter().map(|value| text(name, value, at)).collect(),
        // A command is a list: whether a shell splits its text would be a guess.
        Value::String(_) if name == "command" => {
            Err(Wrong::new(at, "`command` is a list of words")
                .hint("write [\"sh\", \"-c\", \"…\"], or use `script`"))
        }
        value => Ok(vec![text(name, value, at)?]),
    }
}

fn expect(value: &Value, at: usize) -> Result<Expect, Wrong> {
    let Some(table) = value.as_table() else {
        let wrong = Wrong::new(at, "`expect` is a table");
        return Err(wrong.hint("write it as expect = { status = 3 }"));
    };
    let codes = |name: &str, value: &Value| {
        let code = |value: &Value| {
            let code = value.as_integer().and_then(|code| u8::try_from(code).ok());
            code.ok_or_else(|| Wrong::new(at, format!("`{name}` is a number from 0 to 255")))
        };
        match value {
            Value::Array(values) => values.iter().map(code).collect(),
            value => Ok(vec![code(value)?]),
        }
    };
    let mut expect = Expect::default();
    for (name, value) in table {
        match name.as_str() {
            "status" => expect.status = codes(name, value)?,
            "skip" => expect.skip = codes(name, value)?,
            "text" => expect.text = texts(name, value, at)?,
            "regex" => {
                for text in texts(name, value, at)? {
                    let regex = regex::bytes::Regex::new(&text);
                    expect.regex.push(regex.map_err(|error| Wrong::new(at, error.to_string()))?);
                }
            }
            _ => {
                let wrong = Wrong::new(at, format!("there is no key `{name}` in `expect`"));
                let known = EXPECT_KEYS.iter().map(|(name, _)| *name);
                return Err(match keys::nearest(name, known) {
                    Some(near) => wrong.hint(format!("did you mean `{near}`?")),
                    None => wrong.hint("it has status, skip, text and regex"),
                });
            }
        }
    }
    Ok(expect)
}

/// The line, as TOML's own errors show it.
fn shown(text: &str, wrong: &Wrong) -> String {
    let number = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let line = number(wrong.at);
    let first = wrong.first.map(|at| format!(" (the first is in line {})", number(at)));
    let gutter = " ".repeat(line.to_string().len());
    format!(
        "line {line}\n{gutter} |\n{line} | {}\n{gutter} |\n{}{}",
        text.lines().nth(line - 1).unwrap_or_default(),
        wrong.what,
        first.unwrap_or_default()
    )
}
