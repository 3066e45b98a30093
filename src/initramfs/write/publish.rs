//! Files that appear as a whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// A file that nobody sees until [`Pending::publish`]. Dropped before that, or killed at any
/// moment, it leaves nothing behind; what was there before stays. Only on file systems without
/// nameless files (`O_TMPFILE`) being killed leaves a temporary file beside it.
#[derive(Debug)]
#[must_use = "a file that is not published is gone"]
pub struct Pending {
    file: File,
    /// Where it goes; where a link stands there, what that leads to.
    dest: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// No name yet (`O_TMPFILE`).
    Nameless,
    /// For file systems without nameless files.
    Named(tempfile::TempPath),
    /// A pipe or a device: written to directly.
    Direct,
}

impl Pending {
    /// Prepares a file that will be at `dest`.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn new(dest: &Path) -> io::Result<Pending> {
        let metadata = fs::metadata(dest).ok();
        if metadata.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if metadata.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new().write(true).open(dest)?;
            return Ok(Pending { file, dest: dest.to_owned(), place: Place::Direct });
        }
        let dest = match metadata {
            Some(_) => fs::canonicalize(dest)?,
            None => dest.to_owned(),
        };
        let dir = directory(&dest);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Pending { file: file.into(), dest, place: Place::Nameless }),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let (file, path) = tempfile::NamedTempFile::new_in(dir)?.into_parts();
                Ok(Pending { file, dest, place: Place::Named(path) })
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Where to write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether offsets mean something: false for a pipe.
    pub fn is_regular(&self) -> bool {
        !matches!(self.place, Place::Direct)
    }

    /// Gives the file its name, in place of what has it now. `mode` is cut by the umask.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn publish(self, mode: u32) -> io::Result<()> {
        let Pending { file, dest, place } = self;
        if !matches!(place, Place::Direct) {
            file.set_permissions(Permissions::from_mode(mode & !umask()))?;
        }
        match place {
            Place::Direct => Ok(()),
            Place::Named(path) => path.persist(&dest).map_err(|err| err.error),
            Place::Nameless => replace(&dest, |temporary| {
                let this = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, &this, CWD, temporary, AtFlags::SYMLINK_FOLLOW)
            }),
        }
    }
}

/// Makes a file beside `dest` with `make`, then gives it that name.
fn replace(dest: &Path, mut make: impl FnMut(&Path) -> rustix::io::Result<()>) -> io::Result<()> {
    // Where nothing is in the way no second name is needed.
    match make(dest) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::EXIST) => {}
        Err(err) => return Err(err.into()),
    }
    let made = tempfile::Builder::new()
        .prefix(".vmtest-")
        .make_in(directory(dest), |path| Ok(make(path)?))?;
    made.into_temp_path().persist(dest).map_err(|err| err.error)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The process's umask, read without changing it for other threads.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o077)
}
