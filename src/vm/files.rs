//! Makes the files that QEMU inherits.
//!
//! Made files are anonymous (`O_TMPFILE`, or unlinked right after their creation): they are gone with
//! the last process that has them open, whoever is killed when.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::plan::{FileSource, PlannedFile};

/// A file for QEMU could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The plan wants an initramfs that was not handed over.
    #[error("the plan boots an initramfs, but none was handed over")]
    NoInitramfs,
    /// A file could not be copied.
    #[error("cannot copy `{}` for the guest", .path.display())]
    Copy {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be made into an image.
    #[error(transparent)]
    Vfat(#[from] crate::vfat::Error),
    /// No temporary file, or no descriptor.
    #[error("cannot make a temporary file in `{}`", std::env::temp_dir().display())]
    Temporary(#[source] io::Error),
}

/// Opens or makes what the plan names. Remarks what was left out.
pub(super) fn make(
    file: &PlannedFile,
    initramfs: Option<&File>,
    notices: &mut Vec<String>,
) -> Result<OwnedFd, FileError> {
    match &file.source {
        FileSource::Given(fd) => fd.try_clone().map_err(FileError::Temporary),
        FileSource::Initramfs => {
            let file = initramfs.ok_or(FileError::NoInitramfs)?;
            file.try_clone().map(OwnedFd::from).map_err(FileError::Temporary)
        }
        FileSource::VfatImage(dir) => Ok(vfat_image(dir, notices)?.into()),
        FileSource::PrivateCopy(path) => Ok(private_copy(path)?.into()),
    }
}

fn vfat_image(dir: &Path, notices: &mut Vec<String>) -> Result<File, FileError> {
    let mut image = tempfile::tempfile().map_err(FileError::Temporary)?;
    let left_out = crate::vfat::write_image(dir, &mut image)?;
    notices.extend(left_out.iter().map(ToString::to_string));
    Ok(image)
}

fn private_copy(path: &Path) -> Result<File, FileError> {
    let copy = |source| FileError::Copy { path: path.to_owned(), source };
    let mut original = File::open(path).map_err(copy)?;
    let mut private = tempfile::tempfile().map_err(FileError::Temporary)?;
    io::copy(&mut original, &mut private).map_err(copy)?;
    private.rewind().map_err(copy)?;
    Ok(private)
}
