//! Linux unpacks what is written here: one image, a segment for each compression, on every
//! architecture.

use std::io::Write;

use vmtest::arch::Arch;
use vmtest::initramfs::{Codec, Compression, Encoder};

use super::{archive, temp};
use crate::support::{assets, vmtest};

fn every_compression(arch: Arch) {
    assets(arch);
    let dir = temp();
    let mut image = Vec::new();
    let mut expected = String::new();
    for codec in Codec::WRITABLE {
        let mut builder = vmtest::initramfs::ImageSpec::new(arch);
        // Large enough for several blocks of every form.
        let body = vec![b'.'; 9 << 20];
        builder.bytes(format!("/segments/{codec}"), 0o644, format!("{codec}\n").into_bytes());
        builder.bytes(format!("/large/{codec}"), 0o644, body);
        builder.symlink(format!("/links/{codec}"), format!("../segments/{codec}"));
        let segment = archive(&builder);
        let mut encoder = Encoder::new(Compression::new(codec, None).unwrap(), &mut image).unwrap();
        encoder.write_all(&segment).unwrap();
        encoder.finish().unwrap();
        // lz4 has no end, and an uncompressed archive begins at a multiple of 4.
        image.extend_from_slice(&[0; 4]);
        image.resize(image.len().next_multiple_of(4), 0);
        expected.push_str(&format!("{codec}\n9437184\n"));
    }
    let path = dir.path().join("image");
    std::fs::write(&path, image).unwrap();
    let codecs: Vec<_> = Codec::WRITABLE.iter().map(|codec| codec.name()).collect();
    let script =
        format!("for i in {}; do cat /links/$i; wc -c < /large/$i; done", codecs.join(" "));
    let done = vmtest(["--arch", arch.name(), "--memory", "512M", "--initramfs"])
        .arg(&path)
        .args(["--", "sh", "-c", &script])
        .run();
    done.code(0).stdout(&expected);
}

#[test]
fn amd64_unpacks_every_compression() {
    every_compression(Arch::Amd64);
}

#[test]
fn i386_unpacks_every_compression() {
    every_compression(Arch::I386);
}

#[test]
fn arm64_unpacks_every_compression() {
    every_compression(Arch::Arm64);
}

#[test]
fn arm_unpacks_every_compression() {
    every_compression(Arch::Arm);
}

#[test]
fn riscv64_unpacks_every_compression() {
    every_compression(Arch::Riscv64);
}
