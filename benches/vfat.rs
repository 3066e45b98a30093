//! Images of read-only directories, ours against `mkfs.vfat` and `mcopy -s`.
//!
//! `cargo bench --bench vfat [-- TREES [RUNS]]`; TREES is where the sample trees are or will be made
//! (`benches/make-trees.sh`), `target/bench-trees` by default, and RUNS is 5. Both sides are whole
//! processes that start with an empty output, take turns, and read from a warm page cache. The image
//! goes beside the trees; there have to be some 4 GiB of room. Needs dosfstools, mtools and a C
//! compiler.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use vmtest::vfat;

/// What the child is told by its first argument: makes the image and says how much memory it took.
const CHILD: &str = "--image";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [CHILD, dir, out] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return child(Path::new(dir), Path::new(out));
    }
    let trees = args.first().map_or_else(default_trees, PathBuf::from);
    let runs: usize = args.get(1).map_or(5, |n| n.parse().expect("RUNS is a number"));
    if !trees.join("tree-c").exists() {
        println!("making the sample trees in {} …", trees.display());
        run(Command::new("sh").arg("benches/make-trees.sh").arg(&trees));
    }
    fs::create_dir_all(&trees).expect("the directory can be made");

    println!("median (best) of {runs}, in turn");
    println!("tree  vmtest                mkfs.vfat + mcopy     ratio        memory of vmtest");
    for (tree, mib) in [("b", 128), ("c", 1100)] {
        let dir = trees.join(format!("tree-{tree}"));
        let out = trees.join(format!("{tree}.vfat"));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut memory = String::new();
        // The first turn warms the cache and does not count.
        for turn in 0..=runs {
            let took = timed(&out, || memory = run(this_program().arg(CHILD).arg(&dir).arg(&out)));
            ours.extend((turn > 0).then_some(took));
            let took = timed(&out, || mtools(&dir, &out, mib));
            theirs.extend((turn > 0).then_some(took));
        }
        let (ours, theirs) = (Times::new(ours), Times::new(theirs));
        println!(
            "{tree}     {:<20}  {:<20}  {:.2} ({:.2})  {}",
            ours.to_string(),
            theirs.to_string(),
            ours.median.as_secs_f64() / theirs.median.as_secs_f64(),
            ours.best.as_secs_f64() / theirs.best.as_secs_f64(),
            memory.trim(),
        );
        let _ = fs::remove_file(&out);
    }
}

fn default_trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-trees")
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().expect("the running program is known"))
}

fn child(dir: &Path, out: &Path) {
    let mut out = File::create_new(out).expect("the image can be created");
    vfat::write_image(dir, &mut out).expect("the tree can be stored");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{}", peak.unwrap_or("unknown"));
}

/// Follows links and keeps no order, as `vmtest` would without being asked.
fn mtools(dir: &Path, out: &Path, mib: u64) {
    let blocks = (mib << 10).to_string();
    run(Command::new("mkfs.vfat").args(["--invariant", "-C"]).arg(out).arg(blocks));
    let entries = fs::read_dir(dir).expect("the tree can be read").flatten();
    run(Command::new("mcopy")
        .env("MTOOLS_SKIP_CHECK", "1")
        .args(["-s", "-i"])
        .arg(out)
        .args(entries.map(|entry| entry.path()))
        .arg("::"));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|err| {
        panic!("cannot start {command:?}: {err}; hint: apt-get install dosfstools mtools")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The time of one turn. What the one before wrote goes to the disk first.
fn timed(out: &Path, work: impl FnOnce()) -> Duration {
    let _ = fs::remove_file(out);
    rustix::fs::sync();
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The best says what the work costs, the median what it cost on this machine with all that it does
/// besides.
struct Times {
    median: Duration,
    best: Duration,
}

impl Times {
    fn new(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times { median: times[times.len() / 2], best: times[0] }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "{:.1} ({:.1}) ms", ms(self.median), ms(self.best))
    }
}
