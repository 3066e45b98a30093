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
pub mod hang_report;
pub mod host;
pub mod initramfs;
pub mod named_file;
mod net;
pub mod options;
pub mod plan;
pub mod pool;
pub mod preflight;
pub mod programs;
pub mod qemu;
pub mod quote;
pub mod reasons;
pub mod results;
pub mod run_record;
pub mod runner;
pub mod session;
pub mod size;
#[cfg(feature = "suites")]
pub mod suite;
mod sys;
pub mod templates;
pub mod testing;
pub mod vfat;
pub mod vm;

/// A Rust test whose body runs in a guest, under `cargo test` and cargo-nextest, without a runner.
///
/// ```
/// #[vmtest::test(memory = "256M", cpus = 2)]
/// fn has_two_processors() -> std::io::Result<()> {
///     let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
///     assert_eq!(cpuinfo.matches("processor").count(), 2);
///     Ok(())
/// }
/// # fn main() {}
/// ```
///
/// On the host the test starts a guest ([`testing::guest`]), or has a saved one go on, and there the test program
/// runs this test alone. Its output and its panic are the test's own. Where the test program is in a guest already,
/// because `vmtest runner` runs it, the body runs there. A test returns `()` or a `Result` of it.
///
/// | argument | means |
/// |---|---|
/// | `arch = "riscv64"` | the architecture that the test program has to be of; default: its own |
/// | `kernel = "FILE"`, `"@NAME"` | as `--kernel` |
/// | `memory = "1G"` | default 512M |
/// | `cpus = 2` | default 1 |
/// | `timeout = "30s"` | for the whole run, from QEMU's start; default as `--timeout` |
/// | `cmdline = "…"` | for the kernel |
/// | `net = "user"` | as `--net`; default none |
pub use vmtest_macros::test;

/// Types of other crates that are in public signatures.
pub use regex;
#[cfg(feature = "http")]
pub use tiny_http;
pub use vmtest_guest::proto;
