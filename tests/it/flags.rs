//! What has a flag has a configurator, and the other way round: a configurator names its flag in its
//! documentation, and what has no partner is listed here with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Flags of `run` that no configurator sets.
const NO_CONFIGURATOR: [(&str, &str); 10] = [
    ("arch", "a machine is made for an architecture: `Config::new`"),
    ("env", "of the command: `Command::env`"),
    ("cwd", "of the command: `Command::cwd`"),
    ("stdin", "of the command: `Command::stdin`"),
    ("verbose", "of the program"),
    ("profile", "of the program; the library has `Outcome::phases`"),
    ("dry-run", "of the program; the library has `Prepared::plan`"),
    ("message-format", "of the program"),
    ("help", "of the program"),
    ("no-such-flag-of-the-test", "shows that a line too many is found"),
];

/// Configurators that no flag sets.
const NO_FLAG: [(&str, &str); 17] = [
    ("options", "changes what has a flag each"),
    ("device", "takes devices of other crates"),
    ("with_image", "takes a function"),
    ("with_qemu_command", "`with_qemu`, from text"),
    ("ide_block_device", "`with_drive`, as the Go package hugelgupf/vmtest has it"),
    ("p9_directory", "`with_share`, as the Go package hugelgupf/vmtest has it"),
    ("p9_boot_directory", "`with_root`, as the Go package hugelgupf/vmtest has it"),
    ("read_only_directory", "`with_read_only_dir`, checked when it is applied"),
    ("with_default_ovmf", "`with_firmware`, as the Go package hugelgupf/vmtest has it"),
    ("with_ovmf", "`with_firmware`, as the Go package hugelgupf/vmtest has it"),
    ("with_serial_output", "takes a stream; the program has --verbose and --artifacts"),
    ("log_serial_by_line", "takes a function"),
    ("with_task", "takes a function"),
    ("event_callback", "takes a function"),
    ("event_channel", "hands over a stream; the program has --event"),
    ("with_cancel", "takes a switch; the program has signals"),
    ("with_vmtest_ident", "one word of --append"),
];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The long flags on the help page of `run`.
fn flags() -> BTreeSet<String> {
    let page = read("tests/it/texts/help/run.txt");
    let flags = page.lines().filter_map(|line| {
        // Descriptions stand further to the right.
        let long = line.strip_prefix("      --").or_else(|| {
            line.strip_prefix("  -").and_then(|line| line.split_once(", --")).map(|(_, long)| long)
        })?;
        Some(long.split([' ', '=']).next().unwrap_or(long).to_owned())
    });
    flags.collect()
}

/// The configurators, and the flags that their documentation names.
fn configurators() -> BTreeMap<String, BTreeSet<String>> {
    let (mut found, mut doc) = (BTreeMap::new(), String::new());
    for line in read("src/configure/setters.rs").lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push_str(text);
            doc.push('\n');
        } else if let Some(rest) = line.strip_prefix("pub fn ") {
            let name = rest.split(['(', '<']).next().unwrap();
            let named = doc.match_indices("(`--").map(|(at, _)| &doc[at + 4..]);
            let named = named.filter_map(|text| text.split_once("`)").map(|(flag, _)| flag.into()));
            found.insert(name.to_owned(), named.collect());
            doc.clear();
        } else if line != "///" {
            doc.clear();
        }
    }
    found
}

#[test]
fn what_has_a_flag_has_a_configurator_and_the_other_way_round() {
    let (flags, configurators) = (flags(), configurators());
    assert!(flags.len() > 30 && configurators.len() > 30, "{flags:?} {configurators:?}");

    let named: BTreeSet<&String> = configurators.values().flatten().collect();
    let alone: BTreeSet<&str> = NO_CONFIGURATOR.iter().map(|(flag, _)| *flag).collect();
    for flag in &flags {
        assert!(
            named.contains(flag) != alone.contains(flag.as_str()),
            "--{flag}: either a configurator's documentation names it as (`--{flag}`), or it stands in \
             NO_CONFIGURATOR"
        );
    }
    for flag in named {
        assert!(flags.contains(flag), "a configurator names --{flag}, which `run` does not have");
    }
    let gone: Vec<&str> = alone.into_iter().filter(|flag| !flags.contains(*flag)).collect();
    assert_eq!(gone, ["no-such-flag-of-the-test"], "these are no flags of `run`");

    let alone: BTreeSet<&str> = NO_FLAG.iter().map(|(name, _)| *name).collect();
    for (name, flags) in &configurators {
        assert!(
            flags.is_empty() == alone.contains(name.as_str()),
            "{name}: either its documentation names its flag as (`--flag`), or it stands in NO_FLAG"
        );
    }
    for name in alone {
        assert!(configurators.contains_key(name), "NO_FLAG has {name}, which is not there");
    }
}
