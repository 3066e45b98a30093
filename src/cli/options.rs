//! The options of `run` and `shell`. Filling them only validates; nothing is done here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use vmtest::accel::AccelOption;
use vmtest::arch::Arch;
use vmtest::options::WarmMode;
use vmtest::qemu::{Drive, UserNet};
use vmtest::size::{Bytes, Mib};

use super::ui::MessageFormat;

/// Options that describe the machine and its image.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Guest architecture: amd64, i386, arm64, arm, riscv64 (or x86_64, aarch64, …). Default:
    /// VMTEST_ARCH, else the host's
    #[arg(long, value_name = "ARCH", value_parser = arch())]
    pub(crate) arch: Option<Arch>,
    /// Kernel image; or @gcov, @distribution or @default: that of the asset manifest, with its modules.
    /// Default: VMTEST_KERNEL, else @default
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    pub(crate) kernel: Option<PathBuf>,
    /// Modules of the kernel, …/lib/modules/RELEASE. Default: those of the pinned kernel; with
    /// --kernel: /lib/modules/RELEASE if the kernel says its release, else all is taken to be built in
    #[arg(long, value_name = "DIR", help_heading = "Boot")]
    pub(crate) modules: Option<PathBuf>,
    /// Initramfs to boot. With COMMAND, vmtest's own parts are added behind it; without, its own init
    /// runs and vmtest only watches. Default: VMTEST_INITRAMFS, else one is built
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    pub(crate) initramfs: Option<PathBuf>,
    /// UEFI firmware that starts the kernel: CODE:VARS, two files of which none is written to, or
    /// `default`: VMTEST_OVMF_CODE and VMTEST_OVMF_VARS, else the pinned one (amd64, arm64)
    #[arg(long, value_name = "CODE:VARS|default", help_heading = "Boot")]
    pub(crate) firmware: Option<OsString>,
    /// Parameters for the kernel's command line; repeats
    #[arg(long, value_name = "STR", allow_hyphen_values = true, help_heading = "Boot")]
    pub(crate) append: Vec<String>,
    /// QEMU's program with first arguments, quoted as for a shell. Default: VMTEST_QEMU, else the
    /// pinned one, else from PATH
    #[arg(long, value_name = "CMD", help_heading = "Boot")]
    pub(crate) qemu: Option<OsString>,
    /// Further argument for QEMU; repeats
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, help_heading = "Boot")]
    pub(crate) qemu_arg: Vec<OsString>,

    /// Program to put into the image, with its interpreter and libraries; repeats
    #[arg(long, value_name = "FILE[:DEST]", help_heading = "Image")]
    pub(crate) bin: Vec<OsString>,
    /// File or directory to put into the image as it is; repeats
    #[arg(long, value_name = "SRC[:DEST]", help_heading = "Image")]
    pub(crate) file: Vec<OsString>,
    /// Where programs and libraries of the guest's architecture are. Default: /
    #[arg(long, value_name = "DIR", help_heading = "Image")]
    pub(crate) sysroot: Option<PathBuf>,

    /// Directory of the host with libraries that LD_LIBRARY_PATH or a build tree has; repeats
    #[arg(long, value_name = "DIR", help_heading = "Image")]
    pub(crate) lib_dir: Vec<PathBuf>,
    /// Library that may be missing; repeats
    #[arg(long, value_name = "SONAME", help_heading = "Image")]
    pub(crate) allow_missing: Vec<String>,

    /// Directory of the host, mounted over 9p at /mount/9p/TAG; repeats
    #[arg(long, value_name = "DIR[:TAG][:ro]", help_heading = "Devices")]
    pub(crate) share: Vec<OsString>,
    /// Directory of the host as the root file system, over 9p. With COMMAND it is run there by
    /// vmtest's agent; without, the tree's own init runs
    #[arg(long, value_name = "DIR[:ro]", help_heading = "Devices")]
    pub(crate) root: Option<OsString>,
    /// Directory of the host as the read-only vfat partition /dev/sda1, mounted at /mount/vfat/sda1;
    /// repeats (sdb1, …)
    #[arg(long, value_name = "DIR", help_heading = "Devices")]
    pub(crate) ro_dir: Vec<PathBuf>,
    /// Disk image as a block device: ,ro ,snapshot ,format=raw|qcow2 ,if=virtio|ahci|scsi; repeats
    #[arg(long, value_name = "FILE[,ro][,if=…]", value_parser = drive(), help_heading = "Devices")]
    pub(crate) drive: Vec<Drive>,
    /// Network: user[,cidr=…][,hostfwd=tcp::8080-:80][,pcap=FILE][,nic=virtio|e1000]; repeats
    #[arg(long, value_name = "user[,…]", value_parser = net(), help_heading = "Devices")]
    pub(crate) net: Vec<UserNet>,
    /// Event channel NAME; its events go to FILE, one JSON object a line; repeats
    #[arg(long, value_name = "NAME=FILE", help_heading = "Devices")]
    pub(crate) event: Vec<OsString>,

    /// Memory, with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory(), help_heading = "Machine")]
    pub(crate) memory: Bytes,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    pub(crate) cpus: u32,
    /// Accelerator: auto proves KVM by running guest code and says what it took and why
    #[arg(long, value_name = "auto|kvm|tcg", default_value = "auto", value_parser = accel(), help_heading = "Machine")]
    pub(crate) accel: AccelOption,

    /// Environment of COMMAND; repeats
    #[arg(long, value_name = "K=V", help_heading = "Command")]
    pub(crate) env: Vec<OsString>,
    /// Working directory of COMMAND
    #[arg(long, value_name = "DIR", help_heading = "Command")]
    pub(crate) cwd: Option<OsString>,

    /// Limit from QEMU's start until the guest is ready, as in 1m20s or 300ms. Default: 20s with KVM,
    /// 2m emulated
    #[arg(long, value_name = "D", value_parser = limit(), help_heading = "Limits")]
    pub(crate) boot_timeout: Option<Duration>,

    /// Directory for run.json, console.log, stdout, stderr; made if it is not there
    #[arg(long, value_name = "DIR", help_heading = "Report")]
    pub(crate) artifacts: Option<PathBuf>,
    /// Collect what ran in the guest: the kernel's gcov counters (--kernel @gcov), and what programs
    /// built with LLVM's, Go's or gcc's coverage leave. Default: VMTEST_COVERAGE, else nothing
    #[arg(long, value_name = "DIR", help_heading = "Report")]
    pub(crate) coverage: Option<PathBuf>,
    /// Name of the run in --coverage. Default: COMMAND's name and the architecture
    #[arg(long, value_name = "NAME", help_heading = "Report")]
    pub(crate) coverage_name: Option<String>,
    /// Resume a saved guest instead of booting, and save the one that boots
    ///
    /// auto: where that is safe; on: or fail; off: boot each time. Default: VMTEST_WARM, else auto.
    #[arg(long, value_name = "auto|on|off", value_parser = WarmMode::parse, help_heading = "Report")]
    pub(crate) warm: Option<WarmMode>,
    /// Show the kernel's messages, and what is done, on stderr
    #[arg(short, long, help_heading = "Report")]
    pub(crate) verbose: bool,
    /// Print QEMU's command line and do not run it
    #[arg(long, help_heading = "Report")]
    pub(crate) dry_run: bool,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Give this program's stdin to COMMAND; without it COMMAND reads /dev/null
    #[arg(long, help_heading = "Command")]
    pub(crate) stdin: bool,
    /// Limit for the whole run. Default: VMTEST_TIMEOUT, else 5m with KVM, 15m emulated
    #[arg(long, value_name = "D", value_parser = limit(), help_heading = "Limits")]
    pub(crate) timeout: Option<Duration>,
    /// Progress and verdict on stderr for people or for programs
    #[arg(long, value_name = "text|json", default_value = "text", help_heading = "Report")]
    pub(crate) message_format: MessageFormat,
    /// Program and arguments. With a slash, and if it is a file of the host (or of --sysroot), it is
    /// put into the image with all it needs; otherwise it is looked up in the guest's PATH
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Options of `shell`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Program to run on the terminal. Default: the guest's sh
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

fn arch() -> ValueParser {
    ValueParser::new(|text: &str| {
        text.parse::<Arch>().map_err(|error| format!("{error}\nhint: {}", error.hint()))
    })
}

fn accel() -> ValueParser {
    ValueParser::new(|text: &str| {
        text.parse::<AccelOption>().map_err(|error| format!("{error}\nhint: {}", error.hint()))
    })
}

fn limit() -> ValueParser {
    ValueParser::new(|text: &str| {
        vmtest::duration::parse_limit(text)
            .map_err(|error| format!("{error}\nhint: {}", error.hint()))
    })
}

/// A whole number of MiB, which is QEMU's unit: what would be cut off is refused.
fn memory() -> ValueParser {
    let parse = |text: &str| -> Result<Bytes, vmtest::size::Error> {
        let size = Mib::try_from(text.parse::<Bytes>()?)?;
        size.bytes().within(Bytes(1 << 20)..=Bytes(4 << 40))
    };
    ValueParser::new(move |text: &str| {
        parse(text).map_err(|error| format!("{error}\nhint: {}", error.hint()))
    })
}

fn drive() -> impl TypedValueParser<Value = Drive> {
    OsStringValueParser::new().try_map(|text| Drive::parse(&text))
}

fn net() -> impl TypedValueParser<Value = UserNet> {
    OsStringValueParser::new().try_map(|text| UserNet::parse(&text))
}
