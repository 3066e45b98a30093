//! Process 1.
//!
//! [`main`] is the boot sequence. With a control port it goes on in [`agent`], one loop that serves the
//! host and runs its commands; without one in [`standalone`].
//!
//! A panic anywhere ends the process, and with it the kernel: a guest whose init is broken is over
//! at once, and the host sees why on the console.

mod agent;
mod children;
mod diagnose;
mod etc;
mod exec;
mod failure;
mod files;
mod fresh;
mod job;
mod link;
mod log;
mod modules;
mod mounts;
mod network;
mod poll;
pub(crate) mod power;
mod root;
mod shell;
mod standalone;
mod sysrq;
mod wait_ports;
mod work;

use log::{log, seconds_since_boot, write_kmsg};
use rustix::fs::Mode;
use std::fs;
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
        shell::link(&mut notices);
        etc::fill(&mut notices);
    }
    network::loopback_up();
    match wait_ports::wait_for_control() {
        Ok(ports) => agent::run(agent::Start { ports, notices, modules, init_secs }),
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
            standalone::run(&notices)
        }
    }
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
