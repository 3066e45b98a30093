//! What every image that vmtest boots contains besides the user's own: the guest program, a shell, and
//! the kernel modules that the options need.
//!
//! All of it is below `/.vmtest`, so that it meets nothing of the user's (see
//! [`vmtest_guest::proto::GUEST_PROGRAM`]). It can be a segment of its own in front of or behind any
//! other image.

use std::io;
use std::path::{Path, PathBuf};

use vmtest_guest::proto;

use crate::arch::Arch;
use crate::initramfs::ImageSpec;
use crate::initramfs::modules::{
    ModuleProblem, ModuleProblems, Modules, Request, SelectOptions, Selection,
};

/// The parts of a base.
#[derive(Clone, Debug)]
pub struct Base {
    /// Guest architecture.
    pub arch: Arch,
    /// The static guest program.
    pub guest: PathBuf,
    /// A static busybox; without it the guest has no shell.
    pub shell: Option<PathBuf>,
    /// The kernel's modules, `…/lib/modules/RELEASE`; without it all is taken to be built in.
    pub modules_dir: Option<PathBuf>,
    /// Modules that have to be there, or be built in.
    pub modules: Vec<String>,
    /// Modules that are taken along where the kernel has them.
    pub optional_modules: Vec<String>,
}

/// A base cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The shell cannot be read.
    #[error("cannot read the shell `{}`", .path.display())]
    Shell {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory of modules is none.
    #[error("cannot use the kernel modules in `{}`", .dir.display())]
    Modules {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: ModuleProblem,
    },
    /// Modules are missing or broken.
    #[error("cannot take the kernel modules that the options need from `{}`", .dir.display())]
    Select {
        /// The directory.
        dir: PathBuf,
        /// Which, and why.
        #[source]
        source: ModuleProblems,
    },
    /// A module cannot be read.
    #[error("cannot take kernel module `{name}`")]
    Load {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ModuleProblem,
    },
}

impl Base {
    /// Adds it all to an image.
    ///
    /// # Errors
    /// [`BaseError`].
    pub fn add_to(&self, builder: &mut ImageSpec) -> Result<(), BaseError> {
        builder.by("the guest program");
        builder.file_followed(&self.guest, Some(proto::GUEST_PROGRAM));
        if let Some(shell) = &self.shell {
            builder.by("the guest's shell");
            let busybox = format!("{}/busybox", proto::SHELL_DIR);
            builder.file_followed(shell, Some(&busybox));
            let bytes = std::fs::read(shell)
                .map_err(|source| BaseError::Shell { path: shell.clone(), source })?;
            for applet in applets(&bytes) {
                builder.symlink(format!("{}/{applet}", proto::SHELL_DIR), "busybox");
            }
        }
        if let Some(dir) = &self.modules_dir {
            self.add_modules(dir, builder)?;
        }
        Ok(())
    }

    /// The files of the modules that are taken; none where they cannot be told, which the image's builder
    /// reports.
    pub(super) fn module_files(&self) -> Vec<PathBuf> {
        let selected = self.modules_dir.as_ref().map(|dir| self.select(dir));
        let Some(Ok((_, selection))) = selected else { return Vec::new() };
        selection.modules.into_iter().map(|module| module.host_path).collect()
    }

    fn select(&self, dir: &Path) -> Result<(Modules, Selection), BaseError> {
        let modules = Modules::open(dir)
            .map_err(|source| BaseError::Modules { dir: dir.to_owned(), source })?;
        let required = self.modules.iter().map(Request::new);
        let optional = self.optional_modules.iter().map(Request::optional);
        let requests: Vec<Request> = required.chain(optional).collect();
        let selection = modules
            .select(&requests, &SelectOptions::default())
            .map_err(|source| BaseError::Select { dir: dir.to_owned(), source })?;
        Ok((modules, selection))
    }

    fn add_modules(&self, dir: &Path, builder: &mut ImageSpec) -> Result<(), BaseError> {
        let (modules, selection) = self.select(dir)?;
        builder.by("a kernel module that the options need");
        let mut list = String::new();
        for module in selection.modules.iter().filter(|module| module.load) {
            let loaded = modules
                .load(module, self.arch)
                .map_err(|source| BaseError::Load { name: module.name.clone(), source })?;
            let dest = format!("/.vmtest/ko/{}.ko", module.name);
            list.push_str(&dest);
            list.push('\n');
            builder.bytes(dest, 0o644, loaded.bytes);
        }
        builder.bytes(proto::MODULES_FILE, 0o644, list.into_bytes());
        Ok(())
    }
}

/// Finds the names under which a busybox knows its applets, without running it.
///
/// They are in its data, one after the other, each with a NUL behind it, in byte order, from `[` on
/// (`include/applet_tables.h`).
fn applets(busybox: &[u8]) -> Vec<&str> {
    const START: &[u8] = b"[\0[[\0";
    let start = busybox.windows(START.len()).position(|window| window == START);
    let Some(start) = start else { return vec!["sh"] };
    let mut names = Vec::new();
    for name in busybox[start..].split(|byte| *byte == 0) {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"[-_.".contains(byte);
        match std::str::from_utf8(name) {
            Ok(text) if !name.is_empty() && name.len() < 32 && name.iter().all(plain) => {
                names.push(text);
            }
            _ => break,
        }
    }
    names.retain(|name| *name != "busybox");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_found_in_the_programs_data() {
        let program = b"\x7fELF\0\x01[\0x\0[\0[[\0ash\0busybox\0ls\0switch_root\0\0more";
        assert_eq!(applets(program), ["[", "[[", "ash", "ls", "switch_root"]);
        assert_eq!(applets(b"no table"), ["sh"]);
    }
}
