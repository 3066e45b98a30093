//! One value of a QEMU option: `virtio-9p-pci,fsdev=fs0,mount_tag=a,,b`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::handle::{ChannelId, FileId};

/// An option's value, built key by key.
///
/// QEMU separates keys by commas; a comma inside a value is written twice (QEMU documentation,
/// "Invocation"). That happens here and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QemuOpt {
    parts: Vec<Part>,
}

/// A piece of an option: text, or something whose spelling is known only when QEMU is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// As it is.
    Text(OsString),
    /// As it is, escaped already; of this run only, and nothing that the guest can tell.
    OfRun(OsString),
    /// The path under which QEMU sees an inherited file.
    File(FileId),
    /// The number of an inherited file's descriptor.
    Fd(FileId),
    /// The chardev back end of a channel, `socket,id=…,fd=…`.
    Channel(ChannelId),
}

impl QemuOpt {
    /// Starts with the value that has no key: the device's or back end's name.
    pub fn new(head: impl AsRef<OsStr>) -> QemuOpt {
        let mut opt = QemuOpt::default();
        opt.push_value(head.as_ref());
        opt
    }

    /// A value that is passed as it is: for options that are no list of keys, such as `-kernel`.
    pub fn verbatim(text: impl AsRef<OsStr>) -> QemuOpt {
        QemuOpt { parts: vec![Part::Text(text.as_ref().to_owned())] }
    }

    /// Only the path of an inherited file.
    pub fn file(file: FileId) -> QemuOpt {
        QemuOpt { parts: vec![Part::File(file)] }
    }

    pub(crate) fn channel(channel: ChannelId) -> QemuOpt {
        QemuOpt { parts: vec![Part::Channel(channel)] }
    }

    /// Adds `,key=value`.
    #[must_use]
    pub fn kv(mut self, key: &str, value: impl AsRef<OsStr>) -> QemuOpt {
        self.push_key(key);
        self.push_value(value.as_ref());
        self
    }

    /// Adds `,key=value` for something of this run only that the guest cannot tell: which directory is
    /// behind a share. It is no part of the machine's shape ([`crate::plan::Plan::shape`]).
    #[must_use]
    pub fn kv_of_run(mut self, key: &str, value: impl AsRef<OsStr>) -> QemuOpt {
        let comma = if self.parts.is_empty() { "" } else { "," };
        let mut text = OsString::from(format!("{comma}{key}="));
        text.push(escape(value.as_ref()));
        self.parts.push(Part::OfRun(text));
        self
    }

    /// Adds `,key=number`.
    #[must_use]
    pub fn num(self, key: &str, value: u64) -> QemuOpt {
        self.kv(key, value.to_string())
    }

    /// Adds `,key=on` or `,key=off`.
    #[must_use]
    pub fn switch(self, key: &str, on: bool) -> QemuOpt {
        self.kv(key, if on { "on" } else { "off" })
    }

    /// Adds `,key=` and the path of an inherited file.
    #[must_use]
    pub fn kv_file(mut self, key: &str, file: FileId) -> QemuOpt {
        self.push_key(key);
        self.parts.push(Part::File(file));
        self
    }

    /// Adds `,key=` and the number of an inherited file's descriptor.
    #[must_use]
    pub fn kv_fd(mut self, key: &str, file: FileId) -> QemuOpt {
        self.push_key(key);
        self.parts.push(Part::Fd(file));
        self
    }

    fn push_key(&mut self, key: &str) {
        debug_assert!(!key.contains([',', '=']), "`{key}` is no key");
        let comma = if self.parts.is_empty() { "" } else { "," };
        self.push_text(format!("{comma}{key}=").as_bytes());
    }

    fn push_value(&mut self, value: &OsStr) {
        self.push_text(escape(value).as_bytes());
    }

    fn push_text(&mut self, text: &[u8]) {
        if let Some(Part::Text(last)) = self.parts.last_mut() {
            last.push(OsStr::from_bytes(text));
        } else {
            self.parts.push(Part::Text(OsString::from_vec(text.to_vec())));
        }
    }

    /// Spells the parts out. What `part` returns for a file is escaped like any other value when it
    /// stands behind a key.
    pub(crate) fn render(&self, mut part: impl FnMut(&Part) -> OsString) -> OsString {
        let mut text = OsString::new();
        for piece in &self.parts {
            match piece {
                Part::Text(piece) | Part::OfRun(piece) => text.push(piece),
                Part::File(_) if !text.is_empty() => text.push(escape(&part(piece))),
                other => text.push(part(other)),
            }
        }
        text
    }
}

impl QemuOpt {
    /// The value's shape: what does not depend on the run. Files are told apart by number, as they are
    /// in argv.
    pub(crate) fn shape(&self) -> OsString {
        let mut text = OsString::new();
        for piece in &self.parts {
            match piece {
                Part::Text(piece) => text.push(piece),
                Part::OfRun(_) => {}
                Part::File(id) | Part::Fd(id) => text.push(format!("<file {}>", id.0)),
                Part::Channel(id) => text.push(format!("<channel {}>", id.0)),
            }
        }
        text
    }
}

/// Whether a word can be the key of an option's value.
pub(crate) fn is_key(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Doubles the commas.
fn escape(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        escaped.push(byte);
        if byte == b',' {
            escaped.push(b',');
        }
    }
    OsString::from_vec(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(opt: &QemuOpt) -> OsString {
        opt.render(|part| match part {
            Part::File(_) => "/a,b".into(),
            _ => "?".into(),
        })
    }

    #[test]
    fn commas_in_values_are_doubled_everywhere_but_in_verbatim_text() {
        let opt = QemuOpt::new("local").kv("path", "/srv/a,b,").num("n", 3).switch("ro", true);
        assert_eq!(text(&opt), "local,path=/srv/a,,b,,,n=3,ro=on");
        assert_eq!(text(&QemuOpt::new("x").kv_file("file", FileId(0))), "x,file=/a,,b");
        assert_eq!(text(&QemuOpt::file(FileId(0))), "/a,b");
        assert_eq!(text(&QemuOpt::verbatim("a,b")), "a,b");
    }

    #[test]
    fn bytes_that_are_not_utf8_pass() {
        let path = OsStr::from_bytes(b"/\xff,");
        assert_eq!(text(&QemuOpt::new("x").kv("path", path)).as_bytes(), b"x,path=/\xff,,");
    }
}
