//! `vmtest initramfs` against the tools that others make images with.
//!
//! `cargo bench --bench initramfs [-- TREES [RUNS]]`; TREES is where the sample trees are or will be
//! made (`benches/make-trees.sh`), `target/bench-trees` by default, and RUNS is 7. Each row runs ours
//! and theirs in turn, whole processes, from a warm page cache; outputs are removed and the file
//! system is synced before each run. The ratio is that of the medians.
//!
//! Peers: cpio, libarchive-tools (bsdcpio), zstd, time, and Linux' `gen_init_cpio`, which is taken
//! from `$GEN_INIT_CPIO`, from PATH, or compiled from the package `linux-source`. A peer that is not
//! installed leaves its row out and says so.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One side of a comparison: a command, and where its standard output goes.
struct Side {
    name: String,
    command: Vec<String>,
    stdout: Option<PathBuf>,
    stdin: Option<PathBuf>,
    /// Removed before each run.
    output: Option<PathBuf>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-trees");
    let trees = args.first().map_or(default, PathBuf::from);
    let runs: usize = args.get(1).map_or(7, |n| n.parse().expect("RUNS is a number"));
    fs::create_dir_all(&trees).expect("the directory can be made");
    if !trees.join("tree-c").exists() {
        println!("making the sample trees in {} …", trees.display());
        let status = Command::new("sh").arg("benches/make-trees.sh").arg(&trees).status();
        assert!(status.expect("sh is there").success(), "benches/make-trees.sh failed");
    }
    let trees = fs::canonicalize(trees).expect("it was just made");
    let gen_init_cpio = gen_init_cpio(&trees);

    println!("\nmedians of {runs}, in turn, after one run that does not count\n");
    println!("| work | vmtest ms | peer | peer ms | ratio | bar | verdict |");
    println!("|---|---|---|---|---|---|---|");
    for (tree, bar) in [("a", 1.2), ("b", 1.0)] {
        let ours = build(&trees, tree, &["--no-cache"]);
        match &gen_init_cpio {
            Some(program) => {
                row(&format!("tree {tree}"), ours, listed(&trees, tree, program), bar, runs);
            }
            None => absent(&format!("tree {tree}"), "gen_init_cpio", "linux-source"),
        }
    }
    if let Some(side) = cpio(&trees) {
        row("tree b", build(&trees, "b", &["--no-cache"]), side, 0.5, runs);
    }
    row("tree c (1 GiB)", build(&trees, "c", &["--no-cache"]), cat(&trees), 1.3, runs);
    if installed("zstd") {
        let ours = build(&trees, "b", &["--no-cache", "--compress", "zstd:3"]);
        row("tree b, zstd -3", ours, zstd(&trees), 1.0, runs);
    } else {
        absent("tree b, zstd -3", "zstd", "zstd");
    }
    if installed("bsdcpio") {
        let (ours, theirs) = list(&trees);
        row("list tree b", ours, theirs, 1.0, runs);
    } else {
        absent("list tree b", "bsdcpio", "libarchive-tools");
    }
    cached(&trees, runs);
    memory(&trees);
}

fn installed(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status()
        .is_ok_and(|status| status.success())
}

fn absent(work: &str, program: &str, package: &str) {
    println!("| {work} | | {program} is not installed (package {package}) | | | | not measured |");
}

fn text(path: &Path) -> String {
    path.to_str().expect("the path of the trees is text").to_owned()
}

/// `vmtest initramfs build` of a tree.
fn build(trees: &Path, tree: &str, more: &[&str]) -> Side {
    let output = trees.join(format!("ours-{tree}"));
    let mut command = vec![env!("CARGO_BIN_EXE_vmtest").to_owned()];
    command.extend(["initramfs", "build", "--no-base", "-o"].map(str::to_owned));
    command.push(text(&output));
    command.push("--file".to_owned());
    command.push(format!("{}:/", text(&trees.join(format!("tree-{tree}")))));
    command.extend(more.iter().map(|&word| word.to_owned()));
    Side { name: "vmtest".into(), command, stdout: None, stdin: None, output: Some(output) }
}

/// `gen_init_cpio` with a list that is made beforehand.
fn listed(trees: &Path, tree: &str, program: &Path) -> Side {
    let list = trees.join(format!("list-{tree}"));
    let root = trees.join(format!("tree-{tree}"));
    let mut lines = Vec::new();
    for entry in walkdir::WalkDir::new(&root).min_depth(1).sort_by_file_name() {
        let entry = entry.expect("the tree can be read");
        let path = entry.path();
        let dest = path.strip_prefix(&root).expect("it is below").as_os_str().as_bytes();
        let (kind, rest) = match entry.file_type() {
            kind if kind.is_dir() => ("dir", " 755 0 0".to_owned()),
            kind if kind.is_symlink() => {
                let target = fs::read_link(path).expect("it is a link");
                ("slink", format!(" {} 777 0 0", text(&target)))
            }
            _ => ("file", format!(" {} 644 0 0", text(path))),
        };
        lines.extend_from_slice(kind.as_bytes());
        lines.extend_from_slice(b" /");
        lines.extend_from_slice(dest);
        lines.extend_from_slice(rest.as_bytes());
        lines.push(b'\n');
    }
    fs::write(&list, lines).expect("the list can be written");
    let output = trees.join(format!("theirs-{tree}"));
    Side {
        name: "gen_init_cpio".into(),
        command: vec![text(program), text(&list)],
        stdout: Some(output.clone()),
        stdin: None,
        output: Some(output),
    }
}

/// GNU cpio with a list that is made beforehand.
fn cpio(trees: &Path) -> Option<Side> {
    if !installed("cpio") {
        absent("tree b", "cpio", "cpio");
        return None;
    }
    let root = trees.join("tree-b");
    let list = trees.join("names-b");
    let mut names = Vec::new();
    for entry in walkdir::WalkDir::new(&root).min_depth(1).sort_by_file_name() {
        let entry = entry.expect("the tree can be read");
        let path = entry.path().strip_prefix(&root).expect("it is below");
        names.extend_from_slice(path.as_os_str().as_bytes());
        names.push(b'\n');
    }
    fs::write(&list, names).expect("the list can be written");
    let output = trees.join("theirs-b");
    let command = ["cpio", "-o", "-H", "newc", "--reproducible", "--quiet", "-D"];
    let mut command: Vec<String> = command.map(str::to_owned).to_vec();
    command.push(text(&root));
    Some(Side {
        name: "GNU cpio".into(),
        command,
        stdout: Some(output.clone()),
        stdin: Some(list),
        output: Some(output),
    })
}

fn cat(trees: &Path) -> Side {
    let mut files: Vec<String> = fs::read_dir(trees.join("tree-c"))
        .expect("the tree can be read")
        .map(|entry| text(&entry.expect("the tree can be read").path()))
        .collect();
    files.sort();
    files.insert(0, "cat".to_owned());
    let output = trees.join("theirs-c");
    Side {
        name: "cat".into(),
        command: files,
        stdout: Some(output.clone()),
        stdin: None,
        output: Some(output),
    }
}

fn zstd(trees: &Path) -> Side {
    let archive = trees.join("archive-b");
    run_once(&build_to(trees, "b", &archive));
    let output = trees.join("theirs-b.zst");
    let command = ["zstd", "-3", "-T0", "-q", "-f"].map(str::to_owned).into_iter();
    let command = command.chain([text(&archive), "-o".into(), text(&output)]).collect();
    Side {
        name: "zstd -3 -T0 alone".into(),
        command,
        stdout: None,
        stdin: None,
        output: Some(output),
    }
}

fn build_to(trees: &Path, tree: &str, output: &Path) -> Side {
    let mut side = build(trees, tree, &["--no-cache"]);
    let place = side.command.iter().position(|word| word == "-o").expect("it is there") + 1;
    side.command[place] = text(output);
    side
}

fn list(trees: &Path) -> (Side, Side) {
    let archive = trees.join("archive-b");
    run_once(&build_to(trees, "b", &archive));
    let null = Some(PathBuf::from("/dev/null"));
    let side = |name: &str, command: Vec<String>, stdin| Side {
        name: name.to_owned(),
        command,
        stdout: null.clone(),
        stdin,
        output: None,
    };
    let ours = ["initramfs", "ls"].map(str::to_owned).into_iter();
    let ours = [env!("CARGO_BIN_EXE_vmtest").to_owned()].into_iter().chain(ours);
    let ours = ours.chain([text(&archive)]).collect();
    (
        side("vmtest", ours, None),
        side("bsdcpio -t", vec!["bsdcpio".into(), "-t".into()], Some(archive)),
    )
}

/// A build whose image is in the cache, with an output that does not exist yet.
fn cached(trees: &Path, runs: usize) {
    let side = build(trees, "b", &[]);
    let cache = trees.join("cache");
    let _ = fs::remove_dir_all(&cache);
    let mut times = Vec::new();
    for turn in 0..=runs {
        if let Some(output) = side.output.as_ref().filter(|_| turn > 0) {
            let _ = fs::remove_file(output);
        }
        let took = timed(&side, Some(&cache));
        times.extend((turn > 1).then_some(took));
    }
    let ms = median(times);
    verdict("tree b, cached", ms, "", None, 15.0, ms);
}

/// Peak memory of builds without compression, as `time` tells it.
fn memory(trees: &Path) {
    if !installed("/usr/bin/time") {
        return absent("peak memory", "time", "time");
    }
    for tree in ["a", "b", "c"] {
        let side = build(trees, tree, &["--no-cache"]);
        let output = Command::new("/usr/bin/time")
            .args(["-f", "%M"])
            .args(&side.command)
            .output()
            .expect("time is installed");
        let report = String::from_utf8_lossy(&output.stderr);
        let kib: f64 =
            report.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(f64::NAN);
        let mib = kib / 1024.0;
        let good = if mib <= 16.0 { "met" } else { "MISSED" };
        println!("| peak memory, tree {tree} | {mib:.1} MiB | | | | 16 MiB | {good} |");
    }
}

fn row(work: &str, ours: Side, theirs: Side, bar: f64, runs: usize) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for turn in 0..=runs {
        let (a, b) = (timed(&ours, None), timed(&theirs, None));
        if turn > 0 {
            left.push(a);
            right.push(b);
        }
    }
    let (left, right) = (median(left), median(right));
    verdict(work, left, &theirs.name, Some(right), bar, left / right);
    for side in [ours, theirs] {
        side.output.map(fs::remove_file);
    }
}

fn verdict(work: &str, ours: f64, peer: &str, theirs: Option<f64>, bar: f64, value: f64) {
    let good = if value <= bar { "met" } else { "MISSED" };
    match theirs {
        Some(theirs) => {
            println!("| {work} | {ours:.1} | {peer} | {theirs:.1} | {value:.2} | {bar} | {good} |")
        }
        None => println!("| {work} | {ours:.1} | | | | {bar} ms | {good} |"),
    }
    let _ = std::io::stdout().flush();
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn run_once(side: &Side) {
    timed(side, None);
}

/// Runs one side and tells how long it took from start to exit.
fn timed(side: &Side, cache: Option<&Path>) -> Duration {
    if cache.is_none()
        && let Some(output) = &side.output
    {
        let _ = fs::remove_file(output);
        let dir = File::open(output.parent().expect("it is in a directory"));
        rustix::fs::syncfs(dir.expect("the directory can be read")).expect("sync");
    }
    let mut command = Command::new(&side.command[0]);
    command.args(&side.command[1..]).stderr(Stdio::null()).stdin(Stdio::null());
    if let Some(path) = &side.stdin {
        command.stdin(File::open(path).expect("the input is there"));
    }
    if let Some(path) = &side.stdout {
        command.stdout(File::create(path).expect("the output can be made"));
    }
    if let Some(cache) = cache {
        command.env("VMTEST_CACHE", cache);
    }
    let start = Instant::now();
    let status = command.status().unwrap_or_else(|err| panic!("{}: {err}", side.command[0]));
    let took = start.elapsed();
    assert!(status.success(), "{:?}: {status}", side.command);
    took
}

/// Linux' own tool, compiled where need be.
fn gen_init_cpio(trees: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("GEN_INIT_CPIO") {
        return Some(path.into());
    }
    if installed("gen_init_cpio") {
        return Some("gen_init_cpio".into());
    }
    let program = trees.join("gen_init_cpio");
    if program.exists() {
        return Some(program);
    }
    let mut sources: Vec<PathBuf> = fs::read_dir("/usr/src")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().as_bytes();
            name.starts_with(b"linux-source-") && name.ends_with(b".tar.xz")
        })
        .collect();
    sources.sort();
    let source = sources.pop()?;
    println!("compiling gen_init_cpio from {} …", source.display());
    let script = "tar -xJf \"$0\" -C \"$1\" --strip-components=2 --wildcards '*/usr/gen_init_cpio.c' \
                  && cc -O2 -o \"$1/gen_init_cpio\" \"$1/gen_init_cpio.c\"";
    let status = Command::new("sh").args(["-c", script]).arg(source).arg(trees).status().ok()?;
    status.success().then_some(program)
}
