//! The kernel's command line: ordered parameters, quoted the way the kernel unquotes them.
//!
//! The grammar is that of `next_arg` in Linux' `lib/cmdline.c` ("you can use `"` around spaces, but
//! can't escape `"`"):
//!
//! - blanks separate parameters, except between double quotes; the kernel's `isspace` (`lib/ctype.c`)
//!   also counts the *byte* A0 as a blank, so an unquoted `à` (C3 A0) would split a value;
//! - `name` is a flag, `name=value` or `name="a value"` has a value;
//! - a parameter `--` ends the kernel's own: what follows goes to init as arguments.
//!
//! A double quote cannot be part of a value and a quote that is never closed would swallow all that
//! follows, so both are errors here. Absent on purpose: bootconfig, and any knowledge of what a
//! parameter means.

use std::fmt;

use crate::arch::Arch;

/// Kernel parameters in order, then arguments for init.
///
/// [`fmt::Display`] writes the line; [`Cmdline::for_arch`] also checks that the kernel takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// As written on the line: quoted where needed, without blanks outside quotes.
    kernel: Vec<String>,
    init: Vec<String>,
}

/// Why a parameter or a line cannot be given to a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter's name is empty, `--`, or holds a blank, `=`, `"` or NUL.
    #[error("`{name}` is no name of a kernel parameter")]
    InvalidName {
        /// The name that was given.
        name: String,
    },
    /// A value holds a `"` or NUL, for which the kernel's syntax has no spelling.
    #[error("the value `{value}` of kernel parameter `{name}` holds {}, which cannot be quoted", show_char(*.character))]
    UnquotableValue {
        /// The parameter.
        name: String,
        /// The value that was given.
        value: String,
        /// The character.
        character: char,
    },
    /// A piece of command line has a `"` that is never closed.
    #[error("unbalanced double quotes in kernel command line `{given}`")]
    UnbalancedQuotes {
        /// The text that was given.
        given: String,
    },
    /// A piece of command line has a NUL byte, at which the kernel would stop reading.
    #[error("NUL byte in kernel command line `{}`", .given.escape_debug())]
    Nul {
        /// The text that was given.
        given: String,
    },
    /// A piece of command line has, outside quotes, a character whose UTF-8 form contains the byte
    /// A0, where the kernel would split it.
    #[error("`{character}` outside double quotes in kernel command line `{given}`")]
    SplitCharacter {
        /// The text that was given.
        given: String,
        /// The character.
        character: char,
    },
    /// The line is longer than the kernel reads; it would cut the end off without a word.
    #[error("kernel command line has {len} bytes; Linux on {arch} reads {limit}")]
    TooLong {
        /// The guest's architecture.
        arch: Arch,
        /// Length of the line in bytes.
        len: usize,
        /// The greatest length in bytes.
        limit: usize,
    },
}

impl Error {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            Error::InvalidName { .. } => {
                "a name is letters, digits, `.`, `_` and `-`, as in `console=ttyS0` or `quiet`"
                    .into()
            }
            Error::UnquotableValue { .. } => {
                "pass such values in the environment of the command (`--env`) or in a file".into()
            }
            Error::UnbalancedQuotes { .. } => {
                "the kernel knows only pairs of `\"` around blanks, and no backslash".into()
            }
            Error::Nul { .. } => "remove the NUL byte".into(),
            Error::SplitCharacter { .. } => {
                "the kernel takes a part of this character for a blank: write `name=\"value\"`"
                    .into()
            }
            Error::TooLong { len, limit, .. } => format!(
                "leave out {} bytes; values for the command can go through its environment (`--env`) instead",
                len - limit
            ),
        }
    }
}

fn show_char(character: char) -> String {
    match character {
        '\0' => "a NUL byte".to_owned(),
        other => format!("`{other}`"),
    }
}

/// The longest command line in bytes that Linux reads on `arch`, without the terminating NUL.
///
/// One less than the kernel's `COMMAND_LINE_SIZE`: 2048 in `arch/x86/include/asm/setup.h` and
/// `arch/arm64/include/uapi/asm/setup.h`, 1024 in `arch/arm/include/uapi/asm/setup.h` and, since
/// Linux 5.15, in `arch/riscv/include/uapi/asm/setup.h` (512 before).
pub fn max_len(arch: Arch) -> usize {
    let command_line_size = match arch {
        Arch::Amd64 | Arch::I386 | Arch::Arm64 => 2048,
        Arch::Arm | Arch::Riscv64 => 1024,
    };
    command_line_size - 1
}

impl Cmdline {
    /// A line without parameters.
    pub fn new() -> Cmdline {
        Cmdline::default()
    }

    /// Adds a parameter without a value: `quiet`.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn flag(&mut self, name: &str) -> Result<&mut Cmdline, Error> {
        check_name(name)?;
        self.kernel.push(name.to_owned());
        Ok(self)
    }

    /// Adds a parameter with a value, quoted where it has blanks: `console=ttyS0`, `x="a b"`.
    ///
    /// A name may be given several times; which one counts is the kernel's affair (`console=` adds
    /// up, of most others the last one wins).
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::UnquotableValue`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<&mut Cmdline, Error> {
        check_name(name)?;
        if let Some(character) = value.chars().find(|c| matches!(c, '"' | '\0')) {
            return Err(Error::UnquotableValue {
                name: name.to_owned(),
                value: value.to_owned(),
                character,
            });
        }
        let quote = if value.bytes().any(is_space) { "\"" } else { "" };
        self.kernel.push(format!("{name}={quote}{value}{quote}"));
        Ok(self)
    }

    /// Adds a piece of command line as a person writes it: several parameters, quoted by the
    /// kernel's rules. What follows a `--` becomes arguments for init, which stay behind all
    /// parameters of the kernel, also behind those added later.
    ///
    /// # Errors
    /// [`Error::UnbalancedQuotes`], [`Error::Nul`], [`Error::SplitCharacter`]; nothing is added then.
    pub fn append(&mut self, text: &str) -> Result<&mut Cmdline, Error> {
        let mut for_init = false;
        for token in tokens(text)? {
            if for_init {
                self.init.push(token.to_owned());
            } else if decode(token) == ("--", None) {
                for_init = true;
            } else {
                self.kernel.push(token.to_owned());
            }
        }
        Ok(self)
    }

    /// Whether the kernel finds a parameter of this name, with or without a value. As for the
    /// kernel, `-` and `_` are the same in names.
    pub fn contains(&self, name: &str) -> bool {
        let same = |a: &u8, b: &u8| a == b || (b"-_".contains(a) && b"-_".contains(b));
        self.kernel.iter().any(|token| {
            let found = decode(token).0.as_bytes();
            found.len() == name.len() && found.iter().zip(name.as_bytes()).all(|(a, b)| same(a, b))
        })
    }

    /// Whether there is nothing on the line.
    pub fn is_empty(&self) -> bool {
        self.kernel.is_empty() && self.init.is_empty()
    }

    /// The line for a kernel of `arch`.
    ///
    /// # Errors
    /// [`Error::TooLong`] where it exceeds [`max_len`].
    pub fn for_arch(&self, arch: Arch) -> Result<String, Error> {
        let line = self.to_string();
        let (len, limit) = (line.len(), max_len(arch));
        if len > limit { Err(Error::TooLong { arch, len, limit }) } else { Ok(line) }
    }
}

impl fmt::Display for Cmdline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = (!self.init.is_empty()).then_some("--");
        let mut blank = "";
        for token in self
            .kernel
            .iter()
            .map(String::as_str)
            .chain(separator)
            .chain(self.init.iter().map(String::as_str))
        {
            write!(f, "{blank}{token}")?;
            blank = " ";
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let bad = |byte: u8| is_space(byte) || matches!(byte, b'=' | b'"' | 0);
    if name.is_empty() || name == "--" || name.bytes().any(bad) {
        return Err(Error::InvalidName { name: name.to_owned() });
    }
    Ok(())
}

/// The kernel's `isspace`, on bytes.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// The parameters of a line as written, quotes included.
fn tokens(given: &str) -> Result<Vec<&str>, Error> {
    let mut tokens = Vec::new();
    let mut start = None;
    let mut in_quote = false;
    for (at, character) in given.char_indices() {
        if character == '\0' {
            return Err(Error::Nul { given: given.to_owned() });
        }
        let end = at + character.len_utf8();
        let blank = !in_quote && given.as_bytes()[at..end].iter().any(|byte| is_space(*byte));
        if blank && !character.is_ascii() {
            return Err(Error::SplitCharacter { given: given.to_owned(), character });
        }
        if blank {
            tokens.extend(start.take().map(|start| &given[start..at]));
            continue;
        }
        start.get_or_insert(at);
        in_quote ^= character == '"';
    }
    tokens.extend(start.map(|start| &given[start..]));
    if in_quote {
        return Err(Error::UnbalancedQuotes { given: given.to_owned() });
    }
    Ok(tokens)
}

/// Name and value the kernel makes of one parameter, quotes removed.
fn decode(token: &str) -> (&str, Option<&str>) {
    let (token, mut quoted) = match token.strip_prefix('"') {
        Some(rest) => (rest, true),
        None => (token, false),
    };
    // A `=` in front is part of the name.
    let equals = token.match_indices('=').map(|(at, _)| at).find(|at| *at > 0);
    let (name, mut value) = match equals {
        Some(at) => (&token[..at], Some(&token[at + 1..])),
        None => (token, None),
    };
    if let Some(inner) = value.and_then(|value| value.strip_prefix('"')) {
        quoted = false;
        value = Some(inner.strip_suffix('"').unwrap_or(inner));
    }
    let strip =
        |text: &'_ str| -> usize { text.len() - usize::from(quoted && text.ends_with('"')) };
    match value {
        Some(value) => (name, Some(&value[..strip(value)])),
        None => (&name[..strip(name)], None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parsed = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    /// What a kernel finds on a line: `parse_args` (`kernel/params.c`) with `next_arg`
    /// (`lib/cmdline.c`), spelt out on a NUL-terminated buffer the way C does it, so that it shares
    /// no reasoning with the code under test. Returns the parameters and the rest after `--`.
    fn kernel_parses(line: &str) -> (Parsed, String) {
        let mut buf = line.as_bytes().to_vec();
        buf.push(0);
        let until_nul = |buf: &[u8], from: usize| {
            buf[from..].iter().take_while(|b| **b != 0).copied().collect::<Vec<u8>>()
        };
        let skip_spaces = |buf: &[u8], mut at: usize| {
            while is_space(buf[at]) {
                at += 1;
            }
            at
        };
        let mut found = Parsed::new();
        let mut args = skip_spaces(&buf, 0);
        while buf[args] != 0 {
            let (mut i, mut equals, mut in_quote, mut quoted) = (0, 0, false, false);
            if buf[args] == b'"' {
                args += 1;
                in_quote = true;
                quoted = true;
            }
            while buf[args + i] != 0 {
                if is_space(buf[args + i]) && !in_quote {
                    break;
                }
                if equals == 0 && buf[args + i] == b'=' {
                    equals = i;
                }
                if buf[args + i] == b'"' {
                    in_quote = !in_quote;
                }
                i += 1;
            }
            let param = args;
            let mut val = None;
            if equals != 0 {
                buf[args + equals] = 0;
                let mut v = args + equals + 1;
                if buf[v] == b'"' {
                    v += 1;
                    if buf[args + i - 1] == b'"' {
                        buf[args + i - 1] = 0;
                    }
                }
                val = Some(v);
            }
            if quoted && i > 0 && buf[args + i - 1] == b'"' {
                buf[args + i - 1] = 0;
            }
            let mut next = args + i;
            if buf[args + i] != 0 {
                buf[args + i] = 0;
                next += 1;
            }
            let name = until_nul(&buf, param);
            let value = val.map(|v| until_nul(&buf, v));
            args = skip_spaces(&buf, next);
            if value.is_none() && name == b"--" {
                return (found, String::from_utf8(until_nul(&buf, args)).unwrap());
            }
            found.push((name, value));
        }
        (found, String::new())
    }

    #[test]
    fn parameters_are_written_in_order_and_quoted_where_needed() {
        let mut line = Cmdline::new();
        assert!(line.is_empty());
        line.flag("quiet")
            .unwrap()
            .set("console", "ttyS0")
            .unwrap()
            .set("console", "hvc0")
            .unwrap();
        line.append(" panic=-1  dyndbg=\"file a.c +p\" -- /bin/sh -c").unwrap();
        line.set("vmtest.name", "a b")
            .unwrap()
            .set("empty", "")
            .unwrap()
            .set("fr", "voilà")
            .unwrap();
        line.append("-- \"last one\"").unwrap();
        assert_eq!(
            line.to_string(),
            "quiet console=ttyS0 console=hvc0 panic=-1 dyndbg=\"file a.c +p\" \
             vmtest.name=\"a b\" empty= fr=\"voilà\" -- /bin/sh -c \"last one\""
        );
        assert_eq!(Cmdline::new().append("-- x").unwrap().to_string(), "-- x");
    }

    #[test]
    fn a_parameter_is_found_by_the_kernels_rules() {
        let mut line = Cmdline::new();
        line.append("rd-init=/x quiet \"two words=1\" =odd= x=\"\" -- initarg").unwrap();
        for name in ["rd-init", "rd_init", "quiet", "two words", "=odd", "x"] {
            assert!(line.contains(name), "{name}");
        }
        for name in ["rd", "rdinit", "initarg", "odd", ""] {
            assert!(!line.contains(name), "{name}");
        }
    }

    #[test]
    fn what_the_kernel_cannot_read_is_an_error() {
        let mut line = Cmdline::new();
        for name in ["", "--", "a b", "a=b", "a\"", "a\0", "a\u{a0}", "à"] {
            let err = line.flag(name).unwrap_err();
            assert_eq!(err.to_string(), format!("`{name}` is no name of a kernel parameter"));
            assert!(line.set(name, "x").is_err());
        }
        assert_eq!(
            line.set("a", "say \"hi\"").unwrap_err().to_string(),
            "the value `say \"hi\"` of kernel parameter `a` holds `\"`, which cannot be quoted"
        );
        assert!(line.set("a", "b\0").unwrap_err().to_string().contains("holds a NUL byte"));
        for (text, error) in [
            ("a=\"b c", "unbalanced double quotes in kernel command line `a=\"b c`"),
            ("\"", "unbalanced double quotes in kernel command line `\"`"),
            ("a\0", "NUL byte in kernel command line `a\\0`"),
            ("a=à b", "`à` outside double quotes in kernel command line `a=à b`"),
        ] {
            let err = line.append(text).unwrap_err();
            assert_eq!(err.to_string(), error);
            assert!(!err.hint().is_empty());
        }
        assert!(line.is_empty(), "nothing is added by a call that fails");
    }

    #[test]
    fn the_limit_is_the_kernels() {
        for (arch, limit) in [
            (Arch::Amd64, 2047),
            (Arch::I386, 2047),
            (Arch::Arm64, 2047),
            (Arch::Arm, 1023),
            (Arch::Riscv64, 1023),
        ] {
            let line_of = |len: usize| {
                let mut line = Cmdline::new();
                line.set("x", &"y".repeat(len - 2)).unwrap();
                line
            };
            assert_eq!(line_of(limit).for_arch(arch).unwrap().len(), limit);
            let err = line_of(limit + 3).for_arch(arch).unwrap_err();
            assert_eq!(
                err.to_string(),
                format!(
                    "kernel command line has {} bytes; Linux on {arch} reads {limit}",
                    limit + 3
                )
            );
            assert!(err.hint().starts_with("leave out 3 bytes"));
        }
    }

    fn any_piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab=\"\\- \t\nà\u{a0}\u{b}.]{0,16}",
            "([a-c_.-]{1,4}(=[a-c=]{0,4}|=\"[a-c= ]{0,4}\")? {0,2}){0,6}(-- x)?",
            "\\PC{0,16}",
        ]
    }

    proptest! {
        #[test]
        fn the_kernel_reads_what_was_meant(
            params in prop::collection::vec(("[a-zA-Z0-9_.-]{1,8}", prop::option::of("[^\"\0]{0,12}")), 0..8)
        ) {
            let mut line = Cmdline::new();
            let mut meant = Parsed::new();
            for (name, value) in &params {
                prop_assume!(name != "--");
                match value {
                    Some(value) => line.set(name, value).unwrap(),
                    None => line.flag(name).unwrap(),
                };
                meant.push((name.clone().into_bytes(), value.clone().map(String::into_bytes)));
                prop_assert!(line.contains(name));
            }
            prop_assert_eq!(kernel_parses(&line.to_string()), (meant, String::new()));
        }

        #[test]
        fn appended_text_means_the_same_to_the_kernel_as_before(text in any_piece()) {
            let mut line = Cmdline::new();
            if line.append(&text).is_ok() {
                let (before, rest) = kernel_parses(&text);
                let (after, rest_after) = kernel_parses(&line.to_string());
                prop_assert_eq!(&before, &after);
                prop_assert_eq!(tokens(&rest), tokens(&rest_after));
                // `contains` agrees with the kernel about the names.
                for (name, _) in after {
                    prop_assert!(line.contains(&String::from_utf8(name).unwrap()));
                }
            }
        }

        #[test]
        fn pieces_do_not_disturb_each_other(pieces in prop::collection::vec(any_piece(), 0..4)) {
            let mut line = Cmdline::new();
            let mut meant = Parsed::new();
            for piece in &pieces {
                if line.append(piece).is_ok() {
                    meant.extend(kernel_parses(piece).0);
                }
            }
            line.set("last", "one").unwrap();
            meant.push((b"last".to_vec(), Some(b"one".to_vec())));
            prop_assert_eq!(kernel_parses(&line.to_string()).0, meant);
        }
    }
}
