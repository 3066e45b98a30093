//! A kernel's counters: the archive of the guest's `/sys/kernel/debug/gcov`.
//!
//! Its files are at the absolute paths that the objects had when the kernel was built, perhaps with
//! that directory's name before them. Beside each one the kernel has a link to its `.gcno`, which is
//! of no use outside the guest. Nothing in the archive names a place to write to: counters go into
//! files that we name.

use std::fs::File;
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::{Batches, MAX_COUNTERS, Object, convert};
use crate::coverage::collect::{Collector, read_limited};
use crate::coverage::model::TestId;
use crate::coverage::problem::Problem;
use crate::coverage::record::KernelGcov;
use crate::coverage::sources::{Base, Resolver, normal};

/// Where the kernel shows its counters.
const DEBUGFS: &str = "sys/kernel/debug/gcov";

/// Converts an archive. Without `gcov`, notes and sources are looked for where the kernel was built.
pub(crate) fn kernel(
    collector: &Collector<'_>,
    test: TestId,
    archive: &Path,
    gcov: Option<&KernelGcov>,
) {
    let base = match gcov {
        Some(gcov) => {
            let build_dir = normal(&gcov.build_dir);
            let source = gcov.source.as_deref().map_or_else(|| build_dir.clone(), normal);
            Base::Kernel { build_dir, source }
        }
        None => Base::Nothing,
    };
    let resolver = Resolver::new(collector.sources, base);
    convert(collector, test, &resolver, |batches| {
        if let Err(error) = members(collector, archive, gcov, batches) {
            let why = format!("cannot read the archive: {error}; what came before it is used");
            collector.problem(Problem::at(archive, why));
        }
    });
}

fn members(
    collector: &Collector<'_>,
    archive: &Path,
    gcov: Option<&KernelGcov>,
    batches: &mut Batches<'_>,
) -> std::io::Result<()> {
    let mut found = 0u64;
    let mut tar = tar::Archive::new(BufReader::with_capacity(256 << 10, File::open(archive)?));
    for entry in tar.entries()? {
        if collector.tools.cancel.is_cancelled() {
            return Ok(());
        }
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let name = format!("{}: {}", archive.display(), path.display());
        let extension = path.extension();
        match entry.header().entry_type() {
            EntryType::Directory => continue,
            EntryType::Symlink if extension.is_some_and(|e| e == "gcno") => continue,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            EntryType::Symlink | EntryType::Link => {
                collector.problem(Problem::new(name, "links are not followed"));
                continue;
            }
            _ => {
                collector.problem(Problem::new(name, "it is no file"));
                continue;
            }
        }
        if extension.is_none_or(|extension| extension != "gcda") {
            // `reset` is a file of the directory, too.
            continue;
        }
        found += 1;
        let object = match object(&path) {
            Ok(object) => object,
            Err(why) => {
                collector.problem(Problem::new(name, why));
                continue;
            }
        };
        let notes = notes(&object, gcov);
        let bytes = match read_limited(entry, MAX_COUNTERS) {
            Ok(bytes) => bytes,
            // The archive ends within it, or it is huge: its head is no use.
            Err(error) if error.kind() == std::io::ErrorKind::Other => {
                collector.problem(Problem::new(name, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let dir = gcov.map_or_else(|| "/".into(), |gcov| gcov.build_dir.clone());
        let (bytes, notes) = (bytes.as_slice(), notes.as_path());
        // The kernel writes no mark at the end.
        let object = Object { name, bytes, file: None, notes, dir, marked: false };
        if let Err(problem) = batches.add(object) {
            collector.problem(problem);
        }
    }
    if found == 0 {
        let hint = "was the kernel built with CONFIG_GCOV_KERNEL and CONFIG_GCOV_PROFILE_ALL?";
        collector.problem(Problem::at(archive, "there are no counters in it").hint(hint));
    }
    Ok(())
}

/// The absolute path of the counters of an object when it was built.
fn object(member: &Path) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::from("/");
    for component in member.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err("its name has `..` in it; it is not used");
            }
        }
    }
    let below = Path::new("/").join(DEBUGFS);
    Ok(match path.strip_prefix(&below) {
        Ok(inside) => Path::new("/").join(inside),
        Err(_) => path,
    })
}

/// Where an object's notes should be: below the directory of notes, or, for modules that were built
/// elsewhere, beside the object.
fn notes(object: &Path, gcov: Option<&KernelGcov>) -> PathBuf {
    let inside = gcov.and_then(|gcov| {
        let inside = object.strip_prefix(normal(&gcov.build_dir)).ok()?;
        Some(gcov.notes.join(inside))
    });
    let notes = inside.unwrap_or_else(|| object.to_owned()).with_extension("gcno");
    // The batch's link to it must not depend on where we are.
    std::path::absolute(&notes).unwrap_or(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::GcovFormat;

    #[test]
    fn members_are_objects_of_the_build() {
        for (member, expected) in [
            ("build/linux/fs/open.gcda", "/build/linux/fs/open.gcda"),
            ("/build/linux/fs/open.gcda", "/build/linux/fs/open.gcda"),
            ("./sys/kernel/debug/gcov/build/x.gcda", "/build/x.gcda"),
            ("/sys/kernel/debug/gcov/build/x.gcda", "/build/x.gcda"),
        ] {
            assert_eq!(object(Path::new(member)), Ok(PathBuf::from(expected)), "{member}");
        }
        assert!(object(Path::new("build/../../etc/x.gcda")).is_err());
    }

    #[test]
    fn notes_are_below_their_directory_or_beside_the_object() {
        let gcov = KernelGcov {
            notes: "/cache/notes".into(),
            build_dir: "/build/linux/".into(),
            source: None,
            format: GcovFormat::Gcc,
        };
        let at = |object: &str, gcov| notes(Path::new(object), gcov);
        let kernel = at("/build/linux/fs/open.gcda", Some(&gcov));
        assert_eq!(kernel, Path::new("/cache/notes/fs/open.gcno"));
        assert_eq!(at("/home/m/x.gcda", Some(&gcov)), Path::new("/home/m/x.gcno"));
        assert_eq!(at("/build/linux/x.gcda", None), Path::new("/build/linux/x.gcno"));
    }
}
