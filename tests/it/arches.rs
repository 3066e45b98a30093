//! `arches.json` is the table of architectures: Nix reads it, `setup/lib/arches.sh` is made of it, and
//! what Rust and others say is compared with it. `UPDATE_GOLDEN=1` writes `arches.sh` anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};
use vmtest::arch::Arch;

fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repo().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn table() -> Map<String, Value> {
    serde_json::from_str(&read("arches.json")).unwrap()
}

/// The words of a list, or the one of a text.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap()).collect(),
        value => vec![value.as_str().unwrap()],
    }
}

#[test]
fn rust_has_the_tables_rows() {
    let table = table();
    let names: Vec<&String> = table.keys().collect();
    assert_eq!(names, Arch::ALL.map(Arch::name));
    for arch in Arch::ALL {
        let row = &table[arch.name()];
        assert_eq!(words(&row["aliases"]), arch.aliases(), "{arch}");
        assert_eq!(format!("qemu-system-{}", words(&row["qemu"])[0]), arch.qemu_program());
        assert_eq!(row["elf_machine"], arch.elf_machine(), "{arch}");
        assert_eq!(row["elf_64"], arch.elf_64(), "{arch}");
        assert_eq!(row["multiarch"], arch.multiarch(), "{arch}");
        assert_eq!(row["console"], arch.serial_console(), "{arch}");
    }
}

#[test]
fn all_rows_have_the_same_columns() {
    let table = table();
    let columns = |row: &Value| -> Vec<String> {
        let columns = row.as_object().unwrap().keys();
        // UEFI is there for some machines only.
        columns.filter(|column| *column != "firmware").cloned().collect()
    };
    let first = columns(&table["amd64"]);
    for (name, row) in &table {
        assert_eq!(columns(row), first, "{name}");
    }
}

/// `setup/lib/arches.sh`: the columns that shell scripts need.
fn script(table: &Map<String, Value>) -> String {
    let names: Vec<&str> = table.keys().map(String::as_str).collect();
    let mut text = format!(
        "# shellcheck shell=bash disable=SC2034\n# Made of arches.json by a test (tests/it/arches.rs), \
         which says so when it is out of date.\nall_arches=({})\n",
        names.join(" ")
    );
    for column in ["aliases", "debian", "qemu", "qemu_family", "rust", "rust_gnu"] {
        writeln!(text, "declare -A arch_{column}=(").unwrap();
        for (name, row) in table {
            writeln!(text, "  [{name}]='{}'", words(&row[column]).join(" ")).unwrap();
        }
        text.push_str(")\n");
    }
    text
}

#[test]
fn the_shell_has_the_tables_rows() {
    let path = "setup/lib/arches.sh";
    let wanted = script(&table());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(repo().join(path), &wanted).unwrap();
    }
    assert_eq!(
        read(path),
        wanted,
        "{path} is not what arches.json says: UPDATE_GOLDEN=1 writes it"
    );
}

/// What `setup/` takes a name for.
fn shells_answer(name: &str) -> Option<String> {
    let output = Command::new("bash")
        .args(["-euc", ". \"$1\"; canonical_arch \"$2\"", "bash"])
        .arg(repo().join("setup/lib/common.sh"))
        .arg(name)
        .env("VMTEST_CACHE", PathBuf::from("/nonexistent"))
        .output()
        .unwrap();
    let answer = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    output.status.success().then_some(answer)
}

#[test]
fn make_takes_the_names_that_the_program_takes() {
    for arch in Arch::ALL {
        for name in std::iter::once(&arch.name()).chain(arch.aliases()) {
            assert_eq!(shells_answer(name).as_deref(), Some(arch.name()), "{name}");
        }
    }
    assert_eq!(shells_answer("X86_64").as_deref(), Some("amd64"), "case does not matter");
    assert_eq!(shells_answer("sparc"), None);
}

#[test]
fn the_kernels_recipe_knows_each_architecture() {
    let recipe = read("nix/kernel/build");
    for (name, row) in table() {
        let (linux, image) = (words(&row["linux"])[0], words(&row["linux_image"])[0]);
        let case = format!("{name}) linux_arch={linux} target={image} ");
        assert!(recipe.contains(&case), "nix/kernel/build has no `{case}`");
        assert!(repo().join(format!("nix/kernel/{name}.config")).is_file(), "{name}");
    }
}

#[test]
fn texts_name_all_of_them() {
    let listed = Arch::ALL.map(Arch::name);
    for (path, between) in [
        ("src/cli/options.rs", ", "),
        ("src/cli/initramfs/options.rs", ", "),
        ("src/initramfs/spec/manifest.rs", ", "),
        ("README.md", ", "),
        ("Makefile", "|"),
    ] {
        let list = listed.join(between);
        assert!(read(path).contains(&list), "{path} does not say `{list}`");
    }
}
