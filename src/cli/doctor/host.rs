//! The machine itself: processors, memory, KVM, limits.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use vmtest::accel::{AccelOption, Reason};
use vmtest::arch::Arch;
use vmtest::options::Environment;
use vmtest::vm::accel::KvmProbe;

use super::line::Line;

/// A guest and its host's part need so much.
const MEMORY_MIB: u64 = 1024;

/// A run has some 40 descriptors open, a machine with many devices some more.
const DESCRIPTORS: u64 = 256;

pub(super) fn host(_: &Environment) -> Vec<Line> {
    let uname = rustix::system::uname();
    let (processors, load) = (vmtest::host::processors(), vmtest::host::load());
    let text = format!(
        "{}, Linux {}, {processors} processors, load {}",
        Arch::host().map_or(std::env::consts::ARCH, |arch| arch.name()),
        uname.release().to_string_lossy(),
        load.map_or("unknown".to_owned(), |load| format!("{load:.1}")),
    );
    vec![match load {
        Some(load) if load > 2.0 * processors as f64 => Line::warn(
            "host",
            format!("{text}: it is busy, and guests will be slow"),
            "run fewer at a time; `--timeout` and `--hang-after` are longer where they are given",
        ),
        _ => Line::ok("host", text),
    }]
}

pub(super) fn memory(_: &Environment) -> Vec<Line> {
    let Some(memory) = vmtest::host::Memory::read() else {
        return vec![Line::warn("memory", "not known: /proc/meminfo", "mount /proc")];
    };
    let (total, available) = (memory.total >> 20, memory.available >> 20);
    let text = format!("{available} MiB available of {total}");
    vec![if available < MEMORY_MIB {
        Line::warn(
            "memory",
            text,
            "a guest has 512 MiB unless told otherwise: end other programs, or give less with --memory",
        )
    } else {
        Line::ok("memory", text)
    }]
}

/// Proven by running guest code; a device that is there proves nothing.
pub(super) fn kvm(environment: &Environment) -> Vec<Line> {
    let Some(arch) = Arch::host() else {
        let text = "vmtest knows no guests of this host's architecture: all are emulated";
        return vec![Line::ok("kvm", text)];
    };
    let probe = KvmProbe::new(environment.cache_dir.clone());
    let who = who_may(&probe.device);
    match probe.choose(AccelOption::Kvm, arch) {
        Ok(choice) => {
            let mut text = format!("works: {}", choice.reason);
            text.extend(who.map(|who| format!(" ({who})")));
            vec![Line::ok("kvm", text)]
        }
        Err(unusable) => {
            let mut text = unusable.reason.to_string();
            text.extend(who.map(|who| format!(" ({who})")));
            text.push_str("; guests are emulated, some ten times slower");
            let fix = unusable.reason.remedy().unwrap_or_else(|| "nothing to be done".to_owned());
            let fix = match (&unusable.reason, nested()) {
                (Reason::Missing { .. }, Some(nested)) => format!("{fix} ({nested})"),
                _ => fix,
            };
            vec![Line::warn("kvm", text, fix)]
        }
    }
}

/// Owner, group and mode of the device.
fn who_may(device: &Path) -> Option<String> {
    let metadata = std::fs::metadata(device).ok()?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let number = metadata.gid().to_string();
    let group = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    Some(format!("mode {:o}, group {}", metadata.mode() & 0o777, group.unwrap_or(number)))
}

/// Whether the host lets its own guests have KVM.
fn nested() -> Option<String> {
    ["kvm_intel", "kvm_amd"].iter().find_map(|module| {
        let file = format!("/sys/module/{module}/parameters/nested");
        let value = std::fs::read_to_string(file).ok()?;
        Some(format!("{module} has nested={}", value.trim()))
    })
}

pub(super) fn limits(_: &Environment) -> Vec<Line> {
    let files = getrlimit(Resource::Nofile).current;
    let processes = getrlimit(Resource::Nproc).current;
    let shown = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let text = format!("{} open files, {} processes", shown(files), shown(processes));
    vec![match files {
        Some(files) if files < DESCRIPTORS => {
            Line::warn("limits", text, format!("ulimit -n {}", 4 * DESCRIPTORS))
        }
        _ => Line::ok("limits", text),
    }]
}
