//! docs/testing.md says what is true: its blocks are run as they stand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use vmtest::arch::Arch;
use vmtest::runner::variables::{NAMES, PREFIXES, SECRETS};

use super::{fixture, is_of_cargo, tree};
use crate::support::assets;

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    std::fs::read_to_string(path).unwrap()
}

/// The nth block of a section.
fn block(section: &str, nth: usize) -> String {
    let text = text();
    let found = text.split(&format!("\n### {section}\n")).nth(1);
    let found = found.unwrap_or_else(|| panic!("docs/testing.md has no section `{section}`"));
    let found = found.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let block = found.split("```sh\n").nth(1 + nth).and_then(|rest| rest.split("```").next());
    let block = block.unwrap_or_else(|| panic!("section `{section}` has no block {nth}"));
    block.trim_end().to_owned()
}

/// What a script did.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    #[track_caller]
    fn has(&self, texts: &[&str]) -> &Said {
        for text in texts {
            assert!(self.text.contains(text), "`{text}` is missing in:\n{}", self.text);
        }
        self
    }

    #[track_caller]
    fn code(&self, code: i32) -> &Said {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

/// Runs a script in a directory, as a user does who has vmtest in the path.
fn run(cwd: &Path, script: &str, more_path: &[PathBuf]) -> Said {
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vmtest"), bin.path().join("vmtest")).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let dirs = [bin.path().to_owned()].into_iter().chain(more_path.iter().cloned());
    let path: OsString = std::env::join_paths(dirs.chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new("bash");
    command.arg("-euc").arg(format!("exec 2>&1\n{script}")).current_dir(cwd).env("PATH", path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_cargo(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    let output = command.env_remove("VMTEST_ARCH").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Said { code: output.status.code(), text }
}

fn needs(program: &str, hint: &str) {
    assert!(which::which(program).is_ok(), "no `{program}` here; hint: {hint}");
}

fn needs_riscv64() {
    assets(Arch::Riscv64);
    needs("riscv64-linux-gnu-gcc", "apt-get install gcc-riscv64-linux-gnu libc6-dev-riscv64-cross");
}

const TARGET: &str = "riscv64gc-unknown-linux-gnu";

fn needs_rust_for_riscv64() {
    needs_riscv64();
    let rustc =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let dir = PathBuf::from(String::from_utf8(rustc.unwrap().stdout).unwrap().trim());
    assert!(
        dir.is_dir(),
        "Rust has no standard library for {TARGET}; hint: rustup target add {TARGET}"
    );
}

#[test]
fn cargo_test_on_riscv64() {
    needs_rust_for_riscv64();
    let dir = tree(&fixture::FILES);
    let script = block("Rust: cargo test", 0);
    run(dir.path(), &script, &[]).code(0).has(&[
        "test unit ... ok",
        "test same_paths ... ok",
        "test starts_the_program ... ok",
        "test comes_home ... ok",
        "Doc-tests fixture",
        "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
    ]);
    let homes = ["target/tmp", "target/riscv64gc-unknown-linux-gnu/tmp"];
    let home = homes.map(|tmp| dir.path().join(tmp).join("home-riscv64"));
    assert!(
        home.iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| text == "riscv64"))
    );
    assert_eq!(std::fs::read_to_string(dir.path().join("data.txt")).unwrap(), "data");
    // What fails says why, and fails.
    run(dir.path(), &format!("{script} -- --ignored fails"), &[])
        .code(101)
        .has(&["on purpose", "test fails ... FAILED"]);
}

#[test]
fn cargo_test_on_amd64() {
    assets(Arch::Amd64);
    let dir = tree(&fixture::FILES);
    // A target directory outside of the workspace.
    let target = tempfile::tempdir().unwrap();
    let elsewhere = format!("export CARGO_TARGET_DIR={}\n", target.path().display());
    let script = elsewhere + &block("Rust: cargo test", 1);
    run(dir.path(), &script, &[])
        .code(0)
        .has(&["test starts_the_program ... ok", "Doc-tests fixture"]);
    assert!(target.path().join("tmp/home-x86_64").exists());
    run(dir.path(), &format!("{script} --test outer -- --ignored aborts"), &[])
        .code(101)
        .has(&["signal: 6, SIGABRT"]);
}

#[test]
fn cargo_nextest() {
    assets(Arch::Amd64);
    needs("cargo-nextest", "cargo install cargo-nextest --locked");
    // For that one alone: the others may have to boot.
    let limit = "[[profile.default.overrides]]\nfilter = \"test(sleeps)\"\n\
        slow-timeout = { period = \"8s\", terminate-after = 1 }\n";
    let dir = tree(&[&fixture::FILES[..], &[(".config/nextest.toml", limit)]].concat());
    let script = block("Rust: cargo nextest", 0);
    run(dir.path(), &script, &[]).code(0).has(&["4 tests run: 4 passed", "4 skipped"]);
    let failed = format!("{script} --run-ignored only --no-fail-fast --test-threads 1");
    let said = run(dir.path(), &failed, &[]);
    said.code(100).has(&[
        "on purpose",
        "SIGABRT",
        "TIMEOUT",
        "the guest panicked: ",
        "4 tests run: 0 passed, 3 failed, 1 timed out",
    ]);
    assert!(!said.text.contains("LEAK"), "{}", said.text);
}

#[test]
fn go() {
    assets(Arch::Riscv64);
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = Command::new(repo.join("setup/go")).args(["env", "GOROOT"]).output().unwrap();
    let root = PathBuf::from(String::from_utf8(root.stdout).unwrap().trim());
    let dir = tree(&[
        ("go.mod", "module example.com/fixture\n\ngo 1.20\n"),
        ("data.txt", "data"),
        ("pkg/pkg.go", "package pkg\n\nfunc Two() int { return 2 }\n"),
        (
            "pkg/pkg_test.go",
            "package pkg\n\nimport (\"os\"; \"runtime\"; \"testing\")\n
            func TestGuest(t *testing.T) {
                data, err := os.ReadFile(\"../data.txt\")
                if err != nil || string(data) != \"data\" { t.Fatal(err, data) }
                if os.Getenv(\"VMTEST_IN_GUEST\") != \"1\" || runtime.GOARCH != \"riscv64\" { t.Fatal(\"where am I\") }
                if Two() != 2 { t.Fatal(Two()) }
                if os.Getenv(\"TESTFAIL\") != \"\" { t.Fatal(\"on purpose\") }
            }\n",
        ),
    ]);
    let path = [root.join("bin")];
    let script = format!("export GOFLAGS=-count=1 GOTOOLCHAIN=local\n{}", block("Go", 0));
    run(dir.path(), &script, &path)
        .code(0)
        .has(&["ok  \texample.com/fixture/pkg", "coverage: 100.0%"]);
    let profile = std::fs::read_to_string(dir.path().join("cover.out")).unwrap();
    assert!(profile.contains("fixture/pkg/pkg.go:3.16,3.28 1 1"), "{profile}");
    run(dir.path(), &format!("export TESTFAIL=1\n{script}"), &path)
        .code(1)
        .has(&["on purpose", "FAIL\texample.com/fixture/pkg"]);
}

const C_PROGRAM: &str = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>
int main(int argc, char **argv) {
    char text[8] = \"\";
    FILE *file = fopen(argv[1], \"r\");
    if (!file || !fgets(text, sizeof text, file) || strcmp(text, \"data\")) return 1;
    if (!getenv(\"VMTEST_IN_GUEST\")) return 2;
#ifndef __riscv
    return 3;
#endif
    puts(\"in a guest\");
    return argc > 2 ? atoi(argv[2]) : 0;
}\n";

#[test]
fn cmake() {
    needs_riscv64();
    needs("cmake", "apt-get install cmake");
    let dir = tree(&[
        ("t.c", C_PROGRAM),
        ("data.txt", "data"),
        (
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.18)\nproject(fixture C)\nenable_testing()
            add_executable(t t.c)
            add_custom_command(OUTPUT made COMMAND t ${CMAKE_SOURCE_DIR}/data.txt DEPENDS t)
            add_custom_target(all_made ALL DEPENDS made)
            add_test(NAME passes COMMAND t ${CMAKE_SOURCE_DIR}/data.txt)
            add_test(NAME fails COMMAND t ${CMAKE_SOURCE_DIR}/data.txt 7)
            set_tests_properties(fails PROPERTIES WILL_FAIL TRUE)\n",
        ),
    ]);
    let said = run(dir.path(), &block("C: CMake", 0), &[]);
    said.code(0).has(&["in a guest", "100% tests passed", "out of 2"]);
}

#[test]
fn meson() {
    needs_riscv64();
    needs("meson", "apt-get install meson ninja-build");
    let dir = tree(&[
        ("t.c", C_PROGRAM),
        ("data.txt", "data"),
        (
            "meson.build",
            "project('fixture', 'c')\nt = executable('t', 't.c')\ndata = meson.current_source_dir() / 'data.txt'
test('passes', t, args: [data])\ntest('skips', t, args: [data, '77'])
test('fails', t, args: [data, '7'], should_fail: true)\n",
        ),
    ]);
    let said = run(dir.path(), &block("C: Meson", 0), &[]);
    said.code(0).has(&["passes", "SKIP", "EXPECTEDFAIL"]);
}

#[test]
fn make() {
    needs_riscv64();
    let dir = tree(&[
        ("t.c", C_PROGRAM),
        ("data.txt", "data"),
        ("Makefile", "check: t\n\t$(LOG_COMPILER) ./t data.txt\n"),
    ]);
    run(dir.path(), &block("C: make", 0), &[]).code(0).has(&["in a guest"]);
}

#[test]
fn shell() {
    assets(Arch::Riscv64);
    let dir = tree(&[]);
    run(dir.path(), &block("Shell", 0), &[]).code(0);
    let failing = block("Shell", 0).replace("= riscv64\n", "= amd64 || exit 3\n");
    run(dir.path(), &failing, &[]).code(3);
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

/// The README's three lines are those of docs/testing.md.
#[test]
fn the_readme_says_the_same() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for line in block("Rust: cargo test", 0).lines() {
        let line = line.trim_start_matches("export ");
        assert!(readme.contains(line), "README.md does not have `{line}`");
    }
}
