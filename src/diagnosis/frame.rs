//! Functions with offsets, as the kernel prints them in traces and registers.

use serde::Serialize;

/// A place in the kernel's code: `func+0x1a/0x40 [module]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// The function, without what the compiler appended (`.isra.0`, `.cold`), Rust's names readable.
    pub function: String,
    /// The symbol as it was printed.
    pub symbol: String,
    /// Bytes from the symbol's beginning; a return address, unless `role` is [`Role::Instruction`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The symbol's length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The module it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// What the line says it is.
    pub role: Role,
    /// Where in the source, if the log was decoded before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where in the source, from debug information: the innermost inlined function first.
    #[cfg(feature = "symbols")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
}

/// A place in the source.
#[cfg(feature = "symbols")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The function, inlined or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The file, from the kernel's source directory on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

#[cfg(feature = "symbols")]
impl Location {
    /// `file:line`.
    pub(super) fn place(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        Some(match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file.to_owned(),
        })
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A caller.
    Call,
    /// An address on the stack that may be a caller (`? func+…`).
    Guess,
    /// The instruction that was running.
    Instruction,
    /// What the link register held.
    Link,
}

/// Where in a line a symbol with its offset stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The symbol's name.
    pub name: &'a str,
    /// Bytes from its beginning.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The module it is in.
    pub module: Option<&'a str>,
    /// The byte in the line at which the name begins.
    pub begin: usize,
    /// The byte behind the whole, module included.
    pub end: usize,
}

/// The first symbol of the form `name+0x1a/0x40` at or behind byte `from` of a line.
pub fn symbol(line: &str, from: usize) -> Option<Symbol<'_>> {
    let mut from = from;
    loop {
        let plus = from + line.get(from..)?.find("+0x")?;
        if let Some(symbol) = symbol_at(line, plus) {
            return Some(symbol);
        }
        from = plus + 1;
    }
}

fn symbol_at(line: &str, plus: usize) -> Option<Symbol<'_>> {
    let name = name_before(&line[..plus])?;
    let (offset, rest) = hex(&line[plus + 3..])?;
    let (size, rest) = hex(rest.strip_prefix("/0x")?)?;
    let mut end = line.len() - rest.len();
    let module = rest.strip_prefix(" [").and_then(|inner| {
        let (inner, _) = inner.split_once(']')?;
        // A build id may stand behind the name.
        let name = inner.split(' ').next()?;
        let is_name = !name.is_empty()
            && name != "inline"
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        is_name.then_some((name, inner.len() + 3))
    });
    let module = module.map(|(name, length)| {
        end += length;
        name
    });
    Some(Symbol { name, offset, size, module, begin: plus - name.len(), end })
}

/// The symbol's name at the end of a text.
fn name_before(text: &str) -> Option<&str> {
    let start = text
        .char_indices()
        .rev()
        .take_while(|(_, c)| {
            c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | ':' | '<' | '>' | '{' | '}')
        })
        .last()?
        .0;
    // `0010:func` is a segment and a function, `(func` has a bracket before it.
    let name = &text[start..];
    let name = match name.split_once(':') {
        Some((segment, rest))
            if !rest.starts_with(':') && segment.bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            rest
        }
        _ => name,
    };
    let name = match name.starts_with('<') && !name.contains("::") {
        true => name.trim_start_matches('<'),
        false => name,
    };
    let first = name.chars().next()?;
    (!first.is_ascii_digit() && first != ':').then_some(name)
}

fn hex(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_hexdigit()).unwrap_or(text.len());
    Some((u64::from_str_radix(&text[..end], 16).ok()?, &text[end..]))
}

/// A name without what the compiler appended, Rust's readable.
pub fn readable(symbol: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return format!("{name:#}");
    }
    let mut name = symbol;
    const PARTS: [&str; 8] =
        [".isra", ".constprop", ".part", ".cold", ".llvm", ".lto_priv", ".clone", ".localalias"];
    // From the first of them on: `f.isra.0.cold.12`.
    if let Some(at) = PARTS.iter().filter_map(|part| name.find(part)).min()
        && at > 0
    {
        name = &name[..at];
    }
    name.to_owned()
}

/// Reads a line of a trace or a register that names code.
///
/// One line may hold two frames: ARM says `(callee) from (caller+0x1/0x2)`, where the callee has no
/// offset, and is the line before's caller already.
pub fn parse(line: &str) -> Option<Frame> {
    let text = line.trim();
    if let Some(frame) = instruction(text) {
        return Some(frame);
    }
    if is_prose(text) {
        return None;
    }
    if let Some(frame) = arm_caller(text) {
        return Some(frame);
    }
    let (text, guess) = strip_address(text);
    let role = if guess { Role::Guess } else { Role::Call };
    let found = symbol(text, 0);
    match found {
        Some(found) if found.begin <= 1 && !text.starts_with(|c: char| c.is_whitespace()) => {
            Some(with_source(found, text, role))
        }
        _ => inlined(text, role),
    }
}

/// The frame that a known symbol makes.
fn make(found: Symbol<'_>, role: Role) -> Frame {
    Frame {
        function: readable(found.name),
        symbol: found.name.to_owned(),
        offset: Some(found.offset),
        size: Some(found.size),
        module: found.module.map(str::to_owned),
        role,
        source: None,
        #[cfg(feature = "symbols")]
        locations: Vec::new(),
    }
}

/// A symbol at the beginning of a text, as reports name the place they are about: with an address
/// before it, an offset behind it, a source behind that, or without all of them.
pub fn place(text: &str) -> Option<Frame> {
    let (text, _) = strip_address(text.trim());
    if let Some(found) = symbol(text, 0)
        && found.begin <= 1
    {
        return Some(with_source(found, text, Role::Instruction));
    }
    if let Some(frame) = inlined(text, Role::Instruction) {
        return Some(frame);
    }
    let name = text.split([' ', '(', ',']).next()?;
    let name = name.split_once("+0x").map_or(name, |(name, _)| name);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '<')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.$:<>{}".contains(&b));
    is_name.then(|| Frame {
        function: readable(name),
        symbol: name.to_owned(),
        offset: None,
        size: None,
        module: None,
        role: Role::Instruction,
        source: None,
        #[cfg(feature = "symbols")]
        locations: Vec::new(),
    })
}

fn with_source(found: Symbol<'_>, text: &str, role: Role) -> Frame {
    let word = text[found.end..].split_ascii_whitespace().next();
    let source = word.map(|word| word.trim_matches(['(', ')'])).filter(|word| is_source(word));
    Frame { source: source.map(str::to_owned), ..make(found, role) }
}

/// `drivers/a.c:12` or `a.rs:1:2`.
fn is_source(word: &str) -> bool {
    let Some((file, line)) = word.split_once(':') else { return false };
    file.contains('.') && line.starts_with(|c: char| c.is_ascii_digit())
}

/// `func file.c:12 [inline]`, from logs that were decoded before.
fn inlined(text: &str, role: Role) -> Option<Frame> {
    let text = text.strip_suffix(" [inline]")?;
    let (name, source) = text.rsplit_once(' ')?;
    let name = name.trim();
    let source = source.trim_matches(['(', ')']);
    (is_source(source) && !name.contains(' ')).then(|| Frame {
        function: readable(name),
        symbol: name.to_owned(),
        offset: None,
        size: None,
        module: None,
        role,
        source: Some(source.to_owned()),
        #[cfg(feature = "symbols")]
        locations: Vec::new(),
    })
}

/// Registers that say where the processor was: `RIP: 0010:f+0x1/0x2`, `pc : f+…`, `PC is at f+…`,
/// `NIP [c00…] f+…`, `epc : f+…`.
fn instruction(text: &str) -> Option<Frame> {
    const HERE: [&str; 8] =
        ["RIP: ", "EIP: ", "RIP  [", "EIP is at ", "PC is at ", "pc : ", "NIP [", "epc : "];
    const LINK: [&str; 4] = ["LR is at ", "lr : ", "LR [", "ra : "];
    const ALSO_HERE: [&str; 3] = ["IP: ", "epc: ", "Krnl PSW : "];
    let starts = |all: &[&str]| all.iter().find_map(|start| text.strip_prefix(start));
    let (rest, role) = match starts(&HERE).or_else(|| starts(&ALSO_HERE)) {
        Some(rest) => (rest, Role::Instruction),
        None => (starts(&LINK)?, Role::Link),
    };
    let found = symbol(rest, 0);
    // `epc : f+0x1/0x2 ra : g+0x3/0x4`: the first one is this register's.
    if let Some(found) = found {
        return Some(with_source(found, rest, role));
    }
    inlined(rest.split_once("0010:").map_or(rest, |(_, rest)| rest), role)
}

/// `[<80104c00>] (callee) from [<8010e300>] (caller+0x18/0x1c)` or `callee from caller+0x18/0x1c`.
fn arm_caller(text: &str) -> Option<Frame> {
    let (_, caller) = text.split_once(" from ")?;
    let caller = strip_address(caller).0.trim_start_matches('(');
    let found = symbol(caller, 0).filter(|found| found.begin == 0)?;
    Some(make(found, Role::Call))
}

/// Without `[<ffffffff81000000>]`, `[c000…] [c000…]`, `<IRQ>` and `?` at the beginning.
fn strip_address(text: &str) -> (&str, bool) {
    let mut rest = text;
    let mut guess = false;
    loop {
        let before = rest.len();
        rest = rest.trim_start();
        for tag in ["<IRQ>", "</IRQ>", "<TASK>", "</TASK>", "<NMI>", "</NMI>", "<EOI>", "<<EOE>>"] {
            rest = rest.strip_prefix(tag).unwrap_or(rest).trim_start();
        }
        if let Some(after) = rest.strip_prefix("? ") {
            guess = true;
            rest = after;
        }
        if let Some(inner) = rest.strip_prefix(['[', '('])
            && let Some((address, after)) = inner.split_once([']', ')'])
        {
            let address = address.trim_matches(['<', '>', '(', ')', '[']);
            let is_address = address.len() >= 6 && address.bytes().all(|b| b.is_ascii_hexdigit());
            if is_address || address == "none" || address.starts_with("____ptrval____") {
                rest = after;
            }
        }
        if rest.len() == before {
            return (rest, guess);
        }
    }
}

/// Sentences name functions, too.
fn is_prose(text: &str) -> bool {
    const STARTS: [&str; 12] = [
        "hardirqs last",
        "softirqs last",
        "last function",
        "Modules linked",
        "Comm:",
        "INFO:",
        "#",
        "Code:",
        "Workqueue:",
        "at: ",
        "initcall ",
        "calling ",
    ];
    STARTS.iter().any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_machines_are_read() {
        let cases = [
            (" do_it+0x1a/0x40", "do_it", Role::Call, None),
            (" ? do_it.isra.0.cold+0x1a/0x40 [ext4]", "do_it", Role::Guess, Some("ext4")),
            (" do_it+0x1a/0x40 [ext4 0123456789abcdef0123]", "do_it", Role::Call, Some("ext4")),
            (" [<ffffffff81234567>] ? do_it+0x1a/0x40", "do_it", Role::Guess, None),
            (" <IRQ>  [<ffffffff81234567>] do_it+0x1a/0x40", "do_it", Role::Call, None),
            ("[<80104c00>] (a) from [<8010e300>] (b+0x18/0x1c)", "b", Role::Call, None),
            (" a from b+0x18/0x1c [m]", "b", Role::Call, Some("m")),
            ("[c0000000f] [c00000000012] do_it+0x1/0x2 (unreliable)", "do_it", Role::Call, None),
            ("RIP: 0010:do_it+0x1a/0x40", "do_it", Role::Instruction, None),
            (
                "RIP: 0010:[<ffffffff81>]  [<ffffffff81>] do_it+0x1/0x2",
                "do_it",
                Role::Instruction,
                None,
            ),
            ("pc : do_it+0x1a/0x40", "do_it", Role::Instruction, None),
            ("lr : do_it+0x1a/0x40", "do_it", Role::Link, None),
            ("PC is at do_it+0x1a/0x40", "do_it", Role::Instruction, None),
            ("epc : do_it+0x1/0x2 ra : other+0x3/0x4", "do_it", Role::Instruction, None),
            (" do_it+0x1a/0x40 fs/a.c:12", "do_it", Role::Call, None),
            (" do_it fs/a.c:12 [inline]", "do_it", Role::Call, None),
        ];
        for (line, function, role, module) in cases {
            let frame = parse(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(
                (frame.function.as_str(), frame.role, frame.module.as_deref()),
                (function, role, module),
                "{line}"
            );
        }
        assert_eq!(parse(" do_it fs/a.c:12 [inline]").unwrap().source.unwrap(), "fs/a.c:12");
    }

    #[test]
    fn text_is_no_frame() {
        for line in [
            "",
            "+0x",
            "a+0x",
            "a+0x1",
            "word word",
            "RIP: 0033:0x7f1234567890",
            "RIP: 0033:",
            "hardirqs last enabled at (1): [<ffffffff81>] f+0x1/0x2",
            "1+0x1/0x2",
            "#0: 000 (lock){+.+.}, at: f+0x1/0x2",
            "a [inline]",
            "é+0x1/0x2",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn rust_names_are_readable() {
        let frame = parse(" _RNvMCs1234_7mycrateNtB2_5Thing3run+0x1/0x2").unwrap();
        assert_eq!(frame.function, "<mycrate::Thing>::run");
    }

    #[test]
    fn places_in_reports_are_read() {
        for text in [
            "f+0x1/0x2 at addr ffff88",
            "[<ffffffff81234567>] f+0x1/0x2",
            "f a/b.c:1 [inline]",
            "f",
            "f.part.1+0x12",
            "f()",
        ] {
            assert_eq!(place(text).unwrap().function, "f", "{text}");
        }
        assert_eq!(place("0xffff"), None);
        assert_eq!(place(""), None);
    }
}
