//! What vmtest wants of a kernel, and what for.

use crate::arch::Arch;

/// Whether nothing works without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Necessity {
    /// No guest of vmtest's boots without it.
    Necessary,
    /// Something that can be asked for needs it.
    Optional,
}

/// An option of kernels that vmtest can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, without `CONFIG_`.
    pub option: &'static str,
    /// The module that it makes, if it can be one.
    pub module: Option<&'static str>,
    /// Whether all guests need it.
    pub necessity: Necessity,
    /// What for.
    pub purpose: &'static str,
    /// For guests of these architectures only; empty for all.
    arches: &'static [Arch],
}

impl Wanted {
    /// Whether guests of this architecture want it.
    pub fn is_for(&self, arch: Arch) -> bool {
        self.arches.is_empty() || self.arches.contains(&arch)
    }
}

const ALL: &[Arch] = &[];
const UART_8250: &[Arch] = &[Arch::Amd64, Arch::I386, Arch::Riscv64];
const UART_PL011: &[Arch] = &[Arch::Arm64, Arch::Arm];

const fn necessary(
    option: &'static str,
    module: Option<&'static str>,
    purpose: &'static str,
    arches: &'static [Arch],
) -> Wanted {
    Wanted { option, module, necessity: Necessity::Necessary, purpose, arches }
}

const fn optional(
    option: &'static str,
    module: Option<&'static str>,
    purpose: &'static str,
) -> Wanted {
    Wanted { option, module, necessity: Necessity::Optional, purpose, arches: ALL }
}

/// All of them, the necessary ones first.
#[rustfmt::skip]
pub const WANTED: &[Wanted] = &[
    necessary("BLK_DEV_INITRD", None, "the image", ALL),
    necessary("BINFMT_ELF", None, "programs", ALL),
    necessary("PROC_FS", None, "/proc", ALL),
    necessary("SYSFS", None, "/sys, where devices are found", ALL),
    necessary("PCI", None, "every device", ALL),
    necessary("VIRTIO_PCI", Some("virtio_pci"), "vmtest's agent, and every virtio device", ALL),
    necessary("VIRTIO_CONSOLE", Some("virtio_console"), "vmtest's agent, --event", ALL),
    necessary("SERIAL_8250_CONSOLE", None, "the console", UART_8250),
    necessary("SERIAL_AMBA_PL011_CONSOLE", None, "the console", UART_PL011),
    optional("DEVTMPFS", None, "/dev of devices that appear later"),
    optional("TMPFS", None, "/tmp, /run and /dev/shm"),
    optional("BINFMT_SCRIPT", None, "scripts with a #! line"),
    optional("MODULES", None, "modules at all"),
    optional("9P_FS", Some("9p"), "--share, --root, --coverage"),
    optional("NET_9P_VIRTIO", Some("9pnet_virtio"), "--share, --root, --coverage"),
    optional("VIRTIO_NET", Some("virtio_net"), "--net"),
    optional("INET", None, "--net"),
    optional("E1000", Some("e1000"), "--net user,nic=e1000"),
    optional("VIRTIO_BLK", Some("virtio_blk"), "--drive"),
    optional("SCSI_VIRTIO", Some("virtio_scsi"), "--ro-dir, --drive …,if=scsi"),
    optional("BLK_DEV_SD", Some("sd_mod"), "--ro-dir, --drive …,if=scsi and if=ahci"),
    optional("SATA_AHCI", Some("ahci"), "--drive …,if=ahci"),
    optional("VFAT_FS", Some("vfat"), "--ro-dir"),
    optional("NLS_CODEPAGE_437", Some("nls_cp437"), "--ro-dir"),
    optional("NLS_ASCII", Some("nls_ascii"), "--ro-dir"),
    optional("NLS_UTF8", Some("nls_utf8"), "--ro-dir"),
    optional("HW_RANDOM_VIRTIO", Some("virtio_rng"), "--rng"),
    optional("EFI_STUB", None, "--firmware"),
    optional("PVPANIC_PCI", Some("pvpanic_pci"), "a panic is told at once even where a reboot does not work"),
    optional("OVERLAY_FS", Some("overlay"), "programs that stack file systems"),
    optional("CGROUPS", None, "programs that limit others"),
    optional("BPF_SYSCALL", None, "BPF programs"),
    optional("GCOV_KERNEL", None, "--coverage of the kernel"),
    optional("MAGIC_SYSRQ_SERIAL", None, "stacks of a guest that hangs"),
    optional("KALLSYMS", None, "functions' names in traces"),
    optional("DEBUG_INFO", None, "--vmlinux: files and lines in traces"),
    optional("PRINTK_CALLER", None, "reports of several processors at once are told apart"),
    optional("DETECT_HUNG_TASK", None, "the kernel reports tasks that wait too long"),
    optional("SOFTLOCKUP_DETECTOR", None, "the kernel reports processors that hang"),
    optional("IKCONFIG", None, "the kernel says itself what is in it"),
];

/// The option that a module belongs to.
pub fn of_module(module: &str) -> Option<&'static Wanted> {
    WANTED.iter().find(|wanted| wanted.module == Some(module))
}
