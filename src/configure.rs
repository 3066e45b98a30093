//! What the user wants of a machine and of the host beside it: [`Config`], and configurators that
//! fill it.

use std::path::PathBuf;
use std::time::Duration;

use crate::accel::AccelOption;
use crate::arch::Arch;
use crate::initramfs::Builder;
use crate::options::Options;
use crate::vm::Resources;

/// Adds something to an image.
pub type ImagePart = Box<dyn FnOnce(&mut Builder) + Send>;

/// A machine's [`Options`], what is looked up for it, and what the host does beside it.
pub struct Config {
    /// The machine. [`Options::boot`] and [`Options::accel`] are set when it is prepared, from the
    /// fields below.
    pub options: Options,
    /// The accelerator. Default: [`AccelOption::Auto`].
    pub accel: AccelOption,
    /// The kernel. Default: [`Kernel::Default`].
    pub kernel: Kernel,
    /// The kernel's modules, `…/lib/modules/RELEASE`. Default: those of the pinned kernel, or those
    /// installed on the host for the release that the kernel says.
    pub modules: Option<PathBuf>,
    /// The initramfs. Default: `VMTEST_INITRAMFS`, else none is given and one is built where the
    /// agent runs.
    pub initramfs: Option<PathBuf>,
    /// Where programs and libraries of the guest's architecture are. Default: `/`.
    pub sysroot: Option<PathBuf>,
    /// What goes into a built image, in this order. Default: nothing but the guest program, a shell,
    /// the kernel modules that are needed, and the command.
    pub image: Vec<ImagePart>,
    /// Start the kernel by UEFI firmware: `VMTEST_OVMF_CODE` and `VMTEST_OVMF_VARS`, else the pinned
    /// one of the asset manifest (amd64, arm64). [`Options::firmware`] goes before. Default: no.
    pub default_firmware: bool,
    /// From QEMU's start until the agent is ready. Default: 20 s with KVM, 2 min emulated.
    pub boot_timeout: Option<Duration>,
    /// What the machine gets besides its plan.
    pub resources: Resources,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Which kernel is booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// `VMTEST_KERNEL`, else the pinned one of the asset manifest.
    #[default]
    Default,
    /// This file.
    File(PathBuf),
    /// None: the firmware boots what it finds on the machine's drives.
    None,
}

impl Config {
    /// A machine of this architecture with the defaults named at each field.
    pub fn new(arch: Arch) -> Config {
        Config {
            options: Options::new(arch),
            accel: AccelOption::default(),
            kernel: Kernel::default(),
            modules: None,
            initramfs: None,
            sysroot: None,
            image: Vec::new(),
            default_firmware: false,
            boot_timeout: None,
            resources: Resources::default(),
        }
    }
}
