//! The closure of every program in a directory, ours against `ldd` (which runs each loader).
//!
//! `cargo bench --bench closure [-- DIR [RUNS]]`; DIR is `/usr/bin` and RUNS is 5 by default. Each
//! of our runs starts with an empty cache. Prints medians, the ratio, peak memory and differences
//! in the sets of libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use vmtest::arch::Arch;
use vmtest::initramfs::closure::{Resolver, Source};

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let dir = args.next().unwrap_or_else(|| "/usr/bin".to_owned());
    let runs: usize = args.next().map_or(5, |n| n.parse().expect("RUNS is a number"));
    let programs = programs(Path::new(&dir));
    let arch = Arch::host().expect("this host's architecture is one of the five");

    let mut libraries = BTreeSet::new();
    let mut failed = Vec::new();
    let (ours, ours_least) =
        measure(runs, || {
            libraries.clear();
            failed.clear();
            let mut resolver = Resolver::new(arch, Path::new("/"));
            for program in &programs {
                let dest = program.to_str().expect("names in /usr/bin are text").as_bytes();
                match resolver.program(program, dest, &|_| false) {
                    Ok(closure) => libraries.extend(closure.items.into_iter().filter_map(|item| {
                        match item.source {
                            Source::File(path) => Some(path),
                            _ => None,
                        }
                    })),
                    Err(problems) => failed.push(problems.to_string()),
                }
            }
        });
    let memory = peak_memory_kib();
    let mut theirs = Vec::new();
    let (ldd, ldd_least) = measure(runs.min(3), || {
        theirs = Command::new("ldd").args(&programs).output().expect("ldd is installed").stdout;
    });
    let theirs: BTreeSet<PathBuf> = String::from_utf8_lossy(&theirs)
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .filter_map(|word| std::fs::canonicalize(word).ok())
        .collect();
    for program in &programs {
        libraries.remove(&std::fs::canonicalize(program).expect("it was there"));
    }

    println!("{} ELF programs in {dir}, median of {runs}", programs.len());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("vmtest  {:8.1} ms, least {:8.1} ms, {memory} KiB", ms(ours), ms(ours_least));
    println!("ldd     {:8.1} ms, least {:8.1} ms", ms(ldd), ms(ldd_least));
    println!(
        "ratio   {:8.1}, of the least {:8.1}",
        ms(ldd) / ms(ours),
        ms(ldd_least) / ms(ours_least)
    );
    println!("libraries: {} by vmtest, {} by ldd", libraries.len(), theirs.len());
    for path in libraries.difference(&theirs) {
        println!("only vmtest: {}", path.display());
    }
    for path in theirs.difference(&libraries) {
        println!("only ldd: {}", path.display());
    }
    for problem in failed {
        println!("problem: {problem}");
    }
}

fn programs(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the directory can be read")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .filter(|path| {
            let mut magic = [0; 4];
            let file = std::fs::File::open(path);
            let read = file.and_then(|mut f| std::io::Read::read_exact(&mut f, &mut magic));
            read.is_ok() && magic == *b"\x7fELF"
        })
        .collect();
    found.sort();
    found
}

/// Median and minimum: on a busy machine the second says more.
fn measure(runs: usize, mut work: impl FnMut()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..runs.max(1))
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    (times[times.len() / 2], times[0])
}

fn peak_memory_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?");
    line.trim().trim_end_matches(" kB").to_owned()
}
