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

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::arch::Arch;
use crate::formats::glob;
use crate::formats::kmod::{self, ModInfo, normal_name};
use crate::initramfs::closure::Target;

mod problem;
mod select;

pub use problem::{ModuleProblem, ModuleProblems};

/// The modules of one kernel release.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    release: String,
    /// `modules.dep`, `None` if there is none.
    dep: Option<Index>,
    builtin: HashSet<String>,
    softdep: String,
    weakdep: String,
    /// Where modules are below the directory in the image: a build tree lacks what installing adds.
    prefix: &'static str,
    /// `modules.order` of a build tree, whose files are the modules.
    order: Option<String>,
    /// What lies on disk, for when `modules.dep` is wrong.
    on_disk: OnceLock<Index>,
    /// `modules.alias`.
    aliases: OnceLock<String>,
    builtin_aliases: OnceLock<Vec<(String, String)>>,
}

/// Module files by name.
#[derive(Debug, Default)]
struct Index {
    text: String,
    files: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Relative to the module directory.
    path: String,
    /// The part of `Index::text` with what it depends on; `None`: ask the module itself.
    deps: Option<std::ops::Range<usize>>,
}

/// A module that the user wants, by name, by alias (`fs-vfat`, `pci:v00001AF4d…`) or by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name or alias; `-` and `_` are the same.
    pub name: String,
    /// Parameters for loading it, `key=value` separated by spaces; default none.
    pub params: String,
    /// Whether its absence is a note and not a problem; default false. `modules.dep` is then
    /// believed when it does not have the module.
    pub optional: bool,
}

/// Kernel modules for the image.
#[derive(Clone, Debug, Default)]
pub struct ModulesRequest {
    /// `…/lib/modules/RELEASE`.
    pub dir: PathBuf,
    /// Names, aliases or paths.
    pub modules: Vec<Request>,
    /// `…/lib/firmware`; without it no firmware is looked for.
    pub firmware: Option<PathBuf>,
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
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// Optional requests that do not exist: all of them in one note.
    MissingOptional {
        /// The names or aliases.
        names: Vec<String>,
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
    /// Modules that were built for other releases and may fit nevertheless: all of them in one note.
    OtherRelease {
        /// (module, release).
        modules: Vec<(String, String)>,
        /// The release of the directory.
        wanted: String,
    },
}

/// A decompressed, checked module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    /// The module as the kernel loads it.
    pub bytes: Vec<u8>,
    /// Firmware that it may ask for (`firmware=` of `.modinfo`), relative to the firmware directory.
    pub firmware: Vec<String>,
    /// The release that it was built for, where that is another one. The kernel takes it if the
    /// versions of the symbols that it uses are the kernel's (`CONFIG_MODVERSIONS`).
    pub other_release: Option<String>,
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

impl Modules {
    /// The modules below `dir`, which is `…/lib/modules/RELEASE`, or a kernel's build tree.
    ///
    /// A missing `modules.dep` is no error: dependencies are then read from the modules. Those of a build tree
    /// are the files that its `modules.order` names.
    ///
    /// # Errors
    /// `dir` is no directory or its index files cannot be read.
    pub fn open(dir: &Path) -> Result<Modules, ModuleProblem> {
        let read = |path: &Path, source| ModuleProblem::Read { path: path.to_owned(), source };
        let full = std::fs::canonicalize(dir).map_err(|e| read(dir, e))?;
        if !full.is_dir() {
            return Err(read(dir, io::ErrorKind::NotADirectory.into()));
        }
        let text = |name: &str| {
            let path = full.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => Ok(Some(lossy(bytes))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(read(&path, e)),
            }
        };
        let dep = text("modules.dep")?.map(Index::from_dep);
        let built = if dep.is_none() { text("include/config/kernel.release")? } else { None };
        let release = match &built {
            Some(release) => release.trim().to_owned(),
            None => full.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let order = match built {
            Some(_) => Some(text("modules.order")?.unwrap_or_default()),
            None => None,
        };
        Ok(Modules {
            release,
            dep,
            prefix: if order.is_some() { "kernel/" } else { "" },
            order,
            builtin: kmod::builtin(&text("modules.builtin")?.unwrap_or_default()).collect(),
            softdep: text("modules.softdep")?.unwrap_or_default(),
            weakdep: text("modules.weakdep")?.unwrap_or_default(),
            on_disk: OnceLock::new(),
            aliases: OnceLock::new(),
            builtin_aliases: OnceLock::new(),
            dir: full,
        })
    }

    /// The kernel's release, which is the directory's name.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Reads, decompresses and checks one module: machine, and release in `vermagic`. The latter may
    /// differ where the module has versions of the symbols that it uses.
    ///
    /// # Errors
    /// Unreadable, damaged, for another machine or another kernel.
    pub fn load(&self, module: &SelectedModule, arch: Arch) -> Result<LoadedModule, ModuleProblem> {
        let path = &module.host_path;
        let (bytes, info) = read_module(path)?;
        let found = Target {
            class64: info.class64,
            little_endian: info.little_endian,
            machine: info.machine,
        };
        if found != Target::of(arch) {
            return Err(ModuleProblem::WrongArch { path: path.clone(), found, wanted: arch });
        }
        let other = info.release().filter(|found| *found != self.release).map(str::to_owned);
        match other {
            Some(found) if !info.versioned => Err(ModuleProblem::WrongRelease {
                path: path.clone(),
                found,
                wanted: self.release.clone(),
            }),
            other_release => {
                let firmware = info.values("firmware").map(str::to_owned).collect();
                Ok(LoadedModule { bytes, firmware, other_release })
            }
        }
    }

    /// Looks the firmware `names` up in `dir` (`…/lib/firmware`) as the kernel does:
    /// `updates/RELEASE`, `updates`, `RELEASE`, then `dir` itself; plain, `.zst`, `.xz`.
    ///
    /// A name may be a pattern in its last component, as some modules have it.
    pub fn firmware(&self, names: &[String], dir: &Path) -> Firmware {
        let updates = format!("updates/{}", self.release);
        let places = [updates.as_str(), "updates", &self.release, ""];
        let mut firmware = Firmware::default();
        let mut seen = HashSet::new();
        for name in names.iter().filter(|name| seen.insert(name.as_str())) {
            let legal = !name.split('/').any(|part| matches!(part, "" | "." | ".."));
            let found = places.iter().find_map(|place| {
                let files = firmware_in(dir, place, name);
                (legal && !files.is_empty()).then_some(files)
            });
            match found {
                Some(files) => firmware.files.extend(files),
                None => firmware.missing.push(name.clone()),
            }
        }
        firmware
    }

    /// Names of modules with an alias that matches, first those of files, else built-in ones.
    fn by_alias(&self, alias: &str) -> Vec<String> {
        let alias = normal_name(alias);
        let mut names: Vec<String> =
            kmod::find_aliases(self.aliases(), &alias).into_iter().map(normal_name).collect();
        if names.is_empty() {
            let builtin = self.builtin_aliases().iter();
            let fits = |pattern: &str| glob::matches(pattern.as_bytes(), alias.as_bytes());
            names = builtin.filter(|(p, _)| fits(p)).map(|(_, name)| name.clone()).collect();
        }
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    fn aliases(&self) -> &str {
        self.aliases.get_or_init(|| {
            let bytes = std::fs::read(self.dir.join("modules.alias")).unwrap_or_default();
            lossy(bytes)
        })
    }

    fn builtin_aliases(&self) -> &[(String, String)] {
        self.builtin_aliases.get_or_init(|| {
            let bytes = std::fs::read(self.dir.join("modules.builtin.modinfo")).unwrap_or_default();
            kmod::builtin_modinfo(&bytes)
                .filter(|(_, key, _)| *key == "alias")
                .map(|(name, _, pattern)| (normal_name(pattern), normal_name(name)))
                .collect()
        })
    }

    /// The files that are really there.
    fn on_disk(&self) -> &Index {
        self.on_disk.get_or_init(|| {
            let mut index = Index::default();
            if let Some(order) = &self.order {
                for path in order.lines().filter_map(in_tree) {
                    // Before Linux 5.3 paths had a `kernel/` of the installed tree before them; there is a
                    // directory of this name in the source, too.
                    let is_there = |path: &str| self.dir.join(path).is_file();
                    let path = match path.strip_prefix("kernel/") {
                        Some(below) if !is_there(&path) && is_there(below) => below.to_owned(),
                        _ => path,
                    };
                    if let Some(name) = kmod::module_name(&path) {
                        index.files.insert(name, Entry { path, deps: None });
                    }
                }
                return index;
            }
            let walk = walkdir::WalkDir::new(&self.dir).sort_by_file_name().into_iter();
            // `build` and `source` link to the kernel's source.
            let files =
                walk.filter_entry(|e| !matches!(e.file_name().to_str(), Some("build" | "source")));
            for file in files.flatten().filter(|e| !e.file_type().is_dir()) {
                let Some(path) = file.path().strip_prefix(&self.dir).ok().and_then(Path::to_str)
                else {
                    continue;
                };
                if let Some(name) = kmod::module_name(path) {
                    let entry = Entry { path: path.to_owned(), deps: None };
                    index.files.entry(name).or_insert(entry);
                }
            }
            index
        })
    }
}

/// The file in a build tree that a line of its `modules.order` means: Linux names the object from 6.2 on, the
/// module before that. A path that leads out of the tree is none.
fn in_tree(line: &str) -> Option<String> {
    let path = line.trim();
    let stem = path.strip_suffix(".o").or_else(|| path.strip_suffix(".ko"))?;
    let inside = !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | ".."));
    inside.then(|| format!("{stem}.ko"))
}

/// Text of an index file; names in it are ASCII.
fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl Index {
    fn from_dep(text: String) -> Index {
        let mut files = HashMap::new();
        for (path, deps) in kmod::dep_lines(&text) {
            let start = deps.as_ptr() as usize - text.as_ptr() as usize;
            let deps = Some(start..start + deps.len());
            if let Some(name) = kmod::module_name(path) {
                files.insert(name, Entry { path: path.to_owned(), deps });
            }
        }
        Index { text, files }
    }
}

/// The files of one firmware directory that `name` stands for.
fn firmware_in(dir: &Path, place: &str, name: &str) -> Vec<FirmwareFile> {
    let (parent, file) = name.rsplit_once('/').unwrap_or(("", name));
    let below: Vec<&str> = [place, parent].into_iter().filter(|part| !part.is_empty()).collect();
    let below = below.join("/");
    let folder = dir.join(&below);
    let found = |stem: &str| {
        [("", Compression::None), (".zst", Compression::Zstd), (".xz", Compression::Xz)]
            .into_iter()
            .map(|(suffix, compression)| (folder.join(format!("{stem}{suffix}")), compression))
            .find(|(path, _)| path.is_file())
            .map(|(host_path, compression)| FirmwareFile {
                host_path,
                dest: ["lib/firmware", &below, stem]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("/")
                    .into_bytes(),
                compression,
            })
    };
    if !file.contains(['*', '?', '[']) {
        return found(file).into_iter().collect();
    }
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut stems: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| {
            let stem = name.strip_suffix(".zst").or_else(|| name.strip_suffix(".xz"));
            stem.map(str::to_owned).unwrap_or(name)
        })
        .filter(|stem| glob::matches(file.as_bytes(), stem.as_bytes()))
        .collect();
    stems.sort();
    stems.dedup();
    stems.iter().filter_map(|stem| found(stem)).collect()
}

impl Request {
    /// The module `name` without parameters.
    pub fn new(name: impl Into<String>) -> Request {
        Request { name: name.into(), params: String::new(), optional: false }
    }

    /// `NAME`, or `NAME key=value …`.
    pub fn parse(text: &str) -> Request {
        let (name, params) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        Request { params: params.trim().to_owned(), ..Request::new(name) }
    }

    /// The module `name`, if the kernel has it.
    pub fn optional(name: impl Into<String>) -> Request {
        Request { optional: true, ..Request::new(name) }
    }
}

impl Default for SelectOptions {
    fn default() -> SelectOptions {
        SelectOptions { softdeps: true, weakdeps: true }
    }
}

impl Compression {
    /// The compression that a file name tells.
    pub fn of(path: &Path) -> Compression {
        match path.extension().and_then(|ext| ext.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("xz") => Compression::Xz,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// The most that a compressed file may become; the largest module has 60 MB with debug data.
const MAX_BYTES: u64 = 1 << 30;

/// The bytes of a possibly compressed module or firmware file, decompressed.
///
/// # Errors
/// The file cannot be read, is damaged, or becomes larger than 1 GiB.
pub fn read_compressed(path: &Path, compression: Compression) -> io::Result<Vec<u8>> {
    let packed = std::fs::read(path)?;
    let mut decoder: Box<dyn Read + '_> = match compression {
        Compression::None => return Ok(packed),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(&packed[..])),
        Compression::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(&packed[..])),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(&packed[..])?),
    };
    let mut bytes = Vec::with_capacity(packed.len().saturating_mul(4).min(MAX_BYTES as usize));
    decoder.by_ref().take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "over 1 GiB when decompressed"));
    }
    Ok(bytes)
}

/// A module file, decompressed, and what it says about itself.
fn read_module(path: &Path) -> Result<(Vec<u8>, ModInfo), ModuleProblem> {
    let bytes = read_compressed(path, Compression::of(path))
        .map_err(|source| ModuleProblem::Read { path: path.to_owned(), source })?;
    let info = kmod::modinfo(&bytes)
        .map_err(|source| ModuleProblem::Damaged { path: path.to_owned(), source })?;
    Ok((bytes, info))
}

impl fmt::Display for ModuleNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModuleNote::Builtin { name } => write!(f, "module `{name}` is built into the kernel"),
            ModuleNote::MissingOptional { names } => {
                write!(f, "the kernel does not have {}", names.join(", "))
            }
            ModuleNote::MissingSoft { missing } => {
                let names: Vec<_> =
                    missing.iter().map(|(of, name)| format!("{name} (for {of})")).collect();
                write!(f, "soft dependencies that do not exist: {}", names.join(", "))
            }
            ModuleNote::Rebuilt { why } => {
                write!(f, "dependencies read from the modules themselves: {why}")
            }
            ModuleNote::OtherRelease { modules, wanted } => {
                let names: Vec<_> = modules
                    .iter()
                    .map(|(name, release)| format!("{name} (of {release})"))
                    .collect();
                write!(
                    f,
                    "modules of other kernels than {wanted}, which takes them if it has the same versions of symbols: {}",
                    names.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
