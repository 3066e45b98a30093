//! `#!` lines as the kernel reads them, and what `env` makes of its arguments.

/// The part of a file that the kernel looks at (`BINPRM_BUF_SIZE`).
pub(super) const HEAD: usize = 256;

/// Scripts that may interpret each other. `exec_binprm` allows five; a sixth is `ELOOP` (tried on
/// Linux 6.18: `execve(2)` says four).
pub(super) const MAX_SCRIPTS: usize = 5;

/// A `#!` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shebang {
    /// The interpreter's path.
    pub interpreter: Vec<u8>,
    /// The rest of the line, which the kernel passes as one argument.
    pub argument: Option<Vec<u8>>,
}

/// What is wrong with a `#!` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShebangError {
    /// Nothing after `#!`.
    #[error("the `#!` line names no interpreter")]
    Empty,
    /// The line ends in CR LF, so that the kernel looks for a file with CR at the end of its name.
    #[error(
        "the `#!` line ends in CR LF: the guest would look for an interpreter with a carriage return in its name"
    )]
    Crlf,
    /// The interpreter's name does not end within what the kernel reads.
    #[error("the `#!` line's interpreter is longer than the 256 bytes that the kernel reads")]
    TooLong,
    /// A path that depends on the current directory.
    #[error("the `#!` line's interpreter is no absolute path")]
    Relative,
    /// `env` with several words in one argument.
    #[error(
        "the kernel passes all that follows `env` as one argument, so `env` would look for a program with spaces in its name"
    )]
    EnvWords,
    /// `env` and no program.
    #[error("`env` is given no program to run")]
    EnvNoProgram,
}

impl ShebangError {
    /// How to fix it.
    pub fn hint(self) -> &'static str {
        match self {
            ShebangError::Empty => "write `#!/bin/sh`, for instance",
            ShebangError::Crlf => "save the file with LF line ends: `sed -i 's/\\r$//' FILE`",
            ShebangError::TooLong => "use a shorter path, a symbolic link for instance",
            ShebangError::Relative => "write the absolute path that it has in the guest",
            ShebangError::EnvWords => "write `#!/usr/bin/env -S PROGRAM ARGUMENT`",
            ShebangError::EnvNoProgram => "write `#!/usr/bin/env PROGRAM`",
        }
    }
}

/// Reads the `#!` line at the start of a file, `None` if there is none.
///
/// Only the first 256 bytes matter, however long `head` is.
pub fn shebang(head: &[u8]) -> Option<Result<Shebang, ShebangError>> {
    let rest = head.strip_prefix(b"#!")?;
    let seen = &rest[..rest.len().min(HEAD - 2)];
    let newline = seen.iter().position(|&b| b == b'\n');
    let line = &seen[..newline.unwrap_or(seen.len())];
    let line = &line[..line.iter().position(|&b| b == 0).unwrap_or(line.len())];
    // Cut off by the kernel's buffer, not by the end of the file.
    let cut = newline.is_none() && rest.len() >= HEAD - 2 && line.len() == seen.len();
    Some(parse_line(line, cut))
}

fn parse_line(line: &[u8], cut: bool) -> Result<Shebang, ShebangError> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    if line.ends_with(b"\r") {
        return Err(ShebangError::Crlf);
    }
    let start = line.iter().position(|b| !blank(b)).ok_or(ShebangError::Empty)?;
    let line = &line[start..];
    let end = line.iter().position(blank);
    if end.is_none() && cut {
        return Err(ShebangError::TooLong);
    }
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    if !name.starts_with(b"/") {
        return Err(ShebangError::Relative);
    }
    let argument = trim(rest);
    Ok(Shebang {
        interpreter: name.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    })
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t', rest)) = text.split_first().map(|(b, rest)| (*b, rest)) {
        text = rest;
    }
    while let Some((b' ' | b'\t', rest)) = text.split_last().map(|(b, rest)| (*b, rest)) {
        text = rest;
    }
    text
}

impl Shebang {
    /// The program that `env` will look for, `None` if the interpreter is not `env`.
    ///
    /// # Errors
    /// `env` would find none, whatever is installed.
    pub fn env_program(&self) -> Option<Result<Vec<u8>, ShebangError>> {
        let name = self.interpreter.rsplit(|&b| b == b'/').next();
        (name == Some(b"env")).then(|| env_program(self.argument.as_deref()))
    }
}

fn env_program(argument: Option<&[u8]>) -> Result<Vec<u8>, ShebangError> {
    let argument = argument.ok_or(ShebangError::EnvNoProgram)?;
    let Some(split) = split_string(argument) else {
        if argument.iter().any(|b| b.is_ascii_whitespace()) {
            return Err(ShebangError::EnvWords);
        }
        if argument.starts_with(b"-") || argument.contains(&b'=') {
            return Err(ShebangError::EnvNoProgram);
        }
        return Ok(argument.to_vec());
    };
    let mut words = words(split).into_iter();
    while let Some(word) = words.next() {
        match &word[..] {
            b"-u" | b"-C" | b"--unset" | b"--chdir" | b"-a" | b"--argv0" => {
                words.next();
            }
            b"--" => return words.next().ok_or(ShebangError::EnvNoProgram),
            option if option.starts_with(b"-") => {}
            setting if setting.contains(&b'=') => {}
            _ => return Ok(word),
        }
    }
    Err(ShebangError::EnvNoProgram)
}

/// What `-S` or `--split-string` is to split.
fn split_string(argument: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = argument.strip_prefix(b"--split-string") {
        return rest.strip_prefix(b"=").or_else(|| rest.strip_prefix(b" "));
    }
    let cluster = argument.strip_prefix(b"-")?;
    let flags = cluster.iter().take_while(|b| matches!(b, b'i' | b'v' | b'0')).count();
    cluster[flags..].strip_prefix(b"S")
}

/// Words as `env -S` splits them; escapes inside of words are kept simple: `\x` is `x`.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote: Option<u8> = None;
    let mut bytes = text.iter().copied();
    while let Some(b) = bytes.next() {
        match (b, quote) {
            (b'\'' | b'"', None) => {
                quote = Some(b);
                word.get_or_insert_default();
            }
            (_, Some(open)) if b == open => quote = None,
            (b'\\', None | Some(b'"')) => word.get_or_insert_default().extend(bytes.next()),
            (b' ' | b'\t', None) => words.extend(word.take()),
            (b'#', None) if word.is_none() => break,
            _ => word.get_or_insert_default().push(b),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<(String, Option<String>), ShebangError> {
        let line = shebang(text.as_bytes()).unwrap()?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok((text(line.interpreter), line.argument.map(text)))
    }

    #[test]
    fn lines_are_read_as_the_kernel_does() {
        let ok = |name: &str, argument: Option<&str>| Ok((name.into(), argument.map(Into::into)));
        assert_eq!(parse("#!/bin/sh\necho"), ok("/bin/sh", None));
        assert_eq!(parse("#! \t/bin/sh \t\n"), ok("/bin/sh", None));
        assert_eq!(parse("#!/bin/awk -f  x \n"), ok("/bin/awk", Some("-f  x")));
        assert_eq!(parse("#!/bin/sh"), ok("/bin/sh", None));
        assert_eq!(parse("#!/bin/sh\0junk"), ok("/bin/sh", None));
        assert_eq!(parse("#!\n"), Err(ShebangError::Empty));
        assert_eq!(parse("#!  "), Err(ShebangError::Empty));
        assert_eq!(parse("#!/bin/sh\r\necho\r\n"), Err(ShebangError::Crlf));
        assert_eq!(parse("#!/bin/sh -e\r\n"), Err(ShebangError::Crlf));
        assert_eq!(parse("#!bin/sh\n"), Err(ShebangError::Relative));
        assert_eq!(parse(&format!("#!/{}\n", "x".repeat(300))), Err(ShebangError::TooLong));
        let (_, argument) = parse(&format!("#!/bin/x {}\n", "y".repeat(300))).unwrap();
        assert_eq!(argument.unwrap().len(), 256 - "#!/bin/x ".len());
        assert_eq!(shebang(b"# !/bin/sh"), None);
        assert_eq!(shebang(b""), None);
    }

    #[test]
    fn env_finds_the_program_that_env_would() {
        let program = |line: &str| {
            let line = shebang(format!("#!{line}\n").as_bytes()).unwrap().unwrap();
            line.env_program().map(|r| r.map(|p| String::from_utf8(p).unwrap()))
        };
        let is = |name: &str| Some(Ok(name.to_owned()));
        assert_eq!(program("/bin/sh"), None);
        assert_eq!(program("/usr/bin/env python3"), is("python3"));
        assert_eq!(program("/usr/bin/env python3 -u"), Some(Err(ShebangError::EnvWords)));
        assert_eq!(program("/usr/bin/env"), Some(Err(ShebangError::EnvNoProgram)));
        assert_eq!(program("/usr/bin/env -i"), Some(Err(ShebangError::EnvNoProgram)));
        assert_eq!(program("/usr/bin/env A=b"), Some(Err(ShebangError::EnvNoProgram)));
        assert_eq!(program("/usr/bin/env -S python3 -u"), is("python3"));
        assert_eq!(program("/usr/bin/env -Spython3 -u"), is("python3"));
        assert_eq!(program("/usr/bin/env -vS -i A=b -u C -- python3 -u"), is("python3"));
        assert_eq!(program("/usr/bin/env --split-string='my prog' x"), is("my prog"));
        assert_eq!(program("/usr/bin/env -S A=b"), Some(Err(ShebangError::EnvNoProgram)));
    }

    proptest! {
        #[test]
        fn any_head_ends(head in proptest::collection::vec(any::<u8>(), 0..400)) {
            for bytes in [head.clone(), [b"#!".to_vec(), head].concat()] {
                if let Some(Ok(line)) = shebang(&bytes) {
                    prop_assert!(line.interpreter.starts_with(b"/"));
                    let _ = line.env_program();
                }
            }
        }

        #[test]
        fn any_env_line_ends(text in "#!/env (-S|-vS|--split-string=)?[ -~\t]{0,60}") {
            if let Some(Ok(line)) = shebang(text.as_bytes()) {
                let _ = line.env_program();
            }
        }
    }
}
