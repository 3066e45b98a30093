//! Where a suite is.

use std::path::{Path, PathBuf};

/// The name of a suite's file.
pub const FILE_NAME: &str = "vmtest.toml";

/// The file of the suite that a directory is in: there, or upwards of it.
pub fn find(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|dir| dir.join(FILE_NAME)).find(|file| file.is_file())
}
