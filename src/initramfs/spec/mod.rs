//! What an image shall contain, as people write it down. Nothing is looked at here.

mod image;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "uroot")]
pub mod mkuimage;
mod role;
pub mod values;

pub use image::{Attributes, ImageSpec};
pub(super) use image::{BaseFrom, How, What};
pub use role::Role;
