//! Integration tests, one binary.

mod arches;
mod boot;
mod cli;
mod closure;
mod contributing;
mod coverage_report;
mod coverage_run;
mod decode;
mod devices;
mod devices_inputs;
mod environment;
mod golden;
mod hostile;
mod initramfs;
mod kernels;
mod layers;
mod library;
mod messages;
mod odd_files;
mod parity;
mod programs;
mod public;
mod shell;
mod splats;
mod support;
mod words;
