//! What benchmarks of whole machines take: architectures, and `--runs=N`.

use vmtest::arch::Arch;

/// The architectures that are named, none if none is, and the number of runs.
pub(crate) fn arches_and_runs(mut runs: usize) -> (Vec<Arch>, usize) {
    let mut arches = Vec::new();
    for arg in std::env::args().skip(1) {
        if let Some(number) = arg.strip_prefix("--runs=") {
            runs = number.parse().expect("--runs takes a number");
        } else if !arg.starts_with('-') {
            arches.push(arg.parse().expect("an architecture"));
        }
    }
    (arches, runs)
}
