//! Assembles initramfs images: what goes in, why, and the archive itself.
//!
//! ```text
//! ImageSpec  --finish: look at files, merge, check-->  Image  --write_to-->  archive, Summary
//! ```
//!
//! Rules for names, modes, conflicts and sizes are in `docs/images.md`.
//!
//! | room | trade |
//! |---|---|
//! | [`ImageSpec`], [`manifest`], [`mkuimage`] (`spec/`) | what an image shall contain, as people write it |
//! | [`closure`], [`modules`] (`gather/`) | files of the host and what they need, as entries |
//! | [`Image`], [`Encoder`], [`cache`] (`write/`) | entries as an archive |
//! | [`archive`], [`inspect`], [`mod@extract`] (`read/`) | archives as entries |

mod body;
pub(crate) mod codec;
pub mod entry;
mod gather;
mod hash;
mod links;
mod problem;
mod read;
pub mod report;
mod spec;
mod write;

pub use codec::{Codec, UnknownCodec};
pub use entry::{Body, Entry, Kind, Node, Reason, Request};
pub use gather::modules::ModulesRequest;
pub use gather::{closure, modules};
pub use hash::Hash;
pub use problem::{Problem, Problems};
pub use read::{archive, extract, inspect, kconfig};
#[cfg(feature = "manifest")]
pub use spec::manifest;
#[cfg(feature = "uroot")]
pub use spec::mkuimage;
pub use spec::{Attributes, ImageSpec, Role, values};
pub use write::build::{Build, BuildError, Built, build};
pub use write::cache::{self, Cache};
pub use write::compress::{Compression, CompressionError, Encoder};
pub use write::image::{Image, Summary};
pub use write::publish::Pending;
