//! What `vmtest run` adds to QEMU's own time, from the start of the process to its end.
//!
//! Two runs in turn: `vmtest --arch ARCH -- true`, and QEMU alone with the same kernel, image and
//! arguments, whose agent is answered by the shortest possible script. The difference is what finding
//! the assets, building the image, deciding the accelerator and reporting cost.
//!
//!     cargo bench --bench run [-- ARCH... [--runs=N]]

mod arguments;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vmtest::arch::Arch;
use vmtest::configure::Config;
use vmtest::options::Environment;
use vmtest::plan::Spelling;
use vmtest::session::{Command as GuestCommand, Init, prepare};
use vmtest_guest::proto::{Message, Request};

const BAR: Duration = Duration::from_millis(60);

fn main() {
    let (mut arches, runs) = arguments::arches_and_runs(7);
    if arches.is_empty() {
        arches = vec![Arch::Amd64, Arch::Riscv64];
    }
    println!("| guest | vmtest run | QEMU alone | difference | bar |");
    println!("|---|---|---|---|---|");
    for arch in arches {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let argv = qemu_alone(arch, dir.path());
        let (mut ours, mut alone) = (Vec::new(), Vec::new());
        for run in 0..=runs {
            // Whoever comes second may find the machine warmer: they take turns in that too.
            let pair = if run % 2 == 0 {
                let ours = time_ours(arch);
                (ours, time_alone(&argv, dir.path()))
            } else {
                let alone = time_alone(&argv, dir.path());
                (time_ours(arch), alone)
            };
            // The first pair fills the page cache.
            if run > 0 {
                ours.push(pair.0);
                alone.push(pair.1);
            }
        }
        let differences: Vec<f64> =
            ours.iter().zip(&alone).map(|(a, b)| a.as_secs_f64() - b.as_secs_f64()).collect();
        let difference = middle(differences);
        let [spread, spread_alone] = [&ours, &alone].map(|times| spread(times));
        let (ours, alone) = (median(ours), median(alone));
        println!(
            "| {arch} | {:.3} s ({spread}) | {:.3} s ({spread_alone}) | {:.0} ms | {} |",
            ours.as_secs_f64(),
            alone.as_secs_f64(),
            difference * 1e3,
            if difference <= BAR.as_secs_f64() { "60 ms: met" } else { "60 ms: missed" },
        );
    }
}

/// The median of the differences within the pairs: what slows the machine down for some seconds
/// slows down both of a pair.
fn middle(mut differences: Vec<f64>) -> f64 {
    differences.sort_by(f64::total_cmp);
    differences[differences.len() / 2]
}

/// The fastest and the slowest run: how far the median can be trusted.
fn spread(times: &[Duration]) -> String {
    let secs = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
    format!("{:.3} to {:.3}", secs(times.iter().min()), secs(times.iter().max()))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn time_ours(arch: Arch) -> Duration {
    let start = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["--arch", arch.name(), "--", "true"])
        .stderr(Stdio::null())
        .status()
        .expect("vmtest starts");
    assert!(status.success(), "vmtest failed");
    start.elapsed()
}

/// QEMU's program and arguments, with the image as a file in `dir`.
fn qemu_alone(arch: Arch, dir: &Path) -> Vec<std::ffi::OsString> {
    let environment = Environment::read().expect("a usable environment");
    let command = GuestCommand::from_argv(["true"]);
    let mut prepared = prepare(Config::new(arch), &environment, Init::Agent(command))
        .expect("assets: run `make assets`");
    prepared.build_image().expect("an image");
    let mut image = prepared.resources.initramfs.take().expect("a built image");
    image.rewind().expect("a file");
    let mut file = File::create(dir.join("initramfs.cpio")).expect("a file");
    std::io::copy(&mut image, &mut file).expect("space");
    let program = prepared.plan.program().to_owned();
    std::iter::once(program).chain(prepared.plan.args(Spelling::Typed)).collect()
}

fn time_alone(argv: &[std::ffi::OsString], dir: &Path) -> Duration {
    let start = Instant::now();
    let mut qemu = Command::new(&argv[0])
        .args(&argv[1..])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("QEMU starts");
    let control = loop {
        match UnixStream::connect(dir.join("vmtest.control.sock")) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut write = control.try_clone().expect("a descriptor");
    let mut lines = BufReader::new(control).lines();
    let mut hear = || -> Message {
        let line = lines.next().expect("the guest is there").expect("a line");
        serde_json::from_str(&line).expect("a message")
    };
    let mut say = |request: &Request| {
        let line = serde_json::to_string(request).expect("JSON");
        writeln!(write, "{line}").expect("the guest is there");
    };
    while !matches!(hear(), Message::Hello(_)) {}
    let exec =
        Box::new(vmtest_guest::proto::Exec { argv: vec!["true".into()], ..Default::default() });
    say(&Request::Exec { id: 1, exec });
    while !matches!(hear(), Message::Exited { .. }) {}
    say(&Request::Shutdown);
    while !matches!(hear(), Message::Bye) {}
    let mut monitor = UnixStream::connect(dir.join("qmp.sock")).expect("QEMU's monitor");
    let mut answers = BufReader::new(monitor.try_clone().expect("a descriptor")).lines();
    let _ = answers.next(); // the greeting
    for command in ["qmp_capabilities", "quit"] {
        // The guest may have switched itself off meanwhile, and QEMU be gone.
        let _ = writeln!(monitor, "{{\"execute\":\"{command}\"}}");
        let _ = answers.next();
    }
    qemu.wait().expect("QEMU ends");
    start.elapsed()
}
