//! What the guest runs, and the file of the host that it comes from.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vmtest_guest::proto::{Bytes, Exec};

use crate::fields::{self, BadValue};
use crate::programs::{destination, on_host};

/// A variable of a command's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: OsString,
    /// Its value.
    pub value: OsString,
}

impl Variable {
    /// Parses the command line's form, `NAME=VALUE`; the value may be empty.
    ///
    /// # Errors
    /// [`BadValue`] without a name or an `=`.
    pub fn parse(text: &OsStr) -> Result<Variable, BadValue> {
        let (name, value) = fields::assignment(text).ok_or_else(|| {
            BadValue::new(text, "has no name or no value", "write it as `NAME=VALUE`")
        })?;
        Ok(Variable { name: name.into(), value: value.into() })
    }
}

/// A command for the guest.
///
/// A program with a slash that is a file of the host (or of the sysroot) is put into the image with
/// its interpreter and libraries; any other is looked up in the guest's `PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it does nothing until a machine runs it"]
pub struct Command {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<OsString>,
    stdin: bool,
    place: Place,
}

/// Where a program of the host lies in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Where [`destination`] says.
    #[default]
    Ours,
    /// At its own path.
    Same,
    /// At its own path, where a share brings it.
    Shared,
}

/// A program of the host that a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The file.
    pub(super) path: PathBuf,
    /// Where it is in the guest.
    pub(super) dest: OsString,
    /// A share has it there; only what it needs goes into the image.
    pub(super) shared: bool,
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
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The program, as given.
    pub(super) fn program(&self) -> Option<&OsStr> {
        self.argv.first().map(OsString::as_os_str)
    }

    /// Sets a variable of its environment, in addition to the guest's defaults (`PATH`, `HOME`, …).
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets its working directory. Default: `/`.
    pub fn cwd(mut self, dir: impl AsRef<OsStr>) -> Command {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Leaves a program of the host at the path that it has there. `shared`: a share of the machine's brings
    /// it to the guest ([`crate::qemu::Mirror`]), so that only what it needs goes into the image. Default: a
    /// program from outside of the system's directories goes to one of vmtest's.
    pub fn in_place(mut self, shared: bool) -> Command {
        self.place = if shared { Place::Shared } else { Place::Same };
        self
    }

    /// Connects its stdin to [`crate::vm::Streams::stdin`]. Default: no, it reads `/dev/null`.
    pub fn stdin(mut self, connect: bool) -> Command {
        self.stdin = connect;
        self
    }

    /// The command as the guest runs it, and the file that goes into the image.
    pub(super) fn resolve(&self, sysroot: Option<&Path>) -> (Exec, Option<Program>) {
        let mut argv = self.argv.clone();
        let mut file = None;
        if let Some(program) = argv.first_mut()
            && program.as_bytes().contains(&b'/')
            && let Some(path) = on_host(Path::new(&*program), sysroot)
        {
            let shared = self.place == Place::Shared;
            let dest = match self.place {
                Place::Ours => {
                    let dest = destination(&path, sysroot);
                    program.clone_from(&dest);
                    dest
                }
                Place::Same | Place::Shared => {
                    std::path::absolute(&path).unwrap_or_else(|_| path.clone()).into_os_string()
                }
            };
            file = Some(Program { path, dest, shared });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_keeps_its_place_is_called_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, "").unwrap();
        for shared in [false, true] {
            let (exec, file) = Command::new(&path).in_place(shared).resolve(None);
            assert_eq!(exec.argv, [Bytes::from(path.as_os_str())]);
            let dest = path.clone().into();
            assert_eq!(file, Some(Program { path: path.clone(), dest, shared }));
        }
    }

    #[test]
    fn only_a_program_with_a_slash_can_be_the_hosts() {
        let (exec, file) = Command::new("sh").arg("-c").env("A", "b").resolve(None);
        assert_eq!((exec.argv.len(), exec.env.len(), file), (2, 1, None));
        let (exec, file) = Command::new("/bin/sh").resolve(None);
        assert_eq!(exec.argv, [Bytes::from("/bin/sh")]);
        let sh = Program { path: "/bin/sh".into(), dest: "/bin/sh".into(), shared: false };
        assert_eq!(file, Some(sh));
        let (exec, file) = Command::new("/no/such/program").resolve(None);
        assert_eq!((exec.argv, file), (vec![Bytes::from("/no/such/program")], None));
        assert_eq!(Command::from_argv(Vec::<OsString>::new()), None);
    }
}
