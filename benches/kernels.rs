//! How long a guest takes to boot: our kernels against the distribution's.
//!
//! Runs in turn of `vmtest --kernel @default` and `--kernel @distribution`, with `true` as the command.
//! "boot" is from QEMU's start to the agent's hello, with what firmware, QEMU and the unpacking of the
//! image take; "kernel" is from the kernel's first clock reading to the start of init, in the guest's
//! time; "processor" is what vmtest and QEMU took of the host's processors for the whole run, which
//! does not depend on what else the host does. Medians. Our kernels have to be in the manifest:
//! `make kernels`.
//!
//!     cargo bench --bench kernels [-- ARCH... [--runs=N]]

mod arguments;

use std::path::Path;
use std::process::{Command, Stdio};

use vmtest::arch::Arch;
use vmtest::assets::{Assets, KernelName};
use vmtest::options::Environment;

const KERNELS: [KernelName; 2] = [KernelName::Default, KernelName::Distribution];

fn main() {
    let (mut arches, runs) = arguments::arches_and_runs(5);
    let environment = Environment::read().expect("a usable environment");
    let assets = Assets::find(&environment).expect("assets: run `make assets`");
    let both = |arch: Arch| assets.guest(arch).distribution_kernel.is_some();
    if arches.is_empty() {
        arches = Arch::ALL.into_iter().filter(|arch| both(*arch)).collect();
    }
    if arches.is_empty() || !arches.iter().all(|arch| both(*arch)) {
        println!(
            "nothing to compare: `make kernels` builds our kernels (VMTEST_ASSETS names the manifest)"
        );
        return;
    }
    println!("| guest | kernel | boot | kernel's part | processor |");
    println!("|---|---|---|---|---|");
    for arch in arches {
        let mut runs_of = [Vec::new(), Vec::new()];
        for run in 0..=runs {
            for (index, name) in KERNELS.into_iter().enumerate() {
                let times = measure(arch, name);
                // The first of each fills the page cache.
                if run > 0 {
                    runs_of[index].push(times);
                }
            }
        }
        let [ours, theirs] = runs_of.map(medians);
        for (name, [boot, kernel, processor]) in [("ours", ours), ("distribution's", theirs)] {
            println!("| {arch} | {name} | {boot:.2} s | {kernel:.2} s | {processor:.2} s |");
        }
        let [boot, kernel, processor] = [0, 1, 2].map(|column| theirs[column] / ours[column]);
        println!("| {arch} | times faster | {boot:.1} | {kernel:.1} | {processor:.1} |");
    }
}

fn medians(runs: Vec<[f64; 3]>) -> [f64; 3] {
    [0, 1, 2].map(|column| {
        let mut seconds: Vec<f64> = runs.iter().map(|run| run[column]).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    })
}

/// Seconds that our children, and theirs, took of the processors (`man 5 proc_pid_stat`, fields 16 and
/// 17, in 100ths of a second).
fn children_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(13) + ticks(14)) / 100.0
}

/// Seconds to the agent's hello, from the kernel's start to init's, and of the processors.
fn measure(arch: Arch, kernel: KernelName) -> [f64; 3] {
    let before = children_secs();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let status = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["--arch", arch.name(), "--kernel", &format!("@{}", kernel.as_str())])
        .arg(format!("--artifacts={}", dir.path().display()))
        .args(["--", "true"])
        .env_remove("VMTEST_KERNEL")
        .stderr(Stdio::null())
        .status()
        .expect("vmtest starts");
    assert!(status.success(), "vmtest failed: {arch} {}", kernel.as_str());
    let report = read(dir.path());
    let boot = report["phases"]["boot_secs"].as_f64().expect("a boot");
    let kernel = report["guest"]["init_secs"].as_f64().expect("a hello");
    [boot, kernel, children_secs() - before]
}

fn read(dir: &Path) -> serde_json::Value {
    let text = std::fs::read(dir.join("run.json")).expect("a report");
    serde_json::from_slice(&text).expect("JSON")
}
