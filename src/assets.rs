//! The asset manifest: which kernel, QEMU, guest program and shell there are for each architecture.
//!
//! One JSON file, `assets.json`. Whoever provides assets writes it (the Nix flake, `setup/assets`);
//! vmtest only reads it. Paths in it are absolute or relative to its directory. The format is in
//! `docs/assets.md`.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::arch::Arch;
use crate::named_file;
use crate::options::Environment;

/// Version of the manifest's format.
pub const SCHEMA: u32 = 1;

/// What there is, for each architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    /// The manifest.
    pub manifest: PathBuf,
    /// Who wrote it.
    pub generator: String,
    /// One entry an architecture.
    pub guests: BTreeMap<Arch, GuestAssets>,
}

/// What there is for one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAssets {
    /// QEMU's system emulator.
    pub qemu: Option<Asset>,
    /// The kernel that is booted when nothing else is said: ours where it has been built, else the
    /// distribution's.
    pub kernel: Option<KernelAsset>,
    /// The distribution's kernel, where [`GuestAssets::kernel`] is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution_kernel: Option<KernelAsset>,
    /// A kernel that counts which of its lines are executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcov_kernel: Option<KernelAsset>,
    /// The static guest program, `/init` of our images.
    pub guest: Option<Asset>,
    /// A static shell, busybox.
    pub shell: Option<Asset>,
    /// UEFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareAsset>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// The file.
    pub path: PathBuf,
    /// Its version, in the words of its maker.
    pub version: String,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

/// A kernel with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelAsset {
    /// The image.
    #[serde(flatten)]
    pub image: Asset,
    /// Its `.config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The uncompressed ELF file, with symbols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmlinux: Option<PathBuf>,
    /// Its modules, `…/lib/modules/RELEASE`; a kernel without modules has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<PathBuf>,
    /// The same kernel unpacked, in a form that QEMU's `-kernel` loads as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Asset>,
    /// Of a kernel that counts its executed lines: what a report needs beside the counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcov: Option<GcovAsset>,
}

/// What turns a kernel's counters into lines of its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcovAsset {
    /// The compiler's notes, `*.gcno`: a tree like that of the kernel's object files.
    pub notes: PathBuf,
    /// Directory of the object files when the kernel was built. Counters are below it in
    /// `/sys/kernel/debug/gcov`; it need not exist.
    pub build_dir: PathBuf,
    /// The kernel's source, as the notes name it.
    pub source: PathBuf,
    /// Whose notes and counters they are.
    pub format: GcovFormat,
    /// Program that reads them, with its first arguments: `llvm-cov gcov`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The compiler, in its own words: the tool must not be older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
}

/// Whose notes and counters of executed lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GcovFormat {
    /// clang's; `llvm-cov gcov` reads them.
    Llvm,
    /// gcc's; `gcov` of the same version reads them.
    Gcc,
}

impl KernelAsset {
    /// The file to give to QEMU's `-kernel`: the unpacked one where there is one, since the guest
    /// need not decompress it.
    pub fn to_boot(&self) -> &Asset {
        self.direct.as_ref().unwrap_or(&self.image)
    }
}

/// UEFI: the program and a store of its variables to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareAsset {
    /// The program.
    pub code: Asset,
    /// The variables, as a new machine has them.
    pub vars: Asset,
}

#[derive(Deserialize)]
struct Manifest {
    schema: u32,
    #[serde(default)]
    generator: String,
    guests: BTreeMap<String, GuestAssets>,
}

/// The manifest cannot be used, or an asset is not as it says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No variable says where the manifest is.
    #[error(
        "it is not known where the asset manifest is: neither VMTEST_ASSETS nor VMTEST_CACHE is set, \
         XDG_CACHE_HOME is no absolute path, and HOME is none that is there"
    )]
    NoPlace,
    /// There is no manifest.
    #[error("there is no asset manifest `{}`", .path.display())]
    NoManifest {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The manifest cannot be read.
    #[error("cannot read the asset manifest `{}`", .path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is no JSON of the right form.
    #[error("the asset manifest `{}` is broken", .path.display())]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// Where and how.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest names an architecture that does not exist, or is of another version.
    #[error("the asset manifest `{}` is of no use here: {reason}", .path.display())]
    Unusable {
        /// The manifest.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A kernel was asked for by a name that is none, or that nothing has here.
    #[error("there is no kernel `@{name}` for {arch}: {}", there_is(.known))]
    NoNamedKernel {
        /// The guest's architecture.
        arch: Arch,
        /// The name, without the `@`.
        name: String,
        /// The names that there are for this architecture.
        known: Vec<KernelName>,
    },
    /// An asset is missing or has changed.
    #[error("asset `{}` {problem}", .path.display())]
    Asset {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            Error::NoPlace => {
                "set one of them; VMTEST_ASSETS names the manifest itself, the others the place of the \
                 cache with it"
                    .into()
            }
            Error::NoManifest { .. } => {
                "`make assets` in vmtest's source fetches kernels and QEMU without root; VMTEST_ASSETS \
                 names another manifest"
                    .into()
            }
            Error::NoNamedKernel { arch, name, .. } => match name.parse() {
                Ok(KernelName::Gcov) => {
                    format!("`make kernels GCOV=1 ARCH={arch}` in vmtest's source builds it")
                }
                Ok(KernelName::Distribution | KernelName::Default) => {
                    format!("`make assets ARCH={arch}` in vmtest's source fetches it")
                }
                Err(_) => format!(
                    "the names are {}; a file of that name is `./@{name}`",
                    KernelName::ALL.map(|name| format!("@{}", name.as_str())).join(", ")
                ),
            },
            _ => "`make assets` in vmtest's source writes it anew".into(),
        }
    }
}

fn there_is(known: &[KernelName]) -> String {
    let names: Vec<String> = known.iter().map(|name| format!("`@{}`", name.as_str())).collect();
    match names.split_last() {
        None => "there is none at all".into(),
        Some((name, [])) => format!("there is {name}"),
        Some((last, others)) => format!("there are {} and {last}", others.join(", ")),
    }
}

/// The kernels of an architecture, by the name that `--kernel @NAME` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelName {
    /// `default`: the one that is booted when nothing is said.
    Default,
    /// `distribution`: a distribution's, with its modules.
    Distribution,
    /// `gcov`: one that counts which of its lines are executed.
    Gcov,
}

impl KernelName {
    /// All of them.
    pub const ALL: [KernelName; 3] =
        [KernelName::Default, KernelName::Distribution, KernelName::Gcov];

    /// The name, without the `@`.
    pub fn as_str(self) -> &'static str {
        match self {
            KernelName::Default => "default",
            KernelName::Distribution => "distribution",
            KernelName::Gcov => "gcov",
        }
    }
}

impl std::str::FromStr for KernelName {
    type Err = ();

    fn from_str(text: &str) -> Result<KernelName, ()> {
        KernelName::ALL.into_iter().find(|name| name.as_str() == text).ok_or(())
    }
}

impl Assets {
    /// Where the manifest is: `VMTEST_ASSETS`, else `assets.json` in the cache directory.
    ///
    /// # Errors
    /// [`Error::NoPlace`] where there is neither.
    pub fn location(environment: &Environment) -> Result<PathBuf, Error> {
        let cached = || environment.cache_dir.as_ref().map(|dir| dir.join("assets.json"));
        environment.assets.clone().or_else(cached).ok_or(Error::NoPlace)
    }

    /// Reads the manifest of an environment.
    ///
    /// # Errors
    /// [`Error`] when there is none, or it cannot be read or understood.
    pub fn find(environment: &Environment) -> Result<Assets, Error> {
        Assets::load(&Assets::location(environment)?)
    }

    /// Reads a manifest and makes its paths absolute. Looks at no asset.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read or understood.
    pub fn load(path: &Path) -> Result<Assets, Error> {
        let text = named_file::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoManifest { path: path.into() },
            _ => Error::Read { path: path.into(), source },
        })?;
        Assets::parse(path, &text)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Assets, Error> {
        let manifest: Manifest = serde_json::from_slice(text)
            .map_err(|source| Error::Parse { path: path.into(), source })?;
        let unusable = |reason| Error::Unusable { path: path.into(), reason };
        if manifest.schema != SCHEMA {
            return Err(unusable(format!(
                "its schema is {}, this vmtest reads {SCHEMA}",
                manifest.schema
            )));
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let mut guests = BTreeMap::new();
        for (name, mut guest) in manifest.guests {
            let arch: Arch = name
                .parse()
                .map_err(|error: crate::arch::UnsupportedArch| unusable(error.to_string()))?;
            for path in guest.paths_mut() {
                *path = dir.join(&*path);
            }
            guests.insert(arch, guest);
        }
        Ok(Assets { manifest: path.to_owned(), generator: manifest.generator, guests })
    }

    /// What there is for an architecture; nothing when the manifest does not name it.
    pub fn guest(&self, arch: Arch) -> GuestAssets {
        self.guests.get(&arch).cloned().unwrap_or_default()
    }
}

impl GuestAssets {
    /// The kernel of this name, where there is one.
    pub fn kernel_by_name(&self, name: KernelName) -> Option<&KernelAsset> {
        let with_modules = |kernel: &&KernelAsset| kernel.modules.is_some();
        match name {
            KernelName::Default => self.kernel.as_ref(),
            // Until our own is built, the distribution's is the default. Ours has no modules.
            KernelName::Distribution => {
                self.distribution_kernel.as_ref().or(self.kernel.as_ref().filter(with_modules))
            }
            KernelName::Gcov => self.gcov_kernel.as_ref(),
        }
    }

    /// The kernel that `@NAME` stands for.
    ///
    /// # Errors
    /// [`Error::NoNamedKernel`] with the names that there are.
    pub fn named_kernel(&self, arch: Arch, name: &str) -> Result<&KernelAsset, Error> {
        name.parse().ok().and_then(|name| self.kernel_by_name(name)).ok_or_else(|| {
            let there = |name: &KernelName| self.kernel_by_name(*name).is_some();
            Error::NoNamedKernel {
                arch,
                name: name.to_owned(),
                known: KernelName::ALL.into_iter().filter(there).collect(),
            }
        })
    }

    /// The files with their names in listings.
    pub fn files<'a>(&'a self) -> Vec<(&'static str, &'a Asset)> {
        let firmware = self.firmware.as_ref();
        let direct =
            |kernel: Option<&'a KernelAsset>| kernel.and_then(|kernel| kernel.direct.as_ref());
        let (kernel, gcov) = (self.kernel.as_ref(), self.gcov_kernel.as_ref());
        let distribution = self.distribution_kernel.as_ref();
        [
            ("qemu", self.qemu.as_ref()),
            ("kernel", kernel.map(|kernel| &kernel.image)),
            ("kernel-direct", direct(kernel)),
            ("distribution-kernel", distribution.map(|kernel| &kernel.image)),
            ("distribution-kernel-direct", direct(distribution)),
            ("gcov-kernel", gcov.map(|kernel| &kernel.image)),
            ("gcov-kernel-direct", direct(gcov)),
            ("guest", self.guest.as_ref()),
            ("shell", self.shell.as_ref()),
            ("firmware-code", firmware.map(|firmware| &firmware.code)),
            ("firmware-vars", firmware.map(|firmware| &firmware.vars)),
        ]
        .into_iter()
        .filter_map(|(name, asset)| Some((name, asset?)))
        .collect()
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = Vec::new();
        for asset in [&mut self.qemu, &mut self.guest, &mut self.shell].into_iter().flatten() {
            paths.push(&mut asset.path);
        }
        let kernels = [&mut self.kernel, &mut self.distribution_kernel, &mut self.gcov_kernel];
        for kernel in kernels.into_iter().flatten() {
            paths.push(&mut kernel.image.path);
            paths.extend(kernel.direct.as_mut().map(|direct| &mut direct.path));
            paths.extend(
                [&mut kernel.config, &mut kernel.vmlinux, &mut kernel.modules]
                    .into_iter()
                    .flatten(),
            );
            if let Some(gcov) = &mut kernel.gcov {
                paths.extend([&mut gcov.notes, &mut gcov.source]);
            }
        }
        if let Some(firmware) = &mut self.firmware {
            paths.extend([&mut firmware.code.path, &mut firmware.vars.path]);
        }
        paths
    }
}

impl Asset {
    /// Checks the file against its hash.
    ///
    /// # Errors
    /// [`Error::Asset`] when it is missing or has changed.
    pub fn verify(&self) -> Result<(), Error> {
        let wrong = |problem| Error::Asset { path: self.path.clone(), problem };
        let found =
            sha256(&self.path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if found.eq_ignore_ascii_case(&self.sha256) {
            Ok(())
        } else {
            Err(wrong(format!("has changed: its SHA-256 is {found}, not {}", self.sha256)))
        }
    }
}

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// The system's.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = named_file::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{ "schema": 1, "generator": "test", "guests": { "riscv64": {
        "qemu": {"path": "q", "version": "10", "sha256": "00"},
        "kernel": {"path": "/abs/k", "version": "6", "sha256": "00", "modules": "m",
            "direct": {"path": "v", "version": "6", "sha256": "01"}} } } }"#;

    #[test]
    fn paths_are_relative_to_the_manifest() {
        let assets = Assets::parse(Path::new("/cache/assets.json"), MANIFEST.as_bytes()).unwrap();
        let guest = assets.guest(Arch::Riscv64);
        assert_eq!(guest.files().len(), 3);
        assert_eq!(guest.qemu.unwrap().path, Path::new("/cache/q"));
        let kernel = guest.kernel.unwrap();
        assert_eq!(kernel.to_boot().path, Path::new("/cache/v"));
        assert_eq!(kernel.image.path, Path::new("/abs/k"));
        assert_eq!(kernel.modules.as_deref(), Some(Path::new("/cache/m")));
        assert_eq!(assets.guest(Arch::Amd64), GuestAssets::default());
    }

    #[test]
    fn manifests_that_cannot_be_used_say_why() {
        let path = Path::new("/cache/assets.json");
        for (text, shown) in [
            (MANIFEST.replace("riscv64", "vax"), "unknown architecture `vax`"),
            (MANIFEST.replace("\"schema\": 1", "\"schema\": 2"), "its schema is 2"),
            (MANIFEST.replace('}', ""), "is broken"),
        ] {
            let error = Assets::parse(path, text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(shown), "{error}");
        }
        let error = Assets::load(Path::new("/no/such/assets.json")).unwrap_err();
        assert!(matches!(error, Error::NoManifest { .. }) && error.hint().contains("make assets"));
    }

    #[test]
    fn kernels_have_names() {
        let parse = |text: &str| Assets::parse(Path::new("/cache/assets.json"), text.as_bytes());
        let version = |guest: &GuestAssets, name| {
            let kernel = guest.named_kernel(Arch::Riscv64, name)?;
            Ok::<_, Error>(kernel.image.version.clone())
        };
        // Before our own are built.
        let guest = parse(MANIFEST).unwrap().guest(Arch::Riscv64);
        assert_eq!(version(&guest, "distribution").unwrap(), "6");
        assert_eq!(version(&guest, "default").unwrap(), "6");
        let error = version(&guest, "gcov").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no kernel `@gcov` for riscv64: there are `@default` and `@distribution`"
        );
        assert!(error.hint().contains("make kernels GCOV=1 ARCH=riscv64"), "{}", error.hint());
        let error = version(&guest, "gocv").unwrap_err();
        assert!(error.hint().contains("@default, @distribution, @gcov"), "{}", error.hint());

        let built = r#""kernel": {"path": "b", "version": "6-built", "sha256": "00"},
            "distribution_kernel": {"path": "/abs/k","#;
        let gcov = r#""gcov_kernel": {"path": "g", "version": "6-gcov", "sha256": "00", "gcov": {
            "format": "llvm", "notes": "n", "build_dir": "/b", "source": "s"}}, "qemu""#;
        let text =
            MANIFEST.replace(r#""kernel": {"path": "/abs/k","#, built).replace(r#""qemu""#, gcov);
        let guest = parse(&text).unwrap().guest(Arch::Riscv64);
        for (name, wanted) in [("default", "6-built"), ("distribution", "6"), ("gcov", "6-gcov")] {
            assert_eq!(version(&guest, name).unwrap(), wanted);
        }
        let gcov = guest.gcov_kernel.unwrap().gcov.unwrap();
        assert_eq!(gcov.format, GcovFormat::Llvm);
        assert_eq!(gcov.notes, Path::new("/cache/n"));
        assert_eq!(gcov.source, Path::new("/cache/s"));
        assert_eq!(gcov.build_dir, Path::new("/b"));

        // Ours alone is not the distribution's.
        let alone = text.replace("distribution_kernel", "something_else");
        let guest = parse(&alone).unwrap().guest(Arch::Riscv64);
        assert!(version(&guest, "distribution").is_err());
    }

    #[test]
    fn a_changed_asset_is_noticed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"abc").unwrap();
        // From FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        let mut asset = Asset { path: file.path().into(), version: String::new(), sha256 };
        asset.verify().unwrap();
        io::Write::write_all(&mut file, b"d").unwrap();
        assert!(asset.verify().unwrap_err().to_string().contains("has changed"));
        asset.path = "/no/such/file".into();
        assert!(asset.verify().unwrap_err().to_string().contains("cannot be read"));
    }
}
