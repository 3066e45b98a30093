//! What the guest runs, and the file of the host that it comes from.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use vmtest_guest::proto::{Bytes, Exec};

use crate::initramfs::closure;

/// Directories whose programs keep their place in the guest: libraries and data are found relative to
/// it. Others (a build directory, /tmp, where the guest mounts something) go to [`OWN_DIR`].
const SYSTEM_DIRS: [&str; 9] =
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix"];

/// Where programs of the user's own go.
const OWN_DIR: &str = "/.vmtest/own";

/// A command for the guest.
///
/// A program with a slash that is a file of the host (or of the sysroot) is put into the image with
/// its interpreter and libraries; any other is looked up in the guest's `PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<OsString>,
    stdin: bool,
}

impl Command {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command { argv: vec![program.as_ref().to_owned()], ..Command::default() }
    }

    /// A program with its arguments; `None` when there is no program.
    pub fn from_argv(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Option<Command> {
        let argv: Vec<OsString> = argv.into_iter().map(Into::into).collect();
        (!argv.is_empty()).then(|| Command { argv, ..Command::default() })
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Command {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The program, as given.
    pub(super) fn program(&self) -> Option<&OsStr> {
        self.argv.first().map(OsString::as_os_str)
    }

    /// Sets a variable of its environment, in addition to the guest's defaults (`PATH`, `HOME`, …).
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets its working directory. Default: `/`.
    pub fn cwd(&mut self, dir: impl AsRef<OsStr>) -> &mut Command {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Connects its stdin to [`crate::vm::Streams::stdin`]. Default: no, it reads `/dev/null`.
    pub fn stdin(&mut self, connect: bool) -> &mut Command {
        self.stdin = connect;
        self
    }

    /// The command as the guest runs it, and the file that goes into the image with its destination.
    pub(super) fn resolve(&self, sysroot: Option<&Path>) -> (Exec, Option<(PathBuf, OsString)>) {
        let mut argv = self.argv.clone();
        let mut file = None;
        if let Some(program) = argv.first_mut()
            && program.as_bytes().contains(&b'/')
            && let Some(path) = on_host(Path::new(&*program), sysroot)
        {
            let dest = destination(&path, sysroot);
            *program = dest.clone();
            file = Some((path, dest));
        }
        let bytes = |text: &OsString| Bytes::from(text.as_os_str());
        let exec = Exec {
            argv: argv.iter().map(bytes).collect(),
            env: self.env.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            cwd: self.cwd.as_ref().map(bytes),
            stdin: self.stdin,
            tty: None,
        };
        (exec, file)
    }
}

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

    #[test]
    fn only_a_program_with_a_slash_can_be_the_hosts() {
        let (exec, file) = Command::new("sh").arg("-c").env("A", "b").resolve(None);
        assert_eq!((exec.argv.len(), exec.env.len(), file), (2, 1, None));
        let (exec, file) = Command::new("/bin/sh").resolve(None);
        assert_eq!(exec.argv, [Bytes::from("/bin/sh")]);
        assert_eq!(file, Some(("/bin/sh".into(), "/bin/sh".into())));
        let (exec, file) = Command::new("/no/such/program").resolve(None);
        assert_eq!((exec.argv, file), (vec![Bytes::from("/no/such/program")], None));
        assert_eq!(Command::from_argv(Vec::<OsString>::new()), None);
    }
}
