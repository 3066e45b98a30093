//! 9p: host directories in the guest.

use std::path::{Path, PathBuf};

use vmtest_guest::proto::Mount;

use crate::argv::QemuOpt;
use crate::plan::{Device, PlanError, Planner, TagError};

/// Where the agent mounts shares: the tag is the name below it.
const MOUNT_DIR: &str = "/mount/9p";

/// Bytes of one 9p message: the most that Linux's virtio transport takes (128 descriptors of a page,
/// less three). Measured in `docs/devices.md`.
pub(super) const MSIZE_BYTES: u32 = 512_000;

/// A host directory that the guest sees as a 9p file system, mounted at `/mount/9p/<tag>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P9Share {
    /// The directory on the host.
    pub dir: PathBuf,
    /// The mount tag: 1 to [`MOUNT_TAG_MAX`] bytes, unique in the machine.
    pub tag: String,
    /// The guest cannot write; enforced by QEMU.
    pub read_only: bool,
    /// How owners and modes are kept.
    pub ownership: Ownership,
}

/// How owners, modes and special files that the guest makes are kept on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ownership {
    /// Files belong to whoever runs QEMU; a `chown` in the guest is accepted and forgotten.
    #[default]
    Host,
    /// Owners and modes are kept in `.virtfs_metadata` directories beside the files, so that a guest
    /// sees the owners it has set. Needs no root.
    MappedFile,
}

impl Ownership {
    fn security_model(self) -> &'static str {
        match self {
            Ownership::Host => "none",
            Ownership::MappedFile => "mapped-file",
        }
    }
}

/// The back end and the device, shared by both kinds.
pub(super) fn attach(planner: &mut Planner, share: &P9Share) -> Result<String, PlanError> {
    planner.claim("9p share", &share.tag)?;
    planner.needs_dir("share", &share.dir);
    let id = planner.id("fsdev");
    let mut backend = QemuOpt::new("local")
        .kv("id", &id)
        .kv_of_run("path", &share.dir)
        .kv("security_model", share.ownership.security_model())
        // A directory may span file systems; without this QEMU warns, and inode numbers collide.
        .kv("multidevs", "remap");
    if share.read_only {
        backend = backend.switch("readonly", true);
    }
    planner.qemu("-fsdev", backend);
    let device = QemuOpt::new("virtio-9p-pci").kv("fsdev", &id).kv("mount_tag", &share.tag);
    planner.pci_device(device)?;
    for module in ["virtio_pci", "9pnet_virtio", "9p"] {
        planner.module(module);
    }
    Ok(id)
}

impl Device for P9Share {
    /// A share is mounted after the guest was resumed; until then nothing of it is known.
    fn resumable(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        TagError::check(&self.tag)?;
        let id = attach(planner, self)?;
        // For programs that mount by themselves, such as `hugelgupf/vmtest`'s vmmount. The kernel hands
        // `NAME=value` that it does not know to init as environment.
        planner.kernel_set(&format!("VMTEST_MOUNT9P_{id}"), &self.tag)?;
        planner.mount(Mount {
            source: self.tag.clone(),
            target: format!("{MOUNT_DIR}/{}", self.tag),
            fstype: "9p".into(),
            // mmap: shared mappings work, and a file that the host changes is seen at the next open.
            data: format!("trans=virtio,version=9p2000.L,msize={MSIZE_BYTES},cache=mmap"),
            read_only: self.read_only,
        });
        Ok(())
    }
}

/// A host directory as the guest's root file system, over 9p.
///
/// A kernel with 9p built in mounts it by itself. For any other, [`crate::session`] boots an image with
/// the kernel's modules, whose init makes the share the root: vmtest's agent then runs in it, or the
/// tree's own init (`init=`, else `/sbin/init`, …) takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P9Root {
    /// The directory on the host.
    pub dir: PathBuf,
    /// The guest cannot write; enforced by QEMU.
    pub read_only: bool,
    /// How owners and modes are kept.
    pub ownership: Ownership,
}

impl Device for P9Root {
    fn resumable(&self) -> Result<(), &'static str> {
        Err("its root file system is a share, which is mounted while it boots")
    }

    fn is_root(&self) -> bool {
        true
    }

    fn read_only_root(&self) -> Option<&Path> {
        self.read_only.then_some(self.dir.as_path())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        // The kernel looks for this tag, although it would be no file name.
        let share = P9Share {
            dir: self.dir.clone(),
            tag: "/dev/root".into(),
            read_only: self.read_only,
            ownership: self.ownership,
        };
        attach(planner, &share)?;
        for parameter in [
            "root=/dev/root",
            "rootfstype=9p",
            &format!("rootflags=trans=virtio,version=9p2000.L,msize={MSIZE_BYTES}"),
            if self.read_only { "ro" } else { "rw" },
        ] {
            planner.kernel(parameter)?;
        }
        Ok(())
    }
}
