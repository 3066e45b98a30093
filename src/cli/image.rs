//! What flags put into the initramfs of a run.

use std::ffi::OsString;
use std::path::PathBuf;

use vmtest::configure::ImagePart;
use vmtest::initramfs::ImageSpec;
use vmtest::session::{destination, on_host};

use super::error::Failure;
use super::options::MachineArgs;
use super::words::one_or_two;

/// What `--bin` and `--file` put into the image.
pub(crate) fn part(args: &MachineArgs) -> Result<Option<ImagePart>, Failure> {
    let nothing = args.bin.is_empty() && args.file.is_empty();
    if nothing && args.lib_dir.is_empty() && args.allow_missing.is_empty() {
        return Ok(None);
    }
    let parse = |flag: &'static str, pairs: &[OsString]| {
        let parsed = pairs.iter().map(|pair| {
            let by = format!("{flag} {}", pair.display());
            one_or_two(flag, pair).map(|(src, dest)| (by, PathBuf::from(src), dest))
        });
        parsed.collect::<Result<Vec<_>, Failure>>()
    };
    let binaries = parse("--bin", &args.bin)?;
    let files = parse("--file", &args.file)?;
    let sysroot = args.sysroot.clone();
    let (lib_dir, allow_missing) = (args.lib_dir.clone(), args.allow_missing.clone());
    Ok(Some(Box::new(move |builder: &mut ImageSpec| {
        let sysroot = sysroot.as_deref();
        builder.library_dirs(lib_dir).allow_missing(allow_missing);
        builder.keep_modes_of_files();
        for (by, src, dest) in binaries {
            builder.by(by);
            let src = on_host(&src, sysroot).unwrap_or(src);
            let dest = dest.unwrap_or_else(|| destination(&src, sysroot));
            builder.binary_os(&src, Some(&dest));
        }
        for (by, src, dest) in files {
            builder.by(by);
            if src.is_dir() {
                builder.tree(&src, dest);
            } else {
                builder.file_os(&src, dest.as_deref(), false);
            }
        }
    })))
}
