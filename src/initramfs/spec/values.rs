//! What goes into an image, as one value of an option each ([`crate::fields`] has the rule for colons
//! in names).

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::fields::{self, BadValue};
use crate::initramfs::entry::Node;

/// `SRC[:DEST]`: a file of the host, and where it lies in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// As it was written, for messages.
    pub given: OsString,
    /// On the host.
    pub src: PathBuf,
    /// In the image. Default: said where it is used.
    pub dest: Option<OsString>,
}

impl Placed {
    /// # Errors
    /// [`BadValue`] when a part is empty or there are more than two.
    pub fn parse(text: &OsStr) -> Result<Placed, BadValue> {
        let (src, dest) = fields::one_or_two(text)?;
        Ok(Placed { given: text.to_owned(), src: src.into(), dest })
    }
}

/// `DEST:TARGET`: a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As it was written, for messages.
    pub given: OsString,
    /// The link.
    pub dest: OsString,
    /// What it leads to.
    pub target: OsString,
}

impl Link {
    /// # Errors
    /// [`BadValue`] when a part is missing, empty or one too many.
    pub fn parse(text: &OsStr) -> Result<Link, BadValue> {
        let (dest, target) = fields::two(text, "DEST:TARGET")?;
        Ok(Link { given: text.to_owned(), dest, target })
    }
}

/// `DEST[:MODE]`: a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// As it was written, for messages.
    pub given: OsString,
    /// The directory.
    pub dest: OsString,
    /// Its permissions. Default: 0755.
    pub mode: u32,
}

impl Dir {
    /// # Errors
    /// [`BadValue`] for empty or further parts, and a mode that is none.
    pub fn parse(text: &OsStr) -> Result<Dir, BadValue> {
        let (dest, permissions) = fields::one_or_two(text)?;
        let mode = permissions.map_or(Ok(0o755), |permissions| mode(text, &permissions))?;
        Ok(Dir { given: text.to_owned(), dest, mode })
    }
}

/// `FILE:NAME,NAME…`: one program under many names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multicall {
    /// As it was written, for messages.
    pub given: OsString,
    /// The program, on the host.
    pub src: PathBuf,
    /// Its names.
    pub names: Vec<String>,
}

impl Multicall {
    /// # Errors
    /// [`BadValue`] when the program or the names are missing, or a name is no UTF-8.
    pub fn parse(text: &OsStr) -> Result<Multicall, BadValue> {
        let wrong = |what: &str| BadValue::new(text, what, "write it as `FILE:NAME,NAME…`");
        // Says what is wrong with the parts, as everywhere.
        fields::two(text, "FILE:NAME,NAME…")?;
        let (src, names) =
            fields::colon_then_commas(text).ok_or_else(|| wrong("has no names of the program"))?;
        let names: Result<Vec<String>, OsString> =
            names.into_iter().map(OsString::into_string).collect();
        let names = names.map_err(|_| wrong("has a name that is no UTF-8"))?;
        Ok(Multicall { given: text.to_owned(), src: src.into(), names })
    }
}

/// `DEST:c:MAJOR:MINOR[:MODE]`, the same with `b`, or `DEST:p[:MODE]`: a device node or a named pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAt {
    /// As it was written, for messages.
    pub given: OsString,
    /// The node.
    pub dest: OsString,
    /// Its permissions. Default: 0600.
    pub mode: u32,
    /// Its kind.
    pub kind: Node,
    /// Major and minor number; 0 for a named pipe.
    pub rdev: (u32, u32),
}

impl NodeAt {
    /// # Errors
    /// [`BadValue`] for what is no node, and for numbers that Linux does not have.
    pub fn parse(text: &OsStr) -> Result<NodeAt, BadValue> {
        let fail = || {
            BadValue::new(
                text,
                "is no device node",
                "write it as `DEST:c:MAJOR:MINOR[:MODE]`, b for a block device, or `DEST:p[:MODE]` for a \
                 named pipe",
            )
        };
        let parts = fields::colons(text);
        let words: Vec<&str> =
            parts.iter().skip(1).map(|part| part.to_str().unwrap_or("")).collect();
        let number = |text: &str| text.parse::<u32>().map_err(|_| fail());
        let (kind, rdev, rest) = match words[..] {
            ["c", major, minor, ref rest @ ..] => {
                (Node::Char, (number(major)?, number(minor)?), rest)
            }
            ["b", major, minor, ref rest @ ..] => {
                (Node::Block, (number(major)?, number(minor)?), rest)
            }
            ["p", ref rest @ ..] => (Node::Fifo, (0, 0), rest),
            _ => return Err(fail()),
        };
        let mode = match rest {
            [] => 0o600,
            [permissions] => mode(text, OsStr::new(permissions))?,
            _ => return Err(fail()),
        };
        // Twelve bits for the major number, twenty for the minor: `MAJORBITS` of Linux.
        if rdev.0 >= 1 << 12 || rdev.1 >= 1 << 20 {
            return Err(BadValue::new(
                text,
                "has a number that Linux does not have",
                "the major number is at most 4095, the minor at most 1048575",
            ));
        }
        let dest = parts.into_iter().next().unwrap_or_default();
        Ok(NodeAt { given: text.to_owned(), dest, mode, kind, rdev })
    }
}

/// Permissions in octal.
fn mode(value: &OsStr, text: &OsStr) -> Result<u32, BadValue> {
    let digits = text.to_str().filter(|text| !text.starts_with('+'));
    let mode = digits.and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| {
        let what = format!("has the mode `{}`", text.display());
        BadValue::new(value, what, "a mode is octal, from 0 to 7777, as in `DEST:1777`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_numbers_and_modes() {
        let node = |text: &str| NodeAt::parse(OsStr::new(text));
        let kmsg = node("/dev/kmsg:c:1:11:0644").unwrap();
        assert_eq!((kmsg.dest, kmsg.mode), ("/dev/kmsg".into(), 0o644));
        assert_eq!((kmsg.kind, kmsg.rdev), (Node::Char, (1, 11)));
        assert_eq!(node("x:b:259:70000").unwrap().rdev, (259, 70000));
        assert_eq!(node("x:p").unwrap().kind, Node::Fifo);
        for wrong in ["x", "x:c", "x:c:1", "x:c:1:2:9", "x:s", "x:c:4096:0", "x:c:1:2:0644:y"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn colons_and_commas_of_names_are_written_with_a_backslash() {
        let placed = Placed::parse(OsStr::new("a\\:b:/c\\:d")).unwrap();
        assert_eq!((placed.src, placed.dest), ("a:b".into(), Some("/c:d".into())));
        let multicall = Multicall::parse(OsStr::new("bb:ls,a\\,b")).unwrap();
        assert_eq!(multicall.names, ["ls", "a,b"]);
        for wrong in ["bb", "bb:", "bb:ls:x"] {
            assert!(Multicall::parse(OsStr::new(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(Dir::parse(OsStr::new("/tmp:1777")).unwrap().mode, 0o1777);
        assert!(Dir::parse(OsStr::new("/tmp:+777")).is_err());
    }
}
