//! Assembles initramfs images: what goes in, why, and the archive itself.
//!
//! ```text
//! Builder  --finish: look at files, merge, check-->  Image  --write_to-->  archive, Summary
//! ```
//!
//! Rules for names, modes, conflicts and sizes are in `docs/images.md`.

mod builder;
pub mod entry;
mod image;
mod merge;
mod problem;
mod tree;

pub use builder::Builder;
pub use entry::{Body, Entry, Kind, Node, Reason, Request};
pub use image::{Hash, Image, Summary};
pub use problem::{Problem, Problems};
pub use tree::Attributes;
