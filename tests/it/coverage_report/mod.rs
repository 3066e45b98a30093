//! `vmtest coverage`: real profiles of real compilers, bad ones, and what is made of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, Done, vmtest};

mod counts;
mod go;

/// Ten calls of `sq`, none of `never`; line 9 depends on the argument.
const PROGRAM: &str = "\
#include <stdio.h>
#include <stdlib.h>
static int sq(int x) { return x > 3 ? x * x : 0; }
int never(int a) { if (a) return 1; return 2; }
int main(int argc, char **argv) {
  int s = 0;
  for (int i = 0; i < 10; i++)
    s += sq(i);
  if (argc > 1 && atoi(argv[1]) > 2)
    printf(\"big\\n\");
  return s == 0;
}
";

/// A place with sources, programs and a suite of runs.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("a place, with=odd ").tempdir().unwrap();
        fs::create_dir(dir.path().join("suite")).unwrap();
        fs::create_dir(dir.path().join("build")).unwrap();
        Place { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The record of a run, with more of it in `more`.
    fn record(&self, run: &str, name: &str, arch: &str, more: &Value) {
        let mut record = json!({"schema": 1, "name": name, "arch": arch, "verdict": "passed"});
        let more = more.as_object().unwrap().clone();
        record.as_object_mut().unwrap().extend(more);
        self.write(&format!("suite/{run}/coverage.json"), record.to_string());
    }

    /// A program with gcov's counters, run with GCOV_PREFIX as in a guest. Returns its counters.
    fn gcov_program(&self, compiler: &str, run: &str, name: &str) -> PathBuf {
        let source = format!("{name}.c");
        self.write(&format!("build/{source}"), PROGRAM);
        let build = self.at("build");
        tool(compiler).args(["--coverage", "-c", &source]).current_dir(&build).well();
        tool(compiler)
            .args(["--coverage", &format!("{name}.o"), "-o", name])
            .current_dir(&build)
            .well();
        let tree = self.at(&format!("suite/{run}/gcc"));
        Command::new(build.join(name)).arg("3").env("GCOV_PREFIX", &tree).well();
        let inside = build.strip_prefix("/").unwrap();
        tree.join(inside).join(format!("{name}.gcda"))
    }

    fn report(&self, args: &[&str]) -> Done {
        vmtest(["coverage", "report"])
            .arg(self.at("suite"))
            .args(args)
            .run()
            .aside("sources are not on this host")
    }

    fn lcov(&self, args: &[&str]) -> (Done, String) {
        let out = self.at("out.info");
        let _ = fs::remove_file(&out);
        let done = self.report(&[&["--quiet", "--lcov", out.to_str().unwrap()], args].concat());
        (done, fs::read_to_string(out).unwrap_or_default())
    }
}

/// Calls that have to go well.
trait Well {
    fn well(&mut self) -> String;
}

impl Well for Command {
    #[track_caller]
    fn well(&mut self) -> String {
        let output = self.output().unwrap_or_else(|error| {
            panic!("cannot start {self:?}: {error}; run `make test-tools` first")
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}: {stderr}; run `make test-tools` first");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn tool(name: &str) -> Command {
    Command::new(name)
}

/// The lines of an lcov file that begin so, of the record of the file that ends so.
fn fields(lcov: &str, source: &str, key: &str) -> Vec<String> {
    lcov.split("end_of_record")
        .filter(|record| {
            record.lines().any(|line| line.starts_with("SF:") && line.ends_with(source))
        })
        .flat_map(|record| record.lines().filter(|line| line.starts_with(key)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn counts_of_gcc_are_gcovs() {
    let place = Place::new();
    let counters = place.gcov_program("gcc", "one", "my prog");
    place.record("one", "one: a-b", "amd64", &json!({}));
    let (done, lcov) = place.lcov(&["--strict"]);
    done.code(0).stdout("");
    // What gcov itself prints: `        10:    3:text`, `#####` for 0.
    let notes = place.at("build/my prog.gcda");
    fs::copy(&counters, &notes).unwrap();
    let text = tool("gcov").arg("--stdout").arg(&notes).current_dir(place.at("build")).well();
    let expected: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let (count, rest) = line.split_once(':')?;
            let number = rest.split_once(':')?.0.trim();
            let count = match count.trim() {
                "#####" => "0",
                count => count.parse::<u64>().ok().map(|_| count)?,
            };
            Some(format!("DA:{number},{count}"))
        })
        .collect();
    assert!(expected.len() > 8, "{text}");
    assert_eq!(fields(&lcov, "/build/my prog.c", "DA:"), expected);
    assert_eq!(fields(&lcov, "my prog.c", "TN:"), ["TN:one__a_b"]);
    assert_eq!(fields(&lcov, "my prog.c", "FNDA:"), ["FNDA:10,sq", "FNDA:0,never", "FNDA:1,main"]);
    assert!(lcov.contains(&format!("SF:{}", place.at("build/my prog.c").display())));
}

#[test]
fn counts_of_clang_gcov_are_read() {
    let place = Place::new();
    place.gcov_program("clang", "one", "prog");
    place.record("one", "one", "amd64", &json!({}));
    let (done, lcov) = place.lcov(&["--strict"]);
    done.code(0);
    let lines = fields(&lcov, "/build/prog.c", "DA:");
    for line in ["DA:3,10", "DA:4,0", "DA:8,10"] {
        assert!(lines.iter().any(|own| own == line), "{line} in {lines:?}");
    }
}

/// A program with LLVM's coverage; its profiles are in the run's directory.
fn llvm_program(place: &Place, run: &str, name: &str, times: usize) -> PathBuf {
    place.write(&format!("build/{name}.c"), PROGRAM);
    let build = place.at("build");
    tool("clang")
        .args(["-fprofile-instr-generate", "-fcoverage-mapping", &format!("{name}.c"), "-o", name])
        .current_dir(&build)
        .well();
    let profiles = place.at(&format!("suite/{run}/llvm"));
    for _ in 0..times {
        Command::new(build.join(name))
            .env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"))
            .well();
    }
    build.join(name)
}

#[test]
fn counts_of_llvm_are_llvm_covs_and_programs_are_told_apart() {
    let place = Place::new();
    let one = llvm_program(&place, "run", "one", 2);
    let before = profiles(&place);
    // The same functions in another program.
    let two = llvm_program(&place, "run", "two", 1);
    place.record(
        "run",
        "run",
        "arm64",
        &json!({"objects": [{"host": one}, {"host": two}, {"host": "/bin/sh"}]}),
    );
    let (done, lcov) = place.lcov(&["--strict"]);
    done.code(0);
    let lines = fields(&lcov, "/build/one.c", "DA:");
    assert!(lines.iter().any(|line| line == "DA:3,20"), "{lcov}");
    let lines = fields(&lcov, "/build/two.c", "DA:");
    // What llvm-cov itself says of that one.
    let merged = place.at("merged");
    let newest = profiles(&place).into_iter().find(|path| !before.contains(path)).unwrap();
    tool("llvm-profdata").args(["merge", "-o"]).arg(&merged).arg(newest).well();
    let expected = tool("llvm-cov")
        .args(["export", "--format=lcov", "--instr-profile"])
        .args([&merged, &two])
        .well();
    let expected = fields(&expected, "/build/two.c", "DA:");
    assert!(!expected.is_empty());
    assert_eq!(lines, expected);
}

fn profiles(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.at("suite/run/llvm")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_program_that_was_built_anew_is_noticed() {
    let place = Place::new();
    let program = llvm_program(&place, "run", "prog", 1);
    place.record("run", "run", "amd64", &json!({"objects": [{"host": program}]}));
    place.lcov(&["--strict"]).0.code(0);
    place.write("build/prog.c", PROGRAM.replace("> 3", "> 4"));
    let flags = ["-fprofile-instr-generate", "-fcoverage-mapping", "prog.c", "-o", "prog"];
    tool("clang").args(flags).current_dir(place.at("build")).well();
    place
        .lcov(&[])
        .0
        .code(69)
        .says("of another build")
        .says("built anew after the run")
        .says("nothing could be read");
}

#[test]
fn a_rust_program_is_read_with_the_tools_of_its_toolchain() {
    let place = Place::new();
    let source = "fn twice<T: Clone>(t: &T) -> (T, T) {\n    (t.clone(), t.clone())\n}\n\
                  fn never() {\n    println!(\"no\");\n}\nfn main() {\n    for n in 0..3 {\n        \
                  twice(&n);\n    }\n    twice(&\"x\");\n    if std::env::args().count() > 9 {\n        \
                  never();\n    }\n}\n";
    place.write("build/r.rs", source);
    let build = place.at("build");
    tool("rustc")
        .args(["--edition=2024", "-Cinstrument-coverage", "r.rs"])
        .current_dir(&build)
        .well();
    let profiles = place.at("suite/run/llvm");
    Command::new(build.join("r")).env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw")).well();
    place.record("run", "run", "amd64", &json!({"objects": [{"host": build.join("r")}]}));
    let (done, lcov) = place.lcov(&["--strict"]);
    assert!(
        done.code == 0,
        "{}\nrun `make test-tools`, which adds llvm-tools to the toolchain",
        done.stderr
    );
    let expected = [
        "DA:1,4", "DA:2,4", "DA:3,4", "DA:4,0", "DA:5,0", "DA:6,0", "DA:7,1", "DA:8,4", "DA:9,3",
        "DA:10,3", "DA:11,1", "DA:12,1", "DA:13,0", "DA:14,1", "DA:15,1",
    ];
    let lines = fields(&lcov, "/build/r.rs", "DA:");
    // Heads of loops and ends of blocks differ between versions of the compiler.
    let kept = |line: &&str| !["DA:8,", "DA:10,", "DA:14,"].iter().any(|end| line.starts_with(end));
    let own: Vec<&str> = lines.iter().map(String::as_str).filter(kept).collect();
    assert_eq!(own, expected.iter().copied().filter(kept).collect::<Vec<_>>());
    assert_eq!(
        fields(&lcov, "r.rs", "FNDA:"),
        ["FNDA:4,r::twice", "FNDA:0,r::never", "FNDA:1,r::main"]
    );
}

#[test]
fn bad_profiles_are_named_and_the_good_part_is_kept() {
    let place = Place::new();
    let program = llvm_program(&place, "run", "prog", 1);
    place.record(
        "run",
        "run",
        "amd64",
        &json!({"objects": [{"host": program}, {"host": place.at("gone")}]}),
    );
    let good = fs::read_dir(place.at("suite/run/llvm")).unwrap().flatten().next().unwrap().path();
    let bytes = fs::read(&good).unwrap();
    place.write("suite/run/llvm/empty.profraw", "");
    place.write("suite/run/llvm/foreign.profraw", "this is not a profile at all");
    place.write("suite/run/llvm/cut.profraw", &bytes[..100]);
    let mut other = bytes.clone();
    other[8] = 77;
    place.write("suite/run/llvm/version.profraw", &other);
    let (done, lcov) = place.lcov(&[]);
    // What LLVM says of the mismatch goes on in further lines.
    let done = done.aside("PLEASE update this tool").aside("no profile can be merged");
    done.code(0)
        .says("empty.profraw: it is empty or cut short")
        .says("foreign.profraw: it is no raw profile")
        .says("cut.profraw: it is of none of the run's programs, of another build, or cut short")
        .says("version.profraw: no LLVM here reads this profile")
        .says("raw format 77")
        .says("gone: cannot be read")
        .says("rustup component add llvm-tools");
    assert!(fields(&lcov, "prog.c", "DA:").contains(&"DA:3,10".to_owned()), "{lcov}");
    place.lcov(&["--strict"]).0.seen().code(65);
}

#[test]
fn bad_counters_are_named_and_the_good_part_is_kept() {
    let place = Place::new();
    for name in ["good", "cut", "old", "foreign", "nonotes", "empty"] {
        place.gcov_program("gcc", "run", name);
    }
    place.record("run", "run", "amd64", &json!({}));
    let inside = place.at("build").strip_prefix("/").unwrap().to_owned();
    let at = |name: &str| place.at("suite/run/gcc").join(&inside).join(format!("{name}.gcda"));
    let cut = fs::read(at("cut")).unwrap();
    fs::write(at("cut"), &cut[..cut.len() - 30]).unwrap();
    let mut old = fs::read(at("old")).unwrap();
    old[8] ^= 0xff;
    fs::write(at("old"), old).unwrap();
    fs::write(at("foreign"), "what is this").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::remove_file(place.at("build/nonotes.gcno")).unwrap();
    symlink("/dev/zero", at("link")).unwrap();
    let (done, lcov) = place.lcov(&[]);
    // gcov may say so, too.
    let done = done.aside("profile mismatch");
    done.code(0)
        .says("cut.gcda: it is cut short")
        .says("old.gcda: it is of another build")
        .says("foreign.gcda: it is no .gcda file")
        .says("empty.gcda: it is empty")
        .says("nonotes.gcda: cannot read its notes")
        .says("link.gcda: it is no file");
    assert!(fields(&lcov, "good.c", "DA:").contains(&"DA:3,10".to_owned()), "{lcov}");
    assert!(!lcov.contains("old.c"), "{lcov}");
    place.lcov(&["--strict"]).0.seen().code(65);
}

#[test]
fn a_missing_gcov_is_named_with_its_package() {
    let place = Place::new();
    place.gcov_program("gcc", "run", "prog");
    place.record("run", "run", "amd64", &json!({}));
    let empty = place.at("empty");
    fs::create_dir(&empty).unwrap();
    let done = vmtest(["coverage", "report"])
        .arg(place.at("suite"))
        .env("PATH", &empty)
        .run()
        .aside("sources are not on this host");
    done.code(69).says("no tool reads what gcc").says("install gcc-").says("nothing could be read");
}

/// A kernel's archive with the counters of a program, and members that nobody should write.
fn kernel(place: &Place, compiler: &str, hostile: bool) {
    let counters = place.gcov_program(compiler, "made", "open");
    let bytes = fs::read(&counters).unwrap();
    fs::create_dir_all(place.at("notes/fs")).unwrap();
    fs::rename(place.at("build/open.gcno"), place.at("notes/fs/open.gcno")).unwrap();
    fs::remove_dir_all(place.at("suite/made")).unwrap();
    fs::create_dir_all(place.at("suite/run")).unwrap();
    // The source has moved since the build.
    fs::create_dir_all(place.at("kernel source")).unwrap();
    fs::rename(place.at("build/open.c"), place.at("kernel source/open.c")).unwrap();
    let file = fs::File::create(place.at("suite/run/kernel_coverage.tar")).unwrap();
    let mut tar = tar::Builder::new(file);
    let build = place.at("build");
    let member = format!("sys/kernel/debug/gcov{}/fs/open.gcda", build.display());
    add(&mut tar, &member, tar::EntryType::Regular, &bytes, None);
    let notes = member.replace(".gcda", ".gcno");
    add(&mut tar, &notes, tar::EntryType::Symlink, &[], Some("/build/fs/open.gcno"));
    add(&mut tar, "sys/kernel/debug/gcov/reset", tar::EntryType::Regular, &[], None);
    if hostile {
        add(&mut tar, "../../outside/x.gcda", tar::EntryType::Regular, &bytes, None);
        add(&mut tar, "/absolute/y.gcda", tar::EntryType::Regular, &bytes, None);
        add(&mut tar, "a/link.gcda", tar::EntryType::Symlink, &[], Some("/etc/passwd"));
        add(&mut tar, "a/hard.gcda", tar::EntryType::Link, &[], Some("/etc/passwd"));
        add(&mut tar, "a/device.gcda", tar::EntryType::Char, &[], None);
    }
    tar.finish().unwrap();
    let gcov = json!({"notes": place.at("notes"), "build_dir": build, "source": place.at("kernel source"), "format": "gcc"});
    place.record("run", "boot", "riscv64", &json!({"kernel": {"gcov": gcov}}));
}

/// Names are written as they are: the library would refuse some of them.
fn add(
    tar: &mut tar::Builder<fs::File>,
    name: &str,
    kind: tar::EntryType,
    data: &[u8],
    link: Option<&str>,
) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len().min(100)]
        .copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    if let Some(link) = link {
        header.set_link_name_literal(link).unwrap();
    }
    header.set_cksum();
    if name.len() > 100 {
        tar.append_data(&mut header, name, data).unwrap();
    } else {
        tar.append(&header, data).unwrap();
    }
}

#[test]
fn a_kernel_that_was_built_elsewhere_has_its_sources_here() {
    built_elsewhere("gcc");
}

#[test]
fn a_kernel_that_clang_built_elsewhere_has_its_sources_here() {
    built_elsewhere("clang");
}

fn built_elsewhere(compiler: &str) {
    let place = Place::new();
    kernel(&place, compiler, false);
    let (done, lcov) = place.lcov(&["--strict"]);
    done.code(0);
    let source = place.at("kernel source/open.c");
    assert!(lcov.contains(&format!("SF:{}\n", source.display())), "{lcov}");
    assert!(fields(&lcov, "open.c", "DA:").contains(&"DA:3,10".to_owned()), "{lcov}");
    // Without its notes there is one message, not one for each object.
    fs::rename(place.at("notes"), place.at("moved")).unwrap();
    let (done, _) = place.lcov(&[]);
    done.code(69).says("the kernel's notes").says("nothing could be read");
}

#[test]
fn hostile_archives_write_nothing_and_the_good_part_is_kept() {
    let place = Place::new();
    kernel(&place, "gcc", true);
    let (done, lcov) = place.lcov(&[]);
    done.code(0)
        .says("outside/x.gcda: its name has `..` in it")
        .says("absolute/y.gcda: cannot read its notes /absolute/y.gcno")
        .says("a/link.gcda: links are not followed")
        .says("a/hard.gcda: links are not followed")
        .says("a/device.gcda: it is no file");
    assert!(fields(&lcov, "open.c", "DA:").contains(&"DA:3,10".to_owned()), "{lcov}");
    assert!(!place.at("outside").exists());
    // An archive that ends too early; what is whole is used.
    let archive = place.at("suite/run/kernel_coverage.tar");
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, &bytes[..bytes.len() - 3 * 512 - 1024 - 100]).unwrap();
    let (done, lcov) = place.lcov(&[]);
    done.seen().code(0).says("cannot read the archive");
    assert!(!lcov.is_empty());
    fs::write(&archive, "no archive").unwrap();
    place.lcov(&[]).0.code(69).says("kernel_coverage.tar").says("nothing could be read");
}

#[test]
fn a_tool_that_dies_without_a_word_is_named() {
    let place = Place::new();
    place.gcov_program("gcc", "run", "prog");
    place.record("run", "run", "amd64", &json!({}));
    for (name, script, says) in [
        ("false", "exit 1", "prog.gcda: false said nothing and ended with exit status: 1"),
        ("killed", "kill -9 $$", "prog.gcda: killed said nothing and ended with signal: 9"),
    ] {
        let path = place.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // Relative to where vmtest is called, not to where it calls the tool.
        let done = vmtest(["coverage", "report", "suite", "--strict", "--gcov"])
            .arg(format!("bin/{name}"))
            .cwd(place.dir.path())
            .run()
            .aside("sources are not on this host");
        done.code(69).says(says).says("nothing could be read");
    }
}

/// Two runs as lcov files of others.
fn two_tests(place: &Place) -> [PathBuf; 2] {
    place.write("src/fs/a.c", "one\ntwo\nthree\n");
    let source = place.at("src/fs/a.c");
    let text = |test: &str, counts: [u32; 2]| {
        format!(
            "TN:{test}\nSF:{}\nDA:1,{}\nDA:2,{}\nend_of_record\n",
            source.display(),
            counts[0],
            counts[1]
        )
    };
    [place.write("one.info", text("one", [1, 0])), place.write("two.info", text("two", [2, 0]))]
}

#[test]
fn outputs_are_accepted_by_the_tools_that_read_them() {
    let place = Place::new();
    place.gcov_program("gcc", "one", "prog");
    place.record("one", "one", "amd64", &json!({}));
    let [info, _] = two_tests(&place);
    let (lcov, xml, json_file) = (place.at("o.info"), place.at("o.xml"), place.at("o.json"));
    let done = vmtest(["coverage", "report"])
        .args([place.at("suite"), info])
        .args(["--files", "--lcov"])
        .arg(&lcov)
        .arg("--cobertura")
        .arg(&xml)
        .arg("--json")
        .arg(&json_file)
        .env("SOURCE_DATE_EPOCH", "7")
        .run()
        .aside("sources are not on this host");
    done.code(0);
    let table = String::from_utf8(done.stdout.clone()).unwrap();
    assert!(table.contains("lines amd64") && table.contains("lines unknown"), "{table}");
    tool("genhtml")
        .args(["--branch-coverage", "--show-details", "--quiet", "--output-directory"])
        .arg(place.at("genhtml"))
        .arg(&lcov)
        .well();
    tool("xmllint").args(["--noout", "--nonet"]).arg(&xml).well();
    assert!(fs::read_to_string(&xml).unwrap().contains("timestamp=\"7000\""));
    // JSON is an input, too, and nothing is lost on the way.
    let again = place.at("again.info");
    vmtest(["coverage", "merge", "-o"])
        .arg(&again)
        .arg(&json_file)
        .run()
        .aside("sources are not on this host")
        .code(0)
        .stdout("");
    assert_eq!(fs::read_to_string(&again).unwrap(), fs::read_to_string(&lcov).unwrap());
    let value: Value = serde_json::from_slice(&fs::read(&json_file).unwrap()).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["summary_by_arch"]["unknown"]["lines"], json!({"found": 2, "hit": 1}));
}

#[test]
fn tests_keep_their_names_and_runs_of_one_name_are_added() {
    let place = Place::new();
    let [one, two] = two_tests(&place);
    let merge = |inputs: &[&PathBuf]| {
        vmtest(["coverage", "merge", "--format", "lcov", "-o", "-"])
            .args(inputs)
            .run()
            .aside("sources are not on this host")
    };
    let text = |done: &Done| String::from_utf8(done.stdout.clone()).unwrap();
    let done = merge(&[&one, &two]);
    assert_eq!(fields(&text(done.code(0)), "a.c", "TN:"), ["TN:one", "TN:two"]);
    let done = merge(&[&one, &one]);
    assert_eq!(
        fields(&text(done.code(0).says("was given twice")), "a.c", "DA:"),
        ["DA:1,1", "DA:2,0"]
    );

    for (run, arch) in [("x/run", "arm"), ("y/run", "arm"), ("z/run", "amd64")] {
        place
            .write(&format!("suite/{run}/go/a.coverprofile"), "mode: count\n/m/a.go:1.1,1.9 1 5\n");
        place.record(run, "same", arch, &json!({}));
    }
    let (done, lcov) = place.lcov(&["--strict"]);
    done.code(0).says("are both runs `same` (arm): their counts are added");
    assert_eq!(fields(&lcov, "a.go", "TN:"), ["TN:same_arm", "TN:same_amd64"]);
    assert_eq!(fields(&lcov, "a.go", "DA:"), ["DA:1,10", "DA:1,5"]);
}

#[test]
fn files_are_chosen_and_gates_are_kept() {
    let place = Place::new();
    let [one, _] = two_tests(&place);
    let report = |args: &[&str]| {
        vmtest(["coverage", "report"])
            .arg(&one)
            .args(args)
            .run()
            .aside("sources are not on this host")
    };
    report(&["--include", "fs/*"]).code(0);
    report(&["--include", "mm/*"]).code(69).says("no source is left");
    report(&["--exclude", "*.c"]).code(69).says("no source is left");
    report(&["--fail-under", "50"]).code(0);
    report(&["--fail-under", "50.1"])
        .code(1)
        .says("1 of 2 lines are covered, 50.00%, fewer than 50.1%");
    report(&["--fail-under", "101"]).code(2).says("a percentage is a number from 0 to 100");
    let root = format!("{}=/elsewhere", place.at("src").display());
    let done = report(&["--files", "--source-root", &root]);
    // The first `=` divides, and the name of this place has one.
    done.code(0);
    let moved = place.at("moved");
    fs::rename(place.at("src"), &moved).unwrap();
    report(&[]).code(0).says("1 of 1 sources are not on this host, such as");
    report(&["--source-root", "=x"]).code(2).says("has an empty part");
    // A pipe says no format: what most tools read.
    let piped = vmtest(["coverage", "merge", "-o", "-"])
        .arg(&one)
        .run()
        .aside("sources are not on this host");
    assert!(piped.code(0).stdout.starts_with(b"TN:"), "{:?}", piped.stdout);
    vmtest(["coverage", "merge", "-o", "x.what"]).arg(&one).run().code(2).says("format of x.what");
}

#[test]
fn stdout_belongs_to_one_output() {
    let place = Place::new();
    let inputs = two_tests(&place);
    let report = |args: &[&str]| {
        vmtest(["coverage", "report"])
            .args(&inputs)
            .args(args)
            .run()
            .aside("sources are not on this host")
    };
    let done = report(&["--json", "-"]);
    done.code(0).says("50.0% 1/2").says("directory      lines").says("in ");
    let parsed: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(parsed["tests"].as_array().map(Vec::len), Some(2), "{parsed}");
    for args in [["--lcov", "-", "--json", "-"], ["--cobertura", "x", "--lcov", "x"]] {
        report(&args).code(2).says("both write to");
    }
    // Fewer in the third digit, and said in a way that shows it.
    let all = "TN:\nSF:x.c\nDA:1,1\nDA:2,1\nDA:3,0\nend_of_record\n";
    let file = place.write("third.info", all);
    let done = vmtest(["coverage", "report", "--fail-under=66.67"])
        .arg(&file)
        .run()
        .aside("sources are not on this host");
    done.code(1).says("2 of 3 lines are covered");
    let file = place.write("none.info", "TN:\nSF:x.c\nFN:1,f\nFNDA:1,f\nend_of_record\n");
    vmtest(["coverage", "report", "--fail-under=0"])
        .arg(&file)
        .run()
        .aside("sources are not on this host")
        .code(1)
        .says("no line was");
}

#[test]
fn pages_and_directories_of_the_same_name_are_kept_apart() {
    let place = Place::new();
    let names = [
        "index.html/a.c",
        "style.css/a.c",
        ".vmtest-coverage/a.c",
        "x.c.src.html/a.c",
        "x.c",
        "/x.c",
        "/y/x.c",
        "y/x.c",
    ];
    let text: String =
        names.iter().map(|name| format!("TN:\nSF:{name}\nDA:1,1\nend_of_record\n")).collect();
    let file = place.write("odd.info", text);
    // A link stays one: what it points to is replaced.
    fs::create_dir(place.at("report")).unwrap();
    symlink("report", place.at("link")).unwrap();
    for _ in 0..2 {
        let done = vmtest(["coverage", "report", "-q", "--html"])
            .args([&place.at("link"), &file])
            .run()
            .aside("sources are not on this host");
        done.code(0);
    }
    assert!(place.at("link").is_symlink());
    let pages = walk(&place.at("report"));
    let sources =
        pages.iter().filter(|path| path.is_file() && path.to_string_lossy().ends_with(".src.html"));
    assert_eq!(sources.count(), names.len(), "{pages:#?}");
}

#[test]
fn an_interrupted_report_leaves_nothing_behind() {
    let place = Place::new();
    place.gcov_program("gcc", "run", "prog");
    place.record("run", "run", "amd64", &json!({}));
    let slow = place.write("slow", "#!/bin/sh\nexec sleep 60\n");
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let html = place.at("html");
    let running = vmtest(["coverage", "report"])
        .arg(place.at("suite"))
        .arg("--gcov")
        .arg(&slow)
        .arg("--html")
        .arg(&html)
        .start();
    let deadline = Instant::now() + DEADLINE;
    while running.survivor_pids().is_empty() {
        assert!(Instant::now() < deadline, "gcov was not started");
        std::thread::sleep(Duration::from_millis(20));
    }
    rustix::process::kill_process(running.pid(), rustix::process::Signal::INT).unwrap();
    // `wait` looks for temporary files and processes that are left.
    let done = running.wait();
    done.code(130).stdout("").says("interrupted by SIGINT");
    assert!(!html.exists());
}

#[test]
fn nothing_to_report_is_an_error() {
    let place = Place::new();
    place.report(&[]).code(69).says("there is no coverage in");
    vmtest(["coverage", "report", "/no/such/dir"]).run().code(69).says("/no/such/dir");
    place.record("run", "run", "arm", &json!({"missing": [{"kind": "llvm", "why": "it hung"}]}));
    place.report(&[]).code(69).says("there is no coverage");
    place.write("suite/run/coverage.json", "{");
    place.report(&[]).code(69).says("is no record of coverage").says("nothing could be read");
    let empty = place.write("x.info", "");
    vmtest(["coverage", "report"])
        .arg(empty)
        .run()
        .code(69)
        .says("there is no coverage in what was");
}

#[test]
fn an_output_that_cannot_be_written_is_named_and_the_old_one_stays() {
    let place = Place::new();
    let [one, _] = two_tests(&place);
    let report = |args: &[&str]| {
        vmtest(["coverage", "report"])
            .arg(&one)
            .args(args)
            .run()
            .aside("sources are not on this host")
    };
    let absent = place.at("absent/x.info");
    report(&["--lcov", absent.to_str().unwrap()]).code(69).says("absent/x.info");
    report(&["--lcov", "/dev/full"]).code(69).says("/dev/full");
    let occupied = place.at("src");
    report(&["--html", occupied.to_str().unwrap()]).code(69).says("is no report of vmtest's");
    assert!(place.at("src/fs/a.c").is_file());
    // Root may write anywhere; a file in the way stops it, too.
    let below = one.join("report");
    report(&["--html", below.to_str().unwrap()]).code(69).says("cannot write the report");
    let html = place.at("html");
    report(&["--html", html.to_str().unwrap()]).code(0).says("index.html");
    let pages = walk(&html);
    assert_eq!(fs::metadata(&html).unwrap().permissions().mode() & 0o777, 0o755);
    report(&["--html", html.to_str().unwrap()]).code(0);
    assert_eq!(walk(&html), pages);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap().path().to_owned())
        .collect();
    found.sort();
    found
}
