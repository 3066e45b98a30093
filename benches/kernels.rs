//! How long a guest takes to boot: our kernels against the distribution's.
//!
//! Runs in turn of `vmtest --kernel @default` and `--kernel @distribution`, with `true` as the command.
//! "boot" is from QEMU's start to the agent's hello, with what firmware, QEMU and the unpacking of the
//! image take; "kernel" is from the kernel's first clock reading to the start of init, in the guest's
//! time. Medians. Our kernels have to be in the manifest: `make kernels`.
//!
//!     cargo bench --bench kernels [-- ARCH... [--runs=N]]

use std::path::Path;
use std::process::{Command, Stdio};

use vmtest::arch::Arch;
use vmtest::assets::{Assets, KernelName};
use vmtest::options::Environment;

const KERNELS: [KernelName; 2] = [KernelName::Default, KernelName::Distribution];

fn main() {
    let mut runs = 5;
    let mut arches = Vec::new();
    for arg in std::env::args().skip(1) {
        if let Some(number) = arg.strip_prefix("--runs=") {
            runs = number.parse().expect("--runs takes a number");
        } else if !arg.starts_with('-') {
            arches.push(arg.parse().expect("an architecture"));
        }
    }
    let environment = Environment::read().expect("a usable environment");
    let assets = Assets::load(&Assets::location(&environment)).expect("assets: run `make assets`");
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
    println!(
        "| guest | boot, ours | boot, distribution's | times faster | kernel, ours | kernel, distribution's |"
    );
    println!("|---|---|---|---|---|---|");
    for arch in arches {
        let mut boots = [Vec::new(), Vec::new()];
        let mut kernels = [Vec::new(), Vec::new()];
        for run in 0..=runs {
            for (index, name) in KERNELS.into_iter().enumerate() {
                let (boot, kernel) = measure(arch, name);
                // The first of each fills the page cache.
                if run > 0 {
                    boots[index].push(boot);
                    kernels[index].push(kernel);
                }
            }
        }
        let [ours, theirs] = boots.map(median);
        let [our_kernel, their_kernel] = kernels.map(median);
        println!(
            "| {arch} | {ours:.2} s | {theirs:.2} s | {:.1} | {our_kernel:.2} s | {their_kernel:.2} s |",
            theirs / ours
        );
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Seconds to the agent's hello, and from the kernel's start to init's.
fn measure(arch: Arch, kernel: KernelName) -> (f64, f64) {
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
    (boot, kernel)
}

fn read(dir: &Path) -> serde_json::Value {
    let text = std::fs::read(dir.join("run.json")).expect("a report");
    serde_json::from_slice(&text).expect("JSON")
}
