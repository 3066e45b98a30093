//! What vmtest's devices cost in a guest that really boots, against the nearest thing without them.
//!
//! `cargo bench --bench devices` prints the tables of `docs/devices.md`; needs `make assets`. The
//! architecture is `VMTEST_ARCH` or this host's, the accelerator what `auto` finds.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmtest::configure::Config;
use vmtest::options::{Boot, Environment, Initramfs, Options};
use vmtest::qemu::{EventPort, Ownership, P9Share};
use vmtest::session::{self, Command, Init};
use vmtest::vm::{EventChannel, Progress, Streams};

const EVENTS: usize = 200_000;

fn main() {
    // `cargo test --benches` only asks whether it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    plan();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        start().await;
        events().await;
        shares().await;
    });
    runtime.shutdown_background();
}

/// Computing a plan, with nothing and with 100 options that nobody uses.
fn plan() {
    let arch = vmtest::arch::Arch::Amd64;
    let mut options = Options::new(arch);
    options.boot = Boot::Kernel { image: "/k".into(), initramfs: Initramfs::None };
    let time = |options: &Options| {
        const ROUNDS: u32 = 2000;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(std::hint::black_box(options).plan().unwrap());
        }
        start.elapsed() / ROUNDS
    };
    let none = time(&options);
    for n in 0..100 {
        options.device(EventPort { name: format!("idle{n}") });
    }
    let hundred = time(&options);
    println!("Options::plan, no devices:         {none:>10.1?}");
    println!("Options::plan, 100 event channels: {hundred:>10.1?}");
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn machine(fill: impl FnOnce(&mut Options), script: Option<&str>) -> session::Prepared {
    let environment = Environment::read().unwrap();
    let mut config = Config::new(session::guest_arch(None, &environment).unwrap());
    config.options.memory_mib = 1024;
    fill(&mut config.options);
    let command = script.map(|script| Command::new("sh").args(["-ec", script]));
    let mut machine = session::prepare(config, &environment, Init::Agent(command)).unwrap();
    machine.build_image().unwrap();
    machine
}

/// Runs a prepared machine; returns its stdout.
async fn run(machine: session::Prepared, with: impl FnOnce(&mut vmtest::vm::Vm)) -> String {
    let job = machine.job();
    let (stdout, stderr) = (Buffer::default(), Buffer::default());
    let streams =
        Streams { stdin: None, stdout: Box::new(stdout.clone()), stderr: Box::new(stderr.clone()) };
    let mut vm = machine.start().unwrap();
    with(&mut vm);
    let outcome = vmtest::vm::run(vm, job, streams, std::future::pending(), |_| {}).await;
    let text = |buffer: &Buffer| String::from_utf8_lossy(&buffer.0.lock().unwrap()).into_owned();
    assert!(outcome.verdict.passed(), "{}: {}", outcome.verdict, text(&stderr));
    text(&stdout)
}

/// From the call that starts QEMU to the guest that is ready, with nothing and with 100 idle options.
async fn start() {
    for (what, channels) in [("no devices", 0), ("100 event channels", 100)] {
        let machine = machine(
            |options| {
                for n in 0..channels {
                    options.device(EventPort { name: format!("idle{n}") });
                }
            },
            None,
        );
        let accel = machine.accel.accel;
        let job = machine.job();
        let before = Instant::now();
        let vm = machine.start().unwrap();
        let spawned = before.elapsed();
        let mut version = vm.qemu_version_watch();
        let made = tokio::spawn(async move {
            version.wait_for(Option::is_some).await.unwrap();
            before.elapsed()
        });
        let streams =
            Streams { stdin: None, stdout: Box::new(io::sink()), stderr: Box::new(io::sink()) };
        let mut ready = Duration::ZERO;
        let watch = |progress: Progress<'_>| {
            if matches!(progress, Progress::Ready(_)) {
                ready = before.elapsed();
            }
        };
        let outcome = vmtest::vm::run(vm, job, streams, std::future::pending(), watch).await;
        assert!(outcome.verdict.passed(), "{}", outcome.verdict);
        let made = made.await.unwrap();
        println!(
            "start ({accel}), {what}: QEMU's process after {spawned:.1?}, its monitor after \
             {made:.1?}, the guest ready after {ready:.2?}"
        );
    }
}

/// The same bytes through a port: as they are, and as typed events.
async fn events() {
    let script = format!(
        r#"
        port() {{ for p in /sys/class/virtio-ports/*; do
            if [ "$(cat $p/name)" = "$1" ]; then echo /dev/${{p##*/}}; fi; done; }}
        awk 'BEGIN {{ for (n = 0; n < {EVENTS}; n++) printf \
            "{{\"hugelgupf_vmtest_guest_action\":\"guestevent\",\"Actual\":{{\"n\":%d}}}}\n", n;
            print "{{\"hugelgupf_vmtest_guest_action\":\"done\"}}" }}' > /tmp/events
        cat /tmp/events > $(port raw)
        cat /tmp/events > $(port typed)
        # What a slow reader has not taken when the machine ends is lost.
        sleep 5
        "#
    );
    let machine = machine(
        |options| {
            for name in ["raw", "typed"] {
                options.device(EventPort { name: name.into() });
            }
        },
        Some(&script),
    );
    let (mut raw, mut typed) = (None, None);
    run(machine, |vm| {
        let mut stream = vm.take_channel("raw").unwrap();
        raw = Some(std::thread::spawn(move || {
            let (mut buffer, mut bytes, mut span) = (vec![0; 64 << 10], 0, None);
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                bytes += n;
                let now = Instant::now();
                span = Some((span.map_or(now, |(first, _)| first), now));
            }
            let (first, last) = span.unwrap();
            (bytes, last - first)
        }));
        let stream = vm.take_channel("typed").unwrap();
        typed = Some(tokio::spawn(async move {
            let mut channel = EventChannel::<serde_json::Value>::new("typed", stream).unwrap();
            let (mut count, mut first) = (0, None);
            while let Some(event) = channel.next().await {
                assert_eq!(event.unwrap()["n"], count);
                first.get_or_insert_with(Instant::now);
                count += 1;
            }
            (count, first.unwrap().elapsed())
        }));
    })
    .await;
    let (bytes, raw) = raw.unwrap().join().unwrap();
    let (count, typed) = typed.unwrap().await.unwrap();
    assert_eq!(count, EVENTS);
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("raw bytes through a port: {:.1} MiB/s ({mib:.1} MiB)", mib / raw.as_secs_f64());
    println!(
        "typed events through a port: {:.0} events/s, {:.1} MiB/s, {:.2} times the time of raw bytes",
        count as f64 / typed.as_secs_f64(),
        mib / typed.as_secs_f64(),
        typed.as_secs_f64() / raw.as_secs_f64()
    );
}

/// Writing and reading 256 MB: in the guest's memory, and on a share with different settings.
async fn shares() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        now() { cut -d' ' -f1 /proc/uptime; }
        measure() {
            sync; echo 3 > /proc/sys/vm/drop_caches
            a=$(now); dd if=/dev/zero of=$2/x bs=1M count=256 conv=fsync 2> /dev/null
            b=$(now); echo 3 > /proc/sys/vm/drop_caches
            c=$(now); dd if=$2/x of=/dev/null bs=1M 2> /dev/null
            d=$(now); rm $2/x
            echo "$1 $a $b $c $d"
        }
        measure tmpfs /tmp
        measure 'share, as vmtest mounts it' /mount/9p/s
        umount /mount/9p/s
        for msize in 8192 131072 512000; do
            for cache in none mmap loose; do
                mount -t 9p -o trans=virtio,version=9p2000.L,msize=$msize,cache=$cache s /mount/9p/s
                measure "msize=$msize cache=$cache" /mount/9p/s
                umount /mount/9p/s
            done
        done
        mount -t 9p -o trans=virtio,version=9p2000.L s /mount/9p/s
        "#;
    let share = P9Share {
        dir: dir.path().into(),
        tag: "s".into(),
        read_only: false,
        ownership: Ownership::Host,
    };
    let machine = machine(|options| _ = options.device(share), Some(script));
    let output = run(machine, |_| {}).await;
    println!("{:<28} {:>11} {:>11}   times tmpfs", "256 MB by dd", "write", "read");
    let mut tmpfs = None;
    for line in output.lines() {
        let mut fields: Vec<&str> = line.rsplitn(5, ' ').collect();
        fields.reverse();
        let at = |n: usize| fields[n].parse::<f64>().unwrap();
        // The clock of /proc/uptime ticks every 10 ms.
        let (write, read) = ((at(2) - at(1)).max(0.01), (at(4) - at(3)).max(0.01));
        let (tmpfs_write, tmpfs_read) = *tmpfs.get_or_insert((write, read));
        println!(
            "{:<28} {:>6.0} MB/s {:>6.0} MB/s   {:.1} {:.1}",
            fields[0],
            268.4 / write,
            268.4 / read,
            write / tmpfs_write,
            read / tmpfs_read
        );
    }
}
