//! Why a program runs nowhere.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::arch::Arch;

/// A program that no guest can run as it is wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the program `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory that was named cannot be read.
    #[error("cannot read the directory `{}`", .dir.display())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its architecture is none of vmtest's.
    #[error("the program `{}` is for machine {machine} of ELF, which vmtest does not know", .path.display())]
    UnknownMachine {
        /// The file.
        path: PathBuf,
        /// `e_machine`.
        machine: u16,
    },
    /// It is neither for the guest nor for the host.
    #[error("the program `{}` is {found}, and this runner is for {wanted}", .path.display())]
    OtherArch {
        /// The file.
        path: PathBuf,
        /// Its own architecture.
        found: Arch,
        /// The hook's.
        wanted: Arch,
    },
    /// A guest cannot have it at its own path.
    #[error("the directory `{}` cannot be at its own path in a guest: {why}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Nothing says for which architecture the guest is.
    #[error("nothing says which architecture the guest has for `{}`", .program.display())]
    NoArch {
        /// The program.
        program: OsString,
    },
}

impl Error {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Read { .. } => return None,
            Error::Unreadable { .. } => "--project and --write name directories of the host".into(),
            Error::UnknownMachine { .. } => "vmtest has guests of amd64, i386, arm64, arm and riscv64".into(),
            Error::OtherArch { .. } => "leave out --arch: the program says its own".into(),
            Error::Directory { .. } => {
                "name the project's directory with --project DIR; --share DIR:TAG has any at /mount/9p/TAG".into()
            }
            Error::NoArch { .. } => "name the guest's with --arch or VMTEST_ARCH".into(),
        })
    }
}
