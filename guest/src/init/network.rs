//! Network interfaces, by the kernel's rtnetlink interface: no program is needed, and a message is a
//! few bytes on every architecture.
//!
//! Formats: `man 7 rtnetlink`, `linux/rtnetlink.h`. All numbers are in the machine's byte order,
//! addresses in the network's.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use vmtest_guest::proto::{InterfaceAddress, Network};

use super::failure::Failure;

const INTERFACES: &str = "/sys/class/net";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A driver that is a module may still be probing.
const PATIENCE: Duration = Duration::from_secs(2);

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Use the address at once: nobody else can have it on an emulated network.
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const ARPHRD_ETHER: &str = "1";

/// Switches the loopback interface on. A kernel without network has none, and nobody misses it.
pub(crate) fn loopback_up() {
    if let Ok(index) = index_of("lo")
        && let Ok(mut route) = Route::open()
    {
        let _ = route.link_up(index);
    }
}

/// Does what the host asked for.
pub(crate) fn set_up(network: &Network) -> Result<(), Failure> {
    let (name, index) = find(network.interface.as_deref())?;
    let failed = |what: String| {
        let name = name.clone();
        move |errno: Errno| {
            Failure::new(format!("cannot {what} interface `{name}`: {errno}"), errno)
        }
    };
    let mut route = Route::open().map_err(failed("talk to the kernel about".to_owned()))?;
    route.link_up(index).map_err(failed("switch on".to_owned()))?;
    for address in &network.addresses {
        let InterfaceAddress { address: ip, prefix_bits } = address;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if *prefix_bits > most {
            let text = format!("address {ip}/{prefix_bits}: at most {most} bits name a network");
            return Err(Failure::new(text, Errno::INVAL));
        }
        route
            .add_address(index, address)
            .map_err(failed(format!("give the address {ip}/{prefix_bits} to")))?;
    }
    for gateway in &network.gateways {
        route
            .add_default_route(index, gateway)
            .map_err(failed(format!("route by way of {gateway} on")))?;
    }
    if !network.dns.is_empty() {
        let mut text = String::new();
        for server in &network.dns {
            let _ = writeln!(text, "nameserver {server}");
        }
        let _ = fs::create_dir_all("/etc");
        fs::write(RESOLV_CONF, text).map_err(|error| Failure {
            text: format!("cannot write {RESOLV_CONF}: {error}"),
            errno: error.raw_os_error(),
        })?;
    }
    Ok(())
}

/// Name and index of the interface asked for, by name or by the card's address, or of the first that
/// is Ethernet. Names depend on the order in which drivers came up, addresses do not.
fn find(wanted: Option<&str>) -> Result<(String, u32), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let interfaces = interfaces();
        let found = interfaces.iter().find(|(_, name, ethernet)| match wanted {
            Some(wanted) => name == wanted || *ethernet && card_address(name) == *wanted,
            None => *ethernet,
        });
        if let Some((index, name, _)) = found {
            return Ok((name.clone(), *index));
        }
        if Instant::now() > deadline {
            let what = wanted.map_or("Ethernet interface".to_owned(), |name| {
                format!("network interface `{name}`")
            });
            let known: Vec<_> = interfaces.into_iter().map(|(_, name, _)| name).collect();
            let text = format!(
                "the guest has no {what}; it has: {} (is the driver's module in the image?)",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
            return Err(Failure::new(text, Errno::NODEV));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Index, name and whether it is Ethernet, in the order the kernel found them.
fn interfaces() -> Vec<(u32, String, bool)> {
    let mut found: Vec<_> = fs::read_dir(INTERFACES)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kind = fs::read_to_string(entry.path().join("type")).ok()?;
            Some((index_of(&name).ok()?, name, kind.trim() == ARPHRD_ETHER))
        })
        .collect();
    found.sort();
    found
}

fn card_address(interface: &str) -> String {
    let file = Path::new(INTERFACES).join(interface).join("address");
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

fn index_of(interface: &str) -> Result<u32, Errno> {
    let file = Path::new(INTERFACES).join(interface).join("ifindex");
    let text = fs::read_to_string(file).map_err(|_| Errno::NODEV)?;
    text.trim().parse().map_err(|_| Errno::NODEV)
}

/// A conversation with the kernel.
struct Route {
    socket: OwnedFd,
}

impl Route {
    fn open() -> Result<Route, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is 0.
        let protocol = None;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        Ok(Route { socket })
    }

    fn link_up(&mut self, index: u32) -> Result<(), Errno> {
        self.request(&link_up(index))
    }

    fn add_address(&mut self, index: u32, address: &InterfaceAddress) -> Result<(), Errno> {
        self.request(&add_address(index, address))
    }

    fn add_default_route(&mut self, index: u32, gateway: &IpAddr) -> Result<(), Errno> {
        self.request(&add_default_route(index, gateway))
    }

    /// Sends one message and takes the kernel's answer to it.
    fn request(&mut self, message: &[u8]) -> Result<(), Errno> {
        send(&self.socket, message, SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        let (count, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        acknowledged(&answer[..count])
    }
}

/// What an answer says: NLMSG_ERROR with the negative errno, or with 0.
fn acknowledged(answer: &[u8]) -> Result<(), Errno> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO),
    }
}

fn family(address: &IpAddr) -> u8 {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    family.as_raw() as u8
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn link_up(index: u32) -> Vec<u8> {
    // struct ifinfomsg: family, pad, type (16 bits), index, flags, change mask.
    let body = [[0; 4], index.to_ne_bytes(), IFF_UP.to_ne_bytes(), IFF_UP.to_ne_bytes()].concat();
    message(RTM_NEWLINK, 0, &body, &[])
}

fn add_address(index: u32, address: &InterfaceAddress) -> Vec<u8> {
    let InterfaceAddress { address, prefix_bits } = address;
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let head = [family(address), *prefix_bits, IFA_F_NODAD, RT_SCOPE_UNIVERSE];
    let body = [head, index.to_ne_bytes()].concat();
    let octets = octets(address);
    let attributes = [(IFA_LOCAL, octets.as_slice()), (IFA_ADDRESS, &octets)];
    message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body, &attributes)
}

fn add_default_route(index: u32, gateway: &IpAddr) -> Vec<u8> {
    // struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type,
    // flags.
    let head =
        [family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST];
    let body = [head.as_slice(), &[0; 4]].concat();
    let attributes = [(RTA_OIF, &index.to_ne_bytes()[..]), (RTA_GATEWAY, &octets(gateway))];
    message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body, &attributes)
}

/// Header, body and attributes; the header has the length of all, each attribute its own.
fn message(kind: u16, flags: u16, body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![0; 16];
    message.extend_from_slice(body);
    for (name, value) in attributes {
        message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        message.extend_from_slice(&name.to_ne_bytes());
        message.extend_from_slice(value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = message.len() as u32;
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_lengths_they_say() {
        let address = InterfaceAddress { address: IpAddr::from([10, 0, 2, 15]), prefix_bits: 24 };
        let message = add_address(3, &address);
        assert_eq!(message.len(), 16 + 8 + 8 + 8);
        assert_eq!(message[..4], 40u32.to_ne_bytes());
        assert_eq!(message[16..20], [2, 24, 2, 0]);
        assert_eq!(message[28..32], [10, 0, 2, 15]);
        let route = add_default_route(3, &"fec0::2".parse().unwrap());
        assert_eq!(route.len(), 16 + 12 + 8 + 20);
        assert_eq!(link_up(1).len(), 32);
    }

    #[test]
    fn answers_carry_errno() {
        let mut answer = message(NLMSG_ERROR, 0, &0i32.to_ne_bytes(), &[]);
        assert_eq!(acknowledged(&answer), Ok(()));
        answer[16..20].copy_from_slice(&(-19i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer), Err(Errno::NODEV));
        assert_eq!(acknowledged(&[]), Err(Errno::PROTO));
    }
}
