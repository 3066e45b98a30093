//! The initramfs of a run: the base, what the user adds, and the command.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use vmtest::arch::Arch;
use vmtest::initramfs::Builder;
use vmtest::initramfs::base::Base;
use vmtest::report::FileIdentity;

use super::error::{Failure, UNAVAILABLE, USAGE};
use super::options::MachineArgs;
use super::ui;

/// Directories whose programs keep their place in the guest: libraries and data are found relative to
/// it. Others (a build directory, /tmp, where the guest mounts something) go to [`OWN_DIR`].
const SYSTEM_DIRS: [&str; 9] =
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix"];

/// Where programs of the user's own go.
const OWN_DIR: &str = "/.vmtest/own";

/// The command as the guest will run it, and the file it comes from.
#[derive(Debug)]
pub(crate) struct Command {
    /// Program and arguments in the guest.
    pub(crate) argv: Vec<OsString>,
    /// The program's file on the host, if it goes into the image.
    pub(crate) file: Option<(PathBuf, OsString)>,
}

impl Command {
    /// Decides whether the program is a file of the host.
    pub(crate) fn new(argv: &[OsString], sysroot: Option<&Path>) -> Command {
        let mut argv = argv.to_vec();
        let mut file = None;
        if let Some(program) = argv.first_mut()
            && program.as_bytes().contains(&b'/')
            && let Some(path) = on_host(Path::new(&*program), sysroot)
        {
            let dest = destination(&path, sysroot);
            *program = dest.clone();
            file = Some((path, dest));
        }
        Command { argv, file }
    }
}

/// The file that a program's name means: an absolute one is first looked for in the sysroot.
fn on_host(program: &Path, sysroot: Option<&Path>) -> Option<PathBuf> {
    let in_sysroot = sysroot
        .filter(|_| program.is_absolute())
        .map(|root| root.join(program.strip_prefix("/").unwrap_or(program)));
    in_sysroot.into_iter().chain([program.to_owned()]).find(|path| path.is_file())
}

fn destination(path: &Path, sysroot: Option<&Path>) -> OsString {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = sysroot.map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned()));
    let below = absolute
        .strip_prefix(root.as_deref().unwrap_or(Path::new("/")))
        .unwrap_or_else(|_| absolute.strip_prefix("/").unwrap_or(&absolute));
    let first = below.components().next();
    let in_system = matches!(first, Some(Component::Normal(name)) if SYSTEM_DIRS.iter().any(|dir| name == *dir));
    let in_sysroot = root.is_some_and(|root| absolute.starts_with(root));
    if in_system || (in_sysroot && sysroot != Some(Path::new("/"))) {
        Path::new("/").join(below).into_os_string()
    } else {
        Path::new(OWN_DIR).join(absolute.file_name().unwrap_or(OsStr::new("program"))).into()
    }
}

/// A built image: an anonymous file.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) file: File,
    pub(crate) identity: FileIdentity,
}

/// Puts the image together.
pub(crate) fn build(
    arch: Arch,
    args: &MachineArgs,
    base: &Base,
    command: &Command,
    before: Option<&Path>,
) -> Result<Built, Failure> {
    let mut builder = Builder::new(arch);
    base.add_to(&mut builder).map_err(|error| Failure::unavailable(&error, None))?;
    if let Some(sysroot) = &args.sysroot {
        if !sysroot.is_dir() {
            return Err(Failure::missing(
                format!("the sysroot `{}` is no directory", sysroot.display()),
                "--sysroot names the directory that holds the guest's /usr and /lib",
            ));
        }
        builder.sysroot(sysroot);
    }
    if base.shell.is_some() {
        // The guest program links these to its shell where nothing else is there.
        builder.provided(["/bin/sh", "/usr/bin/env"]);
    }
    for pair in &args.bin {
        let (src, dest) = source_and_dest("--bin", pair)?;
        builder.by(format!("--bin {}", pair.display()));
        let src = on_host(&src, args.sysroot.as_deref()).unwrap_or(src);
        let dest = dest.unwrap_or_else(|| destination(&src, args.sysroot.as_deref()));
        builder.binary_os(&src, Some(&dest));
    }
    for pair in &args.file {
        let (src, dest) = source_and_dest("--file", pair)?;
        builder.by(format!("--file {}", pair.display()));
        if src.is_dir() {
            builder.tree(&src, dest);
        } else {
            builder.file_os(&src, dest.as_deref(), false);
        }
    }
    if let Some((path, dest)) = &command.file {
        builder.by("the command");
        builder.binary_os(path, Some(dest));
    }
    let image = builder.finish().map_err(|problems| problem(&problems))?;
    for notice in image.notices() {
        ui::note(notice);
    }

    let temporary = |error: io::Error| {
        Failure::missing(
            format!("cannot write the initramfs into a temporary file: {error}"),
            "TMPDIR names the directory for temporary files",
        )
    };
    let mut file = tempfile::tempfile().map_err(temporary)?;
    let summary = match before {
        None => image.write_to_file(&file).map_err(|problems| problem(&problems))?,
        Some(path) => {
            let mut first = File::open(path).map_err(|error| {
                Failure::missing(
                    format!("cannot read the initramfs `{}`: {error}", path.display()),
                    "--initramfs or VMTEST_INITRAMFS names it",
                )
            })?;
            io::copy(&mut first, &mut file).map_err(temporary)?;
            pad(&mut file).map_err(temporary)?;
            image.write_to(&mut file).map_err(|problems| problem(&problems))?
        }
    };
    file.seek(SeekFrom::Start(0)).map_err(temporary)?;
    let bytes = file.metadata().map_err(temporary)?.len();
    let sha256 = before.is_none().then(|| summary.sha256.to_string());
    Ok(Built { file, identity: FileIdentity { path: None, bytes: Some(bytes), sha256 } })
}

/// Zeros up to a boundary of 4 bytes, and 4 more: the kernel wants a segment to be aligned, and its
/// lz4 needs zeros behind its data (tried with Linux 6.12).
fn pad(file: &mut File) -> io::Result<()> {
    let len = file.stream_position()?;
    file.write_all(&[0; 8][..4 + (4 - len as usize % 4) % 4])
}

fn problem(problems: &vmtest::initramfs::Problems) -> Failure {
    let hints = problems.hints().join("\nhint: ");
    Failure {
        code: UNAVAILABLE,
        text: problems.to_string(),
        hint: (!hints.is_empty()).then_some(hints),
    }
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
    fn programs_of_the_system_keep_their_place_and_others_get_one() {
        assert_eq!(destination(Path::new("/usr/bin/git"), None), "/usr/bin/git");
        assert_eq!(destination(Path::new("/tmp/x/hello"), None), "/.vmtest/own/hello");
        assert_eq!(destination(Path::new("/srv/rv/bin/ls"), Some(Path::new("/srv/rv"))), "/bin/ls");
        assert_eq!(
            destination(Path::new("/home/me/t"), Some(Path::new("/srv/rv"))),
            "/.vmtest/own/t"
        );
    }

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
