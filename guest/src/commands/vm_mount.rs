//! `vmmount [--] [COMMAND...]`: mounts the host's 9p shares, runs the command, unmounts.
//!
//! The host says `VMTEST_MOUNT9P_<id>=<tag>` on the kernel's command line; the share `tag` is mounted
//! at `/mount/9p/<tag>`. The kernel puts such words into the environment of `/init`; who was started
//! with another environment finds them in `/proc/cmdline`. Shares that are mounted already are left
//! alone, now and at the end. The exit status is the command's, and 1 when a share cannot be
//! mounted: the command would only fail in a less obvious way.

use super::common::{command_words, fail, run};
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vmtest_guest::mount::{SHARES_DIR, mount_9p_dir};

const PREFIX: &str = "VMTEST_MOUNT9P_";

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut mounted = Vec::new();
    let mut result = Ok(());
    for tag in tags(variables, &cmdline) {
        let dir = Path::new(SHARES_DIR).join(&tag);
        if is_mounted(&mounts, &dir) {
            continue;
        }
        match mount_9p_dir(&dir, &tag) {
            Ok(()) => mounted.push(dir),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    let status = match result {
        Ok(()) => ExitCode::from(run("vmmount", command_words(args))),
        Err(error) => fail("vmmount", error),
    };
    unmount_all(mounted);
    status
}

/// The tags to mount, each once.
fn tags(variables: impl Iterator<Item = (String, String)>, cmdline: &str) -> BTreeSet<String> {
    let words = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all = variables.chain(words).filter(|(name, value)| {
        // A tag is a name in a directory.
        name.starts_with(PREFIX) && !value.is_empty() && !value.contains('/') && value != ".."
    });
    all.map(|(_, tag)| tag).collect()
}

/// Whether `mounts`, the text of `/proc/self/mounts`, has something on `dir`.
fn is_mounted(mounts: &str, dir: &Path) -> bool {
    let on = |line: &str| line.split(' ').nth(1).map(unescape);
    mounts.lines().filter_map(on).any(|target| Path::new(&target) == dir)
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn unmount_all(dirs: Vec<PathBuf>) {
    for dir in dirs.into_iter().rev() {
        if let Err(errno) = unmount(&dir, UnmountFlags::empty()) {
            eprintln!("vmmount: cannot unmount {}: {errno}", dir.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_from_the_environment_and_the_command_line() {
        let variables = [("VMTEST_MOUNT9P_0", "a"), ("PATH", "/bin"), ("VMTEST_MOUNT9P_1", "b")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let cmdline =
            "console=ttyS0 VMTEST_MOUNT9P_id0=c VMTEST_MOUNT9P_0=a VMTEST_MOUNT9P_2=../x\n";
        let found: Vec<_> = tags(variables.into_iter(), cmdline).into_iter().collect();
        assert_eq!(found, ["a", "b", "c"]);
    }

    #[test]
    fn what_is_mounted_is_seen_with_blanks_in_its_name() {
        let mounts = "proc /proc proc rw 0 0\nt /mount/9p/a\\040b 9p rw 0 0\n";
        assert!(is_mounted(mounts, Path::new("/mount/9p/a b")));
        assert!(!is_mounted(mounts, Path::new("/mount/9p/a")));
    }
}
