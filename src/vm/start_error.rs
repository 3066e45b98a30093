//! Why a machine was not started.

use std::io;
use std::path::PathBuf;

use super::files::FileError;

/// A machine could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// QEMU's program is not there.
    #[error("cannot run QEMU: there is no `{}`", .program.display())]
    NoQemu {
        /// As it was asked for.
        program: PathBuf,
    },
    /// QEMU's program cannot be executed.
    #[error("cannot run QEMU `{}`", .program.display())]
    Spawn {
        /// As it was asked for.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file for the guest could not be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// Events of a channel are wanted, and the plan has no such channel, or two want it.
    #[error("there is no event channel `{channel}`, or it is taken twice")]
    NoChannel {
        /// The channel.
        channel: String,
    },
    /// A service of the host's could not be started.
    #[error("cannot start {service} for the guest")]
    Service {
        /// Which one.
        service: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host has no descriptors or no memory left.
    #[error("cannot make the streams between QEMU and vmtest")]
    Streams(#[source] io::Error),
}

impl StartError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            StartError::NoQemu { .. } => Some(
                "`make assets` fetches QEMU without root; `--qemu` or VMTEST_QEMU name another one"
                    .into(),
            ),
            StartError::File(FileError::Vfat(error)) => Some(error.hint()),
            StartError::File(FileError::Need { what: "share", source, .. })
                if source.kind() == io::ErrorKind::NotADirectory =>
            {
                Some("only directories can be shared".into())
            }
            StartError::File(FileError::Temporary(_)) => {
                Some("TMPDIR names the directory for temporary files".into())
            }
            _ => None,
        }
    }
}
