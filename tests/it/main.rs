//! Integration tests, one binary.

mod closure;
mod initramfs;
