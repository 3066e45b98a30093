//! The file systems that programs expect.

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What it means when a file system cannot be mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The user is told.
    Expected,
    /// Kernels without it are common: silence.
    IfKernelHasIt,
}

struct Entry {
    fstype: &'static str,
    target: &'static str,
    /// Mode of the directory, where it has to be made.
    mode: u32,
    flags: MountFlags,
    data: Option<&'static CStr>,
    need: Need,
}

const NO_DEVICES: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In this order: a later one may lie in an earlier one.
#[rustfmt::skip]
const TABLE: &[Entry] = &[
    Entry { fstype: "proc", target: "/proc", mode: 0o555, flags: NO_DEVICES, data: None, need: Need::Expected },
    Entry { fstype: "sysfs", target: "/sys", mode: 0o555, flags: NO_DEVICES, data: None, need: Need::Expected },
    Entry { fstype: "devpts", target: "/dev/pts", mode: 0o755, flags: MountFlags::NOSUID.union(MountFlags::NOEXEC), data: Some(c"ptmxmode=0666,mode=0620,gid=5"), need: Need::IfKernelHasIt },
    Entry { fstype: "tmpfs", target: "/dev/shm", mode: 0o1777, flags: PLAIN, data: Some(c"mode=1777"), need: Need::Expected },
    Entry { fstype: "tmpfs", target: "/run", mode: 0o755, flags: PLAIN, data: Some(c"mode=0755"), need: Need::Expected },
    Entry { fstype: "tmpfs", target: "/tmp", mode: 0o1777, flags: PLAIN, data: Some(c"mode=1777"), need: Need::Expected },
    Entry { fstype: "securityfs", target: "/sys/kernel/security", mode: 0o755, flags: NO_DEVICES, data: None, need: Need::IfKernelHasIt },
    Entry { fstype: "debugfs", target: "/sys/kernel/debug", mode: 0o700, flags: NO_DEVICES, data: None, need: Need::IfKernelHasIt },
    Entry { fstype: "tracefs", target: "/sys/kernel/tracing", mode: 0o700, flags: NO_DEVICES, data: None, need: Need::IfKernelHasIt },
    Entry { fstype: "configfs", target: "/sys/kernel/config", mode: 0o755, flags: NO_DEVICES, data: None, need: Need::IfKernelHasIt },
    Entry { fstype: "cgroup2", target: "/sys/fs/cgroup", mode: 0o755, flags: NO_DEVICES, data: None, need: Need::IfKernelHasIt },
    Entry { fstype: "bpf", target: "/sys/fs/bpf", mode: 0o700, flags: NO_DEVICES, data: Some(c"mode=0700"), need: Need::IfKernelHasIt },
];

/// Links that programs expect in `/dev` and nobody else makes without udev.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Devices for a kernel without devtmpfs: name, mode, major, minor.
const NODES: &[(&str, u32, u32, u32)] = &[
    ("console", 0o600, 5, 1),
    ("tty", 0o666, 5, 0),
    ("null", 0o666, 1, 3),
    ("zero", 0o666, 1, 5),
    ("full", 0o666, 1, 7),
    ("random", 0o666, 1, 8),
    ("urandom", 0o666, 1, 9),
    ("kmsg", 0o644, 1, 11),
    ("ptmx", 0o666, 5, 2),
];

pub(crate) fn mount_all(notices: &mut Vec<String>) {
    let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
    mount_dev(notices);
    for entry in TABLE {
        if let Err(errno) = mount_entry(entry)
            && entry.need == Need::Expected
        {
            notices.push(format!("cannot mount {} on {}: {errno}", entry.fstype, entry.target));
        }
    }
    for (target, link) in LINKS {
        // There already, most likely: of devtmpfs or of the image.
        let _ = symlink(target, link);
    }
}

fn mount_entry(entry: &Entry) -> Result<(), Errno> {
    make_dir(entry.target, entry.mode);
    // What the image put there stays visible: the root is in memory anyway.
    let holds_files = entry.fstype == "tmpfs"
        && fs::read_dir(entry.target).is_ok_and(|mut files| files.next().is_some());
    if holds_files {
        let mode = fs::Permissions::from_mode(entry.mode);
        let _ = fs::set_permissions(entry.target, mode);
        return Ok(());
    }
    match mount(entry.fstype, entry.target, entry.fstype, entry.flags, entry.data) {
        // Mounted already: another init went before us.
        Err(Errno::BUSY) => Ok(()),
        result => result,
    }
}

/// The devices: from the kernel where it can, else the handful every program wants.
fn mount_dev(notices: &mut Vec<String>) {
    make_dir("/dev", 0o755);
    let data = Some(c"mode=0755");
    let devtmpfs = mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, data);
    match devtmpfs {
        Ok(()) | Err(Errno::BUSY) => return,
        Err(errno) => notices.push(format!("cannot mount devtmpfs on /dev: {errno}")),
    }
    if let Err(errno) = mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, data) {
        notices.push(format!("cannot mount tmpfs on /dev: {errno}"));
    }
    for (name, mode, major, minor) in NODES {
        let path = Path::new("/dev").join(name);
        if let Err(errno) = make_char_device(&path, *mode, *major, *minor) {
            notices.push(format!("cannot make {}: {errno}", path.display()));
        }
    }
}

/// Makes a character device; one that exists already is fine.
pub(crate) fn make_char_device(
    path: &Path,
    mode: u32,
    major: u32,
    minor: u32,
) -> Result<(), Errno> {
    let device = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, mode, device) {
        Ok(()) => rustix::fs::chmod(path, mode),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// In sysfs directories cannot be made; the mount then says that the kernel has no such thing.
fn make_dir(path: &str, mode: u32) {
    if let Ok(path) = CString::new(path) {
        let _ = rustix::fs::mkdir(path.as_c_str(), Mode::from_raw_mode(mode));
    }
}
