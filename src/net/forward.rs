//! Port forwards from the host to the guest.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::parse::ParseNetError;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A connection from the host that is passed on to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostForward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address on the host. Default: 127.0.0.1, so that nobody outside the host reaches the guest.
    pub host_address: Ipv4Addr,
    /// Port on the host; 0 picks a free one, which the machine reports.
    pub host_port: u16,
    /// Address in the guest. Default: the one that QEMU's DHCP gives to the first guest.
    pub guest_address: Option<Ipv4Addr>,
    /// Port in the guest.
    pub guest_port: u16,
}

impl fmt::Display for HostForward {
    /// As QEMU takes it: `tcp:127.0.0.1:8080-:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}-", self.protocol.name(), self.host_address, self.host_port)?;
        if let Some(address) = self.guest_address {
            write!(f, "{address}")?;
        }
        write!(f, ":{}", self.guest_port)
    }
}

impl FromStr for HostForward {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<HostForward, ParseNetError> {
        let bad = || ParseNetError::Forward { given: text.to_owned() };
        let (host, guest) = text.split_once('-').ok_or_else(bad)?;
        let (protocol, host) = host.split_once(':').ok_or_else(bad)?;
        let protocol = match protocol {
            "tcp" | "" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(bad()),
        };
        let (host_address, host_port) = host.rsplit_once(':').ok_or_else(bad)?;
        let (guest_address, guest_port) = guest.rsplit_once(':').ok_or_else(bad)?;
        let address = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| bad()),
        };
        let forward = HostForward {
            protocol,
            host_address: address(host_address)?.unwrap_or(Ipv4Addr::LOCALHOST),
            host_port: host_port.parse().map_err(|_| bad())?,
            guest_address: address(guest_address)?,
            guest_port: guest_port.parse().map_err(|_| bad())?,
        };
        if forward.guest_port == 0 { Err(bad()) } else { Ok(forward) }
    }
}
