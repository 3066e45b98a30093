//! Why a guest did not do what it was asked for.

use std::time::Duration;

/// Why a guest did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// Its machine has ended, or is about to; [`crate::vm::Vm::ended`] says how.
    #[error("the guest is gone")]
    Gone,
    /// It said something that is not of the protocol.
    #[error("the guest does not keep to the protocol: {0}")]
    Protocol(String),
    /// It could not do it.
    #[error("{error}")]
    Refused {
        /// What failed, on which object, why; in the guest's words.
        error: String,
        /// The operating system's error number, where there is one.
        errno: Option<i32>,
    },
    /// It was not ready in time.
    #[error("the guest was not ready within {}", crate::duration::display(*.limit))]
    NotReady {
        /// The limit.
        limit: Duration,
    },
    /// The plan has no agent: the guest does what its own init does.
    #[error("the machine has no agent that could be asked")]
    NoAgent,
    /// Something of the host's failed: no thread, an unreadable file.
    #[error("{0}")]
    Host(String),
}
