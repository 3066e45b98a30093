//! A suite as a value: a project's defaults, its tests, and the machines that each runs in. `super::parse` makes it
//! of `vmtest.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::expect::Expect;
use super::keys::{MACHINE_OPTIONS, Repeats};
use crate::arch::Arch;
use crate::results::Format;

/// What an option is given, in order.
type Options = BTreeMap<&'static str, Vec<String>>;

/// A suite, as its file says it.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// The tests, in the file's order.
    pub entries: Vec<Entry>,
    pub(super) defaults: Settings,
    pub(super) by_arch: BTreeMap<Arch, Settings>,
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
    pub(super) own: Settings,
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
pub(super) struct Settings {
    pub(super) options: Options,
    pub(super) arch: Option<Vec<Arch>>,
    pub(super) kernel: Option<Vec<String>>,
    pub(super) retries: Option<u32>,
    pub(super) format: Option<Format>,
    pub(super) requires: Vec<String>,
    pub(super) tags: Vec<String>,
}

impl File {
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

fn repeats(name: &str) -> Repeats {
    let known = MACHINE_OPTIONS.iter().find(|(known, _)| *known == name);
    known.map_or(Repeats::No, |(_, repeats)| *repeats)
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::super::parse::FileError;
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
    fn an_architecture_that_is_said_twice_is_one_machine() {
        let file =
            parse("[[test]]\nname='a'\nscript='x'\narch=['amd64', 'riscv64', 'x86_64']\n").unwrap();
        let cells = file.cells(&file.entries[0], &[], &[], Arch::Arm);
        let arches: Vec<&str> = cells.iter().map(|cell| cell.arch.as_str()).collect();
        assert_eq!(arches, ["amd64", "riscv64"]);
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
