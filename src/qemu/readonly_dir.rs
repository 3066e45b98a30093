//! Host directories as read-only vfat partitions.

use std::path::PathBuf;

use vmtest_guest::proto::Mount;

use crate::argv::QemuOpt;
use crate::plan::{Device, FileSource, PlanError, Planner};

/// A host directory that the guest sees as the read-only vfat partition `/dev/sda1` (a second one as
/// `/dev/sdb1`, …), mounted by the agent at `/mount/vfat/sda1`.
///
/// The image is a snapshot taken when the machine starts, and a file of its own: whatever the guest
/// does, the directory on the host cannot change. QEMU's own `fat:` driver is not used: it holds
/// 516 MB at most, and `hugelgupf/vmtest` attaches it writable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnlyDir {
    /// The directory on the host.
    pub dir: PathBuf,
}

impl Device for ReadOnlyDir {
    fn resumable(&self) -> Result<(), &'static str> {
        Err("it has seen its read-only directory, which may have changed since")
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        planner.needs_dir("read-only directory", &self.dir);
        let label = format!("{}.vfat", self.dir.display());
        let image = planner.file(label, FileSource::VfatImage(self.dir.clone()));
        let node = planner.id("disk");
        planner.qemu(
            "-blockdev",
            QemuOpt::new("driver=raw")
                .kv("node-name", &node)
                .switch("read-only", true)
                .kv("file.driver", "file")
                .kv_file("file.filename", image)
                .kv("file.locking", "off"),
        );
        let target = attach_scsi_disk(planner, &node)?;
        for module in ["vfat", "nls_cp437", "nls_utf8"] {
            planner.module(module);
        }
        // Only where it is the kernel's default for names (FAT_DEFAULT_IOCHARSET).
        planner.optional_module("nls_ascii");
        planner.mount(Mount {
            source: format!("scsi:{target}:1"),
            target: format!("/mount/vfat/{}1", disk_name("sd", target)),
            fstype: "vfat".into(),
            data: "utf8,shortname=mixed".into(),
            read_only: true,
        });
        Ok(())
    }
}

/// Attaches a block node as a SCSI disk and returns its target number: 0 is `sda` where disks answer
/// in order.
///
/// `ide-hd` refuses a read-only node; `scsi-hd` takes one (QEMU 7.2).
/// Disks on AHCI get later letters: in kernels that have both built in as in ours that load them as
/// modules, virtio-scsi comes first.
pub(super) fn attach_scsi_disk(planner: &mut Planner, node: &str) -> Result<u32, PlanError> {
    let bus = planner.shared("scsi", |planner| {
        let id = planner.id("scsi");
        planner.pci_device(QemuOpt::new("virtio-scsi-pci").kv("id", &id))?;
        for module in ["virtio_pci", "virtio_scsi", "sd_mod"] {
            planner.module(module);
        }
        Ok(id)
    })?;
    let index = planner.next_scsi_disk()?;
    planner.qemu(
        "-device",
        QemuOpt::new("scsi-hd")
            .kv("bus", format!("{bus}.0"))
            .num("scsi-id", u64::from(index))
            .kv("drive", node),
    );
    Ok(index)
}

/// Linux's name of the nth disk: `sda` … `sdz`, `sdaa` …
pub(super) fn disk_name(prefix: &str, index: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(b'a' + (rest % 26) as u8);
        rest /= 26;
    }
    letters.reverse();
    format!("{prefix}{}", String::from_utf8_lossy(&letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_as_linux_does() {
        let names: Vec<String> = [0, 25, 26, 701, 702].map(|n| disk_name("sd", n)).into();
        assert_eq!(names, ["sda", "sdz", "sdaa", "sdzz", "sdaaa"]);
    }
}
