//! The machine itself: board, processor, memory, UART, monitor, and the kernel arguments that go
//! with them.

use super::own;
use crate::accel::Accel;
use crate::arch::Arch;
use crate::argv::QemuOpt;
use crate::fields::UnknownWord;
use crate::plan::{CONSOLE, ChannelKind, Device, MONITOR, PlanError, Planner};

/// What every machine has.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub(crate) accel: Accel,
    pub(crate) memory_mib: u64,
    pub(crate) cpus: u32,
    pub(crate) halt_on_kernel_panic: bool,
    pub(crate) kernel_log: KernelLog,
    pub(crate) direct_kernel: bool,
    pub(crate) firmware: bool,
    pub(crate) own: own::Arguments,
}

/// How much the kernel says on its console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelLog {
    /// All messages: they end up in `console.log`.
    #[default]
    Full,
    /// Warnings and worse (`loglevel=5`). An emulated UART costs a system call a byte.
    Quiet,
}

impl KernelLog {
    /// Understands `full` and `quiet`.
    ///
    /// # Errors
    /// [`UnknownWord`].
    pub fn parse(text: &str) -> Result<KernelLog, UnknownWord> {
        match text {
            "full" => Ok(KernelLog::Full),
            "quiet" => Ok(KernelLog::Quiet),
            _ => Err(UnknownWord { given: text.to_owned(), known: "full, quiet" }),
        }
    }
}

/// Largest memory that is passed on to QEMU: 4 TiB, what its largest machine takes.
const MEMORY_MIB_MAX: u64 = 4 << 20;

/// Limits of QEMU 10's machines: q35 288 with an IOMMU and 255 without, virt of riscv 512, virt of arm 8
/// with GICv2 and 512 with newer ones. With KVM the GIC is the host's, and only QEMU finds out which.
fn cpus_max(arch: Arch, accel: Accel) -> u32 {
    match (arch, accel) {
        (Arch::Amd64 | Arch::I386, _) => 255,
        (Arch::Arm64, Accel::Kvm) => 512,
        (Arch::Arm64, Accel::Tcg) | (Arch::Arm, _) => 8,
        (Arch::Riscv64, _) => 512,
    }
}

impl Machine {
    fn check(&self, arch: Arch) -> Result<(), PlanError> {
        let max = match arch {
            // 32-bit: `virt` with highmem=off ends at 256 GiB of address space, of which RAM may use
            // 3 GiB; x86 without a 64-bit kernel sees 4 GiB less the PCI hole.
            Arch::Arm | Arch::I386 => 3 << 10,
            Arch::Amd64 | Arch::Arm64 | Arch::Riscv64 => MEMORY_MIB_MAX,
        };
        if !(1..=max).contains(&self.memory_mib) {
            return Err(PlanError::OutOfRange {
                what: "memory",
                given: format!("{}M", self.memory_mib),
                range: format!("a guest of {arch} can have 1M to {max}M"),
            });
        }
        let max = cpus_max(arch, self.accel);
        if !(1..=max).contains(&self.cpus) {
            return Err(PlanError::OutOfRange {
                what: "number of processors",
                given: self.cpus.to_string(),
                range: format!("a guest of {arch} can have 1 to {max}"),
            });
        }
        Ok(())
    }

    fn board(&self, arch: Arch) -> QemuOpt {
        match arch {
            // No SATA, SMBus or VMware port: nothing of ours uses them, and a distribution's kernel
            // looks for what is behind each.
            Arch::Amd64 | Arch::I386 => QemuOpt::new("q35")
                .switch("sata", false)
                .switch("smbus", false)
                .switch("vmport", false),
            Arch::Arm64 => {
                let mut board = QemuOpt::new("virt");
                // Without ACPI the kernel takes the device tree, which is parsed sooner. UEFI brings
                // ACPI, and a kernel that it starts may want it.
                if self.direct_kernel && !self.firmware {
                    board = board.switch("acpi", false);
                }
                match self.accel {
                    Accel::Kvm => board.kv("gic-version", "host"),
                    Accel::Tcg => board,
                }
            }
            // Common kernels have no LPAE and cannot reach a PCI window above 4 GiB.
            Arch::Arm => QemuOpt::new("virt").switch("highmem", false),
            Arch::Riscv64 => QemuOpt::new("virt"),
        }
    }

    fn cpu(&self, arch: Arch) -> &'static str {
        match (self.accel, arch) {
            (Accel::Kvm, _) => "host",
            // Everything TCG can do, for programs built for newer levels than x86-64-v1. Five-level
            // page tables only make each emulated walk longer. Fast string instructions are slow ones
            // here: a byte at a time, where a kernel or a C library without them takes 8 or more.
            (Accel::Tcg, Arch::Amd64) => "max,la57=off,erms=off,fsrm=off,fsrs=off",
            (Accel::Tcg, Arch::I386) => "max,erms=off,fsrm=off,fsrs=off",
            // Boots faster than `max` under emulation: no pointer authentication to compute.
            (Accel::Tcg, Arch::Arm64) => "cortex-a57",
            (Accel::Tcg, Arch::Arm) => "cortex-a15",
            (Accel::Tcg, Arch::Riscv64) => "rv64",
        }
    }

    fn kernel_arguments(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let arch = planner.arch();
        // Messages before the UART's driver is up: a guest that hangs early still says something.
        // On x86 the kernel has no device tree to find the UART in.
        planner.kernel(match arch {
            Arch::Amd64 | Arch::I386 => "earlycon=uart8250,io,0x3f8,115200",
            Arch::Arm64 | Arch::Arm | Arch::Riscv64 => "earlycon",
        })?;
        planner.kernel_set("console", arch.serial_console())?;
        if self.halt_on_kernel_panic {
            // Reboot at once; with -no-reboot that ends QEMU. Linux's default is to hang.
            planner.kernel("panic=-1")?;
        }
        if self.kernel_log == KernelLog::Quiet {
            planner.kernel("loglevel=5")?;
        }
        // The console's keys that print stacks: a distribution's kernel allows only some of them. With
        // `=`, a kernel without them gives it to init as a variable, not as an argument.
        planner.kernel("sysrq_always_enabled=1")?;
        // The self-tests of the kernel's cipher modules take some 100 ms emulated.
        planner.kernel("cryptomgr.notests")?;
        if arch.is_x86() && self.accel == Accel::Tcg {
            // Workarounds for leaks of real processors make emulated code only slower.
            planner.kernel("mitigations=off")?;
            // The emulated timers are not wired as the check expects on slow hosts.
            planner.kernel("no_timer_check")?;
            if self.cpus == 1 {
                // Thousands of lock prefixes would be patched out, which real processors gain by:
                // each throws away emulated code.
                planner.kernel("noreplace-smp")?;
            }
        }
        Ok(())
    }
}

impl Device for Machine {
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let arch = planner.arch();
        self.check(arch)?;
        // Nothing that was not asked for: no default devices, no configuration files of the host.
        planner.qemu_flag("-nodefaults");
        planner.qemu_flag("-no-user-config");
        planner.qemu("-display", QemuOpt::new("none"));
        planner.qemu("-machine", self.board(arch));
        if !self.own.accel {
            planner.qemu("-accel", QemuOpt::new(self.accel.to_string()));
        }
        if !self.own.cpu {
            planner.qemu("-cpu", QemuOpt::verbatim(self.cpu(arch)));
        }
        if !self.own.memory {
            planner.qemu("-m", QemuOpt::new(format!("{}M", self.memory_mib)));
        }
        if !self.own.cpus {
            planner.qemu("-smp", QemuOpt::new(self.cpus.to_string()));
        }

        let console = planner.channel(CONSOLE, ChannelKind::Console);
        planner.qemu("-serial", QemuOpt::verbatim(format!("chardev:{console}")));
        let monitor = planner.channel(MONITOR, ChannelKind::Monitor);
        planner.qemu("-mon", QemuOpt::new(format!("chardev={monitor}")).kv("mode", "control"));

        if self.halt_on_kernel_panic {
            planner.qemu_flag("-no-reboot");
            // Tells QEMU of a panic by itself, for kernels whose reboot does not work.
            planner.pci_device(QemuOpt::new("pvpanic-pci"))?;
            planner.optional_module("pvpanic_pci");
        }
        if self.direct_kernel {
            self.kernel_arguments(planner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn processors_go_up_to_what_the_machine_has() {
        for arch in Arch::ALL {
            for accel in [Accel::Tcg, Accel::Kvm] {
                let plan = |cpus| {
                    let mut options = Options::new(arch);
                    (options.accel, options.cpus) = (accel, cpus);
                    options.plan()
                };
                let max = cpus_max(arch, accel);
                assert!(plan(max).is_ok(), "{arch}, {accel}");
                for cpus in [0, max + 1] {
                    let error = plan(cpus).unwrap_err();
                    let range = format!("1 to {max}");
                    assert!(error.hint().unwrap().contains(&range), "{arch}, {accel}: {error}");
                }
            }
        }
    }
}
