//! A kernel that is named by a directory: what is in it, and where.
//!
//! | directory | how it is told | image | modules |
//! |---|---|---|---|
//! | a kernel's build tree, in place or `O=` | `include/config/kernel.release`, `.config` or `Kconfig` | below `arch/` | from the tree, by `modules.order` |
//! | a root, as packages and image registries have it | `boot/vmlinuz`, `boot/vmlinuz-RELEASE` | that | `lib/modules/RELEASE` |
//! | `/boot` itself | `vmlinuz`, `vmlinuz-RELEASE` | that | `../lib/modules/RELEASE` |
//!
//! Nothing is installed or copied: modules of a tree are those of its last build.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::arch::Arch;

/// What a directory has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KernelDir {
    pub(super) image: PathBuf,
    pub(super) modules: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) vmlinux: Option<PathBuf>,
}

/// The file in which a build tree keeps its `uname -r`.
const RELEASE_FILE: &str = "include/config/kernel.release";

/// Where kbuild leaves images that can be booted, the one that starts fastest first.
fn images(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 | Arch::I386 => &["arch/x86/boot/bzImage"],
        Arch::Arm64 => &["arch/arm64/boot/Image", "arch/arm64/boot/Image.gz"],
        Arch::Arm => &["arch/arm/boot/zImage", "arch/arm/boot/uImage"],
        Arch::Riscv64 => &["arch/riscv/boot/Image", "arch/riscv/boot/Image.gz"],
    }
}

/// The targets of kbuild that make them.
fn target(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::Amd64 => ("x86_64", "bzImage"),
        Arch::I386 => ("i386", "bzImage"),
        Arch::Arm64 => ("arm64", "Image"),
        Arch::Arm => ("arm", "zImage"),
        Arch::Riscv64 => ("riscv", "Image"),
    }
}

/// Whether a directory is a build tree that has been built, for this architecture.
pub fn is_built_tree(dir: &Path, arch: Arch) -> bool {
    dir.join(RELEASE_FILE).is_file() && images(arch).iter().any(|image| dir.join(image).is_file())
}

/// Finds what is in a directory.
///
/// # Errors
/// [`Error::NoKernelIn`] says what is missing; [`Error::Read`] that the directory cannot be read.
pub(super) fn find(arch: Arch, dir: &Path) -> Result<KernelDir, Error> {
    let there = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
    let release = fs::read_to_string(dir.join(RELEASE_FILE)).ok();
    let is_tree = release.is_some() || there(".config").is_some() || there("Kconfig").is_some();
    if is_tree {
        let Some(image) = images(arch).iter().find_map(|image| there(image)) else {
            return Err(not_built(arch, dir, there(".config").is_some()));
        };
        // Without modules.order nothing was built as a module, or not yet.
        let modules = there("modules.order").and(release).map(|_| dir.to_owned());
        return Ok(KernelDir {
            image,
            modules,
            config: there(".config"),
            vmlinux: there("vmlinux"),
        });
    }
    let (boot, root) = match dir.join("boot") {
        boot if boot.is_dir() => (boot, dir.to_owned()),
        _ => (dir.to_owned(), dir.join("..")),
    };
    let read = |source| Error::Read { what: "kernel", path: boot.clone(), source };
    let image = newest_image(&boot).map_err(read)?.ok_or_else(|| Error::NoKernelIn {
        dir: dir.to_owned(),
        what: "neither a built kernel tree nor a `vmlinuz` is in it".to_owned(),
        hint: "name a kernel's build tree, a directory with boot/vmlinuz, or a kernel image"
            .to_owned(),
    })?;
    let release = release_of(&image);
    let modules = match &release {
        Some(release) => Some(root.join("lib/modules").join(release)),
        None => only_entry(&root.join("lib/modules")),
    };
    let beside = |name: &str| {
        let name = release.as_ref().map_or(name.to_owned(), |release| format!("{name}-{release}"));
        Some(boot.join(name)).filter(|path| path.is_file())
    };
    Ok(KernelDir {
        modules: modules.filter(|dir| dir.is_dir()),
        config: beside("config"),
        vmlinux: beside("vmlinux"),
        image,
    })
}

fn not_built(arch: Arch, dir: &Path, configured: bool) -> Error {
    let (kbuild, image) = target(arch);
    let other = Arch::ALL.into_iter().find(|other| *other != arch && is_built_tree(dir, *other));
    let make = format!("make -C {} ARCH={kbuild}", dir.display());
    let (what, hint) = match (other, configured) {
        // x86 has one place for both.
        (Some(other), _) => (
            format!("it was built for {other}, the guest is {arch}"),
            format!("`--arch {other}` boots it"),
        ),
        (None, true) => (
            format!("it has no {}: it is configured, and not built", images(arch).join(", no ")),
            format!("`{make} {image} modules` builds it"),
        ),
        (None, false) => (
            "it is not configured".to_owned(),
            format!("`{make} defconfig {image} modules` builds it"),
        ),
    };
    Error::NoKernelIn { dir: dir.to_owned(), what, hint }
}

/// `vmlinuz`, else the `vmlinuz-RELEASE` with the highest version.
fn newest_image(boot: &Path) -> io::Result<Option<PathBuf>> {
    let plain = boot.join("vmlinuz");
    if plain.is_file() {
        return Ok(Some(plain));
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(boot)? {
        let path = entry?.path();
        if path.is_file() && release_of(&path).is_some() {
            found.push(path);
        }
    }
    Ok(found.into_iter().max_by_key(|path| version(path)))
}

/// The release that an image's name says.
fn release_of(image: &Path) -> Option<String> {
    // A link's name says nothing, what it leads to may.
    let real = image.canonicalize().ok()?;
    let name = real.file_name().and_then(OsStr::to_str)?;
    let release = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))?;
    (!release.is_empty()).then(|| release.to_owned())
}

/// The numbers of a release, which order releases as people do: 6.9 before 6.12.
fn version(image: &Path) -> (Vec<u64>, String) {
    let release = release_of(image).unwrap_or_default();
    let numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (numbers.collect(), release)
}

fn only_entry(dir: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let first = entries.next()?;
    entries.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "6.12.1-test\n").unwrap();
        }
        dir
    }

    #[test]
    fn a_built_tree_has_image_modules_and_symbols() {
        let dir =
            with(&[RELEASE_FILE, ".config", "arch/riscv/boot/Image", "modules.order", "vmlinux"]);
        let found = find(Arch::Riscv64, dir.path()).unwrap();
        assert_eq!(found.image, dir.path().join("arch/riscv/boot/Image"));
        assert_eq!(found.modules.as_deref(), Some(dir.path()));
        assert!(found.config.is_some() && found.vmlinux.is_some());
        assert!(is_built_tree(dir.path(), Arch::Riscv64));
        assert!(!is_built_tree(dir.path(), Arch::Amd64));
    }

    #[test]
    fn a_tree_that_cannot_be_booted_says_what_to_do() {
        let says = |files: &[&str], arch, words: &[&str]| {
            let dir = with(files);
            let error = find(arch, dir.path()).unwrap_err();
            let text = format!("{error} {}", error.hint().unwrap());
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        says(&["Kconfig"], Arch::Arm64, &["not configured", "ARCH=arm64 defconfig"]);
        says(&[".config"], Arch::Amd64, &["not built", "arch/x86/boot/bzImage", "modules`"]);
        let riscv = [RELEASE_FILE, ".config", "arch/riscv/boot/Image"];
        says(&riscv, Arch::Arm, &["built for riscv64", "--arch riscv64"]);
        says(&["README"], Arch::Amd64, &["neither", "build tree"]);
    }

    #[test]
    fn the_newest_of_several_is_taken_with_its_modules() {
        let dir = with(&[
            "boot/vmlinuz-6.9.2",
            "boot/vmlinuz-6.12.1",
            "boot/config-6.12.1",
            "lib/modules/6.12.1/modules.dep",
            "lib/modules/6.9.2/modules.dep",
        ]);
        let found = find(Arch::Amd64, dir.path()).unwrap();
        assert_eq!(found.image, dir.path().join("boot/vmlinuz-6.12.1"));
        assert_eq!(found.modules, Some(dir.path().join("lib/modules/6.12.1")));
        assert!(found.config.is_some());
        let found = find(Arch::Amd64, &dir.path().join("boot")).unwrap();
        assert!(found.modules.unwrap().ends_with("lib/modules/6.12.1"));
        let layout = with(&["boot/vmlinuz", "lib/modules/6.1.0/modules.dep"]);
        let found = find(Arch::Amd64, layout.path()).unwrap();
        assert_eq!(found.modules, Some(layout.path().join("lib/modules/6.1.0")));
    }
}
