//! `--coverage`: programs and kernels count in guests, and what they have counted comes home, also
//! from guests that crash.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::coverage::record::{Kind, Record};
use vmtest::options::Environment;

use crate::support::{Run, assets, vmtest};

mod gcov;

/// `small` is for some arguments, `negative` for others, `never` for none.
const RUST: &str = r#"
fn classify(n: i32) -> &'static str {
    if n < 0 {
        "negative"
    } else {
        "small"
    }
}
fn never() -> i32 {
    42
}
fn main() {
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "never" => println!("{}", never()),
            "sleep" => std::thread::sleep(std::time::Duration::from_secs(1000)),
            number => println!("{}", classify(number.parse().unwrap())),
        }
    }
}
"#;

/// Without headers, which are the host's. The fork is for gcc: where LLVM counts, both processes have
/// counted what was before it.
const C: &str = r#"int printf(const char *, ...);
int atoi(const char *), fork(void), wait(int *);
void exit(int);
static int sign(int n) {
    if (n < 0)
        return -1;
    return 1;
}
int main(int argc, char **argv) {
    int sum = 0;
    for (int i = 1; i < argc; i++)
        sum += sign(atoi(argv[i]));
#ifdef FORK
    if (fork() == 0)
        exit(sign(7) - 1);
    wait(0);
#endif
    printf("%d\n", sum);
    return 0;
}
"#;

/// A directory with sources and programs; `cov` in it is where coverage goes.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::Builder::new().prefix("coverage ").tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cov(&self) -> PathBuf {
        self.at("cov")
    }

    fn record(&self, run: &str) -> Record {
        Record::read(&self.cov().join(run)).unwrap()
    }

    /// A program that counts, of a source in this place.
    fn compile(&self, compiler: &str, source: &str, text: &str, args: &[&str]) -> PathBuf {
        fs::write(self.at(source), text).unwrap();
        let program = self.at(&format!("{source}-{}", args.len()));
        let mut command = Command::new(compiler);
        command.current_dir(self.0.path()).args(args).arg(source).arg("-o").arg(&program);
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{compiler} is needed: {error}; `setup/test-tools`"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    }

    /// `SF`, `FNDA` and `DA` lines of what these directories of runs hold.
    fn lcov(&self, dirs: &[PathBuf]) -> Vec<String> {
        let file = self.at("report.info");
        let done = vmtest(["coverage", "report", "--lcov"]).arg(&file).args(dirs).run();
        done.code(0);
        let text = fs::read_to_string(&file).unwrap();
        let kept = |line: &&str| ["SF:", "FNDA:", "DA:"].iter().any(|tag| line.starts_with(tag));
        text.lines().filter(kept).map(str::to_owned).collect()
    }
}

fn run(place: &Place, arch: Arch, name: &str) -> Run {
    assets(arch);
    // What was collected is in the record, which the tests look at.
    vmtest(["--arch", arch.name(), "--coverage-name", name, "--coverage"])
        .arg(place.cov())
        .aside("no coverage of the kernel: ")
        .aside("note: coverage: ")
}

/// As if a guest had done it: the same program, run here, leaves its counters in the same layout.
fn natively(place: &Place, program: &Path, args: &[&str]) -> PathBuf {
    let dir = place.at("native");
    let run = dir.join("here");
    for kind in ["llvm", "gcc", "go"] {
        fs::create_dir_all(run.join(kind)).unwrap();
    }
    let record = serde_json::json!({
        "schema": 1, "name": "here", "arch": "amd64", "verdict": "passed",
        "objects": [{"host": program}],
    });
    fs::write(run.join("coverage.json"), record.to_string()).unwrap();
    let status = Command::new(program)
        .args(args)
        .env("LLVM_PROFILE_FILE", run.join("llvm/%p-%m.profraw"))
        .env("GCOV_PREFIX", run.join("gcc"))
        .env("GOCOVERDIR", run.join("go"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    dir
}

fn kinds(record: &Record) -> Vec<Kind> {
    record.collected.iter().map(|collected| collected.kind).collect()
}

fn missing(record: &Record, kind: Kind) -> &str {
    let found = record.missing.iter().find(|missing| missing.kind == kind);
    &found.unwrap_or_else(|| panic!("nothing is said of {}: {record:?}", kind.name())).why
}

#[test]
fn lines_executed_in_the_guest_and_only_those_are_counted() {
    let place = Place::new();
    let rust = place.compile("rustc", "prog.rs", RUST, &["-Cinstrument-coverage", "-g"]);
    let done = run(&place, Arch::Amd64, "rust").arg("--").arg(&rust).args(["5", "-7"]).run();
    done.code(0);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "small\nnegative\n");
    let record = place.record("rust");
    assert_eq!(kinds(&record), [Kind::Llvm]);
    assert_eq!(record.objects[0].host, rust);
    // The distribution's kernel does not count, and that is said before it boots.
    assert!(done.stderr.contains("CONFIG_GCOV_KERNEL"), "{}", done.stderr);
    assert!(missing(&record, Kind::Kernel).contains("CONFIG_GCOV_KERNEL"));

    let guest = place.lcov(&[place.cov()]);
    assert_eq!(guest, place.lcov(&[natively(&place, &rust, &["5", "-7"])]));
    let count = |line: u32| {
        let start = format!("DA:{line},");
        let found = guest.iter().find_map(|text| text.strip_prefix(&start));
        found.unwrap_or_else(|| panic!("no line {line} in {guest:#?}")).to_owned()
    };
    assert_eq!((count(4).as_str(), count(6).as_str(), count(10).as_str()), ("1", "1", "0"));
}

/// What `cargo test` builds of a crate: its tests, dynamically linked.
#[test]
fn tests_of_a_rust_crate_count() {
    let place = Place::new();
    let text = format!(
        "{RUST}\n#[test]\nfn signs() {{\n    assert_eq!(classify(-1), \"negative\");\n}}\n"
    );
    let flags = ["--test", "-Cinstrument-coverage", "-g"];
    let tests = place.compile("rustc", "crate.rs", &text, &flags);
    run(&place, Arch::Amd64, "tests").arg("--").arg(&tests).run().code(0);
    let guest = place.lcov(&[place.cov()]);
    // `negative` was returned, `small` was not.
    for line in ["DA:4,1", "DA:6,0"] {
        assert!(guest.contains(&line.to_owned()), "{line}: {guest:#?}");
    }
    assert_eq!(guest, place.lcov(&[natively(&place, &tests, &[])]));
}

#[test]
fn every_process_of_a_c_program_counts() {
    let place = Place::new();
    let program = place.compile("gcc", "prog.c", C, &["--coverage", "-O0", "-DFORK"]);
    let done = run(&place, Arch::Amd64, "c").arg("--").arg(&program).args(["1", "-1", "3"]).run();
    done.code(0);
    assert_eq!(kinds(&place.record("c")), [Kind::Gcc]);
    let guest = place.lcov(&[place.cov()]);
    // Three of the parent's and one of the child's.
    assert!(guest.contains(&"FNDA:4,sign".to_owned()), "{guest:#?}");
    assert_eq!(guest, place.lcov(&[natively(&place, &program, &["1", "-1", "3"])]));
}

#[test]
fn a_program_of_a_foreign_architecture_counts() {
    let place = Place::new();
    let environment = Environment::read().unwrap();
    let manifest = Assets::location(&environment).unwrap();
    let libc = manifest.parent().unwrap().join("build/libc/riscv64");
    let target = "riscv64gc-unknown-linux-gnu";
    assert!(libc.is_dir(), "no `{}`: `setup/assets riscv64` makes it", libc.display());
    fs::write(place.at("prog.rs"), RUST).unwrap();
    let program = place.at("prog");
    let libdir = Command::new("rustc").args(["--print", "target-libdir"]).output().unwrap().stdout;
    let libdir = PathBuf::from(String::from_utf8(libdir).unwrap().trim());
    let mut native = OsString::from("-Lnative=");
    native.push(&libc);
    let mut linker = OsString::from("-Clinker=");
    linker.push(libc.join("ld"));
    let output = Command::new("rustc")
        .env("VMTEST_LLD", libdir.join("../bin/rust-lld"))
        .args(["--target", target, "-Cinstrument-coverage", "-Clinker-flavor=ld"])
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"])
        .args([&linker, &native])
        .arg(place.at("prog.rs"))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let done = run(&place, Arch::Riscv64, "rv").arg("--").arg(&program).args(["1", "2"]).run();
    done.code(0);
    let record = place.record("rv");
    assert_eq!((kinds(&record), record.arch.as_str()), (vec![Kind::Llvm], "riscv64"));
    let guest = place.lcov(&[place.cov()]);
    assert!(guest.contains(&"DA:6,2".to_owned()), "{guest:#?}");
    assert!(guest.contains(&"DA:4,0".to_owned()), "{guest:#?}");
}

/// A static program for riscv64, by clang and the C library in the cache: one that needs no headers.
fn clang_for_riscv64(place: &Place, source: &str, text: &str, flags: &[&str]) -> PathBuf {
    let environment = Environment::read().unwrap();
    let cache = Assets::location(&environment).unwrap().parent().unwrap().to_owned();
    let (libc, runtime) = (
        cache.join("build/libc/riscv64"),
        cache.join(
            "sysroot/riscv64/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.profile-riscv64.a",
        ),
    );
    for (file, maker) in
        [(&libc, "setup/assets riscv64"), (&runtime, "setup/assets riscv64 programs")]
    {
        assert!(file.exists(), "no `{}`: `{maker}` makes it", file.display());
    }
    fs::write(place.at(source), text).unwrap();
    let clang = which::which("clang-19").unwrap_or_else(|_| "clang".into());
    let call = |args: &[&OsStr]| {
        let mut command = Command::new(&clang);
        command.current_dir(place.0.path()).arg("--target=riscv64-linux-gnu").args(args);
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}; `setup/test-tools`", clang.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let object = format!("{source}.o");
    let compile = [flags, &["-c", source, "-o", &object]].concat();
    call(&compile.iter().map(OsStr::new).collect::<Vec<_>>());
    // Given the flag for counting, the linker would be sent to look for a runtime among this machine's.
    let program = place.at(&format!("{source}-riscv64"));
    let mut link = ["-fuse-ld=lld", "-static", "-nostdlib", "-o"].map(OsString::from).to_vec();
    let of_libc = |names: &[&str]| -> Vec<OsString> {
        names.iter().map(|name| libc.join(name).into_os_string()).collect()
    };
    link.push(program.clone().into());
    link.extend(of_libc(&["crt1.o", "crti.o", "crtbeginT.o"]));
    link.extend([object.into(), "-Wl,--start-group".into()]);
    if !flags.is_empty() {
        link.extend(["-u__llvm_profile_runtime".into(), runtime.into_os_string()]);
    }
    link.extend(of_libc(&["libc.a", "libgcc.a", "libgcc_eh.a"]));
    link.push("-Wl,--end-group".into());
    link.extend(of_libc(&["crtend.o", "crtn.o"]));
    call(&link.iter().map(OsString::as_os_str).collect::<Vec<_>>());
    program
}

#[test]
fn a_c_program_of_clang_for_riscv64_counts() {
    let place = Place::new();
    let flags = ["-fprofile-instr-generate", "-fcoverage-mapping"];
    let program = clang_for_riscv64(&place, "prog.c", C, &flags);
    let done = run(&place, Arch::Riscv64, "c").arg("--").arg(&program).args(["1", "-1", "3"]).run();
    done.code(0);
    assert_eq!(kinds(&place.record("c")), [Kind::Llvm], "{}", done.stderr);
    let guest = place.lcov(&[place.cov()]);
    for line in ["FNDA:3,sign", "DA:6,1", "DA:7,2"] {
        assert!(guest.contains(&line.to_owned()), "{line}: {guest:#?}");
    }
}

#[test]
fn what_was_counted_before_a_panic_is_at_home() {
    let place = Place::new();
    let program = place.compile("rustc", "prog.rs", RUST, &["-Cinstrument-coverage"]);
    let done = run(&place, Arch::Amd64, "panic")
        .arg(format!("--bin={}:/usr/bin/prog", program.display()))
        .args(["--", "sh", "-c", "prog 5; echo c > /proc/sysrq-trigger; sleep 100"])
        .run();
    done.code(70).says("coverage of programs is missing");
    let record = place.record("panic");
    assert_eq!((kinds(&record), record.verdict.as_str()), (vec![Kind::Llvm], "guest-panicked"));
    assert!(missing(&record, Kind::Llvm).contains("when they end"), "{record:?}");
    assert!(place.lcov(&[place.cov()]).contains(&"DA:6,1".to_owned()));
}

#[test]
fn a_timed_out_run_keeps_what_has_ended_and_says_what_has_not() {
    let place = Place::new();
    let program = place.compile("rustc", "prog.rs", RUST, &["-Cinstrument-coverage"]);
    let done = run(&place, Arch::Amd64, "late")
        .arg(format!("--bin={}:/usr/bin/prog", program.display()))
        .args(["--timeout", "30s", "--", "sh", "-c", "prog 5; prog sleep"])
        .run();
    done.code(124);
    let record = place.record("late");
    assert_eq!(kinds(&record), [Kind::Llvm]);
    assert!(missing(&record, Kind::Llvm).contains("when they end"), "{record:?}");
    done.says("coverage of programs is missing");
}

#[test]
fn a_place_that_cannot_be_is_said_before_anything_starts() {
    let place = Place::new();
    fs::create_dir_all(place.cov().join("taken")).unwrap();
    let refused = |name: &str, code: i32, wanted: &str| {
        let done = run(&place, Arch::Amd64, name).args(["--", "true"]).run();
        done.code(code).says(wanted).says("hint: ");
        assert_eq!(fs::read_dir(place.cov()).unwrap().count(), 1);
    };
    refused("taken", 69, "there is coverage of a run `taken`");
    refused("a/b", 2, "cannot be called `a/b`");
    refused("..", 2, "cannot be called `..`");
    let file = place.at("file");
    fs::write(&file, "").unwrap();
    let done = vmtest(["--coverage"]).arg(&file).args(["--", "true"]).run();
    done.code(69).says("cannot make");
    // Nothing is made where nothing is started.
    let done = vmtest(["--dry-run", "--coverage"]).arg(place.cov()).args(["--", "true"]).run();
    done.code(0);
    assert_eq!(fs::read_dir(place.cov()).unwrap().count(), 1);
}

#[test]
fn a_name_goes_with_the_directory_of_the_environment_and_is_not_repeated() {
    assets(Arch::Amd64);
    let place = Place::new();
    let named = || {
        vmtest(["--arch=amd64", "--coverage-name", "mine", "--", "sh", "-c", "exit 3"])
            .aside("no coverage of the kernel: ")
            .aside("note: coverage: ")
    };
    named().run().code(2).says("`--coverage-name` names a run in").says("VMTEST_COVERAGE");
    let done = named().env("VMTEST_COVERAGE", place.cov()).run();
    done.code(3).says("repeat it: ");
    assert_eq!(place.record("mine").name, "mine");
    let repeat = done.stderr.lines().find(|line| line.contains("repeat it")).unwrap();
    assert!(!repeat.contains("mine") && repeat.contains("exit 3"), "{repeat}");
    let bad = vmtest(["--arch=amd64", "--coverage-name=a/b", "--coverage"]).arg(place.cov()).run();
    bad.code(2).says("a/b");
}

#[test]
fn a_record_that_cannot_be_written_does_not_take_the_verdict_along() {
    let place = Place::new();
    for (status, code) in [(3, 3), (0, 69)] {
        let (name, artifacts) = (format!("run{status}"), place.at(&format!("artifacts{status}")));
        let running = run(&place, Arch::Amd64, &name)
            .arg("--artifacts")
            .arg(&artifacts)
            .args(["--", "sh", "-c", &format!("echo out; exit {status}")])
            .start();
        // Its place is taken as soon as there is one.
        let dir = place.cov().join(&name);
        let started = std::time::Instant::now();
        while !dir.is_dir() {
            assert!(started.elapsed() < crate::support::DEADLINE, "no {}", dir.display());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        fs::create_dir_all(dir.join("coverage.json/taken")).unwrap();
        let done = running.wait();
        done.code(code).stdout("out\n").says("cannot write").says("coverage.json");
        done.says(if status == 0 { "passed" } else { "failed with status 3" });
        let text = fs::read_to_string(artifacts.join("run.json")).unwrap();
        let run: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(run["status"], status, "{text}");
    }
}

#[test]
fn run_json_says_what_was_collected() {
    let place = Place::new();
    let artifacts = place.at("artifacts");
    let done = run(&place, Arch::Amd64, "json")
        .arg("--artifacts")
        .arg(&artifacts)
        .args(["--", "sh", "-c", "echo data > $GOCOVERDIR/covmeta.x; id -u"])
        .run();
    done.code(0);
    let text = fs::read_to_string(artifacts.join("run.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let coverage = &json["coverage"];
    assert_eq!(coverage["name"], "json");
    assert_eq!(coverage["collected"][0]["kind"], "go");
    assert_eq!(coverage["collected"][0]["bytes"], 5);
    assert_eq!(coverage["missing"][0]["kind"], "kernel");
}

/// Go that builds programs which count, run in `dir`.
fn go(dir: &Path, args: &[&str]) {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/setup/go"))
        .current_dir(dir)
        .env("CGO_ENABLED", "0")
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A package with a test of its positive half.
fn go_package(place: &Place) -> PathBuf {
    let dir = place.at("pkg");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("go.mod"), "module example.com/pkg\n\ngo 1.20\n").unwrap();
    fs::write(
        dir.join("sign.go"),
        "package pkg\n\nfunc Sign(n int) int {\n\tif n < 0 {\n\t\treturn -1\n\t}\n\treturn 1\n}\n",
    )
    .unwrap();
    fs::write(
        dir.join("sign_test.go"),
        "package pkg\n\nimport \"testing\"\n\nfunc TestSign(t *testing.T) {\n\tif Sign(5) != 1 {\n\t\t\
         t.Fatal()\n\t}\n}\n",
    )
    .unwrap();
    go(&dir, &["test", "-c", "-cover", "-o", "pkg.test"]);
    dir
}

#[test]
fn go_tests_give_their_profile() {
    let place = Place::new();
    let dir = go_package(&place);
    let profile = "-test.coverprofile=/.vmtest/coverage/go/pkg.coverprofile";
    run(&place, Arch::Amd64, "go").arg("--").arg(dir.join("pkg.test")).arg(profile).run().code(0);
    let text = fs::read_to_string(place.cov().join("go/go/pkg.coverprofile")).unwrap();
    // The line of `return -1` did not run, that of `return 1` did.
    assert!(text.contains("sign.go:4.11,6.3 1 0"), "{text}");
    assert!(text.contains("sign.go:7.2,7.10 1 1"), "{text}");
    let lcov = place.lcov(&[place.cov(), PathBuf::from("--source-root"), dir]);
    assert!(
        lcov.contains(&"DA:5,0".to_owned()) && lcov.contains(&"DA:7,1".to_owned()),
        "{lcov:#?}"
    );
}

/// `testing::go::run` reads the variable of its own process, so this test is one of its own as well.
#[test]
fn go_tests_of_the_library_write_the_profile_that_the_environment_names() {
    if let Some(program) = std::env::var_os("TEST_OF_GO") {
        let limit = std::time::Duration::from_secs(60);
        let report = vmtest::testing::go::run(Arch::Amd64, (), [program], limit).unwrap();
        assert_eq!(report.to_string(), "pkg TestSign: passed\nthe run: passed");
        assert!(report.finished.record.outcome.notices.is_empty(), "{report:?}");
        return;
    }
    assets(Arch::Amd64);
    let place = Place::new();
    let profile = place.at("all.txt");
    let name = std::thread::current().name().unwrap().to_owned();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name])
        .env("TEST_OF_GO", go_package(&place).join("pkg.test"))
        .env("VMTEST_GO_PROFILE", &profile)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let text = fs::read_to_string(profile).unwrap();
    assert!(text.starts_with("mode: set\n") && text.contains("sign.go:7.2,7.10 1 1"), "{text}");
}

#[test]
fn every_block_of_a_go_program_counts_as_here() {
    let place = Place::new();
    let dir = place.at("prog");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("go.mod"), "module example.com/prog\n\ngo 1.20\n").unwrap();
    fs::write(dir.join("main.go"), GO).unwrap();
    go(&dir, &["build", "-cover", "-covermode=atomic", "-o", "prog", "."]);
    let program = dir.join("prog");
    let done = run(&place, Arch::Amd64, "go").arg("--").arg(&program).args(["5", "-7", "6"]).run();
    done.code(0);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "1\n-1\n1\n");
    let record = place.record("go");
    assert_eq!((kinds(&record), &record.objects[0].host), (vec![Kind::Go], &program));

    let report = |from: &Path| {
        let info = place.at("go.info");
        vmtest(["coverage", "report", "--strict", "--go"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/setup/go"))
            .arg("--lcov")
            .args([&info, from])
            .run()
            .code(0);
        let text = fs::read_to_string(info).unwrap();
        let kept = |line: &&str| line.starts_with("SF:") || line.starts_with("DA:");
        text.lines().filter(kept).map(str::to_owned).collect::<Vec<_>>()
    };
    let guest = report(&place.cov());
    assert_eq!(guest[0], format!("SF:{}", dir.join("main.go").display()));
    for line in ["DA:10,3", "DA:11,1", "DA:13,2", "DA:17,0"] {
        assert!(guest.contains(&line.to_owned()), "{line}: {guest:#?}");
    }
    assert_eq!(guest, report(&natively(&place, &program, &["5", "-7", "6"])));
}

/// Line 17 is for none.
const GO: &str = "package main

import (
	\"fmt\"
	\"os\"
	\"strconv\"
)

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

func never() int {
	return 42
}

func main() {
	for _, word := range os.Args[1:] {
		if word == \"never\" {
			never()
		}
		n, _ := strconv.Atoi(word)
		fmt.Println(sign(n))
	}
}
";
