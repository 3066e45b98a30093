//! Kernel images: which architecture, which release.
//!
//! | image | told by | source |
//! |---|---|---|
//! | x86 bzImage | `HdrS` at 0x202; release by the pointer at 0x20e | `Documentation/arch/x86/boot.rst` |
//! | arm64 Image | `ARM\x64` at 56 | `Documentation/arch/arm64/booting.rst` |
//! | riscv Image | `RSC\x05` at 56 | `Documentation/arch/riscv/boot-image-header.rst` |
//! | arm zImage | 0x016f2818 at 36 | `arch/arm/boot/compressed/head.S` |
//! | any vmlinux | ELF, `e_machine` | `elf.h` |
//! | uImage | 0x27051956, big endian; architecture at 29 | U-Boot's `include/image.h` |
//!
//! Packed ones are told by [`Packed`], and say nothing of their architecture:
//!
//! | packed | told by | source |
//! |---|---|---|
//! | as a whole | the magic of gzip, zstd, xz, lz4, bzip2, lzma | `lib/decompress.c` |
//! | EFI zboot | `MZ`, `zimg` at 4; offset and size at 8 and 12, name of the compression at 24 | `drivers/firmware/efi/libstub/zboot-header.S` |

use std::fmt;

use crate::arch::Arch;

/// Bytes from the image's start that [`identify`] wants to see.
pub const HEAD_BYTES: usize = 64 << 10;

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// The architectures it can be of; several where the image does not say. Empty for one that is
    /// none of the five.
    pub arches: Vec<Arch>,
    /// `uname -r`, where the image says so.
    pub release: Option<String>,
}

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    name: &'static str,
    magic: &'static [u8],
    /// Of an EFI zboot image: where the payload is, and its size.
    payload: Option<(u32, u32)>,
}

/// Name and magic of what kernels are packed with; those of zboot have the names that it writes.
const FORMS: [(&str, &[u8]); 6] = [
    ("gzip", &[0x1f, 0x8b]),
    ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ("xz", &[0xfd, b'7', b'z', b'X', b'Z', 0]),
    ("lz4", &[0x02, 0x21, 0x4c, 0x18]),
    ("bzip2", b"BZh"),
    ("lzma", &[0x5d, 0, 0]),
];

impl Packed {
    /// Looks at the first [`HEAD_BYTES`] of a file; `None` when it is not packed, or in a form that is
    /// not known.
    pub fn of(head: &[u8]) -> Option<Packed> {
        let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
            let payload = Some((word(8)?, word(12)?));
            let name = head.get(24..)?.split(|byte| *byte == 0).next()?;
            // The kernel calls xz by the name of its option.
            let name = if name == b"xzkern" { b"xz" } else { name };
            let known = FORMS.iter().find(|(known, _)| known.as_bytes() == name);
            return Some(match known {
                Some((name, magic)) => Packed { name, magic, payload },
                None => Packed { name: "an unknown compression", magic: &[], payload },
            });
        }
        let (name, magic) = FORMS.iter().find(|(_, magic)| head.starts_with(magic))?;
        Some(Packed { name, magic, payload: None })
    }

    /// What its compression begins with.
    pub fn magic(&self) -> &'static [u8] {
        self.magic
    }

    /// Whether the compression is one of those above.
    pub fn is_known(&self) -> bool {
        !self.magic.is_empty()
    }

    /// Where in the file it begins.
    pub fn offset(&self) -> u64 {
        self.payload.map_or(0, |(offset, _)| offset.into())
    }

    /// How many bytes of the file it has; all if that is not said. The last four of a gzip's are not
    /// counted by zboot.
    pub fn size(&self) -> Option<u64> {
        self.payload.map(|(_, size)| u64::from(size) + 4)
    }

    /// UEFI firmware starts a zboot image, which unpacks itself.
    pub fn starts_by_uefi(&self) -> bool {
        self.payload.is_some()
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload {
            Some(_) => write!(f, "an EFI zboot image with {}", self.name),
            None => write!(f, "packed with {}", self.name),
        }
    }
}

/// Looks at the first [`HEAD_BYTES`] of a file. `None` when it is no kernel image that is known.
pub fn identify(head: &[u8]) -> Option<KernelImage> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    let known = |arches: &[Arch]| Some(KernelImage { arches: arches.to_vec(), release: None });
    if at(0, b"\x7fELF") {
        let machine = match head.get(5)? {
            2 => u16::from_be_bytes(head.get(18..20)?.try_into().ok()?),
            _ => u16::from_le_bytes(head.get(18..20)?.try_into().ok()?),
        };
        let arches = Arch::ALL.into_iter().filter(|arch| arch.elf_machine() == machine);
        return Some(KernelImage { arches: arches.collect(), release: None });
    }
    if at(0x202, b"HdrS") {
        return Some(bzimage(head));
    }
    if at(56, b"ARM\x64") {
        return known(&[Arch::Arm64]);
    }
    if at(56, b"RSC\x05") {
        return known(&[Arch::Riscv64]);
    }
    if at(36, &0x016f_2818_u32.to_le_bytes()) {
        return known(&[Arch::Arm]);
    }
    if at(0, &0x2705_1956_u32.to_be_bytes()) {
        // Of x86 there are some too, but QEMU boots none.
        return match head.get(29)? {
            2 => known(&[Arch::Arm]),
            22 => known(&[Arch::Arm64]),
            26 => known(&[Arch::Riscv64]),
            _ => known(&[]),
        };
    }
    // gzip, or an EFI zboot image: what is inside would have to be unpacked.
    if at(0, b"\x1f\x8b") || (at(0, b"MZ") && at(4, b"zimg")) {
        return known(&Arch::ALL);
    }
    None
}

fn bzimage(head: &[u8]) -> KernelImage {
    let word = |offset: usize| {
        head.get(offset..offset + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    // Protocol 2.12 and newer says whether there is a 64-bit entry point.
    const XLF_KERNEL_64: u16 = 1;
    let arches = if word(0x206) < 0x020c {
        vec![Arch::Amd64, Arch::I386]
    } else if word(0x236) & XLF_KERNEL_64 != 0 {
        vec![Arch::Amd64]
    } else {
        vec![Arch::I386]
    };
    let version = match word(0x20e) {
        0 => None,
        offset => head.get(usize::from(offset) + 0x200..),
    };
    let release = version
        .and_then(|text| text.split(|byte| *byte == b' ' || *byte == 0).next())
        .filter(|release| !release.is_empty() && release.len() < 200)
        .and_then(|release| std::str::from_utf8(release).ok())
        .map(str::to_owned);
    KernelImage { arches, release }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn each_kind_is_told() {
        let bz = |flags: &'static [u8]| {
            image(&[
                (0x202, b"HdrS\x0f\x02"),
                (0x20e, &[0x00, 0x01]),
                (0x236, flags),
                (0x300, b"6.12.3-test (who@where) #1\0"),
            ])
        };
        let kernel = identify(&bz(&[1, 0])).unwrap();
        assert_eq!(kernel.arches, [Arch::Amd64]);
        assert_eq!(kernel.release.as_deref(), Some("6.12.3-test"));
        assert_eq!(identify(&bz(&[0, 0])).unwrap().arches, [Arch::I386]);
        let rows: [(usize, &[u8], &[Arch]); 4] = [
            (56, b"ARM\x64", &[Arch::Arm64]),
            (56, b"RSC\x05", &[Arch::Riscv64]),
            (36, &[0x18, 0x28, 0x6f, 0x01], &[Arch::Arm]),
            (0, b"\x1f\x8b", &Arch::ALL),
        ];
        for (offset, magic, arches) in rows {
            assert_eq!(identify(&image(&[(offset, magic)])).unwrap().arches, arches);
        }
        let elf = image(&[(0, b"\x7fELF\x02\x01"), (18, &[243, 0])]);
        assert_eq!(identify(&elf).unwrap().arches, [Arch::Riscv64]);
        let uimage = |arch| image(&[(0, b"\x27\x05\x19\x56"), (28, &[5, arch, 2, 0])]);
        assert_eq!(identify(&uimage(2)).unwrap().arches, [Arch::Arm]);
        assert_eq!(identify(&uimage(7)).unwrap().arches, []);
        assert_eq!(identify(b"#!/bin/sh"), None);
    }

    #[test]
    fn an_image_of_each_architecture_is_told() {
        for arch in Arch::ALL {
            // A new architecture needs its magic number here and in `identify`.
            let (offset, magic): (usize, &[u8]) = match arch {
                Arch::Amd64 | Arch::I386 => (0x202, b"HdrS"),
                Arch::Arm64 => (56, b"ARM\x64"),
                Arch::Arm => (36, &[0x18, 0x28, 0x6f, 0x01]),
                Arch::Riscv64 => (56, b"RSC\x05"),
            };
            let found = identify(&image(&[(offset, magic)])).unwrap().arches;
            assert!(found.contains(&arch), "{arch}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(mut head in proptest::collection::vec(any::<u8>(), 0..2048), kind in 0..5) {
            let magic: (usize, &[u8]) =
                [(0x202, &b"HdrS"[..]), (0, b"\x7fELF"), (56, b"RSC\x05"), (0, b"MZ"), (0, b"\x27\x05\x19\x56")][kind as usize];
            if let Some(place) = head.get_mut(magic.0..magic.0 + magic.1.len()) {
                place.copy_from_slice(magic.1);
            }
            identify(&head);
        }
    }
}
