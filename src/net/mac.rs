//! Addresses of network cards.

use std::fmt;
use std::str::FromStr;

use super::parse::ParseNetError;

/// The address of a network card: six bytes, the lowest bit of the first one clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The nth card of a machine where nothing else is said: QEMU's own 52:54:00:12:34:56 and up.
    pub(crate) fn nth(n: u64) -> Mac {
        let [.., high, low] = (0x3456 + n).to_be_bytes();
        Mac([0x52, 0x54, 0x00, 0x12, high, low])
    }

    /// A card on a link between machines: the same for the same link and member, different for
    /// different members, and none of [`Mac::nth`]'s.
    pub(crate) fn on_link(link: &str, member: u16) -> Mac {
        // FNV-1a, folded to 16 bits: two links of one machine should differ.
        let hash = link
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let [h0, h1] = ((hash >> 16) as u16 ^ hash as u16).to_be_bytes();
        let [m0, m1] = member.to_be_bytes();
        Mac([0x56, 0x54, h0, h1, m0, m1])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Mac, ParseNetError> {
        let bad = || ParseNetError::Mac { given: text.to_owned() };
        let byte = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let mac: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(bad)?;
        // A group address (lowest bit set) is no card's, and neither is the empty one.
        if mac[0] & 1 == 1 || mac == [0; 6] { Err(bad()) } else { Ok(Mac(mac)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let mac: Mac = "52:54:00:AB:cd:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        for bad in ["", "1:2", "53:54:00:00:00:01", "52:54:00:00:00:0g", "00:00:00:00:00:00"] {
            assert!(bad.parse::<Mac>().is_err(), "`{bad}` was accepted");
        }
        assert_eq!(Mac::nth(0).to_string(), "52:54:00:12:34:56");
        assert_eq!(Mac::nth(0xaa).to_string(), "52:54:00:12:35:00");
    }

    #[test]
    fn members_of_links_differ() {
        let macs = [("a", 0), ("a", 1), ("a", 256), ("b", 0)].map(|(l, m)| Mac::on_link(l, m));
        for (i, mac) in macs.iter().enumerate() {
            assert!(!macs[..i].contains(mac), "{mac} twice");
            assert_eq!(mac.to_string().parse::<Mac>().unwrap(), *mac);
        }
    }
}
