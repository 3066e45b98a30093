//! Writes `ld.so.cache`, glibc's map from library names to paths.
//!
//! The format is the one called "new" in glibc (`glibc-ld.so.cache1.1`), which every version since
//! 2.2 reads: a header of 48 bytes, entries of 24 bytes sorted from high to low for the loader's
//! binary search, then the strings. Layout: `sysdeps/generic/dl-cache.h`.

use std::cmp::Ordering;

use crate::arch::Arch;

const HEADER: usize = 48;
const ENTRY: usize = 24;

/// One library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name that objects need it by.
    pub name: Vec<u8>,
    /// Its absolute path.
    pub path: Vec<u8>,
}

/// The cache with `entries`, in whatever order they come.
pub fn write(arch: Arch, mut entries: Vec<Entry>) -> Vec<u8> {
    entries.sort_by(|a, b| compare(&b.name, &a.name));
    let mut strings = Vec::new();
    let start = HEADER + ENTRY * entries.len();
    let mut out = b"glibc-ld.so.cache1.1".to_vec();
    let int = |out: &mut Vec<u8>, value: usize| out.extend(&(value as u32).to_le_bytes());
    let mut body = Vec::new();
    for entry in &entries {
        body.extend(flags(arch).to_le_bytes());
        for text in [&entry.name, &entry.path] {
            int(&mut body, start + strings.len());
            strings.extend(text);
            strings.push(0);
        }
        // OS version and hardware capabilities: any.
        body.extend([0; 12]);
    }
    int(&mut out, entries.len());
    int(&mut out, strings.len());
    // Little endian, then padding, no extensions, unused words.
    out.push(2);
    out.resize(HEADER, 0);
    out.extend(body);
    out.extend(strings);
    out
}

/// Type and ABI of the libraries (`sysdeps/generic/ldconfig.h`): glibc skips others.
fn flags(arch: Arch) -> u32 {
    match arch {
        Arch::Amd64 => 0x0303,
        Arch::I386 => 0x0003,
        Arch::Arm64 => 0x0a03,
        Arch::Arm => 0x0903,
        Arch::Riscv64 => 0x1003,
    }
}

/// `_dl_cache_libcmp`: as bytes, but runs of digits by their value.
fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
        match (digit(a), digit(b)) {
            (true, true) => {
                let (x, y) = (number(&mut a), number(&mut b));
                match x.cmp(&y) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => match (a.split_first(), b.split_first()) {
                (Some((x, rest_a)), Some((y, rest_b))) => {
                    if x != y {
                        // Plain `char` there: signed on some machines; names are ASCII.
                        return x.cmp(y);
                    }
                    (a, b) = (rest_a, rest_b);
                }
                (x, y) => return x.is_some().cmp(&y.is_some()),
            },
        }
    }
}

fn number(text: &mut &[u8]) -> u128 {
    let mut value = 0_u128;
    while let Some((digit @ b'0'..=b'9', rest)) = text.split_first() {
        value = value.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
        *text = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_loaders_search() {
        let names = ["libb.so.10", "libb.so.9", "libb.so", "liba.so.1", "libb-x.so"];
        let mut sorted = names;
        sorted.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
        assert_eq!(sorted, ["liba.so.1", "libb-x.so", "libb.so", "libb.so.9", "libb.so.10"]);
    }

    #[test]
    fn offsets_point_at_strings() {
        let entry =
            |name: &str| Entry { name: name.into(), path: format!("/opt/{name}").into_bytes() };
        let cache = write(Arch::Amd64, vec![entry("liba.so"), entry("libb.so.1")]);
        let int = |at: usize| u32::from_le_bytes(cache[at..at + 4].try_into().unwrap()) as usize;
        let string = |at: usize| {
            let text = &cache[int(at)..];
            String::from_utf8(text[..text.iter().position(|b| *b == 0).unwrap()].into()).unwrap()
        };
        assert_eq!((int(20), int(48), int(48 + 24)), (2, 0x303, 0x303));
        assert_eq!((string(52), string(56)), ("libb.so.1".into(), "/opt/libb.so.1".into()));
        assert_eq!(string(76), "liba.so");
        assert_eq!(cache.len(), 48 + 2 * 24 + int(24));
    }
}
