//! Which compressions a kernel unpacks, from its configuration.

use std::io::{self, Read};
use std::path::Path;

use crate::initramfs::codec::{Codec, Decoder};
use crate::named_file;

/// Why a kernel's configuration is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelConfigError {
    /// The file cannot be read.
    #[error("cannot read the kernel's configuration from `{}`", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A kernel without `CONFIG_IKCONFIG`.
    #[error("kernel `{}` does not carry its configuration", path.display())]
    NotIncluded {
        /// The kernel.
        path: std::path::PathBuf,
    },
    /// It unpacks nothing.
    #[error("the kernel of `{}` has no initramfs support (CONFIG_BLK_DEV_INITRD is not set)", path.display())]
    NoInitrd {
        /// The kernel or its configuration.
        path: std::path::PathBuf,
    },
}

impl KernelConfigError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            KernelConfigError::Read { .. } => return None,
            KernelConfigError::NotIncluded { .. } => {
                "give its `.config` with `--kernel-config`, or a compression by name; it would be \
                 included with CONFIG_IKCONFIG"
                    .into()
            }
            KernelConfigError::NoInitrd { .. } => "take another kernel".into(),
        })
    }
}

/// What comes first when a kernel can choose: zstd unpacks nearly as fast as lz4 and is much
/// smaller; xz is slow.
const PREFERENCE: [Codec; 4] = [Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::Xz];

/// The compressions that a kernel with this configuration unpacks, the best for images first;
/// uncompressed is always possible. `None` without initramfs support at all.
pub fn supported(config: &str) -> Option<Vec<Codec>> {
    let set = |option: &str| {
        config.lines().any(|line| line.strip_prefix(option).is_some_and(|rest| rest == "=y"))
    };
    if !set("CONFIG_BLK_DEV_INITRD") {
        return None;
    }
    let has = |codec: &Codec| codec.kernel_option().is_some_and(set);
    Some(PREFERENCE.into_iter().filter(has).chain([Codec::None]).collect())
}

/// Reads a configuration: a `.config` file, plain or gzipped, or a kernel that carries it.
///
/// # Errors
/// See [`KernelConfigError`].
pub fn read(path: &Path) -> Result<String, KernelConfigError> {
    let fail = |source| KernelConfigError::Read { path: path.to_owned(), source };
    let bytes = named_file::read(path).map_err(fail)?;
    find(&bytes).ok_or_else(|| KernelConfigError::NotIncluded { path: path.to_owned() })
}

/// A kernel carries its configuration gzipped between these marks (`kernel/configs.c`).
const IKCONFIG_START: &[u8] = b"IKCFG_ST";
/// Bytes of a kernel that are unpacked in search of it.
const KERNEL_MAX_BYTES: u64 = 256 << 20;

fn find(bytes: &[u8]) -> Option<String> {
    let is_config = |text: &str| text.lines().any(|line| line.starts_with("CONFIG_"));
    if let Ok(text) = std::str::from_utf8(bytes) {
        return is_config(text).then(|| text.to_owned());
    }
    if let Some(text) = unpack(Codec::Gzip, bytes).and_then(|bytes| String::from_utf8(bytes).ok())
        && is_config(&text)
    {
        return Some(text);
    }
    included(bytes).or_else(|| {
        // The kernel proper is compressed behind a loader of unknown size: try all that looks like
        // a beginning, as the kernel's `extract-ikconfig` does.
        const MAGICS: [(Codec, &[u8]); 6] = [
            (Codec::Gzip, &[0x1f, 0x8b, 8, 0]),
            (Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
            (Codec::Lz4, &[0x02, 0x21, 0x4c, 0x18]),
            (Codec::Xz, &[0xfd, b'7', b'z', b'X', b'Z', 0]),
            (Codec::Bzip2, b"BZh9"),
            (Codec::Lzma, &[0x5d, 0, 0, 0]),
        ];
        MAGICS.iter().find_map(|(codec, magic)| {
            let starts = positions(bytes, magic);
            starts.take(16).find_map(|start| included(&unpack(*codec, &bytes[start..])?))
        })
    })
}

fn included(kernel: &[u8]) -> Option<String> {
    positions(kernel, IKCONFIG_START).find_map(|start| {
        let packed = &kernel[start + IKCONFIG_START.len()..];
        // To the letter: the mark is also found in compressed kernels, where pieces are kept as they
        // are and others are not, and the member's checksum tells.
        let mut text = String::new();
        let member = flate2::bufread::GzDecoder::new(packed);
        member.take(KERNEL_MAX_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    })
}

/// What can be unpacked; a kernel's payload is followed by other bytes, which is no error here.
fn unpack(codec: Codec, bytes: &[u8]) -> Option<Vec<u8>> {
    let decoder = Decoder::new(codec, bytes).ok()??;
    let mut unpacked = Vec::new();
    let _ = decoder.take(KERNEL_MAX_BYTES).read_to_end(&mut unpacked);
    (!unpacked.is_empty()).then_some(unpacked)
}

fn positions<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let first = wanted.first()?;
        while let Some(at) = bytes.get(from..)?.iter().position(|byte| byte == first) {
            let at = from + at;
            from = at + 1;
            if bytes[at..].starts_with(wanted) {
                return Some(at);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::initramfs::{Compression, Encoder};

    const CONFIG: &str = "# Linux\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is \
                          not set\nCONFIG_RD_XZ=y\nCONFIG_RD_LZ4=m\n";

    fn pack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        let compression = Compression::new(codec, None).unwrap();
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_best_compression_that_is_built_in_comes_first() {
        assert_eq!(supported(CONFIG), Some(vec![Codec::Gzip, Codec::Xz, Codec::None]));
        assert_eq!(supported("CONFIG_RD_GZIP=y\n"), None);
    }

    #[test]
    fn a_configuration_is_found_in_every_form_of_a_kernel() {
        let packed = pack(Codec::Gzip, CONFIG.as_bytes());
        assert_eq!(find(CONFIG.as_bytes()).as_deref(), Some(CONFIG));
        assert_eq!(find(&packed).as_deref(), Some(CONFIG));
        let mut kernel = vec![0x90; 5000];
        kernel.extend_from_slice(IKCONFIG_START);
        kernel.extend_from_slice(&packed);
        kernel.extend_from_slice(b"IKCFG_ED");
        kernel.resize(20_000, 0x91);
        assert_eq!(find(&kernel).as_deref(), Some(CONFIG));
        for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4, Codec::Xz] {
            let mut image = b"loader\xff\x1f\x8b\x08\x00 not this".to_vec();
            image.extend(pack(codec, &kernel));
            image.extend_from_slice(&[0; 64]);
            assert_eq!(find(&image).as_deref(), Some(CONFIG), "{codec}");
        }
        assert_eq!(find(&[0x90; 5000]), None);
    }
}
