//! What a command costs in a guest that was just resumed, and in one of a pool.
//!
//! `cargo bench --bench pool [-- ARCH…] [--runs=N]` prints for each architecture the blocks that QEMU's translator makes
//! for `true` (the price of the way from resume to the command's end, nearly free of noise), the time of the
//! first three, then medians of guests that a pool hands out: from the request for a guest to having it, from
//! the command to its status, and the memory that is a parked guest's own. VMTEST_KERNEL names another kernel.

use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::json;
use vmtest::accel::AccelOption;
use vmtest::arch::Arch;
use vmtest::configure::with_accel;
use vmtest::pool::Pool;
use vmtest::session::Template;
use vmtest::vm::{Guest, Vm};
use vmtest_guest::proto::{Bytes, Exec, ExitStatus};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let runs =
        words.iter().find_map(|word| word.strip_prefix("--runs=")?.parse().ok()).unwrap_or(11);
    let named = words.iter().filter(|word| !word.starts_with("--"));
    let mut arches: Vec<Arch> =
        named.map(|word| Arch::from_str(word).expect("an architecture")).collect();
    if arches.is_empty() {
        arches = Arch::ALL.to_vec();
    }
    println!(
        "{:8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>9} {:>9}",
        "arch", "blocks", "1st ms", "2nd ms", "3rd ms", "+ blocks", "take ms", "true ms", "own MiB"
    );
    for arch in arches {
        let template = Template::new(arch, with_accel(AccelOption::Tcg)).await.expect("a template");
        let guest = template.clone_guest().await.expect("a guest");
        let before = blocks(guest.vm()).await;
        let first = run_true(&guest).await;
        let after = blocks(guest.vm()).await;
        let (second, third) = (run_true(&guest).await, run_true(&guest).await);
        let more = blocks(guest.vm()).await - after;
        drop(guest);
        print!(
            "{arch:8} {:8} {:8.1} {:8.1} {:8.1} {more:9}",
            after - before,
            ms(first),
            ms(second),
            ms(third)
        );
        let pool = Pool::new(template, 1);
        let (mut take, mut command, mut own) = (vec![], vec![], vec![]);
        for _ in 0..runs {
            pool.filled(1).await;
            own.push(own_mib(pool.pids()[0]));
            let start = Instant::now();
            let guest = pool.take().await.expect("a guest");
            take.push(ms(start.elapsed()));
            command.push(ms(run_true(&guest).await));
        }
        println!(" {:8.1} {:9.1} {:9.1}", median(take), median(command), median(own));
    }
}

async fn run_true(guest: &Guest) -> Duration {
    let exec = Exec { argv: vec![Bytes::from("true")], ..Exec::default() };
    let start = Instant::now();
    let output = guest.output(exec).await.expect("it runs");
    assert_eq!(output.status, ExitStatus::Code(0));
    start.elapsed()
}

/// `TB count` of `info jit`.
async fn blocks(vm: &Vm) -> i64 {
    let arguments = json!({"command-line": "info jit"});
    let answer = vm.qmp("human-monitor-command", arguments).await.expect("the monitor answers");
    let text = answer.as_str().expect("text");
    let line = text.lines().find(|line| line.starts_with("TB count")).expect("a count of blocks");
    let digits = line.split_whitespace().nth(2).expect("a number");
    digits.split('/').next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// Memory of a process that no other shares, in MiB.
fn own_mib(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let kib = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("Private_Clean:").or(line.strip_prefix("Private_Dirty:"))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    });
    kib.sum::<f64>() / 1024.0
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
