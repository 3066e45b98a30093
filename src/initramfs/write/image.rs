//! A laid out image: its entries, and where each of them is in the archive.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::formats::cpio::{self, Fields, align4, member_len};
use crate::initramfs::entry::{Body, Entry, Kind};
use crate::initramfs::hash::Hash;

/// Where the data of large files begins.
const PAGE_BYTES: u64 = 4096;

/// Bytes that a thread reads and places at once: small enough for the second level cache, where
/// the hash finds them again.
pub(super) const BATCH_BYTES: usize = 128 << 10;

/// An image, complete and consistent, not yet written.
#[derive(Debug)]
pub struct Image {
    pub(super) entries: Vec<Entry>,
    pub(super) places: Vec<Place>,
    notices: Vec<String>,
    mtime: u32,
    pub(super) bytes: u64,
    left_out: Vec<PathBuf>,
}

/// Where an entry is in the archive, and what its header says beyond the entry itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u64,
    ino: u32,
    nlink: u32,
    /// Zeros behind the name, which place a large body at a page.
    padding: u32,
    /// Zero for all names of a hard-linked file but the last, which carries the data.
    pub(super) body: u64,
}

impl Place {
    /// Bytes from the member's start to its body.
    pub(super) fn header_bytes(&self, entry: &Entry) -> u64 {
        align4((cpio::HEADER_LEN + entry.path.len() + 1) as u64 + u64::from(self.padding))
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of entries, without the trailer.
    pub entries: usize,
    /// Bytes of the archive, uncompressed.
    pub bytes: u64,
    /// BLAKE3 of these bytes, as `b3sum` prints it: two images of the same hash are the same.
    pub blake3: Hash,
}

impl Image {
    /// Lays out sorted entries.
    ///
    /// With `aligned` the data of large files begins at a page, which the kernel copies faster, and
    /// some file systems share.
    pub(crate) fn new(
        entries: Vec<Entry>,
        notices: Vec<String>,
        mtime: u32,
        aligned: bool,
    ) -> Image {
        // Of each group of hard links: how many there are and which is the last.
        let mut links: HashMap<u32, (u32, usize, u32)> = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            if let Kind::File { link: Some(link), .. } = entry.kind {
                let group = links.entry(link).or_insert((0, i, i as u32 + 1));
                group.0 += 1;
                group.1 = i;
            }
        }
        let mut offset = 0;
        let mut places = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let body = entry.size();
            let mut place = Place { offset, ino: i as u32 + 1, nlink: 1, padding: 0, body };
            match entry.kind {
                Kind::Directory => place.nlink = 2,
                Kind::File { link: Some(link), .. } => {
                    let (count, last, ino) = links[&link];
                    place.nlink = count;
                    place.ino = ino;
                    if i != last {
                        place.body = 0;
                    }
                }
                _ => {}
            }
            if aligned && place.body > BATCH_BYTES as u64 {
                let named = (cpio::HEADER_LEN + entry.path.len() + 1) as u64;
                let padding = (offset + named).next_multiple_of(PAGE_BYTES) - offset - named;
                if entry.path.len() as u64 + padding <= cpio::NAME_MAX as u64 {
                    place.padding = padding as u32;
                }
            }
            offset += place.header_bytes(entry) + align4(place.body);
            places.push(place);
        }
        let bytes = offset + member_len(cpio::TRAILER, 0);
        Image { entries, places, notices, mtime, bytes, left_out: Vec::new() }
    }

    /// Notes what a tree had and the image has not.
    pub(crate) fn without(self, left_out: Vec<PathBuf>) -> Image {
        Image { left_out, ..self }
    }

    /// The entries in the order of the archive.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the user should know although nothing is wrong.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Files of the host that are in a tree and not in the image, because it goes there
    /// ([`super::ImageSpec::leave_out`]).
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Bytes of the archive, uncompressed.
    pub fn archive_bytes(&self) -> u64 {
        self.bytes
    }

    /// Time of every entry.
    pub fn mtime(&self) -> u32 {
        self.mtime
    }

    /// Bytes that the unpacked files take in the guest's memory, page by page, links once.
    pub fn unpacked_bytes(&self) -> u64 {
        self.places.iter().map(|place| place.body.next_multiple_of(4096)).sum()
    }

    /// Whether files that only some users of the host may read are in it.
    pub fn is_private(&self) -> bool {
        self.entries.iter().any(|entry| match &entry.kind {
            Kind::File { body: Body::Host(file), .. } => !file.public,
            _ => false,
        })
    }

    /// Whether all files of the host were last changed some time before `now`: the grain of a
    /// file system's clock hides a later change within the same tick.
    pub fn settled(&self, now: std::time::SystemTime) -> bool {
        const GRAIN_NS: i128 = 50_000_000;
        let now = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        self.entries.iter().all(|entry| match &entry.kind {
            Kind::File { body: Body::Host(file), .. } => {
                file.stamp.mtime_ns.max(file.stamp.ctime_ns) + GRAIN_NS < now
            }
            _ => true,
        })
    }

    pub(super) fn summary(&self, blake3: Hash) -> Summary {
        Summary { entries: self.entries.len(), bytes: self.bytes, blake3 }
    }

    /// Appends a member's header and name.
    pub(super) fn encode(&self, index: usize, out: &mut Vec<u8>) -> Result<(), cpio::WriteError> {
        let (entry, place) = (&self.entries[index], &self.places[index]);
        cpio::encode_padded(out, &entry.path, &self.fields(index), place.body, place.padding)
    }

    fn fields(&self, index: usize) -> Fields {
        let (entry, place) = (&self.entries[index], &self.places[index]);
        let rdev = match entry.kind {
            Kind::Node { rdev, .. } => rdev,
            _ => (0, 0),
        };
        Fields {
            ino: place.ino,
            mode: entry.type_and_mode(),
            uid: entry.uid,
            gid: entry.gid,
            nlink: place.nlink,
            mtime: self.mtime,
            rdev,
        }
    }
}
