//! Host directories at their own paths in the guest.

use std::path::PathBuf;

use vmtest_guest::proto::Mount;

use super::p9::{MSIZE_BYTES, Ownership, P9Share, attach};
use crate::plan::{Device, PlanError, Planner};

/// Where the guest keeps what it has written to private mirrors: a tmpfs of half its memory.
const LAYERS_DIR: &str = "/.vmtest/layers";

/// Where the read-only shares behind private mirrors are mounted.
const LOWER_DIR: &str = "/.vmtest/lower";

/// A host directory that the guest sees at the path that it has on the host, over 9p.
///
/// Mirrors are mounted in the order of the options: one that lies in another comes after it. Their mount
/// tags are numbers, so that machines that differ in directories alone share saved guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The directory on the host; absolute, in UTF-8.
    pub dir: PathBuf,
    /// What becomes of what the guest writes.
    pub writes: MirrorWrites,
}

/// What becomes of what a guest writes to a [`Mirror`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MirrorWrites {
    /// It stays in the guest's memory and is gone with it; QEMU lets the guest read only. The kernel needs
    /// overlayfs.
    #[default]
    Private,
    /// It is written on the host.
    Host,
}

impl Device for Mirror {
    /// A share is mounted after the guest was resumed; until then nothing of it is known.
    fn resumable(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let path =
            |text: &str| PlanError::MirrorPath { dir: self.dir.clone(), why: text.to_owned() };
        let target = self.dir.to_str().ok_or_else(|| path("it is not UTF-8"))?;
        if !self.dir.is_absolute() || target.contains('\0') {
            return Err(path("it is no absolute path"));
        }
        planner.claim("mirror", target)?;
        let tag = planner.id("mirror");
        let read_only = self.writes == MirrorWrites::Private;
        let share = P9Share {
            dir: self.dir.clone(),
            tag: tag.clone(),
            read_only,
            ownership: Ownership::Host,
        };
        attach(planner, "directory", &share)?;
        let data = format!("trans=virtio,version=9p2000.L,msize={MSIZE_BYTES},cache=mmap");
        let share = |target: String| Mount {
            source: tag.clone(),
            target,
            fstype: "9p".into(),
            data,
            read_only,
        };
        if !read_only {
            planner.mount(share(target.to_owned()));
            return Ok(());
        }
        planner.module("overlay");
        planner.shared("layers", |planner| {
            planner.mount(Mount {
                source: "vmtest".into(),
                target: LAYERS_DIR.into(),
                fstype: "tmpfs".into(),
                data: "mode=0755".into(),
                read_only: false,
            });
            Ok(LAYERS_DIR.into())
        })?;
        let lower = format!("{LOWER_DIR}/{tag}");
        planner.mount(share(lower.clone()));
        let layer = format!("{LAYERS_DIR}/{tag}");
        planner.mount(Mount {
            source: "overlay".into(),
            target: target.to_owned(),
            fstype: "overlay".into(),
            data: format!("lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work"),
            read_only: false,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::options::Options;

    fn plan(mirrors: &[(&str, MirrorWrites)]) -> Result<crate::plan::Plan, PlanError> {
        let mut options = Options::new(Arch::Riscv64);
        for (dir, writes) in mirrors {
            options.device(Mirror { dir: dir.into(), writes: *writes });
        }
        options.plan()
    }

    #[test]
    fn private_mirrors_are_layers_over_read_only_shares() {
        use MirrorWrites::{Host, Private};
        let plan = plan(&[("/w/a", Private), ("/w/a/out", Host), ("/w/b", Private)]).unwrap();
        let mounts: Vec<(&str, &str, bool)> = plan
            .mounts()
            .iter()
            .map(|mount| (&*mount.fstype, &*mount.target, mount.read_only))
            .collect();
        assert_eq!(
            mounts,
            [
                ("tmpfs", "/.vmtest/layers", false),
                ("9p", "/.vmtest/lower/mirror0", true),
                ("overlay", "/w/a", false),
                ("9p", "/w/a/out", false),
                ("9p", "/.vmtest/lower/mirror2", true),
                ("overlay", "/w/b", false),
            ]
        );
        let dirs: Vec<&str> = plan.mounts()[2].layer_dirs().collect();
        assert_eq!(dirs, ["/.vmtest/layers/mirror0/upper", "/.vmtest/layers/mirror0/work"]);
    }

    #[test]
    fn machines_that_differ_in_directories_alone_are_of_one_shape() {
        use MirrorWrites::{Host, Private};
        let shape = |dir, writes| plan(&[(dir, writes)]).unwrap().shape();
        assert_eq!(shape("/a", Private), shape("/b", Private));
        assert_ne!(shape("/a", Private), shape("/a", Host));
    }

    #[test]
    fn a_directory_that_has_no_such_path_is_refused() {
        for dirs in [&["relative"][..], &["/a", "/a"]] {
            let mirrors: Vec<_> = dirs.iter().map(|dir| (*dir, MirrorWrites::Private)).collect();
            assert!(plan(&mirrors).is_err(), "{dirs:?}");
        }
    }
}
