//! `vmtest.toml`: a project's defaults and its tests. `docs/testing.md` is its reference,
//! `docs/vmtest.schema.json` its schema.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::expect::Expect;
use super::keys::{self, EXPECT_KEYS, KEYS, MACHINE_OPTIONS, Repeats};
use crate::arch::Arch;
use crate::results::Format;

/// What an option is given, in order.
type Options = BTreeMap<&'static str, Vec<String>>;
type Section = BTreeMap<Spanned<String>, Spanned<Value>>;

/// A suite, as its file says it.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// The tests, in the file's order.
    pub entries: Vec<Entry>,
    defaults: Settings,
    by_arch: BTreeMap<Arch, Settings>,
}

/// A machine of the matrix: an architecture and a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
pub struct Cell {
    /// The guest's architecture, by its name.
    pub arch: String,
    /// The kernel, as `--kernel` names it; `default` for the pinned one.
    pub kernel: String,
}

impl Cell {
    /// The kernel of a cell that names none.
    pub const DEFAULT_KERNEL: &'static str = "default";
}

/// `riscv64`, or `riscv64, @gcov` where it is not the default kernel.
impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.arch)?;
        if self.kernel != Cell::DEFAULT_KERNEL {
            // Of a path, what tells it apart; the whole is in the command that repeats the test.
            let name = Path::new(&self.kernel).file_name().map(|name| name.to_string_lossy());
            write!(f, ", {}", name.unwrap_or(self.kernel.as_str().into()))?;
        }
        Ok(())
    }
}

/// A test of the suite.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What is run.
    pub what: What,
    /// What it must do.
    pub expect: Expect,
    /// The line of the file, from 1; 0 for what is not from a file.
    pub line: usize,
    own: Settings,
}

/// What an entry runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Program and arguments.
    Command(Vec<String>),
    /// A script for the guest's `sh -e`.
    Script(String),
}

impl What {
    /// As a command of `vmtest run`.
    pub fn argv(&self) -> Vec<String> {
        match self {
            What::Command(words) => words.clone(),
            What::Script(text) => vec!["sh".into(), "-ec".into(), text.clone()],
        }
    }
}

/// What may be said for all tests and for one.
#[derive(Clone, Debug, Default)]
struct Settings {
    options: Options,
    arch: Option<Vec<Arch>>,
    kernel: Option<Vec<String>>,
    retries: Option<u32>,
    format: Option<Format>,
    requires: Vec<String>,
    tags: Vec<String>,
}

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
        let text = std::fs::read_to_string(path).map_err(read)?;
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

    /// A suite of what stands on the command line: with this file's defaults.
    pub fn with_entries(&self, entries: Vec<Entry>) -> File {
        File { entries, ..self.clone() }
    }

    /// The cells of an entry. `arches` and `kernels` replace what the file says, where they are not empty;
    /// `usual` is the architecture where nobody says any.
    pub fn cells(
        &self,
        entry: &Entry,
        arches: &[Arch],
        kernels: &[String],
        usual: Arch,
    ) -> Vec<Cell> {
        let own = entry.own.arch.as_ref().or(self.defaults.arch.as_ref());
        let arches = match own {
            // Those that are asked for, of those that it can.
            Some(own) if !arches.is_empty() => {
                own.iter().copied().filter(|arch| arches.contains(arch)).collect()
            }
            Some(own) => own.clone(),
            None if arches.is_empty() => vec![usual],
            None => arches.to_vec(),
        };
        let mut cells = Vec::new();
        for arch in arches {
            let by_arch = self.by_arch.get(&arch).and_then(|settings| settings.kernel.as_ref());
            let own = entry.own.kernel.as_ref().or(by_arch).or(self.defaults.kernel.as_ref());
            let usual = [Cell::DEFAULT_KERNEL.to_owned()];
            let kernels = match kernels {
                [] => own.map_or(&usual[..], Vec::as_slice),
                kernels => kernels,
            };
            let cell = |kernel: &String| Cell { arch: arch.name().into(), kernel: kernel.clone() };
            cells.extend(kernels.iter().map(cell));
        }
        cells
    }

    /// The words of `vmtest run` for an entry in a cell, without the command; `more` goes before what the
    /// file says.
    pub fn words(&self, entry: &Entry, cell: &Cell, more: &[(String, String)]) -> Vec<String> {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let layers = self.layers(entry, &cell.arch);
        let given = more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let of_file = layers
            .iter()
            .flat_map(|settings| settings.options.iter().map(|(name, values)| (*name, values)));
        for (name, values) in of_file {
            let kept = all.entry(name).or_default();
            if repeats(name) != Repeats::Yes {
                kept.clear();
            }
            kept.extend(values.iter().map(String::as_str));
        }
        for (name, value) in given {
            let kept = all.entry(name).or_default();
            if repeats(name) != Repeats::Yes {
                kept.clear();
            }
            kept.push(value);
        }
        let mut words = vec![format!("--arch={}", cell.arch)];
        if cell.kernel != Cell::DEFAULT_KERNEL {
            words.push(format!("--kernel={}", cell.kernel));
        }
        for (name, values) in all {
            for value in values {
                match (repeats(name), value) {
                    (Repeats::Flag, "true") => words.push(format!("--{name}")),
                    (Repeats::Flag, _) => {}
                    _ => words.push(format!("--{name}={value}")),
                }
            }
        }
        let requires = self.requires(entry, &cell.arch);
        words.extend(requires.into_iter().map(|option| format!("--require={option}")));
        words
    }

    /// The weakest first.
    fn layers<'a>(&'a self, entry: &'a Entry, arch: &str) -> Vec<&'a Settings> {
        let by_arch = self.by_arch.iter().find(|(known, _)| known.name() == arch).map(|it| it.1);
        [Some(&self.defaults), by_arch, Some(&entry.own)].into_iter().flatten().collect()
    }

    /// How often a failure of an entry is tried again.
    pub fn retries(&self, entry: &Entry, arch: &str) -> u32 {
        self.layers(entry, arch).iter().rev().find_map(|layer| layer.retries).unwrap_or(0)
    }

    /// What an entry's output is.
    pub fn format(&self, entry: &Entry, arch: &str) -> Format {
        self.layers(entry, arch).iter().rev().find_map(|layer| layer.format).unwrap_or_default()
    }

    /// The words an entry can be chosen by.
    pub fn tags<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a str> {
        self.defaults.tags.iter().chain(&entry.own.tags).map(String::as_str)
    }

    /// The options that an entry's kernel must have.
    pub fn requires<'a>(&'a self, entry: &'a Entry, arch: &str) -> Vec<&'a str> {
        let layers = self.layers(entry, arch);
        layers.iter().flat_map(|layer| &layer.requires).map(String::as_str).collect()
    }
}

impl Entry {
    /// A test that no file names.
    pub fn new(name: impl Into<String>, what: What, format: Format) -> Entry {
        Entry {
            name: name.into(),
            what,
            expect: Expect::default(),
            line: 0,
            own: Settings { format: Some(format), ..Settings::default() },
        }
    }

    /// Sets an option of `vmtest run`, one of [`MACHINE_OPTIONS`].
    #[must_use]
    pub fn option(mut self, name: &'static str, value: impl Into<String>) -> Entry {
        self.own.options.entry(name).or_default().push(value.into());
        self
    }

    /// Restricts it to this architecture.
    #[must_use]
    pub fn only(mut self, arch: Arch) -> Entry {
        self.own.arch = Some(vec![arch]);
        self
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
            let mut arches =
                texts(name, value, at)?.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            arches.dedup();
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

fn repeats(name: &str) -> Repeats {
    let known = MACHINE_OPTIONS.iter().find(|(known, _)| *known == name);
    known.map_or(Repeats::No, |(_, repeats)| *repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: &str = r#"
[defaults]
memory = "256M"
share = [".:src"]
retries = 1
tags = "all"

[arch.riscv64]
memory = "1G"
append = "earlycon"

[[test]]
name = "boots"
command = ["uname", "-a"]
arch = ["amd64", "riscv64"]
kernel = ["default", "@gcov"]
share = ["data:data:ro"]
env = ["A=b"]
cpus = 2
expect = { status = [0, 3], text = "Linux", regex = "^Linux" }
requires = ["CONFIG_NET_9P"]

[[test]]
name = "script"
script = "true"
format = "tap"
rng = true
"#;

    fn parse(text: &str) -> Result<File, FileError> {
        File::parse(Path::new("vmtest.toml"), text)
    }

    #[test]
    fn an_entry_has_what_it_says_and_the_defaults() {
        let file = parse(SUITE).unwrap();
        let [boots, script] = &file.entries[..] else { panic!("{file:?}") };
        let cells = file.cells(boots, &[], &[], Arch::Arm);
        let told: Vec<String> = cells.iter().map(Cell::to_string).collect();
        assert_eq!(told, ["amd64", "amd64, @gcov", "riscv64", "riscv64, @gcov"]);
        let more = [("memory".to_owned(), "2G".to_owned())];
        assert_eq!(
            file.words(boots, &cells[3], &[]),
            [
                "--arch=riscv64",
                "--kernel=@gcov",
                "--append=earlycon",
                "--cpus=2",
                "--env=A=b",
                "--memory=1G",
                "--share=.:src",
                "--share=data:data:ro",
                "--require=CONFIG_NET_9P"
            ]
        );
        assert_eq!(
            file.words(script, &cells[0], &more)[1..],
            ["--memory=2G", "--rng", "--share=.:src"]
        );
        assert_eq!(file.cells(script, &[], &[], Arch::Arm)[0].arch, "arm");
        assert_eq!(file.cells(boots, &[Arch::Arm], &[], Arch::Arm), []);
        let cell = file.cells(boots, &[Arch::Amd64], &["k/Image".into()], Arch::Arm);
        assert_eq!(cell[0].to_string(), "amd64, Image");
        assert_eq!((file.retries(boots, "arm"), file.format(script, "arm")), (1, Format::Tap));
        assert_eq!(file.requires(boots, "arm"), ["CONFIG_NET_9P"]);
        assert_eq!(file.tags(script).collect::<Vec<_>>(), ["all"]);
        assert_eq!((boots.line, script.line), (12, 23));
        assert_eq!(script.what.argv(), ["sh", "-ec", "true"]);
    }

    #[test]
    fn errors_show_the_line_and_the_nearest_key() {
        for (text, line, words) in [
            ("[defaults]\nmemroy = \"1G\"\n", "2 | memroy", ["`memroy`", "did you mean `memory`?"]),
            (
                "[[test]]\nname = \"a\"\ncomand = [\"x\"]\n",
                "3 | comand",
                ["`comand`", "`command`?"],
            ),
            ("[[tests]]\nname = \"a\"\n", "1 | [[tests]]", ["unknown field `tests`", "`test`"]),
            ("[defaults]\nname = \"a\"\n", "2 | name", ["no key `name`", ""]),
            (
                "[[test]]\nname = \"a\"\ncommand = \"ls -l\"\n",
                "3 | command",
                ["list of words", "script"],
            ),
            ("[[test]]\nname = \"a\"\n", "1 | [[test]]", ["needs a `command` or a `script`", ""]),
            ("[[test]]\ncommand = [\"a\"]\n", "1 | [[test]]", ["no `name`", ""]),
            ("[arch.vax]\n", "1 | [arch.vax]", ["vax", ""]),
            ("[[test]]\nname=\"a\"\nscript=\"\"\nformat=\"tab\"\n", "4 | format", ["`tab`", "tap"]),
            (
                "[[test]]\nname=\"a\"\nscript=\"\"\nexpect={stats=1}\n",
                "4 | expect",
                ["`stats`", "`status`?"],
            ),
            (
                "[[test]]\nname=\"a\"\nscript=\"\"\nexpect={status=256}\n",
                "4 | expect",
                ["0 to 255", ""],
            ),
            (
                "[[test]]\nname=\"a\"\nscript=\"\"\nexpect={regex=\"(\"}\n",
                "4 | expect",
                ["regex", ""],
            ),
            ("[defaults]\nretries = -1\n", "2 | retries", ["from 0", ""]),
            ("[defaults]\nrng = 1\n", "2 | rng", ["true or false", ""]),
            ("[defaults\n", "1 | [defaults", ["", ""]),
        ] {
            let error = parse(text).unwrap_err();
            let told = format!("{error}\n{}", error.hint().unwrap_or_default());
            assert!(told.contains(line), "{line}: {told}");
            words.iter().for_each(|word| assert!(told.contains(word), "{word}: {told}"));
        }
    }

    #[test]
    fn two_tests_of_one_name_are_an_error_that_names_both_lines() {
        let test = "[[test]]\nname = \"a\"\nscript = \"\"\n";
        let error = parse(&format!("{test}{test}")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`a` (the first is in line 1)") && text.contains("line 4"), "{text}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn the_schema_is_that_of_the_docs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vmtest.schema.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, keys::schema()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, keys::schema(), "UPDATE_GOLDEN=1 rewrites it");
    }
}
