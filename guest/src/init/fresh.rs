//! A guest that was saved and lives again becomes its own: random numbers and clock.
//!
//! All that is saved is the same in every guest that is resumed from it, the state of the kernel's
//! random number generator included. So the host sends random bytes before anything of the user's
//! runs, and the kernel draws everything anew from them. What it has drawn before (addresses in process
//! 1, keys of the kernel's own hash tables) stays the same in all of them.

use super::failure::Failure;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::fs::File;
use std::os::fd::AsFd;
use vmtest_guest::proto::Fresh;

use crate::sys;

pub(crate) fn become_own(fresh: &Fresh) -> Result<(), Failure> {
    #[cfg(target_arch = "riscv64")]
    wake_timers();
    set_clock(fresh.realtime_ns)?;
    let seed = bytes_of(&fresh.entropy).ok_or_else(|| {
        Failure::new("the host's random bytes are none", rustix::io::Errno::INVAL)
    })?;
    File::open("/dev/urandom")
        .and_then(|random| sys::reseed(random.as_fd(), &seed))
        .map_err(|error| Failure::of("cannot give the guest random numbers of its own", &error))
}

/// Sets the clock to a time of the host's, in nanoseconds since 1970.
pub(crate) fn set_clock(realtime_ns: u64) -> Result<(), Failure> {
    let now = Timespec {
        tv_sec: (realtime_ns / 1_000_000_000) as _,
        tv_nsec: (realtime_ns % 1_000_000_000) as _,
    };
    clock_settime(ClockId::Realtime, now)
        .map_err(|errno| Failure::of("cannot set the guest's clock", &errno.into()))
}

/// Whether the kernel found no clock in the machine: it then begins with 1970.
pub(crate) fn has_no_clock() -> bool {
    const DAY_SECS: i64 = 24 * 60 * 60;
    clock_gettime(ClockId::Realtime).tv_sec < DAY_SECS
}

/// Has every processor program its timer anew. QEMU before 10.2 forgets a riscv64 processor's pending
/// timer when it saves a machine, and a kernel that waits for it programs none that is later: it would
/// sleep forever. A timer that is due already is earlier than any.
#[cfg(target_arch = "riscv64")]
fn wake_timers() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    };
    let Ok(all) = sched_getaffinity(None) else { return };
    let Ok(timer) = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC) else {
        return;
    };
    let due = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: 0, tv_nsec: 1 },
    };
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)) {
        let mut one = CpuSet::new();
        one.set(cpu);
        if all.count() == 1 || sched_setaffinity(None, &one).is_ok() {
            let _ = timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &due);
        }
    }
    if all.count() > 1 {
        let _ = sched_setaffinity(None, &all);
    }
}

/// Bytes from hexadecimal digits; `None` where there are none, or no such.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some((16 * value(high)? + value(low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_come_as_digits() {
        assert_eq!(bytes_of("00ffA1"), Some(vec![0, 255, 0xa1]));
        for bad in ["", "0", "0g", "0ä"] {
            assert_eq!(bytes_of(bad), None, "{bad}");
        }
    }
}
