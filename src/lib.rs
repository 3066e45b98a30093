//! Boots a Linux guest for a test in a fraction of a second, runs a program in it and tells exactly
//! what happened.
//!
//! A VM test is a value that changes its type:
//!
//! ```text
#![doc = include_str!("../docs/life-cycle.txt")]
//! ```
//!
//! Modules are layers; imports go down only (`docs/architecture.md`, checked by a test).

pub mod accel;
pub mod arch;
mod argv;
pub mod assets;
pub mod blocking;
pub mod causes;
pub mod cmdline;
pub mod configure;
pub mod coverage;
#[cfg(feature = "symbols")]
pub mod debug_files;
pub mod diagnosis;
pub mod duration;
mod environment;
pub mod fields;
pub mod formats;
pub mod initramfs;
pub mod named_file;
mod net;
pub mod options;
pub mod plan;
pub mod pool;
pub mod programs;
pub mod qemu;
pub mod quote;
pub mod results;
pub mod run_record;
pub mod runner;
pub mod session;
pub mod size;
mod sys;
pub mod templates;
pub mod testing;
pub mod vfat;
pub mod vm;

/// Types of other crates that are in public signatures.
pub use regex;
#[cfg(feature = "http")]
pub use tiny_http;
pub use vmtest_guest::proto;
