//! QEMU's user mode network.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use vmtest_guest::proto::{InterfaceAddress, Network};

use super::card::{Card, Nic, with_args};
use crate::argv::QemuOpt;
use crate::fields::{self, Once};
use crate::net::{Cidr, HostForward, Mac, NetError, ParseNetError};
use crate::plan::{Device, PlanError, Planner};

/// QEMU's user mode network (SLIRP): the guest reaches the host and what the host reaches, through
/// NAT; the host reaches the guest through port forwards. Needs no root.
///
/// In the network the host is number 2, the name server 3, the guest 15 (4 where the network has
/// fewer than 32 addresses): 10.0.2.2, 10.0.2.3 and 10.0.2.15. The agent gives the card its address
/// before the command runs; QEMU's DHCP server would give it the same one. An IPv6 address is set
/// where a network was asked for; else kernels with IPv6 take one from QEMU's router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNet {
    /// The IPv4 network. Default: 10.0.2.0/24, the machine's next user network 10.0.3.0/24 and so
    /// on. Prefix length 1 to 29.
    pub cidr4: Option<Cidr<Ipv4Addr>>,
    /// The IPv6 network. Default: QEMU's, fec0::/64. Prefix length 1 to 124.
    pub cidr6: Option<Cidr<Ipv6Addr>>,
    /// Connections to the host that are passed on to the guest.
    pub forwards: Vec<HostForward>,
    /// The card that the guest sees.
    pub card: Card,
    /// Further settings of QEMU's netdev: `("restrict", "on")`, `("tftp", "/srv")`.
    pub user_args: Vec<(String, String)>,
}

impl UserNet {
    /// Parses the command line's form:
    /// `user[,cidr=A.B.C.D/N|V6/N][,hostfwd=tcp:[ADDR]:PORT-[ADDR]:PORT][,pcap=FILE][,nic=virtio|e1000][,mac=MAC]`.
    /// [`crate::fields`] has the rule for commas in names; `hostfwd` may repeat, and `cidr` be there once
    /// for IPv4 and once for IPv6.
    ///
    /// # Errors
    /// [`ParseNetError`] names the word that is not understood, or said twice.
    pub fn parse(text: &OsStr) -> Result<UserNet, ParseNetError> {
        let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
        let mut fields = fields::commas(text).into_iter();
        let kind = fields.next().unwrap_or_default();
        if kind != "user" {
            return Err(ParseNetError::Kind { given: lossy(&kind) });
        }
        let mut net = UserNet::default();
        let mut said = Once::default();
        for field in fields {
            let unknown = || ParseNetError::Unknown { word: lossy(&field) };
            let (key, value) = fields::assignment(&field).ok_or_else(unknown)?;
            let key = key.to_str().ok_or_else(unknown)?;
            let text = || value.to_str().ok_or_else(unknown);
            // One for each protocol, and as many forwards as there are ports.
            let key_said = match key {
                "cidr" if value.as_encoded_bytes().contains(&b':') => "IPv6 cidr",
                key => key,
            };
            if key != "hostfwd"
                && let Some(key) = said.again(OsStr::new(key_said))
            {
                return Err(ParseNetError::Twice { key });
            }
            match key {
                "cidr" => net.set_cidr(text()?)?,
                "hostfwd" => net.forwards.push(text()?.parse()?),
                "pcap" if !value.is_empty() => net.card.pcap = Some(value.into()),
                "nic" if value == "virtio" => net.card.nic = Nic::Virtio,
                "nic" if value == "e1000" => net.card.nic = Nic::E1000,
                "mac" => net.card.mac = Some(text()?.parse()?),
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
            IpAddr::V4(address) => self.cidr4 = Some(Cidr { address, prefix }),
            IpAddr::V6(address) => self.cidr6 = Some(Cidr { address, prefix }),
        }
        self.check_cidrs().map_err(|_| bad())
    }

    /// The fields are public, so that settings arrive here unchecked.
    fn check_cidrs(&self) -> Result<(), NetError> {
        if let Some(cidr) = self.cidr4.filter(|cidr| !(1..=29).contains(&cidr.prefix)) {
            return Err(NetError::Cidr { given: cidr.to_string() });
        }
        if let Some(cidr) = self.cidr6.filter(|cidr| !(1..=124).contains(&cidr.prefix)) {
            return Err(NetError::Cidr { given: cidr.to_string() });
        }
        Ok(())
    }

    /// Sets the networks as [`UserNet::set_cidr`] does.
    ///
    /// # Errors
    /// [`ParseNetError::Cidr`].
    pub fn with_cidr(mut self, text: &str) -> Result<UserNet, ParseNetError> {
        self.set_cidr(text)?;
        Ok(self)
    }

    /// Passes connections to the host on to the guest.
    #[must_use]
    pub fn with_forward(mut self, forward: HostForward) -> UserNet {
        self.forwards.push(forward);
        self
    }

    /// Sets the card's model.
    #[must_use]
    pub fn with_nic(mut self, nic: Nic) -> UserNet {
        self.card.nic = nic;
        self
    }

    /// Sets the card's address.
    #[must_use]
    pub fn with_mac(mut self, mac: Mac) -> UserNet {
        self.card.mac = Some(mac);
        self
    }

    /// Has QEMU write every packet to a file, in pcap format.
    #[must_use]
    pub fn with_pcap(mut self, file: impl Into<PathBuf>) -> UserNet {
        self.card.pcap = Some(file.into());
        self
    }

    /// Sets a property of QEMU's device.
    #[must_use]
    pub fn with_device_arg(mut self, key: &str, value: &str) -> UserNet {
        self.card.device_args.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets a property of QEMU's `-netdev user`.
    #[must_use]
    pub fn with_user_arg(mut self, key: &str, value: &str) -> UserNet {
        self.user_args.push((key.to_owned(), value.to_owned()));
        self
    }
}

impl Device for UserNet {
    fn resumable(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let UserNet { cidr4, cidr6, forwards, card, user_args } = self;
        self.check_cidrs()?;
        let nth = planner.next_user_net();
        let id = planner.id("net");
        let default = Cidr {
            address: Ipv4Addr::new(10, 0, u8::try_from(nth + 2).map_err(|_| NetError::TooMany)?, 0),
            prefix: 24,
        };
        let roles = cidr4.unwrap_or(default).roles();
        let mut netdev = QemuOpt::new("user").kv("id", &id);
        // QEMU's own network needs no words.
        if cidr4.is_some() || nth > 0 {
            netdev = netdev
                .kv("net", roles.network.to_string())
                .kv("host", roles.host.to_string())
                .kv("dns", roles.dns.to_string())
                .kv("dhcpstart", roles.guest.to_string());
        }
        let roles6 = cidr6.map(Cidr::<Ipv6Addr>::roles);
        if let Some(roles) = &roles6 {
            netdev = netdev
                .kv("ipv6-net", roles.network.to_string())
                .kv("ipv6-host", roles.host.to_string())
                .kv("ipv6-dns", roles.dns.to_string());
        }
        for forward in forwards {
            netdev = netdev.kv("hostfwd", forward.to_string());
            planner.forward(&id, *forward);
        }
        planner.qemu("-netdev", with_args(netdev, user_args)?);
        let mac = card.plan(planner, &id, Mac::nth(u64::from(nth)))?;

        let address = |address, prefix_bits| InterfaceAddress { address, prefix_bits };
        let mut network = Network {
            interface: Some(mac.to_string()),
            addresses: vec![address(roles.guest.into(), roles.network.prefix)],
            ..Network::default()
        };
        if let Some(roles) = &roles6 {
            network.addresses.push(address(roles.guest.into(), roles.network.prefix));
        }
        // The way out, and names, by the first one.
        if nth == 0 {
            network.gateways.push(roles.host.into());
            network.gateways.extend(roles6.map(|roles| IpAddr::from(roles.host)));
            network.dns.push(roles.dns.into());
        }
        planner.network(network);
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
        let net =
            parse("user,cidr=192.168.7.0/24,cidr=fd00::/64,hostfwd=tcp::8080-:80,pcap=/a\\,b")
                .unwrap();
        assert_eq!(net.cidr4.unwrap().to_string(), "192.168.7.0/24");
        assert_eq!(net.cidr6.unwrap().to_string(), "fd00::/64");
        assert_eq!(net.forwards[0].to_string(), "tcp:127.0.0.1:8080-:80");
        assert_eq!(net.card.pcap.unwrap().as_os_str(), "/a,b");
        assert_eq!(parse("user"), Ok(UserNet::default()));
        for bad in [
            "tap",
            "",
            "user,x",
            "user,cidr=1.2.3.4",
            "user,cidr=1.2.3.4/30",
            "user,cidr=1.2.3.4/0",
            "user,cidr=::/125",
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
