//! From entries to an archive: layout, threads, compression, the cache, and files that appear whole.

mod blocks;
pub(super) mod build;
pub mod cache;
pub(super) mod compress;
pub(super) mod image;
pub(super) mod publish;
mod pump;
