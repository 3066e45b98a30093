//! Networks: QEMU's user mode network.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use super::drive::split_commas;
use super::{Device, QemuOpt};
use crate::plan::{PlanError, Planner};

/// QEMU's user mode network (SLIRP): the guest reaches the host and what the host reaches, through
/// NAT; the host reaches the guest through port forwards. Needs no root.
///
/// Without settings the guest is 10.0.2.15/24, the host 10.0.2.2, the name server 10.0.2.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNet {
    /// The IPv4 network. Default: QEMU's, 10.0.2.0/24. Prefix length 1 to 30.
    pub cidr4: Option<Cidr<Ipv4Addr>>,
    /// The IPv6 network. Default: QEMU's, fec0::/64. Prefix length 1 to 126.
    pub cidr6: Option<Cidr<Ipv6Addr>>,
    /// Connections to the host that are passed on to the guest.
    pub forwards: Vec<HostForward>,
    /// A file that gets every packet, in pcap format.
    pub pcap: Option<PathBuf>,
    /// The card that the guest sees. Default: [`Nic::Virtio`].
    pub nic: Nic,
    /// The card's address. Default: QEMU's, 52:54:00:12:34:56 and up.
    pub mac: Option<String>,
}

/// A network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel's e1000.
    E1000,
}

/// A network: an address and the length of its prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr<A> {
    /// An address in the network.
    pub address: A,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl<A: fmt::Display> fmt::Display for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl UserNet {
    /// Parses the command line's form:
    /// `user[,cidr=A.B.C.D/N|V6/N][,hostfwd=tcp:[ADDR]:PORT-[ADDR]:PORT][,pcap=FILE][,nic=virtio|e1000][,mac=MAC]`.
    /// A comma in the file's name is written twice; `cidr` and `hostfwd` may repeat.
    ///
    /// # Errors
    /// [`ParseNetError`] names the word that is not understood.
    pub fn parse(text: &OsStr) -> Result<UserNet, ParseNetError> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields = split_commas(text.as_bytes()).into_iter();
        match fields.next() {
            Some(kind) if kind == b"user" => {}
            kind => return Err(ParseNetError::Kind { given: lossy(&kind.unwrap_or_default()) }),
        }
        let mut net = UserNet::default();
        for field in fields {
            let unknown = || ParseNetError::Unknown { word: lossy(&field) };
            let at = field.iter().position(|&b| b == b'=').ok_or_else(unknown)?;
            let (key, value) = (&field[..at], &field[at + 1..]);
            let text = || std::str::from_utf8(value).map_err(|_| unknown());
            match key {
                b"cidr" => net.set_cidr(text()?)?,
                b"hostfwd" => net.forwards.push(text()?.parse()?),
                b"pcap" if !value.is_empty() => {
                    net.pcap = Some(std::ffi::OsString::from_vec(value.to_vec()).into());
                }
                b"nic" if value == b"virtio" => net.nic = Nic::Virtio,
                b"nic" if value == b"e1000" => net.nic = Nic::E1000,
                b"mac" => net.mac = Some(check_mac(text()?)?),
                _ => return Err(unknown()),
            }
        }
        Ok(net)
    }

    /// Sets the IPv4 or the IPv6 network.
    ///
    /// # Errors
    /// [`ParseNetError::Cidr`] when it is no network, or one too small for a guest, a host and a
    /// name server.
    pub fn set_cidr(&mut self, text: &str) -> Result<(), ParseNetError> {
        let bad = || ParseNetError::Cidr { given: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        match address.parse().map_err(|_| bad())? {
            IpAddr::V4(address) if (1..=30).contains(&prefix) => {
                self.cidr4 = Some(Cidr { address, prefix });
            }
            IpAddr::V6(address) if (1..=126).contains(&prefix) => {
                self.cidr6 = Some(Cidr { address, prefix });
            }
            _ => return Err(bad()),
        }
        Ok(())
    }
}

fn check_mac(text: &str) -> Result<String, ParseNetError> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| (byte.len() == 2).then(|| u8::from_str_radix(byte, 16).ok()).flatten())
        .collect();
    match bytes.as_deref() {
        // The lowest bit of the first byte marks a group address.
        Some([first, _, _, _, _, _]) if first & 1 == 0 => Ok(text.to_ascii_lowercase()),
        _ => Err(ParseNetError::Mac { given: text.to_owned() }),
    }
}

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
        "`{given}` is no network (as in 192.168.0.0/24, at most /30, or fd00::/64, at most /126)"
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

/// A network that cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Two cards of one address.
    #[error("two network cards have the address {mac}")]
    MacTaken {
        /// The address.
        mac: String,
    },
}

impl NetError {
    /// How to mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            NetError::MacTaken { .. } => Some("give each card an address of its own".into()),
        }
    }
}

impl Device for UserNet {
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        if let Some(mac) = &self.mac {
            planner
                .claim("network card address", mac)
                .map_err(|_| NetError::MacTaken { mac: mac.clone() })?;
        }
        let id = planner.id("net");
        let mut netdev = QemuOpt::new("user").kv("id", &id);
        if let Some(cidr) = self.cidr4 {
            netdev = netdev.kv("net", cidr.to_string());
        }
        if let Some(cidr) = self.cidr6 {
            netdev = netdev.kv("ipv6-net", cidr.to_string());
        }
        for forward in &self.forwards {
            netdev = netdev.kv("hostfwd", forward.to_string());
            planner.forward(&id, *forward);
        }
        planner.qemu("-netdev", netdev);
        let driver = match self.nic {
            Nic::Virtio => "virtio-net-pci",
            Nic::E1000 => "e1000",
        };
        // No option ROM: the guest does not boot from the network, and loading one costs time.
        let mut device = QemuOpt::new(driver).kv("netdev", &id).kv("romfile", "");
        if let Some(mac) = &self.mac {
            device = device.kv("mac", mac);
        }
        planner.qemu("-device", device);
        match self.nic {
            Nic::Virtio => {
                planner.module("virtio_pci");
                planner.module("virtio_net");
            }
            Nic::E1000 => planner.module("e1000"),
        }
        if let Some(pcap) = &self.pcap {
            let dump = planner.id("dump");
            planner.qemu(
                "-object",
                QemuOpt::new("filter-dump").kv("id", dump).kv("netdev", &id).kv("file", pcap),
            );
        }
        planner.add_network();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<UserNet, ParseNetError> {
        UserNet::parse(OsStr::new(text))
    }

    #[test]
    fn the_command_lines_form() {
        let net = parse("user,cidr=192.168.7.0/24,cidr=fd00::/64,hostfwd=tcp::8080-:80,pcap=/a,,b")
            .unwrap();
        assert_eq!(net.cidr4.unwrap().to_string(), "192.168.7.0/24");
        assert_eq!(net.cidr6.unwrap().to_string(), "fd00::/64");
        assert_eq!(net.forwards[0].to_string(), "tcp:127.0.0.1:8080-:80");
        assert_eq!(net.pcap.unwrap().as_os_str(), "/a,b");
        assert_eq!(parse("user"), Ok(UserNet::default()));
        for bad in [
            "tap",
            "",
            "user,x",
            "user,cidr=1.2.3.4",
            "user,cidr=1.2.3.4/31",
            "user,cidr=::/127",
            "user,hostfwd=8080",
            "user,hostfwd=sctp::1-:2",
            "user,hostfwd=tcp::1-:0",
            "user,hostfwd=tcp::70000-:1",
            "user,pcap=",
            "user,mac=1:2",
            "user,nic=ne2k",
            "user,mac=53:54:00:12:34:56",
        ] {
            assert!(parse(bad).is_err(), "`{bad}` was accepted");
        }
    }
}
