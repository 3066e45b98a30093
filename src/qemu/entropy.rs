//! A source of entropy.

use crate::argv::QemuOpt;
use crate::plan::{Device, PlanError, Planner};

/// A virtio random number generator, fed from the host's `/dev/urandom`.
///
/// Without one an emulated guest can wait for entropy for seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entropy;

impl Device for Entropy {
    fn resumable(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let id = planner.id("rng");
        let source = QemuOpt::new("rng-random").kv("id", &id).kv("filename", "/dev/urandom");
        planner.qemu("-object", source);
        planner.pci_device(QemuOpt::new("virtio-rng-pci").kv("rng", &id))?;
        planner.module("virtio_pci");
        planner.module("virtio_rng");
        Ok(())
    }
}
