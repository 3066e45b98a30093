//! Archives that exist already, whoever made them: what is in them, and back to files.

pub mod archive;
pub mod extract;
pub mod inspect;
pub mod kconfig;
