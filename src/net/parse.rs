//! What cannot be read as a network.

/// A `--net` that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNetError {
    /// Not a kind of network that there is.
    #[error("unknown kind of network `{given}` (known: user)")]
    Kind {
        /// The word.
        given: String,
    },
    /// A setting that is there already.
    #[error("`{key}` is given twice")]
    Twice {
        /// The setting.
        key: String,
    },
    /// Not a setting that there is.
    #[error("unknown setting `{word}` (known: cidr=, hostfwd=, pcap=, nic=virtio|e1000, mac=)")]
    Unknown {
        /// The word.
        word: String,
    },
    /// Not a port forward.
    #[error("`{given}` is no port forward (as in tcp::8080-:80 or udp:127.0.0.1:0-10.0.2.15:53)")]
    Forward {
        /// The value.
        given: String,
    },
    /// Not a network.
    #[error(
        "`{given}` is no network (as in 192.168.0.0/24, at most /29, or fd00::/64, at most /124)"
    )]
    Cidr {
        /// The value.
        given: String,
    },
    /// Not the address of a card.
    #[error(
        "`{given}` is no address of a network card (as in 52:54:00:00:00:01, the first byte even)"
    )]
    Mac {
        /// The value.
        given: String,
    },
}
