//! Networks of IP addresses, and who is who in them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

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

/// Who is who in a network.
pub(crate) struct Roles<A> {
    pub(crate) network: Cidr<A>,
    pub(crate) host: A,
    pub(crate) dns: A,
    pub(crate) guest: A,
}

impl Cidr<Ipv4Addr> {
    pub(crate) fn roles(self) -> Roles<Ipv4Addr> {
        let mask = u32::MAX << (32 - u32::from(self.prefix));
        let base = u32::from(self.address) & mask;
        let guest = if self.prefix <= 27 { 15 } else { 4 };
        let number = |n: u32| Ipv4Addr::from(base | n);
        let network = Cidr { address: number(0), prefix: self.prefix };
        Roles { network, host: number(2), dns: number(3), guest: number(guest) }
    }
}

impl Cidr<Ipv6Addr> {
    pub(crate) fn roles(self) -> Roles<Ipv6Addr> {
        let mask = u128::MAX << (128 - u32::from(self.prefix));
        let base = u128::from(self.address) & mask;
        let number = |n: u128| Ipv6Addr::from(base | n);
        let network = Cidr { address: number(0), prefix: self.prefix };
        Roles { network, host: number(2), dns: number(3), guest: number(0xf) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_has_room_for_all_three() {
        for prefix in 1..=29 {
            let Roles { network, host, dns, guest } =
                Cidr { address: Ipv4Addr::new(10, 255, 255, 255), prefix }.roles();
            let mask = u32::MAX << (32 - prefix);
            for address in [host, dns, guest] {
                let address = u32::from(address);
                assert_eq!(address & mask, u32::from(network.address), "/{prefix}");
                assert!(address & !mask != 0 && address & !mask != !mask, "/{prefix}");
            }
            assert!(host != dns && dns != guest && guest != host);
        }
        for prefix in 1..=124 {
            let roles = Cidr { address: Ipv6Addr::LOCALHOST, prefix }.roles();
            assert!(roles.host != roles.dns && roles.dns != roles.guest);
        }
    }
}
