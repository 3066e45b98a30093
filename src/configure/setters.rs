//! The configurators: each sets what one option of the command line sets, or what only a program can.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Config, ConfigError, Configure, EventFile, Kernel};
use crate::accel::AccelOption;
use crate::diagnosis::Gate;
use crate::initramfs::ImageSpec;
use crate::initramfs::values::Placed;
use crate::options::{Options, QemuCommand, WarmMode};
use crate::plan::{Device, TagError};
use crate::programs;
use crate::qemu::{
    Drive, DriveInterface, Entropy, EventPort, Firmware, FirmwareChoice, KernelLog, P9Root,
    P9Share, ReadOnlyDir, UserNet,
};
use crate::vm::lines::{self, LinePrinter};
use crate::vm::{BoxError, CancelToken, HangAfter, Resources, Sink, Task};

/// Changes the options directly, where there is no configurator for it: memory, processors, …
pub fn options(change: impl FnOnce(&mut Options)) -> impl Configure {
    |config: &mut Config| {
        change(&mut config.options);
        Ok(())
    }
}

/// Makes something for each machine of this kind.
fn resources(part: impl Fn(&mut Resources) + Send + Sync + 'static) -> impl Configure {
    config(|config| config.resources.push(Arc::new(part)))
}

/// Adds a device: vmtest's own, or one of another crate.
pub fn device(device: impl Device + 'static) -> impl Configure {
    options(|options| {
        options.device(device);
    })
}

/// Adds arguments for QEMU, after those of all devices, as they are.
/// (`--qemu-arg`)
pub fn with_qemu_args(args: impl IntoIterator<Item = impl Into<OsString>>) -> impl Configure {
    options(|options| options.qemu_args.extend(args.into_iter().map(Into::into)))
}

/// Sets QEMU's program and first arguments, quoted as for a shell: `'/opt/my qemu/qemu' -m 1G`.
///
/// # Errors
/// When applied: [`ConfigError::Qemu`].
pub fn with_qemu_command(command: impl AsRef<OsStr>) -> impl Configure {
    move |config: &mut Config| {
        config.options.qemu = Some(QemuCommand::parse(command.as_ref())?);
        Ok(())
    }
}

/// Sets QEMU's program and first arguments. (`--qemu`)
pub fn with_qemu(command: QemuCommand) -> impl Configure {
    options(|options| options.qemu = Some(command))
}

/// Sets the kernel: a file, or `@gcov`, `@distribution` or `@default` of the asset manifest. Default:
/// `VMTEST_KERNEL`, which takes the same words, else the pinned one.
/// (`--kernel`)
pub fn with_kernel(path: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        config.kernel = Kernel::from_word(path);
        Ok(())
    }
}

/// Sets the initramfs. Default: `VMTEST_INITRAMFS`.
/// (`--initramfs`)
pub fn with_initramfs(path: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        config.initramfs = Some(path.into());
        Ok(())
    }
}

/// Adds to the image that is built for a run: programs with their libraries, files, directories.
pub fn with_image(part: impl Fn(&mut ImageSpec) + Send + Sync + 'static) -> impl Configure {
    config(|config| config.image.push(Arc::new(part)))
}

/// Adds a program with its interpreter and libraries to the image. Without a destination one of the
/// system's keeps its place, and another goes below `/.vmtest/own`. (`--bin`)
pub fn with_bin(bin: Placed) -> impl Configure {
    with_image(move |spec| {
        spec.by(format!("--bin {}", bin.given.display()));
        let sysroot = spec.root().to_owned();
        let src = programs::on_host(&bin.src, Some(&sysroot)).unwrap_or_else(|| bin.src.clone());
        let dest = bin.dest.clone().unwrap_or_else(|| programs::destination(&src, Some(&sysroot)));
        spec.binary_os(&src, Some(&dest));
    })
}

/// Adds a file as it is, or a directory with everything in it, to the image. Without a destination it
/// keeps its path. (`--file`)
pub fn with_file(file: Placed) -> impl Configure {
    with_image(move |spec| {
        spec.by(format!("--file {}", file.given.display())).keep_modes_of_files();
        if file.src.is_dir() {
            spec.tree(&file.src, file.dest.clone());
        } else {
            spec.file_os(&file.src, file.dest.as_deref(), false);
        }
    })
}

/// Looks for libraries of programs in this directory of the host too, as `LD_LIBRARY_PATH` would.
/// (`--lib-dir`)
pub fn with_library_dir(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    with_image(move |spec| {
        spec.library_dirs([dir.clone()]);
    })
}

/// Does without a library that no directory has. (`--allow-missing`)
pub fn with_allow_missing(soname: impl Into<String>) -> impl Configure {
    let soname = soname.into();
    with_image(move |spec| {
        spec.allow_missing([soname.as_str()]);
    })
}

/// Adds parameters to the kernel's cmdline, as a person writes them.
/// (`--append`)
pub fn with_append_kernel(
    parameters: impl IntoIterator<Item = impl Into<String>>,
) -> impl Configure {
    options(|options| options.kernel_args.extend(parameters.into_iter().map(Into::into)))
}

/// Whether the run ends when the guest's kernel panics (`panic=-1` and `-no-reboot`); Linux alone
/// hangs forever. Default: yes.
/// (`--on-panic`)
pub fn halt_on_kernel_panic(halt: bool) -> impl Configure {
    options(move |options| options.halt_on_kernel_panic = halt)
}

/// Adds a raw disk image on AHCI, `/dev/sda`. Other buses and formats: [`device`] with a [`Drive`].
pub fn ide_block_device(file: impl Into<PathBuf>) -> impl Configure {
    device(Drive { interface: DriveInterface::Ahci, ..Drive::new(file) })
}

/// Shares a directory of the host over 9p, writable, as `/mount/9p/<tag>`. A read-only share, or one
/// that keeps owners: [`device`] with a [`P9Share`].
///
/// # Errors
/// When applied: [`ConfigError::NoDirectory`], [`ConfigError::NotADirectory`], [`ConfigError::Tag`].
pub fn p9_directory(dir: impl Into<PathBuf>, tag: impl Into<String>) -> impl Configure {
    |config: &mut Config| {
        let (dir, tag) = (directory(dir.into())?, tag.into());
        TagError::check(&tag)?;
        config.apply(with_share(P9Share::new(dir, tag))).map(drop)
    }
}

/// Shares a directory of the host over 9p. (`--share`)
pub fn with_share(share: P9Share) -> impl Configure {
    device(share)
}

/// Makes a directory of the host the guest's root file system, over 9p. (`--root`)
pub fn with_root(root: P9Root) -> impl Configure {
    device(root)
}

/// Adds a disk. (`--drive`)
pub fn with_drive(drive: Drive) -> impl Configure {
    device(drive)
}

/// Adds a network. (`--net`)
pub fn with_network(net: UserNet) -> impl Configure {
    device(net)
}

/// Makes a directory of the host the guest's root file system, over 9p, writable.
///
/// # Errors
/// When applied: [`ConfigError::NoDirectory`], [`ConfigError::NotADirectory`].
pub fn p9_boot_directory(dir: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        let dir = directory(dir.into())?;
        config.apply(with_root(P9Root::new(dir))).map(drop)
    }
}

/// Shows a directory of the host as the read-only vfat partition `/dev/sda1`.
///
/// # Errors
/// When applied: [`ConfigError::NoDirectory`], [`ConfigError::NotADirectory`].
pub fn read_only_directory(dir: impl Into<PathBuf>) -> impl Configure {
    |config: &mut Config| {
        let dir = directory(dir.into())?;
        config.apply(with_read_only_dir(dir)).map(drop)
    }
}

/// Shows a directory of the host as the read-only vfat partition `/dev/sda1` (a second one as
/// `/dev/sdb1`, …). (`--ro-dir`)
pub fn with_read_only_dir(dir: impl Into<PathBuf>) -> impl Configure {
    device(ReadOnlyDir { dir: dir.into() })
}

fn directory(path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.as_os_str().is_empty() {
        Err(ConfigError::NoDirectory)
    } else if !path.is_dir() {
        Err(ConfigError::NotADirectory { path })
    } else {
        Ok(std::path::absolute(&path).unwrap_or(path))
    }
}

/// Starts the kernel by UEFI: `VMTEST_OVMF_CODE` and `VMTEST_OVMF_VARS`, else the pinned firmware.
pub fn with_default_ovmf() -> impl Configure {
    |config: &mut Config| {
        config.default_firmware = true;
        Ok(())
    }
}

/// Starts the kernel by this UEFI. Neither file is written to: the variables are a private copy.
pub fn with_ovmf(code: impl Into<PathBuf>, vars: impl Into<PathBuf>) -> impl Configure {
    options(|options| {
        options.firmware = Some(Firmware { code: code.into(), vars: vars.into() });
    })
}

/// Starts the kernel by UEFI. (`--firmware`)
pub fn with_firmware(firmware: FirmwareChoice) -> impl Configure {
    config(|config| match firmware {
        FirmwareChoice::Default => config.default_firmware = true,
        FirmwareChoice::Files(firmware) => config.options.firmware = Some(firmware),
    })
}

/// Collects what runs in the guest, in a directory of the run's own below `dir`
/// ([`Config::coverage`]). (`--coverage`)
pub fn with_coverage(dir: impl Into<PathBuf>) -> impl Configure + Clone {
    let dir = dir.into();
    move |config: &mut Config| {
        config.coverage = Some(dir);
        Ok(())
    }
}

/// Names the run whose coverage is collected ([`Config::coverage_name`]). (`--coverage-name`)
pub fn with_coverage_name(name: impl Into<String>) -> impl Configure {
    let name = name.into();
    config(|config| config.coverage_name = Some(name))
}

/// Sets how much the kernel says on its console. Default: [`KernelLog::Full`]. (`--kernel-log`)
pub fn with_kernel_log(log: KernelLog) -> impl Configure {
    options(move |options| options.kernel_log = log)
}

/// Adds a virtio random number generator.
/// (`--rng`)
pub fn virtio_random() -> impl Configure {
    device(Entropy)
}

/// Sends the console's bytes also to a writer. One that fails gets no more; one that blocks holds up
/// the guest. Machines made of clones of one [`Config`] share it.
pub fn with_serial_output(sink: impl Write + Send + 'static) -> impl Configure {
    let sink = Shared(Arc::new(Mutex::new(sink)));
    resources(move |resources| resources.console_sinks.push(Box::new(sink.clone()) as Sink))
}

/// A writer that several machines have.
struct Shared<W>(Arc<Mutex<W>>);

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Shared<W> {
        Shared(self.0.clone())
    }
}

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.0).flush()
    }
}

/// A panic of another machine's thread is that machine's failure alone.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls a printer for each line of the console ([`crate::vm::lines`]).
pub fn log_serial_by_line(printer: impl LinePrinter + 'static) -> impl Configure {
    with_serial_output(lines::sink(printer))
}

/// Adds work that is bound to the machine's life; `make` is called for each machine.
pub fn with_task(make: impl Fn() -> Task + Send + Sync + 'static) -> impl Configure {
    resources(move |resources| resources.tasks.push(make()))
}

/// Calls a function for each event of a new event channel; see [`Resources::on_event`]. Machines made of
/// clones of one [`Config`] share it: it is called for one event at a time.
pub fn event_callback<T, E>(
    name: impl Into<String>,
    callback: impl FnMut(T) -> Result<(), E> + Send + 'static,
) -> impl Configure
where
    T: DeserializeOwned + 'static,
    E: Into<BoxError>,
{
    let name = name.into();
    let callback = Arc::new(Mutex::new(callback));
    (
        device(EventPort { name: name.clone() }),
        resources(move |resources| {
            let callback = callback.clone();
            resources.on_event(name.clone(), move |event| lock(&callback)(event));
        }),
    )
}

/// Adds an event channel, to be taken with [`crate::vm::Vm::events`].
pub fn event_channel(name: impl Into<String>) -> impl Configure {
    device(EventPort { name: name.into() })
}

/// Limits QEMU's life. Default: `VMTEST_TIMEOUT`, else 5 min with KVM, 15 min emulated.
/// (`--timeout`)
pub fn with_vm_timeout(limit: Duration) -> impl Configure {
    options(move |options| options.timeout = Some(limit))
}

/// Kills QEMU when the token is thrown.
pub fn with_cancel(token: CancelToken) -> impl Configure {
    resources(move |resources| resources.cancel = Some(token.clone()))
}

/// Tells programs in the guest that they are in one: `VMTEST_IN_GUEST=1` on the kernel's cmdline, which
/// the kernel hands to init as environment.
pub fn with_vmtest_ident() -> impl Configure {
    with_append_kernel(["VMTEST_IN_GUEST=1"])
}

/// Changes what has a field of its own in [`Config`].
fn config(change: impl FnOnce(&mut Config)) -> impl Configure {
    |config: &mut Config| {
        change(config);
        Ok(())
    }
}

/// Gives the guest this much memory, in MiB. Default: 512. (`--memory`)
pub fn with_memory(mib: u64) -> impl Configure {
    options(move |options| options.memory_mib = mib)
}

/// Gives the guest this many processors. Default: 1. (`--cpus`)
pub fn with_cpus(cpus: u32) -> impl Configure {
    options(move |options| options.cpus = cpus)
}

/// Takes this accelerator. Default: [`AccelOption::Auto`]. (`--accel`)
pub fn with_accel(accel: AccelOption) -> impl Configure {
    config(move |config| config.accel = accel)
}

/// Limits the time from QEMU's start until the guest is ready. Default: 20 s with KVM, 2 min emulated.
/// (`--boot-timeout`)
pub fn with_boot_timeout(limit: Duration) -> impl Configure {
    config(move |config| config.boot_timeout = Some(limit))
}

/// Says which of the kernel's reports of its faults count, and what one that does means for the run:
///
/// ```
/// use vmtest::configure::with_splats;
/// use vmtest::diagnosis::{Gate, Mode};
///
/// let gate = Gate::new(Mode::Fail).allow(&["WARNING in my_probe".to_owned()])?;
/// let configurator = with_splats(gate);
/// # let _ = configurator;
/// # Ok::<(), vmtest::diagnosis::gate::PatternError>(())
/// ```
///
/// Default: all count, and are shown.
/// (`--splats`), (`--allow-splat`), (`--allow-splat-file`), (`--deny-splat-file`)
pub fn with_splats(gate: Gate) -> impl Configure {
    config(move |config| config.splats = gate)
}

/// Names the kernel's ELF file with debug information, for files and lines in its traces. Default: that
/// of the pinned kernel, if there is one. (`--vmlinux`)
pub fn with_vmlinux(file: impl Into<PathBuf>) -> impl Configure {
    let file = file.into();
    config(|config| config.vmlinux = Some(file))
}

/// Fails a run whose guest is ready later than this after QEMU's start, though all else passed: for tests of
/// how fast something boots. (`--boot-budget`)
pub fn with_boot_budget(budget: Duration) -> impl Configure {
    config(move |config| config.boot_budget = Some(budget))
}

/// Says when a silent guest is looked at, whether it hangs (`docs/hangs.md`). Default: after 1 min with KVM,
/// 3 min emulated, and one that only does nothing does not hang then. (`--hang-after`)
pub fn with_hang_after(after: HangAfter) -> impl Configure {
    config(move |config| config.hang_after = Some(after))
}

/// Refuses kernels that have not this option, with or without `CONFIG_`, before they are booted.
/// (`--require`)
pub fn with_required_option(option: impl Into<String>) -> impl Configure {
    let option = option.into();
    config(|config| config.requires.push(option))
}

/// Takes kernel modules from this directory, `…/lib/modules/RELEASE`. (`--modules`)
pub fn with_modules(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    config(|config| config.modules = Some(dir))
}

/// Looks for programs and libraries of the guest's architecture below this directory. (`--sysroot`)
pub fn with_sysroot(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    config(|config| config.sysroot = Some(dir))
}

/// Resumes a saved guest and saves the one that boots, or not. Default: `VMTEST_WARM`, else
/// [`WarmMode::Auto`]. (`--warm`)
pub fn with_warm(mode: WarmMode) -> impl Configure {
    config(move |config| config.warm = Some(mode))
}

/// Keeps console, streams and `run.json` of a run in this directory. (`--artifacts`)
pub fn with_artifacts(dir: impl Into<PathBuf>) -> impl Configure {
    let dir = dir.into();
    config(|config| config.artifacts = Some(dir))
}

/// Writes the events of a channel to a file, one JSON object a line. (`--event`)
pub fn with_event_file(event: EventFile) -> impl Configure {
    config(|config| config.event_files.push(event))
}
