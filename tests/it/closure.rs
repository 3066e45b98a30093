//! Closures of real programs of this host, compared with what their own loader says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use vmtest::arch::Arch;
use vmtest::formats::ldcache::{self, Entry};
use vmtest::initramfs::closure::{Closure, Resolver, Source};

fn host() -> Arch {
    Arch::host().expect("tests run on one of the five architectures")
}

fn files(closure: &Closure) -> BTreeSet<PathBuf> {
    let file = |source: &Source| match source {
        Source::File(path) => Some(std::fs::canonicalize(path).unwrap()),
        _ => None,
    };
    closure.items.iter().filter_map(|item| file(&item.source)).collect()
}

/// The libraries that `ldd` lists, `None` where there is no `ldd`.
fn ldd(program: &Path) -> Option<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Some(paths.map(|path| std::fs::canonicalize(path).unwrap()).collect())
}

#[test]
fn real_programs_have_the_libraries_that_ldd_lists() {
    let names = ["git", "python3", "sqlite3", "bash", "gdb", "perl", "openssl", "gcc", "sh"];
    let mut programs: Vec<PathBuf> =
        names.iter().map(|name| Path::new("/usr/bin").join(name)).filter(|p| p.exists()).collect();
    programs.push(std::env::current_exe().unwrap());
    let mut resolver = Resolver::new(host(), Path::new("/"));
    for program in programs {
        let Some(mut expected) = ldd(&program) else {
            eprintln!("no ldd on this host: nothing to compare with");
            return;
        };
        let dest = program.as_os_str().as_encoded_bytes();
        let closure = resolver.program(&program, dest, &|_| false).unwrap();
        expected.insert(std::fs::canonicalize(&program).unwrap());
        assert_eq!(files(&closure), expected, "{}", program.display());
    }
}

#[test]
fn a_program_moved_elsewhere_keeps_the_systems_libraries() {
    let program = std::env::current_exe().unwrap();
    let mut resolver = Resolver::new(host(), Path::new("/"));
    let there = resolver.program(&program, b"opt/it", &|_| false).unwrap();
    let here = resolver.program(&program, program.as_os_str().as_encoded_bytes(), &|_| false);
    assert_eq!(files(&there), files(&here.unwrap()));
    assert_eq!(there.items[0].dest, b"opt/it");
}

#[test]
fn ldconfig_reads_the_cache_that_is_written() {
    let entry = |name: &str, path: &str| Entry { name: name.into(), path: path.into() };
    let entries = vec![entry("libb.so.10", "/x/libb.so.10"), entry("libb.so.9", "/opt/libb.so.9")];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ldcache::write(host(), entries)).unwrap();
    let ldconfig =
        ["/usr/sbin/ldconfig", "/sbin/ldconfig"].into_iter().find(|p| Path::new(p).exists());
    let Some(ldconfig) = ldconfig else {
        eprintln!("no ldconfig on this host: nothing to compare with");
        return;
    };
    let output = Command::new(ldconfig).args(["-p", "-C"]).arg(file.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().skip(1).take(2).map(str::trim).collect();
    assert!(
        lines[0].starts_with("libb.so.10 (libc6") && lines[0].ends_with("=> /x/libb.so.10"),
        "{text}"
    );
    assert!(lines[1].ends_with("=> /opt/libb.so.9"), "{text}");
}
