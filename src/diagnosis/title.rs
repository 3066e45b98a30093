//! Titles that are the same whenever the same bug is met.

/// The longest title's part, in characters.
const MAX_CHARS: usize = 100;

/// A text without what differs from run to run: addresses, numbers, ids, quotations of paths with line
/// numbers. `eth0` and `loop12` keep their letters only.
pub fn normalise(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        push_word(&mut out, word);
        if out.len() > 4 * MAX_CHARS {
            break;
        }
    }
    out.chars().take(MAX_CHARS).collect::<String>().trim_end().to_owned()
}

fn push_word(out: &mut String, word: &str) {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (before, after) = match word.split_once(core) {
        Some(parts) if !core.is_empty() => parts,
        _ => {
            out.push_str(word);
            return;
        }
    };
    out.push_str(before);
    out.push_str(&replaced(core));
    out.push_str(after);
}

fn replaced(core: &str) -> String {
    if let Some(hex) = core.strip_prefix("0x")
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return "ADDR".to_owned();
    }
    if core.len() >= 8 && core.bytes().all(|b| b.is_ascii_hexdigit()) {
        return "ADDR".to_owned();
    }
    // `a/b.c:12` says the file.
    if let Some((file, line)) = core.split_once(':')
        && file.contains('/')
        && line.bytes().all(|b| b.is_ascii_digit() || b == b':')
    {
        return file.to_owned();
    }
    // An offset behind a function.
    let core = core.split_once("+0x").map_or(core, |(name, _)| name);
    let is_word = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let mut out = String::new();
    let mut rest = core;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            // A name's own number (`ext4_readdir`, `rtl8139`) is no counter unless it ends the name.
            let inside = out.bytes().next_back().is_some_and(is_word)
                && rest[digits..].bytes().next().is_some_and(is_word);
            out.push_str(if inside { &rest[..digits] } else { "NUM" });
            rest = &rest[digits..];
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_gone() {
        let cases = [
            ("stuck for 22s at ffff888012345678", "stuck for NUMs at ADDR"),
            ("code 0x0000000b, again", "code ADDR, again"),
            ("at fs/ext4/inode.c:123", "at fs/ext4/inode.c"),
            ("in ext4_readdir+0x12/0x34", "in ext4_readdir"),
            ("unknown-block(8,1)", "unknown-block(NUM,NUM)"),
            ("device eth0!", "device ethNUM!"),
            ("", ""),
            ("( ) --", "( ) --"),
        ];
        for (text, expected) in cases {
            assert_eq!(normalise(text), expected, "{text}");
        }
    }

    #[test]
    fn a_title_is_bounded() {
        assert!(normalise(&"é word ".repeat(10_000)).chars().count() <= MAX_CHARS);
        assert!(normalise(&"x".repeat(1 << 20)).len() <= MAX_CHARS);
    }
}
