//! What flags put into the initramfs of a run.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use vmtest::configure::ImagePart;
use vmtest::initramfs::Builder;
use vmtest::session::{destination, on_host};

use super::error::{Failure, USAGE};
use super::options::MachineArgs;

/// What `--bin` and `--file` put into the image.
pub(crate) fn part(args: &MachineArgs) -> Result<ImagePart, Failure> {
    let parse = |flag: &'static str, pairs: &[OsString]| {
        let parsed = pairs.iter().map(|pair| {
            let by = format!("{flag} {}", pair.display());
            source_and_dest(flag, pair).map(|(src, dest)| (by, src, dest))
        });
        parsed.collect::<Result<Vec<_>, Failure>>()
    };
    let binaries = parse("--bin", &args.bin)?;
    let files = parse("--file", &args.file)?;
    let sysroot = args.sysroot.clone();
    Ok(Box::new(move |builder: &mut Builder| {
        let sysroot = sysroot.as_deref();
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
    }))
}

/// `SRC[:DEST]`. A source of which the whole text is a file's name needs no escape.
fn source_and_dest(flag: &str, text: &OsStr) -> Result<(PathBuf, Option<OsString>), Failure> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let wrong = |what: &str| Failure {
        code: USAGE,
        text: format!("{flag} {}: {what}", text.display()),
        hint: Some(format!("write it as `{flag} SOURCE` or `{flag} SOURCE:DESTINATION`")),
    };
    match colon {
        Some(at) if !Path::new(text).exists() => {
            if at == 0 {
                return Err(wrong("the source is empty"));
            }
            if at + 1 == bytes.len() {
                return Err(wrong("the destination is empty"));
            }
            let dest = OsString::from_vec(bytes[at + 1..].to_vec());
            Ok((OsStr::from_bytes(&bytes[..at]).into(), Some(dest)))
        }
        _ if bytes.is_empty() => Err(wrong("the source is empty")),
        _ => Ok((text.into(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_destinations() {
        let parse = |text: &str| source_and_dest("--file", OsStr::new(text));
        assert_eq!(parse("a:/b").unwrap(), ("a".into(), Some("/b".into())));
        assert_eq!(parse("a").unwrap(), ("a".into(), None));
        for bad in ["", ":/b", "a:"] {
            assert_eq!(parse(bad).unwrap_err().code, USAGE, "{bad}");
        }
    }
}
