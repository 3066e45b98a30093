//! Without a control port: the image was booted by another host, or by hand.
//!
//! Then this is an init as u-root's: it runs the image's `uinit`, then a shell on the console, then
//! powers off.

use super::exec::environment;
use super::log::log;
use super::{diagnose, power};
use crate::sys::{Controlling, in_own_session};
use rustix::process::{Pid, WaitOptions, wait};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

const UINITS: &[&str] = &["/bbin/uinit", "/bin/uinit"];
const UINIT_FLAGS: &str = "/etc/uinit.flags";
const SHELLS: &[&str] = &["/bin/defaultsh", "/bin/sh"];

pub(crate) fn run(notices: &[String]) -> ! {
    for notice in notices {
        log(notice);
        // The console: it is the only way to tell anybody.
        eprintln!("vmtest-guest: {notice}");
    }
    let exists = |path: &&&str| Path::new(path).exists();
    let uinit = UINITS.iter().find(exists);
    let shell = SHELLS.iter().find(exists);
    if let Some(uinit) = uinit {
        run_one(uinit, uinit_arguments());
    }
    if let Some(shell) = shell {
        run_one(shell, Vec::new());
    }
    if uinit.is_none() && shell.is_none() {
        eprintln!("vmtest-guest: nothing to run: the image has no {}", {
            let all: Vec<_> = UINITS.iter().chain(SHELLS).copied().collect();
            all.join(", ")
        });
    }
    power::off()
}

fn run_one(program: &str, arguments: Vec<OsString>) {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment([])).current_dir("/");
    let started = in_own_session(&mut command, OsStr::new(program), Controlling::StdinIfPossible)
        .and_then(|()| command.spawn());
    let started = match started {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            let why = diagnose::exec_error(Path::new(program), Path::new("/"), &error);
            return eprintln!("vmtest-guest: {why}");
        }
    };
    // Orphans are children of process 1 as well.
    while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
        if pid == started {
            let status = ExitStatus::from_raw(status.as_raw());
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            return eprintln!("vmtest-guest: {program} ended with status {code}");
        }
    }
}

/// The image's arguments for uinit, then those on the kernel's command line.
fn uinit_arguments() -> Vec<OsString> {
    let flags = std::fs::read_to_string(UINIT_FLAGS).unwrap_or_default();
    let mut arguments: Vec<OsString> = Vec::new();
    for line in flags.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match unquote(line) {
            Some(argument) => arguments.push(argument),
            None => eprintln!("vmtest-guest: {UINIT_FLAGS}: not a quoted string: {line}"),
        }
    }
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for word in words(&cmdline) {
        if let Some(more) = word.strip_prefix("uroot.uinitargs=") {
            arguments.extend(more.split_ascii_whitespace().map(OsString::from));
        }
    }
    arguments
}

/// The words of the kernel's command line; double quotes keep blanks in a word and vanish.
pub(super) fn words(cmdline: &str) -> impl Iterator<Item = String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in cmdline.trim().chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words.into_iter().filter(|word| !word.is_empty())
}

/// Undoes Go's `strconv.Quote`: a string in double quotes with backslash escapes, or one in
/// backquotes without any.
fn unquote(text: &str) -> Option<OsString> {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.strip_suffix('`').filter(|raw| !raw.contains('`')).map(OsString::from);
    }
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    while let Some(character) = next_char(&mut rest) {
        let meant = match character {
            '"' => return None,
            '\\' => match next_char(&mut rest)? {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                itself @ ('\\' | '"') => itself,
                'u' => char::from_u32(number(&mut rest, 4, 16)?)?,
                'U' => char::from_u32(number(&mut rest, 8, 16)?)?,
                'x' => {
                    bytes.push(number(&mut rest, 2, 16)? as u8);
                    continue;
                }
                high @ '0'..='3' => {
                    let low = number(&mut rest, 2, 8)?;
                    bytes.push((high.to_digit(8)? * 64 + low) as u8);
                    continue;
                }
                _ => return None,
            },
            other => other,
        };
        bytes.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(OsString::from_vec(bytes))
}

fn next_char(rest: &mut &str) -> Option<char> {
    let mut chars = rest.chars();
    let next = chars.next();
    *rest = chars.as_str();
    next
}

/// Exactly `digits` digits.
fn number(rest: &mut &str, digits: usize, radix: u32) -> Option<u32> {
    let (number, tail) = rest.split_at_checked(digits)?;
    if !number.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    *rest = tail;
    u32::from_str_radix(number, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn arguments_are_quoted_as_go_does() {
        let bytes = |text: &str| unquote(text).map(|text| text.as_bytes().to_vec());
        assert_eq!(bytes(r#""a b""#).unwrap(), b"a b");
        assert_eq!(bytes(r#""\a\t\n\"\\\x41\101\xff""#).unwrap(), b"\x07\t\n\"\\AA\xff");
        assert_eq!(bytes(r#""hä \u00e4\U0001F600""#).unwrap(), "hä ä😀".as_bytes());
        assert_eq!(bytes(r"`raw \n`").unwrap(), b"raw \\n");
        for bad in ["", "a", "\"", r#""\""#, r#""a"b""#, r#""\x4""#, r#""\x+4""#, r#""\q""#, "`a"] {
            assert_eq!(unquote(bad), None, "{bad}");
        }
        assert_eq!(bytes(r#""""#).unwrap(), b"");
    }

    #[test]
    fn the_command_line_has_words_with_blanks() {
        let cmdline = "console=ttyS0 uroot.uinitargs=\"-v a\"  quiet\n";
        let found: Vec<_> = words(cmdline).collect();
        assert_eq!(found, ["console=ttyS0", "uroot.uinitargs=-v a", "quiet"]);
    }
}
