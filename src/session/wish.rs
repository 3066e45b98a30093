//! Whether saved guests are wanted, and where they are.

use std::path::PathBuf;

use crate::options::WarmMode;

/// What somebody wants, and where templates are.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) mode: WarmMode,
    pub(super) cache_dir: Option<PathBuf>,
}
