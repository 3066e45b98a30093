//! Finished images, kept so that the same inputs give the same image at once.
//!
//! An image is found by the hash of everything that went into it: every entry with path, mode and
//! owner, for files of the host their path, size, times, inode and device, for other content its
//! bytes, and the compression. Contents of host files are not read to find it.
//!
//! Two files for each image: `KEY`, the image, and `KEY.json`, what is known about it. Both appear
//! by renaming, the second one last, so that concurrent builds see whole images only. The time of
//! `KEY.json` is that of the last use; the longest unused images go when there is too much.
//!
//! No output shares its storage with the cache, except where the file system copies on write:
//! whatever becomes of an output, the cached image stays. Should somebody write to the image itself,
//! its size or one of its times tell, and it is dropped. The time of the inode's change is among
//! them, which nobody can set back.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::compress::Compression;
use super::image::{Image, Summary};
use super::publish::Pending;
use crate::initramfs::entry::{Body, Kind};
use crate::initramfs::hash::Hash;

/// Bytes of images that are kept.
pub const DEFAULT_LIMIT_BYTES: u64 = 2 << 30;
/// Form of the keys and records: part of the key.
const SCHEMA: u32 = 4;

/// A directory of finished images.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    limit_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    entries: usize,
    bytes: u64,
    blake3: [u8; 32],
    stored_bytes: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// An image that was found.
#[derive(Debug)]
pub struct Cached {
    file: File,
    /// What writing it had returned.
    pub summary: Summary,
    /// Bytes of the file.
    pub stored_bytes: u64,
}

impl Cached {
    /// The file, opened for reading: it stays readable even when the cache drops the image.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it at `dest` as [`Pending::publish`] would: without copying where that can be.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn deliver(&self, dest: &Path, mode: u32) -> io::Result<()> {
        let own = self.file.metadata()?;
        if let Ok(there) = fs::symlink_metadata(dest)
            && (there.dev(), there.ino()) == (own.dev(), own.ino())
        {
            return Ok(());
        }
        let pending = Pending::new(dest)?;
        copy(&self.file, pending.file())?;
        pending.publish(mode)
    }
}

impl Cache {
    /// The images below a cache directory (`~/.cache/vmtest`).
    pub fn new(cache_dir: &Path) -> Cache {
        Cache { dir: cache_dir.join("images"), limit_bytes: DEFAULT_LIMIT_BYTES }
    }

    /// Keep no more than this; default [`DEFAULT_LIMIT_BYTES`].
    #[must_use]
    pub fn limit_bytes(mut self, limit: u64) -> Cache {
        self.limit_bytes = limit;
        self
    }

    fn paths(&self, key: &Hash) -> (PathBuf, PathBuf) {
        (self.dir.join(key.to_string()), self.dir.join(format!("{key}.json")))
    }

    /// The image of these inputs, if it is there and nobody has touched it.
    pub fn get(&self, key: &Hash) -> Option<Cached> {
        let (path, record_path) = self.paths(key);
        let record: Record = serde_json::from_slice(&fs::read(&record_path).ok()?).ok()?;
        let file = File::open(&path).ok()?;
        let metadata = file.metadata().ok()?;
        if (metadata.len(), mtime_ns(&metadata), ctime_ns(&metadata))
            != (record.stored_bytes, record.mtime_ns, record.ctime_ns)
        {
            let _ = fs::remove_file(&record_path);
            let _ = fs::remove_file(&path);
            return None;
        }
        // Used now. Nothing is lost where that cannot be written.
        if let Ok(record) = File::options().write(true).open(&record_path) {
            let _ = record.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        Some(Cached {
            file,
            summary: Summary {
                entries: record.entries,
                bytes: record.bytes,
                blake3: Hash(record.blake3),
            },
            stored_bytes: record.stored_bytes,
        })
    }

    /// Keeps a copy of the finished image that lies at `from`.
    ///
    /// # Errors
    /// Those of the file system; the image is then not kept.
    pub fn put(&self, key: &Hash, from: &Path, summary: &Summary) -> io::Result<()> {
        let metadata = fs::metadata(from)?;
        if metadata.len() > self.limit_bytes / 2 {
            return Ok(());
        }
        fs::create_dir_all(&self.dir)?;
        let (path, record_path) = self.paths(key);
        let pending = Pending::new(&path)?;
        copy(&File::open(from)?, pending.file())?;
        pending.publish(metadata.mode() & 0o444)?;
        let kept = fs::metadata(&path)?;
        let record = Record {
            entries: summary.entries,
            bytes: summary.bytes,
            blake3: summary.blake3.0,
            stored_bytes: kept.len(),
            mtime_ns: mtime_ns(&kept),
            ctime_ns: ctime_ns(&kept),
        };
        let pending = Pending::new(&record_path)?;
        serde_json::to_writer(pending.file(), &record)?;
        pending.publish(0o600)?;
        self.evict(key)
    }

    /// Removes the longest unused images while there is too much. Whoever has one open keeps it.
    fn evict(&self, keep: &Hash) -> io::Result<()> {
        let mut images = Vec::new();
        let mut total = 0;
        for item in fs::read_dir(&self.dir)? {
            let item = item?;
            let Ok(metadata) = item.metadata() else { continue };
            let path = item.path();
            if path.extension().is_some() || !metadata.is_file() {
                continue;
            }
            total += metadata.len();
            let record = path.with_extension("json");
            // Without a record it is an image that is being put there, or what is left of one.
            let used = fs::metadata(&record).or_else(|_| fs::metadata(&path));
            if let Ok(used) = used.and_then(|used| used.modified()) {
                images.push((used, path, record, metadata.len()));
            }
        }
        images.sort();
        for (_, path, record, bytes) in images {
            if total <= self.limit_bytes {
                break;
            }
            if path.file_name().is_some_and(|name| name == keep.to_string().as_str()) {
                continue;
            }
            let _ = fs::remove_file(record);
            let _ = fs::remove_file(path);
            total -= bytes;
        }
        Ok(())
    }
}

/// Copies all of a file; where the file system can, without copying bytes.
fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_err() {
        io::copy(&mut from, &mut to)?;
    }
    Ok(())
}

fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

fn ctime_ns(metadata: &fs::Metadata) -> i64 {
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}

/// The key of an image made of these parts, one after the other, the last one compressed.
pub fn key(parts: &[&Image], compression: Compression) -> Hash {
    let mut hasher = Fields(BufWriter::with_capacity(64 << 10, blake3::Hasher::new()));
    hasher.bytes(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.number(u64::from(SCHEMA));
    hasher.bytes(compression.to_string().as_bytes());
    for image in parts {
        hasher.number(image.entries().len() as u64);
        hasher.number(u64::from(image.mtime()));
        for entry in image.entries() {
            hasher.bytes(&entry.path);
            hasher.number(u64::from(entry.type_and_mode()));
            hasher.number(u64::from(entry.uid) << 32 | u64::from(entry.gid));
            match &entry.kind {
                Kind::Directory => {}
                Kind::Symlink { target } => hasher.bytes(target),
                Kind::Node { rdev, .. } => {
                    hasher.number(u64::from(rdev.0) << 32 | u64::from(rdev.1));
                }
                Kind::File { body, link } => {
                    hasher.number(link.map_or(u64::MAX, u64::from));
                    hasher.body(body);
                }
            }
        }
    }
    let hasher = hasher.0.into_inner().unwrap_or_else(|_| unreachable!("a hasher takes all"));
    Hash(hasher.finalize().into())
}

/// Hashes fields so that no two different rows of them give the same bytes. They are short, and BLAKE3
/// is only fast when it gets much at a time.
struct Fields(BufWriter<blake3::Hasher>);

impl Fields {
    fn add(&mut self, bytes: &[u8]) {
        // A hasher takes all.
        let _ = self.0.write_all(bytes);
    }

    fn number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.add(bytes);
    }

    fn stamp(&mut self, stamp: &crate::initramfs::entry::Stamp) {
        self.number(stamp.dev);
        self.number(stamp.ino);
        self.add(&stamp.mtime_ns.to_le_bytes());
        self.add(&stamp.ctime_ns.to_le_bytes());
    }

    fn body(&mut self, body: &Body) {
        use std::os::unix::ffi::OsStrExt;
        self.number(body.size());
        match body {
            Body::Bytes(bytes) => {
                self.number(1);
                self.add(bytes);
            }
            Body::Host(file) => {
                self.number(2);
                let (root, rest) = file.path.parts();
                self.bytes(root.as_os_str().as_bytes());
                self.bytes(rest);
                self.stamp(&file.stamp);
            }
            Body::Range { stamp, origin, .. } => {
                self.number(3);
                self.stamp(stamp);
                self.number(origin.0 as u64);
                self.number(origin.1);
            }
        }
    }
}
