//! Integration tests, one binary.

mod boot;
mod cli;
mod closure;
mod hostile;
mod initramfs;
mod layers;
mod programs;
mod shell;
mod support;
