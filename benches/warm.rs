//! Warm start: what a run costs that goes on from a saved guest, against one that boots, in turn on one machine.
//!
//! `cargo bench --features cli --bench warm [-- ARCH…] [--runs=N] [--vng=PROGRAM]` prints medians: whole processes of the
//! program, from its start to its exit. Saved guests go into a directory of their own. VMTEST_KERNEL names another kernel.
//!
//! With `--vng` virtme-ng runs `uname -r` in the same kernel with the same QEMU, in turn with ours. It wants the kernel's modules
//! in `/lib/modules`, `modprobe` and a static busybox.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a run took.
#[derive(Clone, Copy)]
struct Took {
    wall_secs: f64,
    /// Of the program and of QEMU.
    processor_secs: f64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let runs =
        words.iter().find_map(|word| word.strip_prefix("--runs=")?.parse().ok()).unwrap_or(11);
    let mut arches: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    if arches.is_empty() {
        arches = vec!["amd64", "i386", "arm64", "arm", "riscv64"];
    }
    let vng = words.iter().find_map(|word| word.strip_prefix("--vng="));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let large = dir.path().join("large");
    fs::write(&large, vec![b'x'; 20 << 20]).expect("a file of 20 MiB");
    println!(
        "{:8} {:>8} {:>8} {:>8} {:>7} {:>10} {:>10} {:>7} {:>9}",
        "arch",
        "cold s",
        "saved s",
        "warm s",
        "ratio",
        "cold cpu s",
        "warm cpu s",
        "ratio",
        "+20 MiB s"
    );
    for arch in arches {
        let cache = dir.path().join(arch);
        // The probe of KVM and the page cache are warm from here on.
        run(&cache, arch, &["--warm=off"], &["true"]);
        let (mut cold, mut saved, mut warm, mut with_file) = (vec![], vec![], vec![], vec![]);
        for _ in 0..runs {
            let _ = fs::remove_dir_all(cache.join("templates"));
            cold.push(run(&cache, arch, &["--warm=off"], &["true"]));
            saved.push(run(&cache, arch, &["--warm=on"], &["true"]));
            warm.push(run(&cache, arch, &["--warm=on"], &["true"]));
            let file = format!("--file={}:/large", large.display());
            with_file.push(run(&cache, arch, &["--warm=on", &file], &["true"]));
        }
        let wall = |rows: &[Took]| median(rows.iter().map(|took| took.wall_secs).collect());
        let cpu = |rows: &[Took]| median(rows.iter().map(|took| took.processor_secs).collect());
        println!(
            "{arch:8} {:8.3} {:8.3} {:8.3} {:7.1} {:10.3} {:10.3} {:7.1} {:9.3}",
            wall(&cold),
            wall(&saved),
            wall(&warm),
            wall(&cold) / wall(&warm),
            cpu(&cold),
            cpu(&warm),
            cpu(&cold) / cpu(&warm),
            wall(&with_file) - wall(&warm),
        );
        if let Some(vng) = vng {
            against(vng, &cache, arch, runs);
        }
    }
}

fn run(cache: &Path, arch: &str, flags: &[&str], command: &[&str]) -> Took {
    let before = (Instant::now(), children_secs());
    let status = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["--arch", arch])
        .args(flags)
        .arg("--")
        .args(command)
        .env("VMTEST_CACHE", cache)
        .stderr(Stdio::null())
        .status()
        .expect("the program starts");
    assert!(status.success(), "{arch} {flags:?}: {status}");
    Took { wall_secs: before.0.elapsed().as_secs_f64(), processor_secs: children_secs() - before.1 }
}

/// What virtme-ng takes for the same, pair by pair.
fn against(vng: &str, cache: &Path, arch: &str, runs: usize) {
    let script = format!(
        "exec {vng} --disable-kvm --qemu \"$VMTEST_QEMU\" --run \"$VMTEST_KERNEL\" -- uname -r"
    );
    let (mut theirs, mut ours, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..runs {
        let start = Instant::now();
        let said = Command::new(env!("CARGO_BIN_EXE_vmtest"))
            .args(["env", "--arch", arch, "--", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("virtme-ng starts");
        assert!(said.status.success(), "virtme-ng: {}", said.status);
        theirs.push(start.elapsed().as_secs_f64());
        ours.push(run(cache, arch, &["--warm=on"], &["uname", "-r"]).wall_secs);
        ratios.push(theirs[theirs.len() - 1] / ours[ours.len() - 1]);
    }
    println!(
        "{arch:8} uname -r: virtme-ng {:.3} s, warm {:.3} s, ratio {:.1}",
        median(theirs),
        median(ours),
        median(ratios)
    );
}

/// Processor time of all children that were waited for, their own included.
fn children_secs() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("a proc file system");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    // cutime and cstime are the fields 16 and 17 of proc(5); those behind the name begin with the third.
    let ticks: f64 =
        fields[13..15].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
