//! The conventions of u-root images: `init`, the default shell, `uinit`, and one binary under many
//! names.
//!
//! A command is named by its path in the image, or, without a slash, by the name of a program that
//! was put into the image.

use crate::initramfs::entry::{Body, Entry, Kind, Reason, Request, normalize, parent};
use crate::initramfs::problem::Problem;
use crate::initramfs::spec::Role;

/// Where commands without a slash are looked for when no program of that name was asked for.
const COMMAND_DIRS: [&str; 7] =
    ["bbin", "bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"];

/// The entries for a command in a role. `programs` are the paths of programs that were asked for;
/// `present` tells whether the image has a path.
pub(crate) fn entries(
    role: Role,
    command: &str,
    by: &Request,
    programs: &[Vec<u8>],
    present: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<Entry>, Problem> {
    let fail =
        |what: String, hint: String| Problem::Request { by: by.clone(), what, hint: Some(hint) };
    let option = role.option();
    let (name, args) = match role {
        Role::Uinit => {
            let words = crate::quote::split(command.as_ref())
                .map_err(|error| fail(error.to_string(), error.hint()))?;
            // Words of a text are text.
            let mut words: Vec<String> =
                words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
            if words.is_empty() {
                return Err(fail("the command is empty".into(), format!("leave `{option}` out")));
            }
            (words.remove(0), words)
        }
        _ => (command.to_owned(), Vec::new()),
    };
    let target = find(&name, programs, present).ok_or_else(|| {
        fail(
            format!("there is no command `{name}` in the image"),
            format!(
                "put it there with `--bin` or `--multicall`, give its path in the image, or say \
                 `{option}=` to do without"
            ),
        )
    })?;
    let mut entries: Vec<Entry> = Vec::new();
    for link in role.links() {
        // A program that is already at the link's place needs none.
        if link.as_bytes() != target {
            entries.push(Entry {
                path: link.as_bytes().to_vec(),
                kind: Kind::Symlink { target: relative(link.as_bytes(), &target) },
                mode: 0o777,
                uid: 0,
                gid: 0,
                reason: Reason::Command { by: by.clone(), target: target.as_slice().into() },
            });
        }
    }
    if role == Role::Uinit && !args.is_empty() {
        let lines: Vec<String> = args.iter().map(|arg| go_quote(arg)).collect();
        let body = Body::Bytes(lines.join("\n").into_bytes().into());
        entries.push(Entry {
            path: b"etc/uinit.flags".to_vec(),
            kind: Kind::File { body, link: None },
            mode: 0o444,
            uid: 0,
            gid: 0,
            reason: Reason::Asked(by.clone()),
        });
    }
    Ok(entries)
}

fn find(name: &str, programs: &[Vec<u8>], present: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    if name.contains('/') {
        let path = normalize(name.as_bytes()).ok()?;
        return present(&path).then_some(path);
    }
    let asked = programs.iter().find(|path| {
        path.rsplit(|&b| b == b'/').next().is_some_and(|last| last == name.as_bytes())
    });
    asked.cloned().or_else(|| {
        let mut paths = COMMAND_DIRS.iter().map(|dir| format!("{dir}/{name}").into_bytes());
        paths.find(|path| present(path))
    })
}

/// The text of a link at `from` to `to`, both paths in the image: it works wherever the image is
/// unpacked.
pub(crate) fn relative(from: &[u8], to: &[u8]) -> Vec<u8> {
    let dir: Vec<&[u8]> = parent(from).split(|&b| b == b'/').filter(|c| !c.is_empty()).collect();
    let to: Vec<&[u8]> = to.split(|&b| b == b'/').collect();
    let common = dir.iter().zip(&to[..to.len() - 1]).take_while(|(a, b)| a == b).count();
    let mut parts: Vec<&[u8]> = vec![b".."; dir.len() - common];
    parts.extend(&to[common..]);
    parts.join(&b'/')
}

/// A string literal of Go, as `strconv.Quote` writes it: what u-root's init reads.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Names of one binary: it becomes `bbin/bb`, each name a link to it, as in u-root's busybox mode.
pub(crate) fn multicall_links(names: &[String], by: &Request) -> Result<Vec<Entry>, Problem> {
    let bad = |name: &&String| name.is_empty() || name.contains('/') || *name == "bb";
    if let Some(name) = names.iter().find(bad) {
        return Err(Problem::Request {
            by: by.clone(),
            what: format!("`{name}` cannot be the name of a command"),
            hint: Some("names have no slash and differ from `bb`".into()),
        });
    }
    Ok(names
        .iter()
        .map(|name| Entry {
            path: format!("bbin/{name}").into_bytes(),
            kind: Kind::Symlink { target: b"bb".to_vec() },
            mode: 0o777,
            uid: 0,
            gid: 0,
            reason: Reason::Asked(by.clone()),
        })
        .collect())
}

/// Contents of the base archive that images have unless they are given another one: u-root's, with
/// what programs expect besides. `(path, mode)`.
const DIRS: [(&str, u32); 19] = [
    ("bbin", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("env", 0o755),
    ("etc", 0o755),
    ("lib64", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tcz", 0o755),
    // u-root's are 0777: without the sticky bit anybody may remove anybody's files.
    ("tmp", 0o1777),
    ("ubin", 0o755),
    ("usr", 0o755),
    ("usr/lib", 0o755),
    ("var", 0o755),
    ("var/lock", 0o1777),
    ("var/log", 0o1777),
];

/// Character devices: path, mode, major, minor. Without `dev/console` init has no output.
const NODES: [(&str, u32, u32, u32); 9] = [
    ("dev/console", 0o600, 5, 1),
    ("dev/kmsg", 0o644, 1, 11),
    ("dev/null", 0o666, 1, 3),
    ("dev/port", 0o640, 1, 4),
    ("dev/random", 0o666, 1, 8),
    ("dev/tty", 0o666, 5, 0),
    ("dev/ttyS0", 0o600, 4, 64),
    ("dev/urandom", 0o666, 1, 9),
    ("dev/zero", 0o666, 1, 5),
];

/// `nameserver` of u-root.
const RESOLV_CONF: &[u8] = b"nameserver 8.8.8.8\n";

/// The default base archive, for a Linux guest.
pub(crate) fn default_base() -> Vec<Entry> {
    let reason = Reason::Base("the default base archive".into());
    let entry = |path: &str, mode: u32, kind: Kind| Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        reason: reason.clone(),
    };
    let file = |bytes: &[u8]| Kind::File { body: Body::Bytes(bytes.into()), link: None };
    let dirs = DIRS.iter().map(|(path, mode)| entry(path, *mode, Kind::Directory));
    let nodes = NODES.iter().map(|&(path, mode, major, minor)| {
        let node = crate::initramfs::entry::Node::Char;
        entry(path, mode, Kind::Node { node, rdev: (major, minor) })
    });
    let files = [
        entry("etc/resolv.conf", 0o644, file(RESOLV_CONF)),
        entry("etc/localtime", 0o644, file(&gmt())),
    ];
    dirs.chain(nodes).chain(files).collect()
}

/// Greenwich Mean Time as a time zone file (RFC 8536, version 2): a block for readers of version 1,
/// the same again, and the rule.
fn gmt() -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..2 {
        out.extend_from_slice(b"TZif2");
        out.extend_from_slice(&[0; 15]);
        // Numbers of UT indicators, standard indicators, leap seconds, transitions, types, and
        // bytes of names.
        for count in [0u32, 0, 0, 0, 1, 4] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        // Offset 0, no summer time, name at index 0.
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(b"GMT\0");
    }
    out.extend_from_slice(b"\nGMT0\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative() {
        for (from, to, text) in [
            ("init", "bbin/init", "bbin/init"),
            ("bin/sh", "bbin/gosh", "../bbin/gosh"),
            ("bin/uinit", "bbin/echo", "../bbin/echo"),
            ("bin/sh", "bin/bash", "bash"),
            ("a/b/c", "a/x", "../x"),
            ("a/b", "a", "../a"),
        ] {
            let text = text.as_bytes().to_vec();
            assert_eq!(relative(from.as_bytes(), to.as_bytes()), text, "{from} to {to}");
        }
    }

    #[test]
    fn flags_of_uinit_are_quoted_as_go_does() {
        let by: Request = "--uinit".into();
        let programs = [b"bbin/echo".to_vec()];
        let made = entries(Role::Uinit, "echo a 'b c' d", &by, &programs, &|_| true).unwrap();
        let Kind::File { body: Body::Bytes(bytes), .. } = &made[1].kind else {
            panic!("no file of flags")
        };
        assert_eq!(&bytes[..], b"\"a\"\n\"b c\"\n\"d\"");
        assert_eq!(made[1].mode, 0o444);
        assert_eq!(go_quote("q\"\\\n\x01\u{85}ä"), "\"q\\\"\\\\\\n\\x01\\u0085ä\"");
    }

    #[test]
    fn an_unknown_command_is_an_error_that_names_the_option() {
        let err = entries(Role::Shell, "gosh", &"--default-sh".into(), &[], &|_| false);
        assert!(err.unwrap_err().hint().unwrap().contains("`--default-sh=`"));
    }

    #[test]
    fn the_time_zone_has_the_length_of_the_system_s() {
        assert_eq!(gmt().len(), 114);
    }
}
