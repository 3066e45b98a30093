//! Makes the files that QEMU inherits.
//!
//! Made files are anonymous (`O_TMPFILE`, or unlinked right after their creation): they are gone with
//! the last process that has them open, whoever is killed when.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::named_file;
use crate::plan::{FileSource, Need, NeedForm, PlannedFile};

/// A disk is made of these.
const SECTOR_BYTES: u64 = 512;

/// A file for QEMU could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The plan wants an initramfs that was not handed over.
    #[error("the plan boots an initramfs, but none was handed over")]
    NoInitramfs,
    /// The plan resumes a guest, and there is none.
    #[error("the plan resumes a saved guest, but none was handed over")]
    NoSavedGuest,
    /// The user's open file cannot be handed over: it was closed behind its owner's back, or there is
    /// no descriptor left.
    #[error("cannot hand over {label}")]
    Given {
        /// Which one.
        label: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A stream or file that a device makes could not be made.
    #[error("cannot make {label}")]
    Made {
        /// Which one.
        label: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be copied.
    #[error("cannot copy `{}` for the guest", .path.display())]
    Copy {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory or file of the host that a device shows to the guest is not there.
    #[error("cannot open the {what} `{}`", .path.display())]
    Need {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: std::path::PathBuf,
        /// Why; `NotADirectory` when it is a file.
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
        FileSource::Given(fd) => {
            fd.try_clone().map_err(|source| FileError::Given { label: file.label.clone(), source })
        }
        FileSource::Made(maker) => {
            maker.make().map_err(|source| FileError::Made { label: file.label.clone(), source })
        }
        FileSource::Initramfs => {
            let file = initramfs.ok_or(FileError::NoInitramfs)?;
            file.try_clone().map(OwnedFd::from).map_err(FileError::Temporary)
        }
        FileSource::Nothing => Ok(File::open("/dev/null").map_err(FileError::Temporary)?.into()),
        // These are the machine's own, and made with it.
        FileSource::Memory | FileSource::State => Err(FileError::NoSavedGuest),
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
    let mut original = named_file::open(path).map_err(copy)?;
    let mut private = tempfile::tempfile().map_err(FileError::Temporary)?;
    io::copy(&mut original, &mut private).map_err(copy)?;
    private.rewind().map_err(copy)?;
    Ok(private)
}

/// Checks that a path of the host is there, as what it has to be. QEMU would say less, and later.
pub(super) fn check(need: &Need, notices: &mut Vec<String>) -> Result<(), FileError> {
    let wrong = |source| FileError::Need { what: need.what, path: need.path.clone(), source };
    match need.form {
        NeedForm::Directory => std::fs::read_dir(&need.path).map(drop).map_err(wrong),
        NeedForm::File => named_file::open(&need.path).map(drop).map_err(wrong),
        NeedForm::Disk => {
            let disk = named_file::open(&need.path).map_err(wrong)?;
            notices.extend(odd_disk(&need.path, disk).map_err(wrong)?);
            Ok(())
        }
    }
}

/// What a person should know of a file whose bytes a guest sees as a disk.
fn odd_disk(path: &Path, mut file: File) -> io::Result<Option<String>> {
    let (metadata, path) = (file.metadata()?, path.display());
    let mut magic = [0; 4];
    // QEMU's docs/interop/qcow2.txt: the first field of the header.
    if file.read(&mut magic)? == 4 && magic == *b"QFI\xfb" {
        return Ok(Some(format!(
            "drive `{path}` is a qcow2 image: the guest sees its bytes, not the disk in it; `format=qcow2` shows \
             that"
        )));
    }
    let (bytes, sectors) = (metadata.len(), metadata.len().next_multiple_of(SECTOR_BYTES));
    Ok((metadata.is_file() && bytes != sectors).then(|| {
        format!("drive `{path}` has {bytes} bytes: the guest sees {sectors}, in whole sectors of {SECTOR_BYTES}")
    }))
}
