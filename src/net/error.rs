//! Networks that cannot be.

use super::mac::Mac;

/// A network that cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Two cards of one address.
    #[error("two network cards have the address {mac}")]
    MacTaken {
        /// The address.
        mac: Mac,
    },
    /// A network that has no room for a host, a name server and a guest.
    #[error("network {given} is too small")]
    Cidr {
        /// The network.
        given: String,
    },
    /// The name of a setting that QEMU cannot have.
    #[error("`{}` is no name of a setting of QEMU's", .given.escape_default())]
    NotAKey {
        /// The name.
        given: String,
    },
    /// More user networks than have different addresses by default.
    #[error("too many user networks without a network of their own")]
    TooMany,
}

impl NetError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            NetError::MacTaken { .. } => Some("give each card an address of its own".into()),
            NetError::Cidr { .. } => {
                Some("IPv4 networks have at most /29, IPv6 at most /124".into())
            }
            NetError::NotAKey { .. } => Some(
                "names are of letters, digits, `-`, `_` and `.`; values can be anything".into(),
            ),
            NetError::TooMany => Some("`cidr=` gives each its own".into()),
        }
    }
}
