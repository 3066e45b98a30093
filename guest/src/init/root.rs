//! A root file system over 9p, where the kernel's own driver for it is a module of this image.
//!
//! The kernel's command line says what it would mount by itself: `root=TAG rootfstype=9p
//! rootflags=… ro|rw`. Everything that is mounted already moves along.

use super::standalone::words;
use rustix::mount::mount_move;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use vmtest_guest::proto::Mount;

const NEW_ROOT: &str = "/.vmtest/root";
const MOVED: &[&str] = &["/proc", "/sys", "/dev", "/run", "/tmp"];
/// Where Linux looks for an init.
const INITS: &[&str] = &["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// What the command line says about the root.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    source: String,
    fstype: String,
    data: String,
    read_only: bool,
    init: Option<String>,
}

fn wanted(cmdline: &str) -> Wanted {
    let mut wanted = Wanted::default();
    for word in words(cmdline) {
        match word.split_once('=') {
            Some(("root", value)) => wanted.source = value.to_owned(),
            Some(("rootfstype", value)) => wanted.fstype = value.to_owned(),
            Some(("rootflags", value)) => wanted.data = value.to_owned(),
            Some(("init", value)) => wanted.init = Some(value.to_owned()),
            None if word == "ro" => wanted.read_only = true,
            None if word == "rw" => wanted.read_only = false,
            _ => {}
        }
    }
    wanted
}

fn read_wanted() -> Wanted {
    wanted(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// Makes the share the root, if the command line says so. Returns whether it did.
pub(crate) fn switch(notices: &mut Vec<String>) -> bool {
    let Wanted { source, fstype, data, read_only, .. } = read_wanted();
    if fstype != "9p" {
        return false;
    }
    let target = NEW_ROOT.to_owned();
    let mount = Mount { source, target, fstype, data, read_only };
    if let Err(error) = vmtest_guest::mount::mount_fs(&mount) {
        // Nothing that the user asked for can be found in any other root.
        panic!("no root: {error}");
    }
    for dir in MOVED {
        let to = format!("{NEW_ROOT}{dir}");
        // In a tree that lacks them they are made, where that is possible.
        let _ = fs::create_dir(&to);
        if let Err(errno) = mount_move(*dir, &*to) {
            notices.push(format!("the root share has no {dir}: {errno}"));
        }
    }
    let moved = std::env::set_current_dir(NEW_ROOT)
        .and_then(|()| mount_move(".", "/").map_err(Into::into))
        .and_then(|()| rustix::process::chroot(".").map_err(Into::into))
        .and_then(|()| std::env::set_current_dir("/"));
    if let Err(error) = moved {
        panic!("cannot make the share the root: {error}");
    }
    true
}

/// Becomes the root's own init.
pub(crate) fn become_init() -> ! {
    let given = read_wanted().init;
    let candidates = given.iter().map(String::as_str).chain(INITS.iter().copied());
    let mut tried = Vec::new();
    for init in candidates.filter(|init| Path::new(init).exists()) {
        tried.push(format!("{init}: {}", Command::new(init).exec()));
    }
    panic!("the root has no init that can run: {}", tried.join("; "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_what_the_root_is() {
        let cmdline = "console=ttyS0 root=/dev/root rootfstype=9p rootflags=trans=virtio,msize=1 \
            ro init=\"/my init\" quiet";
        let expected = Wanted {
            source: "/dev/root".into(),
            fstype: "9p".into(),
            data: "trans=virtio,msize=1".into(),
            read_only: true,
            init: Some("/my init".into()),
        };
        assert_eq!(wanted(cmdline), expected);
        assert_eq!(wanted("rdinit=/x ro rw"), Wanted::default());
    }
}
