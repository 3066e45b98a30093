//! Names: which are allowed, the records of long names, and short names to go with them.
//!
//! Every entry gets a long name, also where the short one would do, so that no mount option changes
//! how a name looks. Short names are then only there because the format wants one, unique in its
//! directory.

use std::collections::{HashMap, HashSet};

use super::{Fault, MAX_UNITS};

/// UTF-16 units in one record of a long name.
const UNITS_PER_RECORD: usize = 13;
/// Bytes of a record.
pub(super) const RECORD: usize = 32;
/// An 8.3 name without its dot, padded with blanks.
pub(super) type ShortName = [u8; 11];

/// The name as text, if vfat can hold it.
pub(super) fn check(name: &[u8]) -> Result<&str, Fault> {
    if matches!(name, b"" | b"." | b"..") {
        return Err(Fault::NoName);
    }
    let name = std::str::from_utf8(name).map_err(|_| Fault::NotUtf8)?;
    if let Some(bad) = name.chars().find(|c| is_reserved(*c)) {
        return Err(Fault::Reserved(bad));
    }
    if let Some(end) = name.chars().next_back().filter(|c| matches!(c, '.' | ' ')) {
        return Err(Fault::BadEnd(end));
    }
    match units(name) {
        count if count > MAX_UNITS => Err(Fault::NameTooLong(count)),
        _ => Ok(name),
    }
}

/// Linux' `vfat_bad_char`, and the unit that fills up the last record of a long name.
fn is_reserved(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f' | '"' | '*' | '/' | ':' | '<' | '>' | '?' | '\\' | '|' | '\u{ffff}'
    )
}

fn units(name: &str) -> usize {
    if name.is_ascii() { name.len() } else { name.encode_utf16().count() }
}

/// How many records an entry of this name takes: its long name and itself.
pub(super) fn records(name: &str) -> u64 {
    units(name).div_ceil(UNITS_PER_RECORD) as u64 + 1
}

/// The form in which names that differ only in case are equal. Characters whose capital is more
/// than one (`ß`) stand for themselves, as in the case tables of file systems.
pub(super) fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    name.chars()
        .map(|character| {
            let mut upper = character.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(upper), None) => upper,
                _ => character,
            }
        })
        .collect()
}

/// Appends the records of a long name, which stand before the entry they name, last part first.
pub(super) fn push_long_name(out: &mut Vec<u8>, name: &str, short: &ShortName) {
    let mut units = [0xffff_u16; (MAX_UNITS + 1).next_multiple_of(UNITS_PER_RECORD)];
    let mut len = 0;
    for unit in name.encode_utf16().take(MAX_UNITS) {
        units[len] = unit;
        len += 1;
    }
    let count = len.div_ceil(UNITS_PER_RECORD);
    // Terminated only where it does not fill its last record.
    if len % UNITS_PER_RECORD != 0 {
        units[len] = 0;
    }
    let checksum = checksum(short);
    for (i, part) in units[..count * UNITS_PER_RECORD].chunks(UNITS_PER_RECORD).enumerate().rev() {
        const LAST_PART: u8 = 0x40;
        const LONG_NAME: u8 = 0x0f; // read-only, hidden, system, volume: what old systems ignore
        let mut record = [0; RECORD];
        record[0] = (i as u8 + 1) | if i + 1 == count { LAST_PART } else { 0 };
        record[11] = LONG_NAME;
        record[13] = checksum;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (at, unit) in places.zip(part) {
            record[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend_from_slice(&record);
    }
}

/// Binds a long name to its short one (the specification's `ChkSum`).
fn checksum(short: &ShortName) -> u8 {
    short.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Hands out the short names of one directory.
///
/// A name that is 8.3 but for its case gets itself in capitals; the others get their first letters,
/// `~` and a number. Counting goes by what stands before the `~`, so that no number is tried twice:
/// many names with the same beginning cost no more than others.
pub(super) struct ShortNames {
    used: HashSet<ShortName>,
    next: HashMap<ShortName, u32>,
}

impl ShortNames {
    /// For a directory with these names, which must differ in more than case.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> ShortNames {
        ShortNames { used: names.filter_map(natural).collect(), next: HashMap::new() }
    }

    /// The short name of one of the names.
    pub(super) fn get(&mut self, name: &str) -> ShortName {
        if let Some(short) = natural(name) {
            return short;
        }
        let (base, extension) = basis(name);
        for digits in 1..=6 {
            let keep = base.len().min(7 - digits);
            let mut stem = [b' '; 11];
            stem[..keep].copy_from_slice(&base[..keep]);
            stem[keep] = b'~';
            stem[8..8 + extension.len()].copy_from_slice(&extension);
            let low = 10_u32.pow(digits as u32 - 1);
            // The number of digits is part of the key: it tells `A~1` from `A~` with one digit more.
            let mut key = stem;
            key[7] = digits as u8;
            let next = self.next.entry(key).or_insert(low);
            while *next < low * 10 {
                let mut short = stem;
                short[keep + 1..keep + 1 + digits].copy_from_slice(next.to_string().as_bytes());
                *next += 1;
                if self.used.insert(short) {
                    return short;
                }
            }
        }
        // A directory has at most 65,536 records.
        unreachable!("more than a million short names in one directory")
    }
}

/// The name in capitals, where that is an 8.3 name.
fn natural(name: &str) -> Option<ShortName> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = |part: &str, max| part.len() <= max && part.bytes().all(is_short);
    // `a.` does not get here, so an empty extension means that there is no dot.
    if base.is_empty() || !fits(base, 8) || !fits(extension, 3) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    short.make_ascii_uppercase();
    Some(short)
}

/// The letters short names are made of: of the part before the last dot and of the part after it.
fn basis(name: &str) -> (Vec<u8>, Vec<u8>) {
    let name = name.trim_start_matches(['.', ' ']);
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let letters = |part: &str, max| {
        part.chars()
            .filter(|c| !matches!(c, '.' | ' '))
            .map(|c| {
                if c.is_ascii() && is_short(c as u8) { c.to_ascii_uppercase() as u8 } else { b'_' }
            })
            .take(max)
            .collect::<Vec<u8>>()
    };
    (letters(base, 6), letters(extension, 3))
}

/// Characters of short names, small letters counted as capitals. Those above 127 depend on a code
/// page and are avoided.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short_names(names: &[&str]) -> Vec<String> {
        let mut short = ShortNames::new(names.iter().copied());
        names.iter().map(|name| String::from_utf8(short.get(name).to_vec()).unwrap()).collect()
    }

    #[test]
    fn short_names_are_what_dos_would_call_them() {
        assert_eq!(
            short_names(&[
                "init",
                "README.TXT",
                "Makefile.am",
                "libc.so.6",
                "libcrypt.so",
                "a b",
                ".bashrc",
                "...x",
                "日本",
                "a+b.c",
                "x.html",
                "libcrypto.so",
                "LIBCRY~1.SO",
                "AUX",
                "+",
            ]),
            [
                "INIT       ",
                "README  TXT",
                "MAKEFILEAM ",
                "LIBCSO~16  ",
                "LIBCRYPTSO ",
                "AB~1       ",
                "BASHRC~1   ",
                "X~1        ",
                "__~1       ",
                "A_B~1   C  ",
                "X~1     HTM",
                "LIBCRY~2SO ",
                "LIBCRY~1SO ",
                "AUX        ",
                "_~1        ",
            ]
        );
    }

    #[test]
    fn short_names_are_unique_and_none_is_the_name_of_another_entry() {
        let mut names: Vec<String> = (0..20_000).map(|i| format!("file-{i:05}.data")).collect();
        names.extend((0..2_000).map(|i| format!("FILE-~{i}.DAT")));
        names.extend((0..2_000).map(|i| format!("file-~{i}.dat ~")));
        let mut short = ShortNames::new(names.iter().map(String::as_str));
        let found: HashSet<ShortName> = names.iter().map(|name| short.get(name)).collect();
        assert_eq!(found.len(), names.len());
    }

    #[test]
    fn long_names_fill_their_records_as_specified() {
        let record_of = |name: &str| {
            let mut out = Vec::new();
            push_long_name(&mut out, name, b"A          ");
            out
        };
        let one = record_of("ab");
        assert_eq!(one.len(), RECORD);
        assert_eq!(one[0], 0x41);
        assert_eq!(&one[1..11], b"a\0b\0\0\0\xff\xff\xff\xff");
        assert_eq!(one[13], checksum(b"A          "));
        // 13 units fill a record: no terminator, no second record.
        assert_eq!(record_of("abcdefghijklm").len(), RECORD);
        assert_eq!(&record_of("abcdefghijklm")[28..], b"l\0m\0");
        let two = record_of("abcdefghijklmn");
        assert_eq!((two[0], two[RECORD]), (0x42, 0x01));
        assert_eq!(record_of(&"x".repeat(255)).len(), 20 * RECORD);
        // Two units for a character beyond the first 65,536.
        assert_eq!(&record_of("😀")[1..7], b"\x3d\xd8\x00\xde\0\0");
        assert_eq!(records("😀😀😀😀😀😀😀"), 3);
    }

    #[test]
    fn names_that_vfat_cannot_hold_are_told_apart() {
        for (name, fault) in [
            (&b""[..], Fault::NoName),
            (b".", Fault::NoName),
            (b"..", Fault::NoName),
            (b"a\xff", Fault::NotUtf8),
            (b"a:b", Fault::Reserved(':')),
            (b"a\nb", Fault::Reserved('\n')),
            (b"a/b", Fault::Reserved('/')),
            (b"a.", Fault::BadEnd('.')),
            (b"...", Fault::BadEnd('.')),
            (b"a ", Fault::BadEnd(' ')),
            (&[b'x'; 256], Fault::NameTooLong(256)),
            ("é".repeat(256).as_bytes(), Fault::NameTooLong(256)),
            ("😀".repeat(128).as_bytes(), Fault::NameTooLong(256)),
        ] {
            assert_eq!(check(name), Err(fault), "{}", String::from_utf8_lossy(name));
        }
        for name in ["aux", "CON", "nul.txt", "com1", " a", ".a", "a..b", "[x];+=,", "\u{7f}", "é"]
        {
            assert_eq!(check(name.as_bytes()), Ok(name));
        }
        let longest = "😀".repeat(127) + "x";
        assert_eq!(check(longest.as_bytes()), Ok(&longest[..]));
    }

    #[test]
    fn case_is_folded_one_character_at_a_time() {
        for (a, b, same) in [
            ("Readme", "README", true),
            ("é", "É", true),
            ("ǆ", "Ǆ", true),
            ("ß", "SS", false),
            ("a", "b", false),
            ("я", "Я", true),
        ] {
            assert_eq!(folded(a) == folded(b), same, "{a} {b}");
        }
    }
}
