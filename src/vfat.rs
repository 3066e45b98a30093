//! placeholder until the branch lands
use std::{fs::File, path::Path};
/// e
#[derive(Debug, thiserror::Error)]
#[error("vfat")]
pub struct Error;
impl Error {
    /// h
    pub fn hint(&self) -> Option<String> {
        None
    }
}
/// w
pub fn write_image(_: &Path, _: &mut File) -> Result<(), Error> {
    Err(Error)
}
