//! What a hook has been given.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::arch::Arch;

/// What a hook has been given.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The program and its arguments; not empty.
    pub argv: &'a [OsString],
    /// The architecture that the hook is for, if somebody has said it.
    pub arch: Option<Arch>,
    /// The architecture of guests where nothing says which: `VMTEST_ARCH`.
    pub default_arch: Option<Arch>,
    /// The host's.
    pub host: Option<Arch>,
    /// The working directory, absolute.
    pub cwd: &'a Path,
    /// The environment.
    pub env: &'a [(OsString, OsString)],
    /// The project's directories, absolute; none: they are found.
    pub projects: &'a [PathBuf],
    /// Directories that the program may change, absolute.
    pub write: &'a [PathBuf],
    /// Variables that it gets besides ([`variables::Rule::new`]).
    pub pass: &'a [String],
}

/// A variable's value.
pub(super) fn variable<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
}

/// The value of a variable that is an absolute path.
pub(super) fn path_variable(env: &[(OsString, OsString)], name: &str) -> Option<PathBuf> {
    variable(env, name).map(PathBuf::from).filter(|path| path.is_absolute())
}
