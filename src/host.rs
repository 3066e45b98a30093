//! What this machine has, and how busy it is: processors, load, memory; and its clock.
//!
//! Read anew each time it is asked, from `/proc` and this process's control group, which wait for nobody. What a host
//! does not say is `None`, never a guess.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where Linux says what memory there is.
const MEMINFO: &str = "/proc/meminfo";

/// Processors that this process may use: at least one.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The load average over the last minute: how many processes ran or wanted to.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Seconds since 1970.
pub fn unix_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What the host was like at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// See [`processors`].
    pub processors: usize,
    /// See [`load`].
    pub load: Option<f64>,
    /// See [`Memory::available`].
    pub available: Option<u64>,
}

impl Moment {
    /// As of now.
    pub fn now() -> Moment {
        let available = Memory::read().map(|memory| memory.available);
        Moment { processors: processors(), load: load(), available }
    }
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What the machine has.
    pub total: u64,
    /// What new processes can have without swapping: of the machine, and of this process's control group.
    pub available: u64,
}

impl Memory {
    /// As of now. `None` where there is no `/proc/meminfo`, or it says something else.
    pub fn read() -> Option<Memory> {
        let mut memory = Memory::parse(&fs::read_to_string(MEMINFO).ok()?)?;
        if let Some(left) = left_in_group() {
            memory.available = memory.available.min(left);
        }
        Some(memory)
    }

    fn parse(meminfo: &str) -> Option<Memory> {
        let bytes = |key: &str| -> Option<u64> {
            let rest = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Memory { total: bytes("MemTotal:")?, available: bytes("MemAvailable:")? })
    }

    /// What guests may have of it, so that the host lives on: nine tenths of what is available, in bytes.
    pub fn for_guests(self) -> u64 {
        self.available / 10 * 9
    }
}

/// What this process's control group still allows, in bytes. A process in a container sees its group as the root.
fn left_in_group() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    Some(max.saturating_sub(current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let text = "MemTotal:       24614976 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(
            Memory::parse(text),
            Some(Memory { total: 24_614_976 << 10, available: 1 << 20 })
        );
        for broken in ["", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"] {
            assert_eq!(Memory::parse(broken), None, "{broken}");
        }
        assert_eq!(Memory::parse("MemTotal: 1 kB\nMemAvailable: 18446744073709551615 kB\n"), None);
        let memory = Memory::read().unwrap();
        assert!(0 < memory.for_guests() && memory.for_guests() < memory.available);
        assert!(memory.available <= memory.total);
        assert!(processors() > 0 && load().is_some());
    }
}
