//! The image that a machine boots, and the files that its command needs.
//!
//! The base (guest program, shell, modules) and the user's own files are two things: a guest that is
//! resumed has booted from the base long ago, and gets the files afterwards. A guest that boots for this
//! run alone gets both in one image.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;

use super::base::Base;
use super::command::Program;
use super::{Collecting, Error};
use crate::arch::Arch;
use crate::configure::ImagePart;
use crate::initramfs::{Hash, Image, ImageSpec};
use crate::named_file;
use crate::run_record::ImageIdentity;

/// An image that is still to be made.
pub(super) enum Planned {
    /// It is there.
    Ready(PathBuf),
    /// It is built.
    Build {
        base: Box<Base>,
        /// An image of the user's to go in front.
        before: Option<PathBuf>,
        /// The user's files; `None` once they are in an archive of their own.
        files: Option<Files>,
    },
}

/// The user's files, and the command with what it needs.
pub(super) struct Files {
    pub(super) arch: Arch,
    pub(super) sysroot: Option<PathBuf>,
    pub(super) parts: Vec<ImagePart>,
    pub(super) command: Option<Program>,
    /// The guest program links `/bin/sh` and `/usr/bin/env` to its shell where nothing else is there.
    pub(super) has_shell: bool,
}

impl Files {
    /// Whether there is nothing to put anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.command.is_none()
    }

    fn add_to(self, spec: &mut ImageSpec) {
        if let Some(sysroot) = &self.sysroot {
            spec.sysroot(sysroot);
        }
        if self.has_shell {
            spec.provided(["/bin/sh", "/usr/bin/env"]);
        }
        for part in self.parts {
            part(spec);
        }
        if let Some(Program { path, dest, shared }) = &self.command {
            spec.by("the command");
            if *shared {
                spec.needs_of(path, dest);
            } else {
                spec.binary_os(path, Some(dest));
            }
        }
    }

    /// The files alone, as an archive that the guest unpacks; `None` when there are none.
    pub(super) fn archive(self, remarks: &mut Remarks<'_>) -> Result<Option<File>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut spec = ImageSpec::new(self.arch);
        self.add_to(&mut spec);
        let image = spec.finish()?;
        if image.entries().is_empty() {
            return Ok(None);
        }
        remarks.of(&image);
        let mut file = nameless("vmtest-files")?;
        image.write_to_file(&file)?;
        file.rewind().map_err(Error::Temporary)?;
        Ok(Some(file))
    }
}

/// Where what an image says of itself goes.
pub(super) struct Remarks<'a> {
    pub(super) notices: &'a mut Vec<String>,
    pub(super) collecting: Option<&'a mut Collecting>,
}

impl Remarks<'_> {
    fn of(&mut self, image: &Image) {
        self.notices.extend_from_slice(image.notices());
        if let Some(collecting) = &mut self.collecting {
            collecting.note_objects(image);
        }
    }
}

/// Puts an image together: the base, and the files if the guest gets them with it.
pub(super) fn build(
    base: &Base,
    before: Option<PathBuf>,
    files: Option<Files>,
    remarks: &mut Remarks<'_>,
) -> Result<(File, ImageIdentity), Error> {
    let mut spec = ImageSpec::new(base.arch);
    base.add_to(&mut spec)?;
    if let Some(files) = files {
        files.add_to(&mut spec);
    }
    let image = spec.finish()?;
    remarks.of(&image);
    let mut file = nameless("vmtest-initramfs")?;
    let hash = match &before {
        None => image.write_to_file(&file)?.blake3,
        Some(path) => {
            let read = |source| Error::Read { what: "initramfs", path: path.clone(), source };
            let mut first = named_file::open(path).map_err(read)?;
            io::copy(&mut first, &mut file).map_err(Error::Temporary)?;
            pad(&mut file).map_err(Error::Temporary)?;
            image.write_to(&mut file)?;
            file.rewind().map_err(Error::Temporary)?;
            Hash::of(&file).map_err(Error::Temporary)?
        }
    };
    file.rewind().map_err(Error::Temporary)?;
    let bytes = file.metadata().map_err(Error::Temporary)?.len();
    Ok((file, ImageIdentity { path: None, bytes: Some(bytes), blake3: Some(hash.to_string()) }))
}

/// A file without a name: on disk, where it may be as large as it likes, else in memory: most runs need
/// little, and no directory for temporary files shall be in their way.
fn nameless(name: &str) -> Result<File, Error> {
    use rustix::fs::{MemfdFlags, memfd_create};
    tempfile::tempfile().or_else(|error| match memfd_create(name, MemfdFlags::CLOEXEC) {
        Ok(fd) => Ok(File::from(fd)),
        Err(_) => Err(Error::Temporary(error)),
    })
}

/// Zeros up to a boundary of 4 bytes, and 4 more: the kernel wants a segment to be aligned, and its
/// lz4 needs zeros behind its data (tried with Linux 6.12).
fn pad(file: &mut File) -> io::Result<()> {
    let len = file.stream_position()?;
    file.write_all(&[0; 8][..4 + (4 - len as usize % 4) % 4])
}
