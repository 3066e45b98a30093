//! A report of a kernel's counters: time and peak memory, for an archive of so many objects.
//!
//! `cargo bench --bench coverage [-- OBJECTS [RUNS]]`; OBJECTS is 1500 and RUNS is 3 if not given. With
//! `-- DIR [RUNS]` it reports a directory that `vmtest run --coverage` wrote. The sample is made with
//! gcc and kept below `target/bench-coverage`: sources of the size of a kernel's that share headers, in
//! copies of a tree. gcov's own time for the same files is measured beside ours: it is the floor.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// So many sources are compiled; the rest are copies of their counters.
const SOURCES: usize = 60;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let given = args.first().map(String::as_str);
    let runs: usize = args.get(1).map_or(3, |n| n.parse().expect("RUNS is a number"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let suite = match given.map(|text| (text, text.parse::<usize>())) {
        Some((dir, Err(_))) => PathBuf::from(dir),
        objects => sample(objects.map_or(1500, |(_, n)| n.expect("a number"))),
    };
    if let Some(floor) = floor(&suite) {
        println!("gcov alone, one process at a time: {:.2} s", floor.as_secs_f64());
    }
    println!("median of {runs}     peak of vmtest   what");
    let html = out.path().join("html");
    let cases: [(&str, Vec<&Path>); 3] = [
        ("table", vec![]),
        ("table, lcov", vec![Path::new("--lcov"), Path::new("/dev/null")]),
        ("table, HTML", vec![Path::new("--html"), &html]),
    ];
    for (what, more) in cases {
        let mut times = Vec::new();
        let mut peak = 0;
        for _ in 0..runs {
            let start = Instant::now();
            peak = peak.max(report(&suite, &more));
            times.push(start.elapsed());
        }
        times.sort();
        let median = times[times.len() / 2].as_secs_f64();
        println!("{median:8.2} s      {:8.1} MiB     {what}", peak as f64 / 1024.0);
    }
}

/// Reports, and returns the largest resident size in KiB of vmtest alone, without its tools.
fn report(suite: &Path, more: &[&Path]) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmtest"));
    command.args(["coverage", "report"]).arg(suite).args(more).stdout(Stdio::null());
    let mut child = command.spawn().expect("vmtest starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // Until it is waited for, its number is its own; its peak only grows.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            assert!(status.success(), "the report failed: {status}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What gcov needs for all objects of the sample.
fn floor(suite: &Path) -> Option<Duration> {
    let objects: Vec<PathBuf> =
        fs::read_dir(suite.join("../objects")).ok()?.flatten().map(|e| e.path()).collect();
    let mut names: Vec<PathBuf> =
        objects.into_iter().filter(|path| path.extension().is_some_and(|e| e == "gcda")).collect();
    names.sort();
    let copies = fs::read_dir(suite.join("../notes")).ok()?.count();
    let start = Instant::now();
    for _ in 0..copies {
        for batch in names.chunks(24) {
            let mut gcov = Command::new("gcov");
            gcov.args(["--json-format", "--stdout", "--branch-probabilities"]).args(batch);
            assert!(gcov.stdout(Stdio::null()).status().is_ok_and(|status| status.success()));
        }
    }
    Some(start.elapsed())
}

/// Makes the sample, or takes the one that is there.
fn sample(objects: usize) -> PathBuf {
    let dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/bench-coverage/{objects}"));
    let suite = dir.join("suite");
    if suite.is_dir() {
        return suite;
    }
    println!("making {objects} objects in {} …", dir.display());
    let (source, built, notes) = (dir.join("source"), dir.join("objects"), dir.join("notes"));
    for dir in [&source, &built, &notes] {
        fs::create_dir_all(dir).expect("a directory");
    }
    write_sources(&source);
    run(Command::new("sh").current_dir(&source).arg("-c").arg(
        "set -e; for f in *.c; do gcc --coverage -O1 -c $f -o ../objects/${f%.c}.o; done; \
         gcc --coverage ../objects/*.o -o ../objects/prog",
    ));
    run(Command::new(built.join("prog")).arg0("prog"));
    let run_dir = dir.join("made/run");
    fs::create_dir_all(&run_dir).expect("a directory");
    let mut tar =
        tar::Builder::new(File::create(run_dir.join("kernel_coverage.tar")).expect("a file"));
    for object in 0..objects {
        let (copy, name) = (object / SOURCES, format!("s{}", object % SOURCES));
        let place = notes.join(format!("c{copy}"));
        fs::create_dir_all(&place).expect("a directory");
        fs::copy(built.join(format!("{name}.gcno")), place.join(format!("{name}.gcno")))
            .expect("notes");
        let member = format!("sys/kernel/debug/gcov/build/c{copy}/{name}.gcda");
        tar.append_path_with_name(built.join(format!("{name}.gcda")), member).expect("a member");
    }
    tar.finish().expect("the archive is written");
    let gcov = serde_json::json!({"notes": notes, "build_dir": "/build", "source": source, "format": "gcc"});
    let record = serde_json::json!({
        "schema": 1, "name": "bench", "arch": "amd64", "verdict": "passed",
        "kernel": {"gcov": gcov},
    });
    fs::write(run_dir.join("coverage.json"), record.to_string()).expect("the record");
    fs::rename(dir.join("made"), &suite).expect("the sample is complete");
    suite
}

/// Sources of some 600 lines of code each, and headers that all of them include.
fn write_sources(dir: &Path) {
    let function = |name: &str, linkage: &str| {
        let mut text = format!("{linkage} int {name}(int a, int b)\n{{\n\tint r = a;\n");
        for step in 0..12 {
            let _ = write!(
                text,
                "\tif ((a ^ {step}) > b && r != {step})\n\t\tr += a * {step};\n\telse\n\t\tr -= b;\n"
            );
        }
        text + "\treturn r;\n}\n"
    };
    for header in 0..8 {
        let functions = (0..3).map(|n| function(&format!("h{header}_{n}"), "static inline"));
        fs::write(dir.join(format!("h{header}.h")), functions.collect::<String>())
            .expect("a header");
    }
    let mut main = "int main(void)\n{\n\tint r = 0;\n".to_owned();
    let mut declared = String::new();
    for source in 0..SOURCES {
        let mut text: String = (0..8).map(|n| format!("#include \"h{n}.h\"\n")).collect();
        for n in 0..12 {
            text += &function(&format!("f{source}_{n}"), if n == 0 { "" } else { "static" });
        }
        let _ = write!(text, "int run{source}(int x)\n{{\n\tint r = h{}_1(x, 3);\n", source % 8);
        for n in 0..12 {
            let _ = writeln!(text, "\tr += x > {} ? f{source}_{n}(x, {n}) : 0;", n * 2);
        }
        text += "\treturn r;\n}\n";
        let _ = writeln!(declared, "int run{source}(int x);");
        let _ = writeln!(main, "\tr += run{source}({});", source % 24);
        fs::write(dir.join(format!("s{source}.c")), text).expect("a source");
    }
    fs::write(dir.join("main.c"), declared + &main + "\treturn r == 42;\n}\n").expect("a source");
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|err| panic!("cannot start {command:?}: {err}"));
    assert!(status.code().is_some(), "{command:?}: {status}");
}
