//! Looks into images: what is in them, what a path holds, how two of them differ.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::archive::{ArchiveError, Segment, Source};
use crate::formats::cpio::{self, LinkKey, Member};
use crate::initramfs::hash::Hash;
use crate::initramfs::links::follow;

/// A member of an image as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Path without leading `/` or `./`; empty for the root itself.
    pub path: Vec<u8>,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Bytes of content; of a hard-linked file for each of its names.
    pub size: u64,
    /// Text of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Device numbers.
    pub rdev: (u32, u32),
    /// Index into [`Listing::segments`].
    pub segment: usize,
    /// SHA-256 of a file's content, where that was asked for.
    pub sha256: Option<Hash>,
    /// Position among all members.
    index: usize,
    link: Option<LinkKey>,
}

impl Item {
    fn new(member: Member, segment: usize, index: usize, target: Option<Vec<u8>>) -> Item {
        Item {
            link: member.link_key(),
            size: target.as_ref().map_or(u64::from(member.size), |text| text.len() as u64),
            path: plain(member.name),
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            nlink: member.nlink,
            mtime: member.mtime,
            rdev: member.rdev,
            target,
            segment,
            sha256: None,
            index,
        }
    }

    /// The type bits of the mode.
    pub fn file_type(&self) -> u32 {
        self.mode & cpio::S_IFMT
    }
}

/// A member's name without what does not matter at its ends. `..` stays: the caller must look.
pub(crate) fn plain(name: Vec<u8>) -> Vec<u8> {
    let mut rest = &name[..];
    loop {
        rest = match rest {
            [b'/', rest @ ..] | [b'.', b'/', rest @ ..] => rest,
            b"." => &[],
            _ => break,
        };
    }
    while let [start @ .., b'/'] = rest {
        rest = start;
    }
    if rest.len() == name.len() { name } else { rest.to_vec() }
}

/// All members of an image in their order, those included that later ones replace.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The members.
    pub items: Vec<Item>,
    /// The segments.
    pub segments: Vec<Segment>,
}

impl Listing {
    /// Reads headers, names and link targets; with `hashes` also the files.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn read(source: &Source, hashes: bool) -> Result<Listing, ArchiveError> {
        let mut items: Vec<Item> = Vec::new();
        // Of each file with several names: size and hash, from the name that has the data.
        let mut links: HashMap<LinkKey, (u64, Option<Hash>)> = HashMap::new();
        let mut buffer = Vec::new();
        let segments = source.read::<ArchiveError>(|visit| {
            let mut item = Item::new(visit.member, visit.segment, items.len(), visit.target);
            if hashes && item.file_type() == cpio::S_IFREG {
                buffer.resize(64 << 10, 0);
                item.sha256 = Some(hash(visit.body, &mut buffer).map_err(ArchiveError::Io)?);
            }
            if let Some(key) = item.link
                && item.size > 0
            {
                links.insert(key, (item.size, item.sha256));
            }
            items.push(item);
            Ok(())
        })?;
        if !links.is_empty() {
            for item in &mut items {
                if let Some((size, sha256)) = item.link.and_then(|key| links.get(&key)) {
                    (item.size, item.sha256) = (*size, *sha256);
                }
            }
        }
        Ok(Listing { items, segments })
    }

    /// What is there after unpacking: of each path the last member.
    pub fn unpacked(&self) -> BTreeMap<&[u8], &Item> {
        let named = self.items.iter().filter(|item| !item.path.is_empty());
        named.map(|item| (item.path.as_slice(), item)).collect()
    }
}

fn hash(body: &mut dyn Read, buffer: &mut [u8]) -> io::Result<Hash> {
    let mut hasher = Sha256::new();
    loop {
        match body.read(buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(Hash(hasher.finalize().into()))
}

/// Why a file of an image cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatError {
    /// No such path.
    #[error("there is no `{}` in the image", crate::initramfs::entry::Shown(path))]
    Absent {
        /// The path.
        path: Vec<u8>,
    },
    /// It is something else than a file.
    #[error("`{}` is no regular file", crate::initramfs::entry::Shown(path))]
    NoFile {
        /// The path.
        path: Vec<u8>,
    },
    /// The image cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The sink failed.
    #[error("cannot write the file's content")]
    Write(#[source] io::Error),
}

/// Writes the content of one file; symbolic links are followed within the image.
///
/// # Errors
/// See [`CatError`].
pub fn cat(source: &Source, path: &[u8], out: &mut dyn Write) -> Result<(), CatError> {
    let listing = Listing::read(source, false)?;
    let unpacked = listing.unpacked();
    let wanted = plain(path.to_vec());
    let found = follow(&wanted, &|path| {
        let item = unpacked.get(path)?;
        Some(item.target.clone())
    });
    let item = found.as_deref().and_then(|path| unpacked.get(path));
    let item = item.ok_or(CatError::Absent { path: wanted.clone() })?;
    if item.file_type() != cpio::S_IFREG {
        return Err(CatError::NoFile { path: wanted });
    }
    if item.size == 0 {
        return Ok(());
    }
    // The data of a hard-linked file may be with another of its names; if it comes more than once,
    // Linux writes each over the one before.
    let mut last = item.index;
    let mut index = 0;
    source.read::<ArchiveError>(|visit| {
        if item.link.is_some() && visit.member.link_key() == item.link && visit.member.size > 0 {
            last = index;
        }
        index += 1;
        Ok(())
    })?;
    index = 0;
    source.read::<CatError>(|visit| {
        index += 1;
        if index - 1 == last {
            io::copy(visit.body, out).map_err(CatError::Write)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// How a path differs between two images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: Vec<u8>,
    /// What the first image has there.
    pub before: Option<Item>,
    /// What the second image has there.
    pub after: Option<Item>,
    /// What is different, where both have something: `content`, `mode`, `owner`, `type`, `target`,
    /// `device`.
    pub what: Vec<&'static str>,
}

/// Compares what two images unpack to. Times and inode numbers are not compared.
///
/// # Errors
/// See [`ArchiveError`], with the index of the image, 0 or 1.
pub fn diff(a: &Source, b: &Source) -> Result<Vec<Change>, (usize, ArchiveError)> {
    let a = Listing::read(a, true).map_err(|err| (0, err))?;
    let b = Listing::read(b, true).map_err(|err| (1, err))?;
    let (a, b) = (a.unpacked(), b.unpacked());
    let mut paths: Vec<&[u8]> = a.keys().chain(b.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut changes = Vec::new();
    for path in paths {
        let (before, after) = (a.get(path).copied(), b.get(path).copied());
        let mut what = Vec::new();
        if let (Some(before), Some(after)) = (before, after) {
            if before.file_type() != after.file_type() {
                what.push("type");
            } else {
                let different = |yes: bool, name, what: &mut Vec<&'static str>| {
                    if yes {
                        what.push(name);
                    }
                };
                let content = (before.size, before.sha256) != (after.size, after.sha256);
                let is_link = before.target.is_some();
                different(content && !is_link, "content", &mut what);
                different(before.target != after.target, "target", &mut what);
                different(before.rdev != after.rdev, "device", &mut what);
            }
            if before.mode & 0o7777 != after.mode & 0o7777 {
                what.push("mode");
            }
            if (before.uid, before.gid) != (after.uid, after.gid) {
                what.push("owner");
            }
            if what.is_empty() {
                continue;
            }
        }
        changes.push(Change {
            path: path.to_vec(),
            before: before.cloned(),
            after: after.cloned(),
            what,
        });
    }
    Ok(changes)
}
