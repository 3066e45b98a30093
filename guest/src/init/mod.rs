//! Process 1.
//!
//! [`main`] is the boot sequence. With a control port it goes on in [`agent`], without one in
//! [`standalone`]. Threads: one reads the control port, one reaps, one feeds stdin, one per output
//! stream relays; all they find out goes as [`agent::Event`]s through one channel to the main
//! thread, which alone decides and alone answers.
//!
//! A panic anywhere ends the process, and with it the kernel: a guest whose init is broken is over
//! at once, and the host sees why on the console.

mod agent;
mod control;
mod diagnose;
mod exec;
mod modules;
mod mounts;
mod network;
mod output;
pub(crate) mod power;
mod reaper;
mod root;
mod standalone;
mod stdin;
mod wait_ports;

use rustix::fs::Mode;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use vmtest_guest::proto;

pub(crate) fn main() -> ! {
    // Before anything can go wrong.
    std::panic::set_hook(Box::new(say_and_die));
    let init_secs = seconds_since_boot();
    let mut notices = Vec::new();

    // Everything below reads /proc and /sys and opens devices.
    mounts::mount_all(&mut notices);
    // The ports' driver may be among them, and the devices need time to appear.
    let modules = modules::load_listed(Path::new(proto::MODULES_FILE), &mut notices);
    // While they do.
    if let Err(error) = rustix::system::sethostname(b"vmtest") {
        notices.push(format!("cannot set the host name: {error}"));
    }
    let own_root = root::switch(&mut notices);
    if !own_root {
        let _ = fs::create_dir_all("/root");
        let _ = rustix::fs::chmod("/root", Mode::from_raw_mode(0o700));
        link_shell(&mut notices);
    }
    network::loopback_up();
    // Processes that are children of ours from the next step on must be reaped.
    let (sender, events) = std::sync::mpsc::channel();
    let reaper = reaper::Reaper::start(sender.clone());

    match wait_ports::wait_for_control() {
        Ok(ports) => {
            agent::run(agent::Start { ports, notices, modules, init_secs, reaper, events, sender })
        }
        Err(_) if own_root => {
            notices.iter().for_each(|notice| log(notice));
            root::become_init()
        }
        // The kernel started us under the name that only vmtest's host gives: it waits for a hello.
        Err(why) if std::env::args_os().next().is_some_and(|name| name == proto::GUEST_PROGRAM) => {
            notices.iter().for_each(|notice| log(notice));
            write_kmsg(
                1,
                &format!(
                    "no way to the host: {why}. The kernel needs CONFIG_VIRTIO_PCI and \
                     CONFIG_VIRTIO_CONSOLE, built in, or as modules that `--modules` names"
                ),
            );
            power::off()
        }
        Err(why) => {
            notices.push(why);
            standalone::run(&reaper, &events, &notices)
        }
    }
}

/// Has scripts find a shell: images of vmtest's keep theirs out of the user's way.
fn link_shell(notices: &mut Vec<String>) {
    let shell = format!("{}/busybox", proto::SHELL_DIR);
    if !Path::new(&shell).exists() {
        return;
    }
    for (dir, link) in [("/bin", "/bin/sh"), ("/usr/bin", "/usr/bin/env")] {
        let link = Path::new(link);
        // A link of the image's that leads nowhere is the image's own business.
        if link.symlink_metadata().is_err() {
            let linked =
                fs::create_dir_all(dir).and_then(|()| std::os::unix::fs::symlink(&shell, link));
            if let Err(error) = linked {
                notices.push(format!("cannot link {} to the shell: {error}", link.display()));
            }
        }
    }
}

/// Seconds since the kernel started, as `/proc/uptime` counts them but exact and without `/proc`.
fn seconds_since_boot() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// A line for whoever reads the kernel's log; the console shows it unless the kernel is quiet.
fn log(text: &str) {
    write_kmsg(6, text);
}

/// `level` as in syslog(2): the smaller the more urgent; below 4 even a quiet kernel shows it.
fn write_kmsg(level: u8, text: &str) -> bool {
    let line = format!("<{level}>vmtest-guest: {text}\n");
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    kmsg.and_then(|mut kmsg| kmsg.write_all(line.as_bytes())).is_ok()
}

fn say_and_die(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let why = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic");
    let place = panic.location().map(|at| format!(" ({at})")).unwrap_or_default();
    let text = format!("init failed: {why}{place}");
    if !write_kmsg(1, &text) {
        // Stderr is the console, as far as the kernel could open one.
        eprintln!("vmtest-guest: {text}");
    }
    std::process::exit(70);
}
