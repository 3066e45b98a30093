//! The process's environment, read once, at the edge.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::options::{Environment, EnvironmentError};

impl Environment {
    /// Reads the process's environment.
    ///
    /// A `HOME` that is not there is none: nothing makes it. Where `HOME` is unset or not absolute, the
    /// home of the user's entry in `/etc/passwd` stands for it.
    ///
    /// # Errors
    /// [`EnvironmentError`] names the variable whose value cannot be used.
    pub fn read() -> Result<Environment, EnvironmentError> {
        let mut environment = Environment::from_lookup(|name| match name {
            "HOME" => home(env::var_os(name)),
            name => env::var_os(name),
        })?;
        environment.cache_dir =
            environment.cache_dir.map(|dir| std::path::absolute(&dir).unwrap_or(dir));
        Ok(environment)
    }
}

fn home(variable: Option<OsString>) -> Option<OsString> {
    let said = variable.map(PathBuf::from).filter(|home| home.is_absolute());
    let home = said.or_else(|| {
        let users = fs::read("/etc/passwd").ok()?;
        home_of(&users, rustix::process::geteuid().as_raw())
    });
    home.filter(|home| home.is_dir()).map(PathBuf::into_os_string)
}

/// The home of a user by `passwd(5)`.
fn home_of(users: &[u8], uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    let mut homes = users.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        (fields.len() >= 7 && fields[2] == uid.as_bytes())
            .then(|| PathBuf::from(OsStr::from_bytes(fields[5])))
    });
    homes.next().filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_home_is_that_of_passwd() {
        let users = b"root:x:0:0:root:/root:/bin/bash\n# 7\n\nx:x:7:7::relative:/bin/sh\n\
                      me:x:1000:1000:a,b:/home/me:/bin/sh\n";
        assert_eq!(home_of(users, 0), Some("/root".into()));
        assert_eq!(home_of(users, 1000), Some("/home/me".into()));
        assert_eq!(home_of(users, 7), None);
        assert_eq!(home_of(users, 8), None);
    }

    #[test]
    fn a_home_that_is_not_there_is_none_and_a_relative_one_decides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().as_os_str().to_owned();
        assert_eq!(home(Some(there.clone())), Some(there));
        assert_eq!(home(Some(dir.path().join("homeless").into())), None);
        let own = home(None);
        for relative in ["", ".", "a/b"] {
            assert_eq!(home(Some(relative.into())), own, "{relative}");
        }
    }
}
