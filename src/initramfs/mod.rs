//! Assembles initramfs images: what goes in, why, and the archive itself.

pub mod closure;
pub mod modules;
