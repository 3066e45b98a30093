//! Assembles initramfs images: what goes in, why, and the archive itself.
//!
//! ```text
//! Builder  --finish: look at files, merge, check-->  Image  --write_to-->  archive, Summary
//! ```
//!
//! Rules for names, modes, conflicts and sizes are in `docs/images.md`.

pub mod archive;
pub mod base;
mod bases;
mod blocks;
mod builder;
pub mod cache;
pub mod closure;
mod codec;
mod compress;
pub mod entry;
pub mod extract;
mod image;
pub mod inspect;
pub mod kconfig;
pub mod manifest;
mod merge;
pub mod microcode;
pub mod mkuimage;
pub mod modules;
mod needs;
mod problem;
mod publish;
mod pump;
pub mod report;
mod tree;
mod uroot;

pub use builder::{Builder, ModulesRequest};
pub use codec::{Codec, UnknownCodec};
pub use compress::{Compression, CompressionError, Encoder};
pub use entry::{Body, Entry, Kind, Node, Reason, Request};
pub use image::{Hash, Image, Summary};
pub use problem::{Problem, Problems};
pub use publish::Pending;
pub use tree::Attributes;
pub use uroot::Role;
