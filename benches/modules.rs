//! Selecting the modules that a virtual machine needs, from a distribution's module tree.
//!
//! `cargo bench --bench modules -- DIR ARCH [RUNS]`, DIR being `…/lib/modules/RELEASE`. Each run
//! reads the index files again.

use std::path::Path;
use std::time::{Duration, Instant};

use vmtest::arch::Arch;
use vmtest::initramfs::modules::{Modules, Request, SelectOptions};

const WANTED: [&str; 15] = [
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "vfat",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_ascii",
    "sd_mod",
    "ahci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "pvpanic_pci",
    "overlay",
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [dir, arch, rest @ ..] = &args[..] else {
        println!("no module tree given: cargo bench --bench modules -- DIR ARCH [RUNS]");
        return;
    };
    let arch: Arch = arch.parse().expect("ARCH is one of the five");
    let runs: usize = rest.first().map_or(9, |n| n.parse().expect("RUNS is a number"));
    let requests = WANTED.map(Request::optional);
    let mut times: Vec<Duration> = Vec::new();
    let mut count = 0;
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        let modules = Modules::open(Path::new(dir)).expect("DIR has modules");
        let selection = modules.select(&requests, &SelectOptions::default()).expect("they exist");
        count = selection.modules.len();
        times.push(start.elapsed());
    }
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{count} modules of {arch}: median {:.1} ms, least {:.1} ms",
        ms(times[times.len() / 2]),
        ms(times[0])
    );

    let modules = Modules::open(Path::new(dir)).expect("DIR has modules");
    let selection = modules.select(&requests, &SelectOptions::default()).expect("they exist");
    let start = Instant::now();
    let bytes: usize = selection
        .modules
        .iter()
        .map(|module| modules.load(module, arch).expect("a module of this kernel").bytes.len())
        .sum();
    println!("reading and decompressing them: {:.1} ms, {bytes} bytes", ms(start.elapsed()));
}
