//! Mounting file systems, with errors that say what is missing.

use crate::proto;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Options of a 9p mount over virtio. Linux' default message size of 8 KiB (128 KiB since 5.15) is
/// slow and makes QEMU warn; 500 KiB is the most that the virtio transport of Linux takes.
pub const OPTIONS_9P: &str = "trans=virtio,version=9p2000.L,msize=512000";

/// How long a device may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a share is mounted when nothing else is said: this directory with the tag appended.
pub const SHARES_DIR: &str = "/mount/9p";

/// A file system could not be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory to mount on is missing and cannot be made.
    #[error("cannot make the mount point `{}`", .target.display())]
    MountPoint {
        /// The directory.
        target: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A directory that the options name is missing and cannot be made.
    #[error("cannot make `{}` for the mount on `{}`", .dir.display(), .target.display())]
    Layer {
        /// The directory.
        dir: PathBuf,
        /// Where the mount was to be.
        target: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot mount {fstype} `{source_name}` on `{}`: {errno}{}", .target.display(), why(.fstype, *.errno))]
    Mount {
        /// Device or tag.
        source_name: String,
        /// Directory.
        target: PathBuf,
        /// File system.
        fstype: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    /// The operating system's error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::MountPoint { source, .. } | Error::Layer { source, .. } => source.raw_os_error(),
            Error::Mount { errno, .. } => Some(errno.raw_os_error()),
        }
    }
}

/// What most likely is missing, as an addition to the kernel's own words.
fn why(fstype: &str, errno: Errno) -> String {
    let (option, module) = match fstype {
        "9p" => ("CONFIG_9P_FS and CONFIG_NET_9P_VIRTIO", "9p and 9pnet_virtio"),
        "vfat" => {
            ("CONFIG_VFAT_FS and its code page CONFIG_NLS_CODEPAGE_437", "vfat and nls_cp437")
        }
        "overlay" => ("CONFIG_OVERLAY_FS", "overlay"),
        "ext4" => ("CONFIG_EXT4_FS", "ext4"),
        "virtiofs" => ("CONFIG_VIRTIO_FS", "virtiofs"),
        _ => ("", ""),
    };
    match (errno, fstype) {
        (Errno::NODEV, _) if option.is_empty() => {
            format!(" (the kernel has no file system `{fstype}`)")
        }
        (Errno::NODEV, _) => {
            format!(" (the kernel lacks {option}, or the image lacks the modules {module})")
        }
        (Errno::NOENT, "9p") => {
            " (no 9p device has this mount tag; the host must attach one, and the kernel needs \
             CONFIG_NET_9P_VIRTIO or the module 9pnet_virtio)"
                .to_owned()
        }
        (Errno::INVAL, "9p") => {
            " (the kernel refused the options, or has no virtio transport: CONFIG_NET_9P_VIRTIO, \
             module 9pnet_virtio)"
                .to_owned()
        }
        (Errno::BUSY, "9p") => " (the share is mounted already)".to_owned(),
        (Errno::NOENT, _) => " (no such device)".to_owned(),
        (Errno::INVAL, "vfat") => {
            format!(" (no vfat file system there, or the kernel lacks {option})")
        }
        _ => String::new(),
    }
}

/// Mounts what `what` says; its target directory is made where it is missing, and so are the directories
/// of an overlay's own layer.
///
/// # Errors
/// See [`Error`]; the text names source, target, type and what the kernel probably lacks.
pub fn mount_fs(what: &proto::Mount) -> Result<(), Error> {
    let target = Path::new(&what.target);
    fs::create_dir_all(target)
        .map_err(|source| Error::MountPoint { target: target.to_owned(), source })?;
    for dir in what.layer_dirs() {
        fs::create_dir_all(dir).map_err(|source| Error::Layer {
            dir: dir.into(),
            target: target.to_owned(),
            source,
        })?;
    }
    // A share's tag may look like a device, as that of a root share does: there is no file to wait for.
    let source = match what.fstype.as_str() {
        "9p" | "virtiofs" => what.source.clone(),
        _ => appeared(&what.source),
    };
    let mut flags = MountFlags::empty();
    if what.read_only {
        flags |= MountFlags::RDONLY;
    }
    // A NUL in the options cannot be said to the kernel; it refuses them as it would any other.
    let data = CString::new(what.data.as_str());
    let result = match &data {
        Ok(data) => mount(&*source, target, &*what.fstype, flags, Some(data.as_c_str())),
        Err(_) => Err(Errno::INVAL),
    };
    result.map_err(|errno| Error::Mount {
        source_name: what.source.clone(),
        target: target.to_owned(),
        fstype: what.fstype.clone(),
        errno,
    })
}

/// The path of a device, once it is there: disks are looked for by the kernel while other things go
/// on. What never comes is left to the mount to complain of.
fn appeared(source: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let place = source.strip_prefix("scsi:").and_then(|place| place.split_once(':'));
    loop {
        let found = match place {
            Some((target, partition)) => {
                scsi_disk(target).map(|disk| format!("/dev/{disk}{partition}"))
            }
            None => Some(source.to_owned()),
        };
        match found {
            Some(path) if !path.starts_with("/dev/") || Path::new(&path).exists() => return path,
            _ if Instant::now() > deadline => return source.to_owned(),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The name of the disk with this target number on virtio-scsi, `sda` for instance.
fn scsi_disk(target: &str) -> Option<String> {
    fs::read_dir("/sys/class/block").ok()?.flatten().find_map(|entry| {
        let device = fs::read_link(entry.path().join("device")).ok()?;
        // host:channel:target:lun
        let address: Vec<&str> = device.file_name()?.to_str()?.split(':').collect();
        let [host, "0", number, "0"] = address[..] else { return None };
        let driver = format!("/sys/class/scsi_host/host{host}/proc_name");
        let driver = fs::read_to_string(driver).ok()?;
        let same = number == target && driver.trim().replace('-', "_") == "virtio_scsi";
        same.then(|| entry.file_name().into_string().ok()).flatten()
    })
}

/// Mounts the 9p share `tag` on `dir`, which is made where it is missing.
///
/// # Errors
/// As [`mount_fs`].
pub fn mount_9p_dir(dir: impl AsRef<Path>, tag: &str) -> Result<(), Error> {
    let target = dir.as_ref();
    let Some(utf8) = target.to_str() else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(Error::MountPoint { target: target.to_owned(), source });
    };
    mount_fs(&proto::Mount {
        source: tag.to_owned(),
        target: utf8.to_owned(),
        fstype: "9p".to_owned(),
        data: OPTIONS_9P.to_owned(),
        read_only: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_mount_says_what_is_missing() {
        let error = Error::Mount {
            source_name: "tag".into(),
            target: "/mount/9p/tag".into(),
            fstype: "9p".into(),
            errno: Errno::NODEV,
        };
        assert_eq!(
            error.to_string(),
            "cannot mount 9p `tag` on `/mount/9p/tag`: No such device (os error 19) (the kernel \
             lacks CONFIG_9P_FS and CONFIG_NET_9P_VIRTIO, or the image lacks the modules 9p and \
             9pnet_virtio)"
        );
        assert_eq!(error.errno(), Some(19));
    }
}
