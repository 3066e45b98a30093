//! Bytes to structures and back, over `&[u8]`, `Read` and `Write`.
//!
//! Nothing here opens a file, reads a clock or looks at the environment; that is what makes the
//! formats fuzzable.

pub mod cpio;
pub mod elf;
pub mod fat;
pub mod gcov;
pub mod glob;
pub mod kconfig;
pub mod kernel;
pub mod kmod;
pub mod ldcache;
pub mod lz4;
