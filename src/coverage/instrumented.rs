//! Which programs count what they execute.

use std::path::Path;

use memchr::memmem;

use super::elf::Sections;

/// The section with a program's build settings, and more than these ever are: each dependency is a line.
const BUILD_INFO: &[u8] = b".go.buildinfo";
const MAX_BUILD_INFO: u64 = 16 << 20;
/// The section with the names of functions of LLVM's instrumentation, and the largest there is.
pub(super) const LLVM_NAMES: &[u8] = b"__llvm_prf_names";
pub(super) const MAX_LLVM_NAMES: u64 = 256 << 20;

/// Whether a file is a program or library that counts what it executes, by LLVM's instrumentation or
/// Go's. One that cannot be read is none.
pub fn is_instrumented(path: &Path) -> bool {
    by_llvm(path) || by_go(path)
}

fn by_llvm(path: &Path) -> bool {
    let names = Sections::read(path)
        .and_then(|it| it.map_or(Ok(None), |it| it.bytes(LLVM_NAMES, MAX_LLVM_NAMES)));
    matches!(names, Ok(Some(names)) if !names.is_empty())
}

/// Whether a file is a program of Go that was built with `-cover`: it says so among its build settings
/// (Go documentation, package `debug/buildinfo`). One that cannot be read is none.
pub(super) fn by_go(path: &Path) -> bool {
    let settings = Sections::read(path)
        .and_then(|program| program.map_or(Ok(None), |it| it.bytes(BUILD_INFO, MAX_BUILD_INFO)));
    matches!(settings, Ok(Some(text)) if memmem::find(&text, b"\nbuild\t-cover=true\n").is_some())
}
