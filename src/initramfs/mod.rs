//! Assembles initramfs images: what goes in, why, and the archive itself.
//!
//! ```text
//! Builder  --finish: look at files, merge, check-->  Image  --write_to-->  archive, Summary
//! ```
//!
//! Rules for names, modes, conflicts and sizes are in `docs/images.md`.

pub mod base;
mod builder;
pub mod closure;
pub mod entry;
mod image;
mod merge;
pub mod modules;
mod needs;
mod problem;
mod tree;

pub use builder::{Builder, ModulesRequest};
pub use entry::{Body, Entry, Kind, Node, Reason, Request};
pub use image::{Hash, Image, Summary};
pub use problem::{Problem, Problems};
pub use tree::Attributes;
