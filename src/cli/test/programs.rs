//! Compiled test programs as a suite's entries: `vmtest test -- PROGRAM…`, `vmtest test --cargo`.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memchr::memmem;
use vmtest::arch::Arch;
use vmtest::formats::elf;
use vmtest::results::Format;
use vmtest::suite::{Entry, What};
use vmtest::testing::libtest::programs_of_cargo;
use vmtest::{fields, programs};

use super::args::TestArgs;
use crate::cli::error::Failure;

/// An entry for each program.
pub(super) fn entries(args: &TestArgs, home: &Path) -> Result<Vec<Entry>, Failure> {
    let files = match args.cargo {
        true => built_by_cargo(&args.rest)?,
        false => args.rest.iter().map(|word| home.join(word)).collect(),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for path in files {
        let entry = entry(&path, args)?;
        if entries.iter().any(|other| other.name == entry.name) {
            return Err(Failure::wrong(
                format!("there are two programs of the name `{}`", entry.name),
                "reports tell tests apart by their names: run one of them by itself",
            ));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Builds a crate's test programs.
fn built_by_cargo(args: &[OsString]) -> Result<Vec<PathBuf>, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(args);
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| {
            Failure::missing(format!("cannot run cargo: {error}"), "`CARGO` names another one")
        })?;
    if !output.status.success() {
        return Err(Failure::missing(
            "cargo could not build the tests",
            "what it says is above; words behind `--` are its own",
        ));
    }
    let files = programs_of_cargo(&String::from_utf8_lossy(&output.stdout));
    match files.is_empty() {
        false => Ok(files),
        true => Err(Failure::missing("cargo built no test program", "is there a test in it?")),
    }
}

fn entry(path: &Path, args: &TestArgs) -> Result<Entry, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let text = format!("cannot read the test program `{}`: {error}", path.display());
        Failure::missing(text, "name compiled test programs behind `--`")
    };
    let mut file = vmtest::named_file::open(path).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    let info = elf::parse(&bytes.as_slice()).ok();
    let format = args.format.unwrap_or_else(|| looks_like(&bytes));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = if args.cargo { without_hash(&name).to_owned() } else { name };
    let dest = programs::destination(path, None);
    let dest = dest.to_str().ok_or_else(|| unreadable(&"its name is no UTF-8"))?;
    let source = fields::escape(path.as_os_str());
    let source = source.to_str().ok_or_else(|| unreadable(&"its path is no UTF-8"))?;
    let escaped = fields::escape(OsStr::new(dest));
    let what = What::Command(words(format, dest));
    let entry = Entry::new(name, what, format)
        .option("bin", format!("{source}:{}", escaped.to_string_lossy()));
    let arch =
        info.and_then(|info| Arch::ALL.into_iter().find(|arch| arch.elf_machine() == info.machine));
    Ok(match arch {
        Some(arch) => entry.only(arch),
        None => entry,
    })
}

/// What a program prints, by what is in it.
fn looks_like(bytes: &[u8]) -> Format {
    let has = |text: &str| memmem::find(bytes, text.as_bytes()).is_some();
    if has("--gtest_list_tests") || has("gtest_list_tests") {
        Format::Gtest
    } else if has("Go build ID: ") && has("test.v") {
        Format::Go
    } else if has("Run ignored and not ignored tests") || has("RUST_TEST_THREADS") {
        Format::Libtest
    } else {
        Format::Exit
    }
}

/// The command that lists a program's tests, where it can, and then runs them.
fn words(format: Format, dest: &str) -> Vec<String> {
    let script = match format {
        Format::Libtest => {
            "\"$0\" --list --format terse && exec \"$0\" --test-threads=1 --format pretty --color never"
        }
        Format::Go => "\"$0\" -test.list=. && exec \"$0\" -test.v",
        Format::Gtest => "\"$0\" --gtest_list_tests && exec \"$0\" --gtest_color=no",
        _ => return vec![dest.to_owned()],
    };
    ["sh", "-c", script, dest].map(str::to_owned).to_vec()
}

/// cargo's `name-0123456789abcdef`.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((stem, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            stem
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_hash_is_no_part_of_a_name() {
        assert_eq!(without_hash("my-crate-0123456789abcdef"), "my-crate");
        assert_eq!(without_hash("my-crate"), "my-crate");
    }

    #[test]
    fn programs_are_known_by_what_is_in_them() {
        assert_eq!(looks_like(b"..gtest_list_tests.."), Format::Gtest);
        assert_eq!(looks_like(b"Go build ID: x test.v"), Format::Go);
        assert_eq!(looks_like(b"RUST_TEST_THREADS"), Format::Libtest);
        assert_eq!(looks_like(b"\x7fELF"), Format::Exit);
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(looks_like(&own), Format::Gtest, "this source names it");
    }
}
