//! Programs of the host: which file a name means, and where it lies in an image.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::initramfs::closure;

/// Directories whose programs keep their place in the guest: libraries and data are found relative to
/// it. Others (a build directory, /tmp, where the guest mounts something) go to [`OWN_DIR`].
const SYSTEM_DIRS: [&str; 9] =
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix"];

/// Where programs of the user's own go.
const OWN_DIR: &str = "/.vmtest/own";

/// The file that a program's name means: an absolute one is first looked for in the sysroot, whose
/// links are followed inside of it.
pub fn on_host(program: &Path, sysroot: Option<&Path>) -> Option<PathBuf> {
    let in_sysroot = sysroot
        .filter(|root| program.is_absolute() && closure::is_file_in(root, program))
        .map(|root| root.join(program.strip_prefix("/").unwrap_or(program)));
    in_sysroot.or_else(|| program.is_file().then(|| program.to_owned()))
}

/// Where a program of the host lies in the image: at its own place if it is a system's, or below a
/// directory of vmtest's.
pub fn destination(path: &Path, sysroot: Option<&Path>) -> OsString {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = sysroot.map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned()));
    let below = absolute
        .strip_prefix(root.as_deref().unwrap_or(Path::new("/")))
        .unwrap_or_else(|_| absolute.strip_prefix("/").unwrap_or(&absolute));
    let first = below.components().next();
    let in_system = matches!(first, Some(Component::Normal(name)) if SYSTEM_DIRS.iter().any(|dir| name == *dir));
    let in_sysroot = root.is_some_and(|root| absolute.starts_with(root));
    if in_system || (in_sysroot && sysroot != Some(Path::new("/"))) {
        Path::new("/").join(below).into_os_string()
    } else {
        Path::new(OWN_DIR).join(absolute.file_name().unwrap_or(OsStr::new("program"))).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_system_keep_their_place_and_others_get_one() {
        assert_eq!(destination(Path::new("/usr/bin/git"), None), "/usr/bin/git");
        assert_eq!(destination(Path::new("/tmp/x/hello"), None), "/.vmtest/own/hello");
        assert_eq!(destination(Path::new("/srv/rv/bin/ls"), Some(Path::new("/srv/rv"))), "/bin/ls");
        assert_eq!(
            destination(Path::new("/home/me/t"), Some(Path::new("/srv/rv"))),
            "/.vmtest/own/t"
        );
    }

    #[test]
    fn links_of_a_sysroot_are_followed_inside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("usr/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("vmtest-awk"), "").unwrap();
        std::os::unix::fs::symlink("/usr/bin/vmtest-awk", bin.join("awk")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", bin.join("out")).unwrap();
        let find = |name: &str| on_host(&Path::new("/usr/bin").join(name), Some(dir.path()));
        assert_eq!(find("awk"), Some(bin.join("awk")));
        assert_eq!(find("out"), None);
    }
}
