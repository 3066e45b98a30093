//! Saved guests, kept so that the next run of the same machine need not boot.
//!
//! ```text
//!   ~/.cache/vmtest/templates/         mode 0700: it is the memory of guests
//!     KEY/memory                       sparse; mapped copy-on-write by every guest that resumes
//!     KEY/state                        the rest of the machine, some 300 KiB
//!     KEY/template.json                what it is, when it was used last (the file's time)
//!     KEY.saving/                      one that is being saved; locked by whoever saves it
//! ```
//!
//! A template is found by its [`Key`]: the hash of everything that the guest can tell of its machine and
//! of the files it has booted from. A directory appears whole, by renaming, or not at all; what a killed
//! run has left half-written goes with the next that saves. Before it is used, the state is hashed
//! again, and the memory must be the very file that was written: same size, inode and times. (Hashing
//! tens of megabytes for each run would cost a good part of what is won.) One that is not is discarded.
//!
//! Those not used for the longest time go when there is too much ([`DEFAULT_LIMIT_BYTES`]). A guest that
//! runs keeps the memory it has mapped, whatever becomes of its name.

mod key;
mod record;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

pub use key::{Key, KeyBuilder};
pub use record::{About, Record};

/// Bytes of templates that are kept.
pub const DEFAULT_LIMIT_BYTES: u64 = 2 << 30;

const MEMORY: &str = "memory";
const STATE: &str = "state";
const RECORD: &str = "template.json";
const SAVING: &str = "saving";

/// A state is a few hundred KiB; something larger is none.
const MAX_STATE_BYTES: u64 = 64 << 20;

/// A directory of templates.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    limit_bytes: u64,
}

/// Templates cannot be kept, or not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such template.
    #[error("there is no template yet")]
    Missing,
    /// It is not what was saved; it is removed.
    #[error("the template was damaged: {what}")]
    Damaged {
        /// How one can tell.
        what: String,
    },
    /// Somebody else saves the same.
    #[error("another run is saving the same template")]
    Busy,
    /// The directory belongs to somebody else: a guest's memory is not put there, nor taken from there.
    #[error("`{}` belongs to another user", .dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// Others may write to the directory: what is in it may be theirs.
    #[error("others may write to `{}` (chmod go-w it)", .dir.display())]
    Writable {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or directory cannot be used.
    #[error("cannot {what} `{}`", .path.display())]
    Io {
        /// What was tried: `read`, `write`, `make`.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// A template that can be used.
#[derive(Debug)]
pub struct Template {
    /// What it is found by.
    pub key: Key,
    /// Its memory, open for reading.
    pub memory: File,
    /// Its state, open for reading.
    pub state: File,
    /// What is known of it.
    pub about: About,
}

impl Store {
    /// Templates below `cache_dir`.
    pub fn new(cache_dir: &Path) -> Store {
        Store { dir: cache_dir.join("templates"), limit_bytes: DEFAULT_LIMIT_BYTES }
    }

    /// Sets how many bytes are kept. Default: [`DEFAULT_LIMIT_BYTES`].
    #[must_use]
    pub fn with_limit_bytes(mut self, limit_bytes: u64) -> Store {
        self.limit_bytes = limit_bytes;
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens a template and notes its use.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Damaged`], and it is removed; others where it cannot be read.
    pub fn open(&self, key: &Key) -> Result<Template, Error> {
        let dir = self.dir.join(key.name());
        let record = match File::open(dir.join(RECORD)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
            Err(error) => return Err(io_error("read", &dir.join(RECORD))(error)),
        };
        self.is_ours()?;
        match Self::check(&dir, key, &record) {
            Ok(template) => {
                // Only for who goes first when there is too much.
                let _ = record.set_modified(SystemTime::now());
                Ok(template)
            }
            Err(Error::Damaged { what }) => {
                self.discard(key);
                Err(Error::Damaged { what })
            }
            Err(error) => Err(error),
        }
    }

    fn check(dir: &Path, key: &Key, record: &File) -> Result<Template, Error> {
        let damaged = |what: &str| Error::Damaged { what: what.to_owned() };
        let record: Record = serde_json::from_reader(io::BufReader::new(record))
            .map_err(|error| damaged(&format!("its record: {error}")))?;
        let open = |name: &str| match File::open(dir.join(name)) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(damaged(&format!("its {name} is gone")))
            }
            Err(error) => Err(io_error("read", &dir.join(name))(error)),
        };
        let (memory, state) = (open(MEMORY)?, open(STATE)?);
        let metadata = memory.metadata().map_err(io_error("read", &dir.join(MEMORY)))?;
        if !record.is_memory(&metadata) {
            return Err(damaged("its memory is not the file that was written"));
        }
        let mut bytes = Vec::new();
        let mut reader = (&state).take(MAX_STATE_BYTES);
        reader.read_to_end(&mut bytes).map_err(io_error("read", &dir.join(STATE)))?;
        if !record.is_state(&bytes) {
            return Err(damaged("its state is not what was written"));
        }
        Ok(Template { key: key.clone(), memory, state, about: record.about })
    }

    /// Removes a template. Guests that run from it go on.
    pub fn discard(&self, key: &Key) {
        let _ = fs::remove_dir_all(self.dir.join(key.name()));
    }

    /// Begins to save one.
    ///
    /// # Errors
    /// [`Error::Busy`]; others where nothing can be written.
    pub fn begin(&self, key: &Key) -> Result<Pending, Error> {
        make_private_dir(&self.dir)?;
        self.is_ours()?;
        let dir = self.dir.join(format!("{}.{SAVING}", key.name()));
        make_private_dir(&dir)?;
        let lock = File::open(&dir).map_err(io_error("open", &dir))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy),
            Err(errno) => return Err(io_error("lock", &dir)(errno.into())),
        }
        // Between the two somebody may have finished, or given up.
        let still = dir.metadata().is_ok_and(|now| {
            lock.metadata()
                .is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
        });
        if !still {
            return Err(Error::Busy);
        }
        let file = |name: &str| {
            let path = dir.join(name);
            // What a killed run has left is overwritten.
            let _ = fs::remove_file(&path);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(&path).map_err(io_error("write", &path))
        };
        let (memory, state) = (file(MEMORY)?, file(STATE)?);
        Ok(Pending { store: self.clone(), key: key.clone(), dir, _lock: lock, memory, state })
    }

    /// Nothing is put into, or taken from, a directory of somebody else's.
    fn is_ours(&self) -> Result<(), Error> {
        let metadata = self.dir.metadata().map_err(io_error("read", &self.dir))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::Foreign { dir: self.dir.clone() });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(Error::Writable { dir: self.dir.clone() });
        }
        Ok(())
    }

    /// All templates, the last used first.
    ///
    /// # Errors
    /// The directory cannot be read. One that is not there is empty.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error("read", &self.dir))?,
        };
        let mut found: Vec<Listed> =
            entries.flatten().filter_map(|e| Listed::of(&e.path())).collect();
        found.sort_by_key(|listed| std::cmp::Reverse(listed.used));
        Ok(found)
    }

    /// Removes those not used for the longest time until at most `bytes` are left, and what killed runs
    /// have left behind. Returns how many went and how many bytes.
    ///
    /// # Errors
    /// Those of [`Store::list`].
    pub fn prune(&self, bytes: u64) -> Result<(usize, u64), Error> {
        self.remove_abandoned();
        let (mut kept, mut gone) = (0, (0, 0));
        for listed in self.list()? {
            kept += listed.stored_bytes;
            if kept > bytes {
                self.discard(&listed.key);
                gone = (gone.0 + 1, gone.1 + listed.stored_bytes);
            }
        }
        Ok(gone)
    }

    /// Directories that nobody saves into any more.
    fn remove_abandoned(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == SAVING)
                && let Ok(dir) = File::open(&path)
                && flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// Makes a directory that only its owner may enter, and those above it.
fn make_private_dir(dir: &Path) -> Result<(), Error> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(io_error("make", dir)(error))
        }
        _ => Ok(()),
    }
}

/// A template as [`Store::list`] shows it.
#[derive(Debug)]
pub struct Listed {
    /// What it is found by.
    pub key: Key,
    /// What is known of it.
    pub about: About,
    /// Bytes on disk: holes do not count.
    pub stored_bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
}

impl Listed {
    fn of(dir: &Path) -> Option<Listed> {
        let key = Key::from_name(dir.file_name()?.to_str()?)?;
        let file = File::open(dir.join(RECORD)).ok()?;
        let used = file.metadata().ok()?.modified().ok()?;
        let record: Record = serde_json::from_reader(io::BufReader::new(file)).ok()?;
        let blocks =
            [MEMORY, STATE, RECORD].iter().filter_map(|name| dir.join(name).metadata().ok());
        let stored_bytes = blocks.map(|metadata| 512 * metadata.blocks()).sum();
        Some(Listed { key, about: record.about, stored_bytes, used })
    }
}

/// A template that is being saved. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Pending {
    store: Store,
    key: Key,
    dir: PathBuf,
    _lock: File,
    /// Where its memory goes.
    pub memory: File,
    /// Where its state goes.
    pub state: File,
}

impl Pending {
    /// Other handles to its memory and its state, which outlive their names.
    ///
    /// # Errors
    /// The system's.
    pub fn files(&self) -> io::Result<(File, File)> {
        Ok((self.memory.try_clone()?, self.state.try_clone()?))
    }

    /// What it will be found by.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Makes it known. Older ones go, if there is too much now.
    ///
    /// # Errors
    /// It cannot be written; nothing is left.
    pub fn publish(self, about: About) -> Result<(), Error> {
        let mut state = Vec::new();
        File::open(self.dir.join(STATE))
            .and_then(|file| file.take(MAX_STATE_BYTES).read_to_end(&mut state))
            .map_err(io_error("read", &self.dir.join(STATE)))?;
        let memory = self.memory.metadata().map_err(io_error("read", &self.dir.join(MEMORY)))?;
        let record = Record::new(about, &memory, &state);
        let path = self.dir.join(RECORD);
        let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        text.and_then(|text| options.open(&path)?.write_all(&text))
            .map_err(io_error("write", &path))?;
        let dest = self.store.dir.join(self.key.name());
        if fs::rename(&self.dir, &dest).is_err() {
            // An older one of this name is in the way: damaged, or somebody was quicker.
            self.store.discard(&self.key);
            fs::rename(&self.dir, &dest).map_err(io_error("write", &dest))?;
        }
        let _ = self.store.prune(self.store.limit_bytes);
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After publishing there is nothing of this name.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests;
