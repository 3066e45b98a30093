//! From requests to entries: files of the host, closures of programs, kernel modules, base archives;
//! then merged and checked as a whole.

mod bases;
pub(super) mod builder;
pub mod closure;
mod merge;
pub mod microcode;
pub mod modules;
mod needs;
pub(super) mod scan;
mod tree;
pub(super) mod uroot;
