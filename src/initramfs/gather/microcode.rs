//! The early segment with processor microcode: an uncompressed archive in front of the image, in
//! which x86 kernels look before they unpack anything (`Documentation/arch/x86/microcode.rst`).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::initramfs::problem::{Problem, Problems};
use crate::initramfs::spec::ImageSpec;
use crate::named_file;

/// Where x86 kernels look.
const DIR: &str = "kernel/x86/microcode";
/// Makers: name of the file in the image, directory below `/lib/firmware`.
const MAKERS: [(&str, &str); 2] =
    [("AuthenticAMD.bin", "amd-ucode"), ("GenuineIntel.bin", "intel-ucode")];

impl ImageSpec {
    /// The early segment with the microcode that was asked for ([`ImageSpec::microcode`]); nothing
    /// where none was.
    ///
    /// # Errors
    /// Paths that are neither microcode nor directories with it, and unreadable ones.
    pub fn early(&self) -> Result<Option<ImageSpec>, Problems> {
        if self.microcode.is_empty() {
            return Ok(None);
        }
        early(self.arch, &self.microcode).map(Some)
    }
}

/// A spec for the early segment.
///
/// Each path is a file called `AuthenticAMD.bin` or `GenuineIntel.bin`, a directory of one maker
/// (`amd-ucode`, `intel-ucode`), or a directory that has those. The files of a directory are put
/// together in the order of their names.
///
/// # Errors
/// Paths that are none of this, and unreadable ones.
fn early(arch: Arch, paths: &[PathBuf]) -> Result<ImageSpec, Problems> {
    let mut spec = ImageSpec::new(arch);
    spec.aligned(false);
    let mut problems = Vec::new();
    for path in paths {
        let label = format!("--microcode {}", path.display());
        match collect(path, arch) {
            Ok(found) => {
                for (name, bytes) in found {
                    spec.by(&label).bytes(format!("{DIR}/{name}"), 0o644, bytes);
                }
            }
            Err((what, hint)) => {
                problems.push(Problem::Request { by: label.into(), what, hint });
            }
        }
    }
    match Problems::new(problems) {
        Some(problems) => Err(problems),
        None => Ok(spec),
    }
}

type Refused = (String, Option<String>);

fn collect(path: &Path, arch: Arch) -> Result<Vec<(&'static str, Vec<u8>)>, Refused> {
    if !arch.is_x86() {
        return Err((format!("only x86 kernels load microcode, not those for {arch}"), None));
    }
    let fail = |path: &Path, err| (format!("cannot read `{}`: {err}", path.display()), None);
    if path.is_dir() {
        let mut found = Vec::new();
        for (name, dir) in MAKERS {
            let inside = path.join(dir);
            let dir = match path.file_name() == Some(OsStr::new(dir)) {
                true => path,
                false if inside.is_dir() => &inside,
                false => continue,
            };
            let mut files: Vec<PathBuf> = fs::read_dir(dir)
                .and_then(|items| items.map(|item| Ok(item?.path())).collect())
                .map_err(|err| fail(dir, err))?;
            // AMD's directory has signatures and notes besides; Intel's files have no extension.
            files.retain(|file| {
                let text = file.file_name().unwrap_or_default().as_bytes();
                file.is_file() && (!text.contains(&b'.') || text.ends_with(b".bin"))
            });
            files.sort();
            let mut bytes = Vec::new();
            for file in files {
                bytes.extend(fs::read(&file).map_err(|err| fail(&file, err))?);
            }
            if !bytes.is_empty() {
                found.push((name, bytes));
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    } else {
        let bytes = named_file::read(path).map_err(|err| fail(path, err))?;
        let name = path.file_name().unwrap_or_default();
        if let Some((name, _)) = MAKERS.iter().find(|(known, _)| OsStr::new(known) == name) {
            return Ok(vec![(name, bytes)]);
        }
    }
    Err((
        "there is no microcode in it".into(),
        Some(
            "give a file called AuthenticAMD.bin or GenuineIntel.bin, or a directory with \
             amd-ucode or intel-ucode (/lib/firmware)"
                .into(),
        ),
    ))
}
