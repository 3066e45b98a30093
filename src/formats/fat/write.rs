//! The bytes of an image, from the first to the last.

use std::io::{self, Read, Write};

use super::layout::{FatKind, Geometry, Image, Place};
use super::names::{RECORD, ShortName, ShortNames, push_long_name};
use super::time::Stamp;
use super::{Kind, LABEL, Node, SECTOR, SERIAL, Shown};

/// Why an image was not written to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The bytes of a file could not be had.
    #[error("cannot read {}", Shown(.path))]
    Body {
        /// Path below the root of the tree.
        path: Vec<u8>,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file ended before the size it was announced with.
    #[error("{} has {got} bytes instead of the {size} it had at first", Shown(.path))]
    Shorter {
        /// Path below the root of the tree.
        path: Vec<u8>,
        /// Bytes announced.
        size: u64,
        /// Bytes there were.
        got: u64,
    },
    /// A file went on after the size it was announced with.
    #[error("{} has more than the {size} bytes it had at first", Shown(.path))]
    Longer {
        /// Path below the root of the tree.
        path: Vec<u8>,
        /// Bytes announced.
        size: u64,
    },
    /// The image could not be written.
    #[error("cannot write the vfat image")]
    Output(#[source] io::Error),
}

impl WriteError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            WriteError::Body { .. } => "every file of the tree has to be readable",
            WriteError::Shorter { .. } | WriteError::Longer { .. } => {
                "the tree must not change while its image is made"
            }
            WriteError::Output(_) => "the image has the size of the tree: is there room for it?",
        }
        .to_owned()
    }
}

impl<B> Image<B> {
    /// Writes the image, strictly forward: [`Image::bytes`] bytes.
    ///
    /// `open` gives the bytes of a file; it is called once for each file, in the order of their
    /// paths, and what it gave is dropped before the next call. Output is collected in pieces of
    /// 256 KiB; there is no need for another buffer around it.
    ///
    /// # Errors
    /// [`WriteError`]; what was written until then is of no use.
    pub fn write<W: Write, R: Read>(
        &self,
        out: &mut W,
        mut open: impl FnMut(&B) -> io::Result<R>,
    ) -> Result<(), WriteError> {
        let mut sink = Sink::new(out);
        self.front(&mut sink).map_err(WriteError::Output)?;
        for &node in &self.order {
            let Node { kind: Kind::File { size, body }, .. } = &self.tree.nodes[node as usize]
            else {
                continue;
            };
            let path = || self.tree.path(node);
            let copied = open(body)
                .map_err(CopyError::Read)
                .and_then(|mut body| sink.copy(&mut body, *size));
            match copied {
                Ok(Copied::Exactly) => {}
                Ok(Copied::Shorter(got)) => {
                    return Err(WriteError::Shorter { path: path(), size: *size, got });
                }
                Ok(Copied::Longer) => return Err(WriteError::Longer { path: path(), size: *size }),
                Err(CopyError::Read(source)) => {
                    return Err(WriteError::Body { path: path(), source });
                }
                Err(CopyError::Write(source)) => return Err(WriteError::Output(source)),
            }
            sink.align(self.geometry.cluster_bytes()).map_err(WriteError::Output)?;
        }
        sink.zeros_to(self.bytes()).and_then(|()| sink.flush()).map_err(WriteError::Output)
    }

    /// All that comes before the first file.
    fn front<W: Write>(&self, sink: &mut Sink<'_, W>) -> io::Result<()> {
        let g = &self.geometry;
        let volume = g.hidden * SECTOR;
        if g.hidden > 0 {
            sink.put(&mbr(g))?;
            sink.zeros_to(volume)?;
        }
        sink.put(&boot_sector(g))?;
        if g.kind == FatKind::Fat32 {
            // Both again at sector 6, where repair programs look for them.
            let info = fs_info(g, self.used_clusters());
            sink.put(&info)?;
            sink.zeros_to(volume + BACKUP_BOOT_SECTOR * SECTOR)?;
            sink.put(&boot_sector(g))?;
            sink.put(&info)?;
        }
        sink.zeros_to(volume + g.reserved_sectors * SECTOR)?;
        for copy in 1..=2 {
            self.fat(sink)?;
            sink.zeros_to(volume + (g.reserved_sectors + copy * g.fat_sectors) * SECTOR)?;
        }
        sink.origin = self.first_cluster_at();
        let mut records = Vec::new();
        for dir in self.dirs() {
            records.clear();
            self.records(dir, &mut records);
            sink.put(&records)?;
            if dir == 0 && g.kind != FatKind::Fat32 {
                let root = g.root_records as usize * RECORD;
                sink.zeros(root.saturating_sub(records.len()) as u64)?;
            } else {
                sink.align(g.cluster_bytes())?;
            }
        }
        Ok(())
    }

    fn dirs(&self) -> impl Iterator<Item = u32> {
        let is_dir = |node: &u32| matches!(self.tree.nodes[*node as usize].kind, Kind::Dir);
        self.order.iter().copied().filter(is_dir)
    }

    /// Where cluster 2 lies.
    fn first_cluster_at(&self) -> u64 {
        let g = &self.geometry;
        (g.disk_sectors() - g.clusters * g.cluster_sectors) * SECTOR
    }

    fn used_clusters(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.count)).sum()
    }

    /// One FAT: every chain is a run of adjacent clusters, in the order in which they were placed.
    fn fat<W: Write>(&self, sink: &mut Sink<'_, W>) -> io::Result<()> {
        let kind = self.geometry.kind;
        let mut table = FatEntries { sink, kind, half: None };
        let end = match kind {
            FatKind::Fat12 => 0xfff,
            FatKind::Fat16 => 0xffff,
            FatKind::Fat32 => 0x0fff_ffff,
        };
        // Entry 0 repeats the medium byte; entry 1 is an end mark whose upper bits say that the
        // volume was unmounted properly.
        table.put(end & !0xff | u32::from(MEDIUM))?;
        table.put(end)?;
        let files = self
            .order
            .iter()
            .copied()
            .filter(|node| matches!(self.tree.nodes[*node as usize].kind, Kind::File { .. }));
        for node in self.dirs().chain(files) {
            let Place { first, count } = self.places[node as usize];
            for next in first + 1..first + count {
                table.put(next)?;
            }
            if count > 0 {
                table.put(end)?;
            }
        }
        table.finish()
    }

    /// The records of a directory.
    fn records(&self, dir: u32, out: &mut Vec<u8>) {
        const VOLUME_LABEL: u8 = 0x08;
        const DIRECTORY: u8 = 0x10;
        const ARCHIVE: u8 = 0x20;
        let nodes = &self.tree.nodes;
        let stamp = |node: u32| Stamp::from_unix(nodes[node as usize].modified);
        let cluster = |node: u32| self.places[node as usize].first;
        if dir == 0 {
            push_record(out, &LABEL, VOLUME_LABEL, stamp(0), 0, 0);
        } else {
            let parent = nodes[dir as usize].parent;
            // The root is called 0 here, also where it has a cluster.
            let up = if parent == 0 { 0 } else { cluster(parent) };
            push_record(out, b".          ", DIRECTORY, stamp(dir), cluster(dir), 0);
            push_record(out, b"..         ", DIRECTORY, stamp(parent), up, 0);
        }
        // Checked when the image was planned: all names are UTF-8.
        let name = |node: u32| str::from_utf8(&nodes[node as usize].name).unwrap_or_default();
        let children = self.children.of(dir);
        let mut short_names = ShortNames::new(children.iter().map(|child| name(*child)));
        for &child in children {
            let short = short_names.get(name(child));
            push_long_name(out, name(child), &short);
            let (attributes, size) = match nodes[child as usize].kind {
                Kind::Dir => (DIRECTORY, 0),
                // Not more than 32 bits, checked as well.
                Kind::File { size, .. } => (ARCHIVE, size as u32),
            };
            push_record(out, &short, attributes, stamp(child), cluster(child), size);
        }
    }
}

/// A fixed disk, in the boot sector and the FAT.
const MEDIUM: u8 = 0xf8;
const BACKUP_BOOT_SECTOR: u64 = 6;
/// The geometry disks of this size claim to have; nothing depends on it any more.
const HEADS: u64 = 255;
const SECTORS_PER_TRACK: u64 = 63;

/// A sector with the mark of one that can be booted from.
fn boot_record() -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn set(sector: &mut [u8], at: usize, bytes: &[u8]) {
    sector[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The partition table: one partition, up to the end of the disk.
fn mbr(g: &Geometry) -> [u8; SECTOR as usize] {
    let mut sector = boot_record();
    // Kinds whose place is given by sector number rather than cylinder, head and sector.
    let kind = match g.kind {
        FatKind::Fat12 => 0x01,
        FatKind::Fat16 => 0x0e,
        FatKind::Fat32 => 0x0c,
    };
    set(&mut sector, 440, &SERIAL.to_le_bytes());
    let entry = &mut sector[446..462];
    set(entry, 1, &chs(g.hidden));
    entry[4] = kind;
    set(entry, 5, &chs(g.disk_sectors() - 1));
    set(entry, 8, &(g.hidden as u32).to_le_bytes());
    set(entry, 12, &(g.volume_sectors() as u32).to_le_bytes());
    sector
}

/// Head, sector and cylinder of a sector; the greatest there are for one beyond them.
fn chs(sector: u64) -> [u8; 3] {
    let cylinder = sector / (HEADS * SECTORS_PER_TRACK);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let head = sector / SECTORS_PER_TRACK % HEADS;
    let sector = sector % SECTORS_PER_TRACK + 1;
    [head as u8, (sector | cylinder >> 2 & 0xc0) as u8, cylinder as u8]
}

/// The boot sector, which describes the file system (specification, "Boot Sector and BPB").
fn boot_sector(g: &Geometry) -> [u8; SECTOR as usize] {
    let mut sector = boot_record();
    let s = &mut sector[..];
    let fat32 = g.kind == FatKind::Fat32;
    let extended = if fat32 { 64 } else { 36 };
    // A jump over the description to code that is not there, for programs that look for one.
    set(s, 0, &[0xeb, extended as u8 + 24, 0x90]);
    set(s, 3, b"vmtest  ");
    set(s, 11, &(SECTOR as u16).to_le_bytes());
    s[13] = g.cluster_sectors as u8;
    set(s, 14, &(g.reserved_sectors as u16).to_le_bytes());
    s[16] = 2; // FATs
    set(s, 17, &(g.root_records as u16).to_le_bytes());
    let volume_sectors = g.volume_sectors();
    match u16::try_from(volume_sectors) {
        Ok(few) if !fat32 => set(s, 19, &few.to_le_bytes()),
        _ => set(s, 32, &(volume_sectors as u32).to_le_bytes()),
    }
    s[21] = MEDIUM;
    set(s, 24, &(SECTORS_PER_TRACK as u16).to_le_bytes());
    set(s, 26, &(HEADS as u16).to_le_bytes());
    set(s, 28, &(g.hidden as u32).to_le_bytes());
    if fat32 {
        set(s, 36, &(g.fat_sectors as u32).to_le_bytes());
        set(s, 44, &2_u32.to_le_bytes()); // first cluster of the root
        set(s, 48, &1_u16.to_le_bytes()); // sector of the FSInfo
        set(s, 50, &(BACKUP_BOOT_SECTOR as u16).to_le_bytes());
    } else {
        set(s, 22, &(g.fat_sectors as u16).to_le_bytes());
    }
    s[extended] = 0x80; // a fixed disk, for the BIOS
    s[extended + 2] = 0x29; // the next three are there
    set(s, extended + 3, &SERIAL.to_le_bytes());
    set(s, extended + 7, &LABEL);
    set(
        s,
        extended + 18,
        match g.kind {
            FatKind::Fat12 => b"FAT12   ",
            FatKind::Fat16 => b"FAT16   ",
            FatKind::Fat32 => b"FAT32   ",
        },
    );
    sector
}

/// How many clusters are free and where; only FAT32 has it.
fn fs_info(g: &Geometry, used: u64) -> [u8; SECTOR as usize] {
    let mut sector = boot_record();
    let free = g.clusters - used;
    let next_free = if free > 0 { used as u32 + 2 } else { u32::MAX };
    set(&mut sector, 0, b"RRaA");
    set(&mut sector, 484, b"rrAa");
    set(&mut sector, 488, &(free as u32).to_le_bytes());
    set(&mut sector, 492, &next_free.to_le_bytes());
    sector
}

/// A directory record under its short name.
fn push_record(
    out: &mut Vec<u8>,
    name: &ShortName,
    attributes: u8,
    Stamp { date, time }: Stamp,
    cluster: u32,
    size: u32,
) {
    let mut record = [0; RECORD];
    let (date, time) = (date.to_le_bytes(), time.to_le_bytes());
    let cluster = cluster.to_le_bytes();
    set(&mut record, 0, name);
    record[11] = attributes;
    set(&mut record, 14, &time); // created
    set(&mut record, 16, &date);
    set(&mut record, 18, &date); // read
    set(&mut record, 20, &cluster[2..]);
    set(&mut record, 22, &time); // written
    set(&mut record, 24, &date);
    set(&mut record, 26, &cluster[..2]);
    set(&mut record, 28, &size.to_le_bytes());
    out.extend_from_slice(&record);
}

/// Packs FAT entries.
struct FatEntries<'s, 'w, W> {
    sink: &'s mut Sink<'w, W>,
    kind: FatKind,
    /// The first of two 12-bit entries that share three bytes.
    half: Option<u32>,
}

impl<W: Write> FatEntries<'_, '_, W> {
    fn put(&mut self, entry: u32) -> io::Result<()> {
        match self.kind {
            FatKind::Fat12 => match self.half.take() {
                None => {
                    self.half = Some(entry);
                    Ok(())
                }
                Some(first) => self.sink.put(&(first | entry << 12).to_le_bytes()[..3]),
            },
            FatKind::Fat16 => self.sink.put(&(entry as u16).to_le_bytes()),
            FatKind::Fat32 => self.sink.put(&entry.to_le_bytes()),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self.half {
            Some(last) => self.sink.put(&last.to_le_bytes()[..2]),
            None => Ok(()),
        }
    }
}

/// Collects output: small files cost a read each and no write.
struct Sink<'w, W> {
    out: &'w mut W,
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes that went out.
    flushed: u64,
    /// What [`Sink::align`] counts from.
    origin: u64,
}

enum Copied {
    Exactly,
    Shorter(u64),
    Longer,
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl<'w, W: Write> Sink<'w, W> {
    /// Small enough to stay in the processor's cache between being filled and being written.
    const BUFFER: usize = 256 << 10;

    fn new(out: &'w mut W) -> Sink<'w, W> {
        let buffer = vec![0; Self::BUFFER].into_boxed_slice();
        Sink { out, buffer, filled: 0, flushed: 0, origin: 0 }
    }

    fn position(&self) -> u64 {
        self.flushed + self.filled as u64
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer[..self.filled])?;
        self.flushed += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Free space of the buffer, never none.
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let len = bytes.len().min(space.len());
            space[..len].copy_from_slice(&bytes[..len]);
            self.filled += len;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let space = self.space()?;
            let len = usize::try_from(count).unwrap_or(usize::MAX).min(space.len());
            space[..len].fill(0);
            self.filled += len;
            count -= len as u64;
        }
        Ok(())
    }

    fn zeros_to(&mut self, position: u64) -> io::Result<()> {
        self.zeros(position.saturating_sub(self.position()))
    }

    /// Zeros up to a multiple of `unit`, counted from the origin.
    fn align(&mut self, unit: u64) -> io::Result<()> {
        let beyond = (self.position() - self.origin) % unit;
        self.zeros(if beyond == 0 { 0 } else { unit - beyond })
    }

    /// Copies `size` bytes, and looks whether there are more.
    fn copy<R: Read>(&mut self, body: &mut R, size: u64) -> Result<Copied, CopyError> {
        let mut left = size;
        while left > 0 {
            let space = self.space().map_err(CopyError::Write)?;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
            match read(body, &mut space[..len]).map_err(CopyError::Read)? {
                0 => return Ok(Copied::Shorter(size - left)),
                got => {
                    self.filled += got;
                    left -= got as u64;
                }
            }
        }
        match read(body, &mut [0]).map_err(CopyError::Read)? {
            0 => Ok(Copied::Exactly),
            _ => Ok(Copied::Longer),
        }
    }
}

fn read<R: Read>(body: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match body.read(buffer) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            // No more than the buffer holds, whatever the reader says.
            done => return done.map(|got| got.min(buffer.len())),
        }
    }
}
