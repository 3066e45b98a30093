//! The options of `run` and `shell`, and what each means for the machine. Filling them only validates.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use vmtest::accel::AccelOption;
use vmtest::arch::Arch;
use vmtest::configure::*;
use vmtest::duration;
use vmtest::fields::UnknownWord;
use vmtest::initramfs::values::Placed;
use vmtest::options::{QemuCommand, WarmMode};
use vmtest::qemu::{Drive, FirmwareChoice, KernelLog, P9Root, P9Share, UserNet};
use vmtest::session::{Command, Variable};
use vmtest::size::{self, Bytes, Mib};

use super::diagnosis::DiagnosisArgs;
use super::ui::MessageFormat;
use super::value::{text, value};

/// Options that describe the machine and its image.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Guest architecture: amd64, i386, arm64, arm, riscv64 (or x86_64, aarch64, …). Default:
    /// VMTEST_ARCH, else the host's
    #[arg(long, value_parser = text(Arch::from_str), value_name = "ARCH")]
    pub(crate) arch: Option<Arch>,
    /// Kernel image; a directory: a kernel's build tree, one with boot/vmlinuz and lib/modules, /boot; or
    /// @gcov, @distribution or @default: that of the asset manifest, with its modules. Default:
    /// VMTEST_KERNEL, else @default; without COMMAND the kernel tree one is in
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
    #[arg(long, value_parser = value(FirmwareChoice::parse), value_name = "CODE:VARS|default", help_heading = "Boot")]
    pub(crate) firmware: Option<FirmwareChoice>,
    /// Parameters for the kernel's command line; repeats
    #[arg(long, value_name = "STR", allow_hyphen_values = true, help_heading = "Boot")]
    pub(crate) append: Vec<String>,
    /// QEMU's program with first arguments, quoted as for a shell. Default: VMTEST_QEMU, else the
    /// pinned one, else from PATH
    #[arg(long, value_parser = value(QemuCommand::parse), value_name = "CMD", help_heading = "Boot")]
    pub(crate) qemu: Option<QemuCommand>,
    /// Further argument for QEMU; repeats
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, help_heading = "Boot")]
    pub(crate) qemu_arg: Vec<OsString>,

    /// Program to put into the image, with its interpreter and libraries; repeats
    #[arg(long, value_parser = value(Placed::parse), value_name = "FILE[:DEST]", help_heading = "Image")]
    pub(crate) bin: Vec<Placed>,
    /// File or directory to put into the image as it is; repeats
    #[arg(long, value_parser = value(Placed::parse), value_name = "SRC[:DEST]", help_heading = "Image")]
    pub(crate) file: Vec<Placed>,
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
    ///
    /// ro: the guest cannot write; mapped: owners and modes that the guest sets are kept beside the files.
    #[arg(long, value_parser = value(P9Share::parse), value_name = "DIR[:TAG][:ro][:mapped]", help_heading = "Devices")]
    pub(crate) share: Vec<P9Share>,
    /// Directory of the host as the root file system, over 9p. With COMMAND it is run there by
    /// vmtest's agent; without, the tree's own init runs
    #[arg(long, value_parser = value(P9Root::parse), value_name = "DIR[:ro|:rw]", help_heading = "Devices")]
    pub(crate) root: Option<P9Root>,
    /// Directory of the host as the read-only vfat partition /dev/sda1, mounted at /mount/vfat/sda1;
    /// repeats (sdb1, …)
    #[arg(long, value_name = "DIR", help_heading = "Devices")]
    pub(crate) ro_dir: Vec<PathBuf>,
    /// Disk image as a block device: ,ro ,snapshot ,format=raw|qcow2 ,if=virtio|ahci|scsi; repeats
    #[arg(long, value_parser = value(Drive::parse), value_name = "FILE[,ro][,if=…]", help_heading = "Devices")]
    pub(crate) drive: Vec<Drive>,
    /// Network: user[,cidr=…][,hostfwd=tcp::8080-:80][,pcap=FILE][,nic=virtio|e1000]; repeats
    #[arg(long, value_parser = value(UserNet::parse), value_name = "user[,…]", help_heading = "Devices")]
    pub(crate) net: Vec<UserNet>,
    /// Event channel NAME; its events go to FILE, one JSON object a line; repeats
    #[arg(long, value_parser = value(EventFile::parse), value_name = "NAME=FILE", help_heading = "Devices")]
    pub(crate) event: Vec<EventFile>,

    /// A virtio random number generator, fed by the host
    #[arg(long, help_heading = "Devices")]
    pub(crate) rng: bool,

    /// Memory, with K, M, G or T
    #[arg(long, value_parser = text(memory), value_name = "SIZE", default_value = "512M", help_heading = "Machine")]
    pub(crate) memory: Mib,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    pub(crate) cpus: u32,
    /// Accelerator: auto proves KVM by running guest code and says what it took and why
    #[arg(long, value_parser = text(AccelOption::from_str), value_name = "auto|kvm|tcg", default_value = "auto", help_heading = "Machine")]
    pub(crate) accel: AccelOption,

    /// How much the kernel says on its console: all, or warnings and worse, which boots faster
    #[arg(long, value_parser = text(KernelLog::parse), value_name = "full|quiet", default_value = "full", help_heading = "Machine")]
    pub(crate) kernel_log: KernelLog,
    /// When the guest's kernel panics or reboots: end the run, or let the guest stay as it is until a limit
    #[arg(long, value_parser = text(on_panic), value_name = "end|stay", default_value = "end", help_heading = "Machine")]
    pub(crate) on_panic: OnPanic,

    /// Environment of COMMAND; repeats
    #[arg(long, value_parser = value(Variable::parse), value_name = "K=V", help_heading = "Command")]
    pub(crate) env: Vec<Variable>,
    /// Working directory of COMMAND
    #[arg(long, value_name = "DIR", help_heading = "Command")]
    pub(crate) cwd: Option<OsString>,

    /// Limit from QEMU's start until the guest is ready, as in 1m20s or 300ms. Default: 20s with KVM,
    /// 2m emulated
    #[arg(long, value_parser = text(duration::parse_limit), value_name = "D", help_heading = "Limits")]
    pub(crate) boot_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) diagnosis: DiagnosisArgs,

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
    #[arg(long, value_parser = text(WarmMode::parse), value_name = "auto|on|off", help_heading = "Report")]
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
    #[arg(long, value_parser = text(duration::parse_limit), value_name = "D", help_heading = "Limits")]
    pub(crate) timeout: Option<Duration>,
    /// Progress and verdict on stderr for people or for programs
    #[arg(long, value_name = "text|json", default_value = "text", help_heading = "Report")]
    pub(crate) message_format: MessageFormat,
    /// Program and arguments. With a slash, and if it is a file of the host (or of --sysroot), it is
    /// put into the image with all it needs; otherwise it is looked up in the guest's PATH
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Options of `runner`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunnerArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// The project's directory, seen at its own path; what is written there stays in the guest. Repeats.
    /// Default: that of cargo, Go, CMake, Meson or git that has the working directory, else that one
    #[arg(long, value_name = "DIR", help_heading = "Host")]
    pub(crate) project: Vec<PathBuf>,
    /// Directory of the host, seen at its own path, where PROGRAM may write; repeats
    #[arg(long, value_name = "DIR", help_heading = "Host")]
    pub(crate) write: Vec<PathBuf>,
    /// Variable that PROGRAM gets besides those of docs/testing.md; `NAME*` for all that begin so; repeats
    #[arg(long, value_name = "NAME", help_heading = "Host")]
    pub(crate) pass_env: Vec<String>,
    /// Limit for the whole run. Default: VMTEST_TIMEOUT, else none: tools have their own
    #[arg(long, value_parser = text(duration::parse_limit), value_name = "D", help_heading = "Limits")]
    pub(crate) timeout: Option<Duration>,
    /// Program and arguments, as a tool gives them. One of the guest's architecture runs in a guest; one of
    /// the host's that a tool gives to the runner of another architecture runs on the host
    #[arg(last = true, required = true, value_name = "PROGRAM")]
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

/// What `--on-panic` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnPanic {
    /// The run ends.
    End,
    /// The guest stays as it is.
    Stay,
}

fn on_panic(text: &str) -> Result<OnPanic, UnknownWord> {
    match text {
        "end" => Ok(OnPanic::End),
        "stay" => Ok(OnPanic::Stay),
        _ => Err(UnknownWord { given: text.to_owned(), known: "end, stay" }),
    }
}

/// A whole number of MiB, which is QEMU's unit: what would be cut off is refused.
fn memory(text: &str) -> Result<Mib, size::Error> {
    let size = Mib::try_from(text.parse::<Bytes>()?)?;
    size.bytes().within(Bytes(1 << 20)..=Bytes(4 << 40))?;
    Ok(size)
}

impl MachineArgs {
    /// Where the run's record goes, if there is to be one.
    pub(crate) fn record_dir(&self) -> Option<PathBuf> {
        self.artifacts.clone().filter(|_| !self.dry_run)
    }

    /// What the flags mean for the machine. Destructured, so that none can be forgotten.
    pub(crate) fn configurator(self) -> impl Configure {
        let MachineArgs {
            arch: _,
            kernel,
            modules,
            initramfs,
            firmware,
            append,
            qemu,
            qemu_arg,
            bin,
            file,
            sysroot,
            lib_dir,
            allow_missing,
            share,
            root,
            ro_dir,
            drive,
            net,
            event,
            rng,
            memory,
            cpus,
            accel,
            kernel_log,
            on_panic,
            // It reads files: see `DiagnosisArgs::configurator`.
            diagnosis: _,
            // Of the command: see `command`.
            env: _,
            cwd: _,
            boot_timeout,
            artifacts,
            coverage,
            coverage_name,
            warm,
            // Of this program.
            verbose: _,
            dry_run: _,
        } = self;
        let boot = (
            kernel.map(with_kernel),
            modules.map(with_modules),
            initramfs.map(with_initramfs),
            firmware.map(with_firmware),
            with_append_kernel(append),
            qemu.map(with_qemu),
            with_qemu_args(qemu_arg),
        );
        let image = (
            sysroot.map(with_sysroot),
            all(lib_dir.into_iter().map(with_library_dir)),
            all(allow_missing.into_iter().map(with_allow_missing)),
            all(bin.into_iter().map(with_bin)),
            all(file.into_iter().map(with_file)),
        );
        let devices = (
            root.map(with_root),
            all(share.into_iter().map(with_share)),
            all(ro_dir.into_iter().map(with_read_only_dir)),
            all(drive.into_iter().map(with_drive)),
            all(net.into_iter().map(with_network)),
            rng.then(virtio_random),
            all(event.into_iter().map(with_event_file)),
        );
        let machine = (
            with_memory(memory.get()),
            with_cpus(cpus),
            with_accel(accel),
            with_kernel_log(kernel_log),
            halt_on_kernel_panic(on_panic == OnPanic::End),
            boot_timeout.map(with_boot_timeout),
        );
        let report = (
            artifacts.map(with_artifacts),
            coverage.map(with_coverage),
            coverage_name.map(with_coverage_name),
            warm.map(with_warm),
        );
        (boot, image, devices, machine, report)
    }

    /// The command with what flags say of it; `None` when there is none.
    pub(crate) fn command(&self, argv: &[OsString], stdin: bool) -> Option<Command> {
        let mut command = Command::from_argv(argv)?.stdin(stdin);
        for Variable { name, value } in &self.env {
            command = command.env(name, value);
        }
        Some(match &self.cwd {
            Some(dir) => command.cwd(dir),
            None => command,
        })
    }
}
