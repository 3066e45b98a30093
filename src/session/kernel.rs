//! The kernel: found, looked at, and unpacked where QEMU might not do that.
//!
//! QEMU unpacks some forms on some architectures: an Image that is gzipped on arm64, and not on riscv64.
//! What it does not unpack it copies into memory as it is, where nothing ever starts. So vmtest unpacks
//! them all ([`Packed`]), but for what UEFI firmware starts by itself.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::kernel_dir::{self, KernelDir};
use crate::arch::Arch;
use crate::assets::{GcovAsset, GuestAssets};
use crate::configure::Kernel;
use crate::formats::kernel::{self, Packed};
use crate::initramfs::codec::{Codec, Decoder};
use crate::named_file;
use crate::options::Environment;

/// No kernel is larger; what claims to be is a bomb.
const UNPACKED_MAX_BYTES: u64 = 1 << 30;

/// The kernel with what is known of it.
#[derive(Default)]
pub(super) struct FoundKernel {
    pub(super) path: PathBuf,
    /// What QEMU gets in its place: the same unpacked, where QEMU might not do that.
    pub(super) unpacked: Option<Arc<OwnedFd>>,
    pub(super) modules: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) vmlinux: Option<PathBuf>,
    /// `uname -r`, where the image says so.
    pub(super) release: Option<String>,
    /// It is not one of the manifest's.
    pub(super) given: bool,
    pub(super) gcov: Option<GcovAsset>,
    pub(super) sha256: Option<String>,
}

/// Finds the kernel that is asked for, and looks whether it can be booted. `uefi`: firmware starts it.
pub(super) fn find(
    arch: Arch,
    choice: &Kernel,
    modules: Option<PathBuf>,
    environment: &Environment,
    guest: &GuestAssets,
    uefi: bool,
) -> Result<Option<FoundKernel>, Error> {
    let said = match (choice, &environment.kernel) {
        (Kernel::Default, Some(word)) => Kernel::from_word(word),
        (choice, _) => choice.clone(),
    };
    let (given, pinned) = match &said {
        Kernel::None => return Ok(None),
        Kernel::File(path) => (Some(path), None),
        Kernel::Named(name) => (None, Some(guest.named_kernel(arch, name)?)),
        Kernel::Default => (None, guest.kernel.as_ref()),
    };
    let mut kernel = match (given, pinned) {
        (Some(path), _) if path.is_dir() => {
            let KernelDir { image, modules, config, vmlinux } = kernel_dir::find(arch, path)?;
            FoundKernel {
                path: image,
                modules,
                config,
                vmlinux,
                given: true,
                ..FoundKernel::default()
            }
        }
        (Some(path), _) => {
            FoundKernel { path: path.clone(), given: true, ..FoundKernel::default() }
        }
        (None, Some(pinned)) => {
            // Only the packed image has the entry point that UEFI wants.
            let image = if uefi { &pinned.image } else { pinned.to_boot() };
            FoundKernel {
                path: image.path.clone(),
                unpacked: None,
                modules: pinned.modules.clone(),
                config: pinned.config.clone(),
                vmlinux: pinned.vmlinux.clone(),
                release: None,
                given: false,
                gcov: pinned.gcov.clone(),
                sha256: Some(image.sha256.clone()),
            }
        }
        (None, None) => return Err(Error::NoKernel { arch }),
    };
    let mut head = readable("kernel", &kernel.path)?;
    if let Some(packed) = Packed::of(&head).filter(|packed| !(uefi && packed.starts_by_uefi())) {
        let (file, begin) = unpack(&kernel.path, packed)?;
        kernel.unpacked = Some(Arc::new(file.into()));
        head = begin;
    }
    let Some(found) = kernel::identify(&head) else {
        return Err(Error::NotAKernel { path: kernel.path });
    };
    if !found.arches.contains(&arch) {
        let found = found.arches.to_vec();
        return Err(Error::KernelOfOtherArch { path: kernel.path, found, arch });
    }
    kernel.release.clone_from(&found.release);
    if given.is_some() {
        let installed = |release: &String| {
            let dir = Path::new("/lib/modules").join(release);
            (Some(arch) == Arch::host() && dir.is_dir()).then_some(dir)
        };
        kernel.modules =
            modules.or(kernel.modules).or_else(|| found.release.as_ref().and_then(installed));
    } else if let Some(dir) = modules {
        kernel.modules = Some(dir);
    }
    Ok(Some(kernel))
}

/// Reads a file's beginning, or says why it cannot be read.
pub(super) fn readable(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    named_file::open(path)
        .and_then(|file| file.take(kernel::HEAD_BYTES as u64).read_to_end(&mut head))
        .map_err(|source| Error::Read { what, path: path.to_owned(), source })?;
    Ok(head)
}

/// Unpacks a kernel into a file without a name; also returns its beginning.
fn unpack(path: &Path, packed: Packed) -> Result<(File, Vec<u8>), Error> {
    let fail = |source| Error::Unpack { path: path.to_owned(), form: packed.to_string(), source };
    let mut file = named_file::open(path).map_err(fail)?;
    let codec = match Codec::detect(packed.magic()) {
        Some(codec) if packed.is_known() => codec,
        _ => return Err(fail(io::Error::other("vmtest does not unpack this form"))),
    };
    file.seek(SeekFrom::Start(packed.offset())).map_err(fail)?;
    let packed_bytes = BufReader::new(file.take(packed.size().unwrap_or(u64::MAX)));
    let decoder = Decoder::new(codec, packed_bytes).map_err(fail)?;
    let decoder =
        decoder.ok_or_else(|| fail(io::Error::other("vmtest does not unpack this form")))?;
    let mut out = tempfile::tempfile().map_err(Error::Temporary)?;
    let mut decoder = decoder.take(UNPACKED_MAX_BYTES + 1);
    let bytes = io::copy(&mut decoder, &mut out).map_err(fail)?;
    if bytes > UNPACKED_MAX_BYTES {
        return Err(fail(io::Error::other(format!(
            "it unpacks to more than {} MiB",
            UNPACKED_MAX_BYTES >> 20
        ))));
    }
    out.rewind().map_err(Error::Temporary)?;
    let mut head = Vec::new();
    let begin = Read::by_ref(&mut out).take(kernel::HEAD_BYTES as u64);
    { begin }.read_to_end(&mut head).map_err(Error::Temporary)?;
    out.rewind().map_err(Error::Temporary)?;
    Ok((out, head))
}
