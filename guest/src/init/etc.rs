//! The few files of `/etc` without which users and hosts have no names.
//!
//! What the image or the user has is never touched; a root that is the user's own gets none.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Name and content. Numbers are those that every distribution agrees on.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 vmtest\n::1 localhost ip6-localhost\n"),
];

/// Makes those that are missing.
pub(crate) fn fill(notices: &mut Vec<String>) {
    if let Err(error) = fs::create_dir_all("/etc") {
        return notices.push(format!("cannot make /etc: {error}"));
    }
    for (path, text) in FILES {
        match make(path, text) {
            // A link of the image's that leads nowhere is the image's own business.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                notices.push(format!("cannot make {path}: {error}"));
            }
            _ => {}
        }
    }
}

fn make(path: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())
}
