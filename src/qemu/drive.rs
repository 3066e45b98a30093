//! Block devices.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::readonly_dir::attach_scsi_disk;
use crate::argv::QemuOpt;
use crate::fields::{self, Once};
use crate::plan::{Device, PlanError, Planner};

/// A disk image or block device of the host as a disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The image.
    pub file: PathBuf,
    /// Format of the image. Default: [`DriveFormat::Raw`]; guessing is a security hole.
    pub format: DriveFormat,
    /// What the guest sees it on. Default: [`DriveInterface::Virtio`].
    pub interface: DriveInterface,
    /// The guest cannot write; enforced by QEMU.
    pub read_only: bool,
    /// What the guest writes is thrown away when the machine ends; the image stays as it is.
    pub snapshot: bool,
}

/// Format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriveFormat {
    /// The disk's bytes.
    #[default]
    Raw,
    /// QEMU's own format.
    Qcow2,
}

/// What the guest sees a disk on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriveInterface {
    /// virtio-blk: `/dev/vda`.
    #[default]
    Virtio,
    /// AHCI, an IDE disk: `/dev/sda`, or the letters behind those of all SCSI disks. Cannot be
    /// read-only (QEMU refuses).
    Ahci,
    /// virtio-scsi: `/dev/sda`.
    Scsi,
}

impl Drive {
    /// A raw image on virtio, writable.
    pub fn new(file: impl Into<PathBuf>) -> Drive {
        Drive {
            file: file.into(),
            format: DriveFormat::default(),
            interface: DriveInterface::default(),
            read_only: false,
            snapshot: false,
        }
    }

    /// Parses the command line's form, `FILE[,ro][,snapshot][,format=raw|qcow2][,if=virtio|ahci|scsi]`.
    /// [`crate::fields`] has the rule for commas in names.
    ///
    /// # Errors
    /// [`ParseDriveError`] names the word that is not understood, or said twice.
    pub fn parse(text: &OsStr) -> Result<Drive, ParseDriveError> {
        let mut fields = fields::commas(text).into_iter();
        let file = fields.next().unwrap_or_default();
        if file.is_empty() {
            return Err(ParseDriveError::NoFile);
        }
        let mut drive = Drive::new(file);
        let mut said = Once::default();
        for field in fields {
            let key = fields::assignment(&field).map_or(&*field, |(key, _)| key);
            if let Some(key) = said.again(key) {
                return Err(ParseDriveError::Twice { key });
            }
            match field.as_encoded_bytes() {
                b"ro" => drive.read_only = true,
                b"snapshot" => drive.snapshot = true,
                b"format=raw" => drive.format = DriveFormat::Raw,
                b"format=qcow2" => drive.format = DriveFormat::Qcow2,
                b"if=virtio" => drive.interface = DriveInterface::Virtio,
                b"if=ahci" => drive.interface = DriveInterface::Ahci,
                b"if=scsi" => drive.interface = DriveInterface::Scsi,
                other => {
                    return Err(ParseDriveError::Unknown {
                        word: String::from_utf8_lossy(other).into_owned(),
                    });
                }
            }
        }
        Ok(drive)
    }
}

/// A `--drive` that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDriveError {
    /// No file.
    #[error("no file is given")]
    NoFile,
    /// A setting that is there already.
    #[error("`{key}` is given twice")]
    Twice {
        /// The setting.
        key: String,
    },
    /// A word that is no setting.
    #[error(
        "unknown setting `{word}` (known: ro, snapshot, format=raw|qcow2, if=virtio|ahci|scsi; write `\\,` for a comma in the file's name)"
    )]
    Unknown {
        /// The word.
        word: String,
    },
}

impl Device for Drive {
    fn resumable(&self) -> Result<(), &'static str> {
        Err("it has seen its drive, which may have changed since")
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        if self.interface == DriveInterface::Ahci && self.read_only {
            return Err(PlanError::Other(
                "a read-only drive cannot be on ahci: use if=scsi or if=virtio, or snapshot".into(),
            ));
        }
        match self.format {
            DriveFormat::Raw => planner.needs_disk("drive", &self.file),
            DriveFormat::Qcow2 => planner.needs_file("drive", &self.file),
        }
        let node = planner.id("disk");
        let driver = match self.format {
            DriveFormat::Raw => "raw",
            DriveFormat::Qcow2 => "qcow2",
        };
        // -drive and not -blockdev: only it has `snapshot`.
        planner.qemu(
            "-drive",
            QemuOpt::new("if=none")
                .kv("id", &node)
                .kv("format", driver)
                .kv("file", &self.file)
                .switch("readonly", self.read_only)
                .switch("snapshot", self.snapshot),
        );
        match self.interface {
            DriveInterface::Virtio => {
                planner.pci_device(QemuOpt::new("virtio-blk-pci").kv("drive", &node))?;
                planner.module("virtio_pci");
                planner.module("virtio_blk");
            }
            DriveInterface::Scsi => {
                attach_scsi_disk(planner, &node)?;
            }
            DriveInterface::Ahci => {
                let bus = planner.shared("ahci", |planner| {
                    let id = planner.id("ahci");
                    planner.pci_device(QemuOpt::new("ahci").kv("id", &id))?;
                    Ok(id)
                })?;
                let port = planner.next_ahci_port()?;
                planner.qemu(
                    "-device",
                    QemuOpt::new("ide-hd").kv("drive", &node).kv("bus", format!("{bus}.{port}")),
                );
                planner.module("ahci");
                planner.module("sd_mod");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_form() {
        let drive = Drive::parse(OsStr::new("/a\\,b.img,ro,if=scsi,format=qcow2")).unwrap();
        assert_eq!(drive.file.as_os_str(), "/a,b.img");
        assert!(drive.read_only && !drive.snapshot);
        assert_eq!((drive.interface, drive.format), (DriveInterface::Scsi, DriveFormat::Qcow2));
        assert_eq!(Drive::parse(OsStr::new("")), Err(ParseDriveError::NoFile));
        assert_eq!(
            Drive::parse(OsStr::new("x,rw")),
            Err(ParseDriveError::Unknown { word: "rw".into() })
        );
        assert_eq!(Drive::parse(OsStr::new("x")).unwrap(), Drive::new("x"));
    }
}
