//! Writes images.
//!
//! Every offset is known before the first byte is written, so threads read files and place their
//! parts independently; only the hash (and a sink that is no file) takes them in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::image::{BATCH_BYTES, Image, Summary};
use crate::formats::cpio::{self, align4, member_len};
use crate::initramfs::entry::{Body, HostFile, Kind, Stamp};
use crate::initramfs::hash::Hash;
use crate::initramfs::problem::{Problem, Problems};

/// Parts of large files end at a multiple of this in the archive: the kernel copies in pieces of 16
/// pages, and a piece that lies within one large folio takes two thirds of the time.
const ALIGNED_BYTES: u64 = 64 << 10;
/// An image below this size is not worth a second thread.
const THREADS_FROM_BYTES: u64 = 512 << 10;
/// More threads than this only wait for each other: memory bandwidth and the hash are the limit.
const THREADS_MAX: usize = 4;

impl Image {
    /// Writes the archive to any sink.
    ///
    /// # Errors
    /// Files that changed or vanished since the image was laid out, all of them, and errors of the
    /// sink. What was written is then worthless.
    pub fn write_to(&self, sink: &mut (impl Write + Send)) -> Result<Summary, Problems> {
        let hash = pump(self, Sink::Ordered(sink))?;
        Ok(self.summary(hash))
    }

    /// Writes the archive to a regular file from its start, with several threads.
    ///
    /// # Errors
    /// As [`Image::write_to`].
    pub fn write_to_file(&self, file: &File) -> Result<Summary, Problems> {
        let hash = pump(self, Sink::Placed(file))?;
        Ok(self.summary(hash))
    }
}

/// Writes an image and tells its BLAKE3 hash.
fn pump<'a>(image: &'a Image, sink: Sink<'a>) -> Result<Hash, Problems> {
    let threads = if image.bytes < THREADS_FROM_BYTES {
        1
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
    };
    let placed = match sink {
        Sink::Placed(file) => Some(file),
        Sink::Ordered(_) => None,
    };
    let pump = Pump {
        image,
        placed,
        writing: Mutex::new(()),
        claim: Mutex::new(Claim { entry: 0, from: 0, batch: 0, file: None }),
        order: Mutex::new(Order {
            next: 0,
            waiting: BTreeMap::new(),
            // One being filled and one waiting for its turn, for each thread.
            spare: (0..2 * threads).map(|_| Vec::new()).collect(),
            stage: Some(Stage { hasher: blake3::Hasher::new(), sink }),
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
    let stage = order.stage.expect("put back by the thread that was in it");
    Ok(Hash(stage.hasher.finalize().into()))
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
    hasher: blake3::Hasher,
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

    /// Stops everything: the sink is of no use any more.
    fn fail(&self, problem: Problem) {
        let stopped = std::mem::replace(&mut lock(&self.order).stopped, true);
        // Every thread meets the same full disk.
        if !stopped || !matches!(problem, Problem::Write { .. }) {
            lock(&self.problems).push(problem);
        }
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
            let header = image.places[first].header_bytes(&image.entries[first]);
            let place = image.places[first].offset + header + from;
            let length = (body - from).min(BATCH_BYTES as u64 - place % ALIGNED_BYTES);
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
            // A sink that has failed is not asked again.
            let stopped = order.stopped;
            drop(order);
            let written = match &mut stage.sink {
                Sink::Ordered(sink) if !stopped => sink.write_all(&buffer),
                _ => Ok(()),
            };
            stage.hasher.update(&buffer);
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
    // A new link or mode is no new content.
    let now = Stamp { ctime_ns: host.stamp.ctime_ns, ..Stamp::of(&metadata) };
    if now != host.stamp {
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
