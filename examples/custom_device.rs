//! A device that vmtest does not know: QEMU's educational PCI device.
//!
//! `cargo run --example custom_device`

use std::error::Error;

use vmtest::arch::Arch;
use vmtest::blocking;
use vmtest::configure::device;
use vmtest::options::Environment;
use vmtest::plan::{PlanError, Planner};
use vmtest::qemu::{Device, QemuOpt};
use vmtest::session::{self, Command};

/// QEMU's `edu` (QEMU documentation, "EDU device"): registers that compute factorials, and DMA.
#[derive(Debug)]
struct Edu {
    /// Bits of an address that the device can reach: 1 to 63.
    dma_bits: u32,
}

impl Device for Edu {
    // Pure: what it needs is said to the planner, nothing is done. A driver would be asked for with
    // `planner.module`: it goes into the image with all it depends on.
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let mask = 1u64
            .checked_shl(self.dma_bits)
            .map(|bit| bit - 1)
            .filter(|mask| *mask > 0)
            .ok_or_else(|| PlanError::Other(format!("no edu with {} bits", self.dma_bits)))?;
        let id = planner.id("edu");
        planner.qemu("-device", QemuOpt::new("edu").kv("id", &id).num("dma_mask", mask));
        // For programs in the guest; quoted as the kernel wants it.
        planner.kernel_set("EXAMPLE_EDU", &id)
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let arch = session::guest_arch(None, &Environment::read()?).unwrap_or(Arch::Amd64);
    let command = Command::new("sh")
        .args(["-c", "cat /sys/bus/pci/devices/*/device; tr ' ' '\\n' < /proc/cmdline"]);

    let run = blocking::run(arch, device(Edu { dma_bits: 28 }), command)?.passed()?;
    let said = run.stdout_text();
    let seen = |line| said.lines().any(|said| said == line);
    assert!(seen("0x11e8") && seen("EXAMPLE_EDU=edu0"), "{said}");
    println!("the guest has the device");
    Ok(())
}
