//! A laid out image: its entries, its size, and how it is written.
//!
//! Every offset is known before the first byte is written, so threads read files and place their
//! parts independently; only the hash (and a sink that is no file) takes them in order.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::entry::{Body, Entry, HostFile, Kind, Stamp};
use super::problem::{Problem, Problems};
use crate::formats::cpio::{self, Fields, align4, member_len};

/// Bytes that a thread reads and places at once: small enough for the second level cache, where
/// the hash finds them again.
const BATCH_BYTES: usize = 128 << 10;
/// Where the data of large files begins.
const PAGE_BYTES: u64 = 4096;
/// An image below this size is not worth a second thread.
const THREADS_FROM_BYTES: u64 = 512 << 10;
/// More threads than this only wait for each other: memory bandwidth and the hash are the limit.
const THREADS_MAX: usize = 4;

/// An image, complete and consistent, not yet written.
#[derive(Debug)]
pub struct Image {
    entries: Vec<Entry>,
    places: Vec<Place>,
    notices: Vec<String>,
    mtime: u32,
    bytes: u64,
}

/// Where an entry is in the archive, and what its header says beyond the entry itself.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    ino: u32,
    nlink: u32,
    /// Zeros behind the name, which place a large body at a page.
    padding: u32,
    /// Zero for all names of a hard-linked file but the last, which carries the data.
    body: u64,
}

impl Place {
    /// Bytes from the member's start to its body.
    fn header_bytes(&self, entry: &Entry) -> u64 {
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
    /// SHA-256 of these bytes: two images of the same hash are the same.
    pub sha256: Hash,
}

/// A SHA-256 sum, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
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
        Image { entries, places, notices, mtime, bytes }
    }

    /// The entries in the order of the archive.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the user should know although nothing is wrong.
    pub fn notices(&self) -> &[String] {
        &self.notices
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

    /// Whether all files of the host were last written to some time before `now`: the grain of a
    /// file system's clock hides a later change within the same tick.
    pub fn settled(&self, now: std::time::SystemTime) -> bool {
        const GRAIN_NS: i128 = 50_000_000;
        let now = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        self.entries.iter().all(|entry| match &entry.kind {
            Kind::File { body: Body::Host(file), .. } => file.stamp.mtime_ns + GRAIN_NS < now,
            _ => true,
        })
    }

    /// Writes the archive to any sink.
    ///
    /// # Errors
    /// Files that changed or vanished since the image was laid out, all of them, and errors of the
    /// sink. What was written is then worthless.
    pub fn write_to(&self, sink: &mut (impl Write + Send)) -> Result<Summary, Problems> {
        let hash = self.pump(Sink::Ordered(sink), true)?;
        Ok(self.summary(hash))
    }

    /// Writes the archive to a regular file from its start, with several threads.
    ///
    /// # Errors
    /// As [`Image::write_to`].
    pub fn write_to_file(&self, file: &File) -> Result<Summary, Problems> {
        let hash = self.pump(Sink::Placed(file), true)?;
        Ok(self.summary(hash))
    }

    /// [`Image::write_to_file`] without the hash, which takes longer than all the rest for large
    /// files: without it their data is copied within the kernel.
    ///
    /// # Errors
    /// As [`Image::write_to`].
    pub fn write_to_file_unhashed(&self, file: &File) -> Result<(), Problems> {
        self.pump(Sink::Placed(file), false).map(drop)
    }

    /// [`Image::write_to`] without the hash.
    ///
    /// # Errors
    /// As [`Image::write_to`].
    pub fn write_to_unhashed(&self, sink: &mut (impl Write + Send)) -> Result<(), Problems> {
        self.pump(Sink::Ordered(sink), false).map(drop)
    }

    fn summary(&self, sha256: Hash) -> Summary {
        Summary { entries: self.entries.len(), bytes: self.bytes, sha256 }
    }

    fn pump<'a>(&'a self, sink: Sink<'a>, hashed: bool) -> Result<Hash, Problems> {
        let threads = if self.bytes < THREADS_FROM_BYTES {
            1
        } else {
            std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
        };
        let placed = match sink {
            Sink::Placed(file) => Some(file),
            Sink::Ordered(_) => None,
        };
        let pump = Pump {
            image: self,
            placed,
            writing: Mutex::new(()),
            hashed,
            claim: Mutex::new(Claim { entry: 0, from: 0, batch: 0, file: None }),
            order: Mutex::new(Order {
                next: 0,
                waiting: BTreeMap::new(),
                // One being filled and one waiting for its turn, for each thread.
                spare: (0..2 * threads).map(|_| Vec::new()).collect(),
                stage: Some(Stage { hasher: Sha256::new(), sink }),
                stopped: false,
            }),
            freed: Condvar::new(),
            problems: Mutex::new(Vec::new()),
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| pump.work());
            }
            pump.work();
        });
        let problems = pump.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(problems) = Problems::new(problems) {
            return Err(problems);
        }
        let order = pump.order.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut hash = Hash([0; 32]);
        if let Some(stage) = order.stage {
            hash.0.copy_from_slice(&stage.hasher.finalize());
        }
        Ok(hash)
    }

    fn encode(&self, index: usize, out: &mut Vec<u8>) -> Result<(), cpio::WriteError> {
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

/// Where the archive goes.
enum Sink<'a> {
    /// Bytes in order.
    Ordered(&'a mut (dyn Write + Send)),
    /// A regular file.
    Placed(&'a File),
}

/// The threads' common state.
struct Pump<'a> {
    image: &'a Image,
    placed: Option<&'a File>,
    /// Held while writing to the file: two writers of one file only spin in the kernel.
    writing: Mutex<()>,
    hashed: bool,
    claim: Mutex<Claim>,
    order: Mutex<Order<'a>>,
    freed: Condvar,
    problems: Mutex<Vec<Problem>>,
}

/// What is to be read next.
struct Claim {
    entry: usize,
    /// Position in the entry's body.
    from: u64,
    batch: u64,
    /// The large file that is being read, shared by the batches that have its parts.
    file: Option<Arc<File>>,
}

/// Batches back in order.
struct Order<'a> {
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Absent while a thread is in it.
    stage: Option<Stage<'a>>,
    stopped: bool,
}

struct Stage<'a> {
    hasher: Sha256,
    sink: Sink<'a>,
}

/// A run of bytes of the archive: whole members, or part of a large body.
struct Batch {
    number: u64,
    offset: u64,
    first: usize,
    /// Entries from `first` on.
    count: usize,
    /// Part of `first`'s body, if it does not fit into one batch: start and length.
    part: Option<(u64, u64)>,
    file: Option<Arc<File>>,
    /// The trailer follows.
    last: bool,
}

impl Pump<'_> {
    fn work(&self) {
        while let Some(mut buffer) = self.spare() {
            buffer.clear();
            let batch = match self.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    // Hand the buffer back so that nobody waits for it.
                    lock(&self.order).spare.push(buffer);
                    self.freed.notify_all();
                    return;
                }
                Err(problem) => {
                    self.fail(problem);
                    return;
                }
            };
            if self.copied_within_kernel(&batch, &mut buffer) {
                buffer.clear();
                self.pass_on(batch.number, buffer);
                continue;
            }
            buffer.clear();
            self.fill(&batch, &mut buffer);
            if let Some(file) = self.placed {
                let turn = lock(&self.writing);
                if let Err(source) = file.write_all_at(&buffer, batch.offset) {
                    self.fail(Problem::Write { source });
                    return;
                }
                drop(turn);
            }
            self.pass_on(batch.number, buffer);
        }
    }

    /// Copies part of a large file without taking its bytes into this process: where nobody hashes
    /// them and the sink is a file. `false` leaves the batch to the usual way.
    fn copied_within_kernel(&self, batch: &Batch, buffer: &mut Vec<u8>) -> bool {
        let (Some(sink), Some((from, length)), Some(file)) =
            (self.placed, batch.part, batch.file.as_deref())
        else {
            return false;
        };
        let index = batch.first;
        let (entry, place) = (&self.image.entries[index], &self.image.places[index]);
        let Kind::File { body: Body::Host(host), .. } = &entry.kind else { return false };
        if self.hashed {
            return false;
        }
        let _turn = lock(&self.writing);
        let mut offset = batch.offset;
        if from == 0 {
            if self.image.encode(index, buffer).is_err()
                || sink.write_all_at(buffer, offset).is_err()
            {
                return false;
            }
            offset += buffer.len() as u64;
        }
        let (mut read, mut written, mut left) = (from, offset, length as usize);
        while left > 0 {
            let copied =
                rustix::fs::copy_file_range(file, Some(&mut read), sink, Some(&mut written), left);
            match copied {
                Ok(count) if count > 0 => left -= count,
                // The end, or file systems that cannot: the usual way says what is wrong.
                _ => return false,
            }
        }
        if from + length == place.body {
            let padding = (align4(place.body) - place.body) as usize;
            if sink.write_all_at(&[0; 3][..padding], written).is_err() {
                return false;
            }
            if let Err(problem) = unchanged(host, file) {
                lock(&self.problems).push(problem);
            }
        }
        true
    }

    fn spare(&self) -> Option<Vec<u8>> {
        let mut order = lock(&self.order);
        loop {
            if order.stopped {
                return None;
            }
            if let Some(buffer) = order.spare.pop() {
                return Some(buffer);
            }
            order = self.freed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How much of a large body is taken at once: what is copied within the kernel need not fit into
    /// a cache.
    fn part_bytes(&self, index: usize) -> u64 {
        let host = matches!(self.image.entries[index].kind, Kind::File { body: Body::Host(_), .. });
        if !self.hashed && self.placed.is_some() && host { 4 << 20 } else { BATCH_BYTES as u64 }
    }

    /// Stops everything: the sink is of no use any more.
    fn fail(&self, problem: Problem) {
        lock(&self.problems).push(problem);
        lock(&self.order).stopped = true;
        self.freed.notify_all();
    }

    fn next_batch(&self) -> Result<Option<Batch>, Problem> {
        let mut claim = lock(&self.claim);
        let image = self.image;
        let (first, from) = (claim.entry, claim.from);
        let end = image.entries.len();
        if first > end {
            return Ok(None);
        }
        let number = claim.batch;
        claim.batch += 1;
        let mut batch = Batch {
            number,
            offset: image
                .places
                .get(first)
                .map_or(image.bytes - member_len(cpio::TRAILER, 0), |p| p.offset),
            first,
            count: 0,
            part: None,
            file: None,
            last: false,
        };
        let large = |index: usize| image.places[index].body > BATCH_BYTES as u64;
        if first < end && large(first) {
            let body = image.places[first].body;
            let length = (body - from).min(self.part_bytes(first));
            let header = image.places[first].header_bytes(&image.entries[first]);
            if from == 0 {
                claim.file = match &image.entries[first].kind {
                    Kind::File { body: Body::Host(host), .. } => match open(host) {
                        Ok(file) => Some(Arc::new(file)),
                        Err(problem) => {
                            lock(&self.problems).push(problem);
                            None
                        }
                    },
                    _ => None,
                };
            } else {
                batch.offset += header + from;
            }
            batch.file = claim.file.clone();
            batch.part = Some((from, length));
            batch.count = 1;
            claim.from += length;
            if claim.from < body {
                return Ok(Some(batch));
            }
            claim.from = 0;
            claim.file = None;
            claim.entry += 1;
            return Ok(Some(batch));
        }
        let mut size = 0;
        let mut index = first;
        while index < end && !large(index) {
            let place = &image.places[index];
            size += place.header_bytes(&image.entries[index]) + align4(place.body);
            if index > first && size > BATCH_BYTES as u64 {
                break;
            }
            index += 1;
        }
        batch.count = index - first;
        batch.last = index == end;
        // One past the end: the trailer was claimed.
        claim.entry = index + usize::from(batch.last);
        Ok(Some(batch))
    }

    /// Reads what a batch consists of. Problems are noted, and the rest is still looked at: the
    /// user shall hear of all of them at once.
    fn fill(&self, batch: &Batch, buffer: &mut Vec<u8>) {
        let image = self.image;
        for index in batch.first..batch.first + batch.count {
            let (from, length) = batch.part.unwrap_or((0, image.places[index].body));
            let result = self.member(index, from, length, batch.file.as_deref(), buffer);
            if let Err(problem) = result {
                lock(&self.problems).push(problem);
            }
        }
        if batch.last {
            cpio::encode_trailer(buffer);
        }
    }

    fn member(
        &self,
        index: usize,
        from: u64,
        length: u64,
        file: Option<&File>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        let (entry, place) = (&self.image.entries[index], &self.image.places[index]);
        if from == 0 {
            self.image
                .encode(index, buffer)
                .map_err(|err| Problem::Write { source: io::Error::other(err) })?;
        }
        let start = buffer.len();
        let end = start + length as usize;
        let is_end = from + length == place.body;
        if length > 0 || is_end {
            let result = match &entry.kind {
                Kind::Symlink { target } => {
                    buffer.extend_from_slice(target);
                    Ok(())
                }
                Kind::File { body, .. } if place.body > 0 => {
                    copy(body, from, length, is_end, file, buffer)
                }
                _ => Ok(()),
            };
            // After a problem the archive is worthless, but its parts must keep their places.
            buffer
                .resize(end + if is_end { align4(place.body) - place.body } else { 0 } as usize, 0);
            result?;
        }
        Ok(())
    }

    /// Gives a filled batch to the stage that needs them in order. Whoever finds the stage free
    /// and its batch there works for all.
    fn pass_on(&self, number: u64, buffer: Vec<u8>) {
        let mut order = lock(&self.order);
        order.waiting.insert(number, buffer);
        loop {
            let next = order.next;
            let Some(mut stage) = order.stage.take() else { return };
            let Some(buffer) = order.waiting.remove(&next) else {
                order.stage = Some(stage);
                return;
            };
            drop(order);
            let written = match &mut stage.sink {
                Sink::Ordered(sink) => sink.write_all(&buffer),
                Sink::Placed(_) => Ok(()),
            };
            if self.hashed {
                stage.hasher.update(&buffer);
            }
            if let Err(source) = written {
                self.fail(Problem::Write { source });
            }
            order = lock(&self.order);
            order.stage = Some(stage);
            order.next += 1;
            order.spare.push(buffer);
            self.freed.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a file that was a regular one: without waiting, should it be a pipe by now.
fn open_only(host: &HostFile) -> Result<File, Problem> {
    let path = host.path();
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&path)
        .map_err(|source| Problem::Read { path, by: "the image".into(), source })
}

/// Opens a file and checks that it is still the planned one.
fn open(host: &HostFile) -> Result<File, Problem> {
    let file = open_only(host)?;
    unchanged(host, &file)?;
    Ok(file)
}

/// Checks that an open file is the one that was planned, and as long.
fn unchanged(host: &HostFile, file: &File) -> Result<(), Problem> {
    let changed = |what| Problem::Changed { path: host.path(), what };
    let metadata = file.metadata().map_err(|source| Problem::Read {
        path: host.path(),
        by: "the image".into(),
        source,
    })?;
    if metadata.len() != host.size {
        return Err(changed(format!("it has {} bytes instead of {}", metadata.len(), host.size)));
    }
    if Stamp::of(&metadata) != host.stamp {
        return Err(changed("it was written to or replaced".into()));
    }
    Ok(())
}

/// Appends part of a body to `buffer`. After the last part the file must not have changed.
fn copy(
    body: &Body,
    from: u64,
    length: u64,
    is_end: bool,
    file: Option<&File>,
    buffer: &mut Vec<u8>,
) -> Result<(), Problem> {
    match body {
        Body::Bytes(bytes) => {
            buffer.extend_from_slice(&bytes[from as usize..(from + length) as usize]);
            Ok(())
        }
        Body::Range { file, offset, .. } => {
            let start = buffer.len();
            buffer.resize(start + length as usize, 0);
            file.read_exact_at(&mut buffer[start..], offset + from)
                .map_err(|source| Problem::Write { source })
        }
        Body::Host(host) => {
            let opened;
            let file = match file {
                Some(file) => file,
                // Opening failed when the first part was claimed; said then.
                None if from > 0 || length < host.size => return Ok(()),
                // Whether it is the planned file is seen afterwards: no more is read than was planned.
                None => {
                    opened = open_only(host)?;
                    &opened
                }
            };
            let start = buffer.len();
            buffer.resize(start + length as usize, 0);
            let found = read_at(file, &mut buffer[start..], from).map_err(|source| {
                Problem::Read { path: host.path(), by: "the image".into(), source }
            })?;
            if found < length {
                let what = format!("it ends after {} of {} bytes", from + found, host.size);
                return Err(Problem::Changed { path: host.path(), what });
            }
            if is_end { unchanged(host, file) } else { Ok(()) }
        }
    }
}

/// Fills `buffer` from `offset` on; fewer bytes mean that the file ends there.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<u64> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled as u64)
}
