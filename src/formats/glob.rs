//! Shell patterns as `fnmatch(3)` without flags reads them: `*`, `?`, `[a-z]`, `[!a]`, `\`.
//!
//! `*` crosses slashes, as in module aliases; a caller that must not matches names one by one.

/// Whether `pattern` matches all of `name`. Time is bounded by the product of the lengths.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: it takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        if let Some(next) = one(pattern, p, name[n]) {
            (p, n) = (next, n + 1);
            continue;
        }
        match retry {
            Some((star, taken)) => {
                (p, n) = (star, taken + 1);
                retry = Some((star, taken + 1));
            }
            None => return false,
        }
    }
}

/// Whether the pattern's element at `p` matches `byte`: where the next element starts.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match class(pattern, p + 1, byte) {
            Some((end, true)) => Some(end),
            Some((_, false)) => None,
            // Without its end it is an ordinary character.
            None => (byte == b'[').then_some(p + 1),
        },
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        other => (other == byte).then_some(p + 1),
    }
}

/// The class that starts at `p`: where it ends, and whether it has `byte`.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(p), Some(b'!' | b'^'));
    p += usize::from(negated);
    let first = p;
    let mut found = false;
    loop {
        let low = *pattern.get(p)?;
        if low == b']' && p > first {
            return Some((p + 1, found != negated));
        }
        match (pattern.get(p + 1), pattern.get(p + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                p += 3;
            }
            _ => {
                found |= low == byte;
                p += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    #[test]
    fn patterns_match_as_in_fnmatch() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*.conf", "x.conf", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[ab", "[ab", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("virtio:d00000009v*", "virtio:d00000009v00001AF4", true),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv1sd2bc3sc4i5", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&b"*a".repeat(200), &b"a".repeat(199)));
        assert!(!matches(&[b"*a".repeat(50), b"b".to_vec()].concat(), &b"a".repeat(10_000)));
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[ab*?\\[\\]!\\\\-]{0,24}", name in "[ab\\[\\]-]{0,24}") {
            matches(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn a_name_matches_itself(name in "[a-z0-9./]{0,24}") {
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
        }
    }
}
