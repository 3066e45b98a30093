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

    /// Connects its stdin to [`crate::vm::Streams::stdin`]. Default: no, it reads `/dev/null`.
    pub fn stdin(mut self, connect: bool) -> Command {
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

#[cfg(test)]
mod tests {
    use super::*;

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
