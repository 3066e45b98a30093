//! Helpers for tests that boot guests.
//!
//! ```no_run
//! use vmtest::arch::Arch;
//! use vmtest::testing::{skip_if_not_arch, start_for_test};
//!
//! #[test]
//! # fn hidden() {}
//! fn my_kernel_boots() {
//!     skip_if_not_arch!(Arch::Amd64);
//!     let vm = start_for_test("my-kernel", Arch::Amd64, ());
//!     vm.console().expect("Run /init", std::time::Duration::from_secs(60)).unwrap();
//!     vm.kill();
//!     vm.wait().unwrap();
//! }
//! ```
//!
//! What is printed goes to the test's own output, which `cargo test` shows when the test fails.
//! `VMTEST_REQUIRE=1` turns every skip into a failure, for machines that must run all.

pub mod go;
pub mod guest;
pub mod libtest;
mod results;
pub mod script;

use std::ops::{Deref, DerefMut};

use crate::arch::Arch;
use crate::assets::Assets;
use crate::blocking::{self, Vm};
use crate::configure::{Configure, log_serial_by_line};
use crate::options::Environment;
use crate::session;
use crate::vm::lines::default_print;
use crate::vm::{End, WaitError};

pub use crate::{skip_if_not_arch, skip_without_qemu};
pub use results::{ProgramsError, Report, end_of};

/// Starts a machine for a test, as [`blocking::start`]. The console is printed with `name` and the time
/// since its first line.
///
/// # Panics
/// When the machine cannot be started, with the reason and how to fix it.
#[track_caller]
pub fn start_for_test(name: &str, arch: Arch, configurator: impl Configure) -> TestVm {
    let printer = default_print(name, |line: &str| println!("{line}"));
    match blocking::start(arch, (configurator, log_serial_by_line(printer))) {
        Ok(vm) => TestVm { name: name.to_owned(), vm: Some(vm) },
        Err(error) => panic!("cannot start `{name}`: {}", explained(&error)),
    }
}

/// An error with its causes, and how to fix it.
fn explained(error: &session::Error) -> String {
    let mut text = crate::causes::chain(error);
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text
}

/// A machine of a test, a [`blocking::Vm`].
///
/// Dropped in a test that fails, it prints the command line that repeats the boot. Dropped in a test
/// that does not, it fails the test: a machine that nobody waited for may have failed unseen.
#[derive(Debug)]
pub struct TestVm {
    name: String,
    /// `None` once it was waited for.
    vm: Option<Vm>,
}

impl TestVm {
    /// Waits until QEMU has ended, the console is drained and all tasks are done.
    ///
    /// # Errors
    /// [`WaitError`], see [`crate::vm::Vm::wait`]. The command line that repeats the boot is printed.
    pub fn wait(mut self) -> Result<End, WaitError> {
        let vm = self.vm.take().expect("it is taken once, here or by drop");
        let cmdline = vm.cmdline_quoted();
        let result = vm.wait();
        if result.is_err() {
            println!("{}: QEMU alone: {}", self.name, cmdline.display());
        }
        result
    }
}

impl Deref for TestVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        self.vm.as_ref().expect("only `wait` and `drop` take it, and both use up the TestVm")
    }
}

impl DerefMut for TestVm {
    fn deref_mut(&mut self) -> &mut Vm {
        self.vm.as_mut().expect("only `wait` and `drop` take it, and both use up the TestVm")
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        let Some(vm) = self.vm.take() else { return };
        println!("{}: QEMU alone: {}", self.name, vm.cmdline_quoted().display());
        drop(vm);
        // A panic during a panic would end the process.
        if !std::thread::panicking() {
            panic!("`{}` was not waited for: call `wait`, after `kill` if need be", self.name);
        }
    }
}

/// Why a test that needs one of these architectures must be skipped; `None` when it can run. The
/// guest's architecture is `VMTEST_ARCH`, else the host's.
///
/// # Panics
/// When `VMTEST_ARCH` is no architecture.
pub fn reason_not_arch(allowed: &[Arch]) -> Option<String> {
    let environment = read_environment();
    let arch = environment.arch.or_else(Arch::host);
    if arch.is_some_and(|arch| allowed.contains(&arch)) {
        return None;
    }
    let name = arch.map_or("an unknown architecture", Arch::name);
    let allowed: Vec<&str> = allowed.iter().map(|arch| arch.name()).collect();
    Some(format!("the guest is {name}, the test is for {} (VMTEST_ARCH)", allowed.join(", ")))
}

/// Why a test that needs QEMU must be skipped; `None` when there is one: `VMTEST_QEMU`, the asset
/// manifest's or one in `PATH`.
///
/// # Panics
/// When the environment cannot be understood.
pub fn reason_without_qemu(arch: Arch) -> Option<String> {
    let environment = read_environment();
    let pinned = || Assets::find(&environment).ok()?.guest(arch).qemu;
    let program = match &environment.qemu {
        Some(command) => command.program.clone(),
        None => pinned().map_or(arch.qemu_program().into(), |asset| asset.path.into()),
    };
    match which::which(&program) {
        Ok(_) => None,
        Err(_) => Some(format!(
            "there is no QEMU `{}`; `make assets` fetches one, VMTEST_QEMU names another",
            program.display()
        )),
    }
}

fn read_environment() -> Environment {
    Environment::read().unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint()))
}

/// Says that a test is skipped and why.
///
/// # Panics
/// With `VMTEST_REQUIRE` set to anything but `0` and nothing.
#[doc(hidden)]
#[track_caller]
pub fn skipped(reason: &str) {
    let require = std::env::var_os("VMTEST_REQUIRE");
    if require.is_some_and(|value| !value.is_empty() && value != "0") {
        panic!("must not be skipped (VMTEST_REQUIRE): {reason}");
    }
    eprintln!("skipped: {reason}");
}

/// Returns from a test unless the guest's architecture (`VMTEST_ARCH`, else the host's) is one of
/// these, and says so.
#[macro_export]
macro_rules! skip_if_not_arch {
    ($($arch:expr),+ $(,)?) => {
        if let Some(reason) = $crate::testing::reason_not_arch(&[$($arch),+]) {
            return $crate::testing::skipped(&reason);
        }
    };
}

/// Returns from a test if there is no QEMU for the architecture, and says so.
#[macro_export]
macro_rules! skip_without_qemu {
    ($arch:expr) => {
        if let Some(reason) = $crate::testing::reason_without_qemu($arch) {
            return $crate::testing::skipped(&reason);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_for_another_architecture_has_a_reason_to_skip() {
        // VMTEST_ARCH may be set where the tests run, so both sides are derived from it.
        let arch = read_environment().arch.or_else(Arch::host).expect("tests run on a known host");
        assert_eq!(reason_not_arch(&[arch]), None);
        let others: Vec<Arch> = Arch::ALL.into_iter().filter(|other| *other != arch).collect();
        let reason = reason_not_arch(&others).unwrap();
        assert!(reason.contains(arch.name()), "{reason}");
    }

    #[test]
    fn a_start_that_fails_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no-kernel");
        let start = || start_for_test("x", Arch::Amd64, crate::configure::with_kernel(missing));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("cannot start `x`: cannot read the kernel"), "{text}");
    }
}
