//! From requests to entries: files of the host, closures of programs, kernel modules, base archives;
//! then merged and checked as a whole.

mod bases;
pub mod closure;
mod merge;
mod microcode;
pub mod modules;
mod needs;
mod resolve;
mod scan;
mod tree;
mod uroot;
