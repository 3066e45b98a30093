//! 9p: host directories in the guest.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use vmtest_guest::proto::Mount;

use crate::argv::QemuOpt;
use crate::fields::{self, BadValue};
use crate::plan::{Device, PlanError, Planner, TagError};

/// Where the agent mounts shares: the tag is the name below it.
const MOUNT_DIR: &str = "/mount/9p";

/// Bytes of one 9p message: the most that Linux's virtio transport takes (128 descriptors of a page,
/// less three). Measured in `docs/devices.md`.
pub(super) const MSIZE_BYTES: u32 = 512_000;

/// How shares are mounted. mmap: shared mappings work, and a file that the host changes is seen at the
/// next open.
fn options() -> String {
    format!("trans=virtio,version=9p2000.L,msize={MSIZE_BYTES},cache=mmap")
}

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

impl P9Share {
    /// A writable share whose files belong to whoever runs QEMU.
    pub fn new(dir: impl Into<PathBuf>, tag: impl Into<String>) -> P9Share {
        P9Share {
            dir: dir.into(),
            tag: tag.into(),
            read_only: false,
            ownership: Ownership::default(),
        }
    }

    /// Parses the command line's form, `DIR[:TAG][:ro][:mapped]`; `mapped` is [`Ownership::MappedFile`].
    /// Without a tag it is the directory's own name. [`crate::fields`] has the rule for colons in names.
    ///
    /// # Errors
    /// [`BadValue`] without a directory, and for parts that are not understood.
    pub fn parse(text: &OsStr) -> Result<P9Share, BadValue> {
        const FORM: &str =
            "write it as `DIR[:TAG][:ro][:mapped]`, and `\\:` for a colon that belongs to a name";
        let mut parts = fields::colons(text);
        let mut share = P9Share::new(parts.remove(0), String::new());
        if share.dir.as_os_str().is_empty() {
            return Err(BadValue::new(text, "names no directory", FORM));
        }
        while let Some(word) = parts.pop_if(|part| part == "ro" || part == "mapped") {
            match word == "ro" {
                true => share.read_only = true,
                false => share.ownership = Ownership::MappedFile,
            }
        }
        // `.` has a name too, and a report should say which directory it was.
        share.dir = std::path::absolute(&share.dir).unwrap_or(share.dir);
        let tag = match (parts.pop(), parts.pop()) {
            (_, Some(_)) => return Err(BadValue::new(text, "has too many parts", FORM)),
            (Some(tag), None) => Some(tag),
            (None, None) => share.dir.file_name().map(OsStr::to_owned),
        };
        share.tag = tag.map_or_else(|| "root".into(), |tag| tag.to_string_lossy().into_owned());
        Ok(share)
    }
}

/// The back end and the device, shared by both kinds.
pub(super) fn attach(
    planner: &mut Planner,
    what: &'static str,
    share: &P9Share,
) -> Result<String, PlanError> {
    planner.claim("9p share", &share.tag)?;
    planner.needs_dir(what, &share.dir);
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
        let id = attach(planner, "share", self)?;
        // For programs that mount by themselves, such as `hugelgupf/vmtest`'s vmmount. The kernel hands
        // `NAME=value` that it does not know to init as environment.
        planner.kernel_set(&format!("VMTEST_MOUNT9P_{id}"), &self.tag)?;
        planner.mount(Mount {
            source: self.tag.clone(),
            target: format!("{MOUNT_DIR}/{}", self.tag),
            fstype: "9p".into(),
            data: options(),
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

impl P9Root {
    /// A writable root whose files belong to whoever runs QEMU.
    pub fn new(dir: impl Into<PathBuf>) -> P9Root {
        P9Root { dir: dir.into(), read_only: false, ownership: Ownership::default() }
    }

    /// Parses the command line's form, `DIR[:ro|:rw]`. [`crate::fields`] has the rule for colons in names.
    ///
    /// # Errors
    /// [`BadValue`] without a directory, and for parts that are not understood.
    pub fn parse(text: &OsStr) -> Result<P9Root, BadValue> {
        const FORM: &str =
            "write it as `DIR[:ro|:rw]`, and `\\:` for a colon that belongs to a name";
        let (dir, mode) = fields::one_or_two(text)?;
        let read_only = match mode.as_deref().and_then(OsStr::to_str) {
            Some("ro") => true,
            None if mode.is_none() => false,
            Some("rw") => false,
            _ => return Err(BadValue::new(text, "is neither `ro` nor `rw`", FORM)),
        };
        let dir = PathBuf::from(dir);
        Ok(P9Root { read_only, ..P9Root::new(std::path::absolute(&dir).unwrap_or(dir)) })
    }
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
        attach(planner, "root", &share)?;
        for parameter in [
            "root=/dev/root",
            "rootfstype=9p",
            &format!("rootflags={}", options()),
            if self.read_only { "ro" } else { "rw" },
        ] {
            planner.kernel(parameter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_as_they_are_written() {
        let share = |text: &str| P9Share::parse(OsStr::new(text));
        let found = share("/srv/a:tag:ro").unwrap();
        assert_eq!((found.dir.as_os_str(), &*found.tag), (OsStr::new("/srv/a"), "tag"));
        assert!(found.read_only && found.ownership == Ownership::Host);
        assert_eq!(share("/srv/a:mapped").unwrap().ownership, Ownership::MappedFile);
        assert_eq!(share("/srv/a\\:b").unwrap().tag, "a:b");
        assert_eq!(share("/").unwrap().tag, "root");
        for wrong in ["", ":tag", "/a:b:c", "/a:b:c:ro"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        let root = |text: &str| P9Root::parse(OsStr::new(text));
        assert!(root("/a:ro").unwrap().read_only && !root("/a:rw").unwrap().read_only);
        for wrong in ["", "/a:", "/a:tag", "/a:ro:ro"] {
            assert!(root(wrong).is_err(), "{wrong}");
        }
    }
}
