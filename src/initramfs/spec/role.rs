//! What commands of an image are for.

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// `init`, the first program.
    Init,
    /// `bin/sh` and `bin/defaultsh`.
    Shell,
    /// `bin/uinit`, which u-root's init runs, with its arguments in `etc/uinit.flags`.
    Uinit,
}

impl Role {
    /// The option that asks for it.
    pub fn option(self) -> &'static str {
        match self {
            Role::Init => "--init",
            Role::Shell => "--default-sh",
            Role::Uinit => "--uinit",
        }
    }

    pub(crate) fn links(self) -> &'static [&'static str] {
        match self {
            Role::Init => &["init"],
            Role::Shell => &["bin/sh", "bin/defaultsh"],
            Role::Uinit => &["bin/uinit"],
        }
    }
}
