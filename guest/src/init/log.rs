//! Lines for the kernel's log, and the time as the kernel counts it.

use std::fs::OpenOptions;
use std::io::Write;

/// Seconds since the kernel started, as `/proc/uptime` counts them but exact and without `/proc`.
pub(crate) fn seconds_since_boot() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// A line for whoever reads the kernel's log; the console shows it unless the kernel is quiet.
pub(crate) fn log(text: &str) {
    write_kmsg(6, text);
}

/// `level` as in syslog(2): the smaller the more urgent; below 4 even a quiet kernel shows it.
pub(crate) fn write_kmsg(level: u8, text: &str) -> bool {
    let line = format!("<{level}>vmtest-guest: {text}\n");
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    kmsg.and_then(|mut kmsg| kmsg.write_all(line.as_bytes())).is_ok()
}
