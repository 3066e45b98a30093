//! What an image shall contain, as people write it down: manifests, templates.

pub mod manifest;
pub mod mkuimage;
