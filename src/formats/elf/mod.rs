//! What a dynamic loader reads of an ELF file: header, program headers, dynamic section, notes.
//!
//! Section headers, symbols and relocations are never looked at, so stripped files work, also those
//! without section headers (`sstrip`); and a file is read by ranges, a few KiB of it, however big
//! it is. goblin decodes headers and entries; every offset, size and count is checked here first,
//! since its eager parse trusts them.
//!
//! | limit | value | why |
//! |---|---|---|
//! | program headers | 64 KiB | the kernel's own limit (`ELF_MIN_ALIGN`) for programs |
//! | dynamic section, notes (sum) | 1 MiB each | a thousand times what linkers write |
//! | one string | 64 KiB | search paths of Nix programs have several KiB |
//! | all strings of a file | 1 MiB | entries may repeat one string |
//!
//! References: gabi 4.1, `elf(5)`, <https://uapi-group.org/specifications/specs/elf_dlopen_metadata/>.

use std::fmt;
use std::io;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::dynamic::{self, Dynamic};
use goblin::elf::program_header::{self, ProgramHeader};
use goblin::elf::{Elf, Header, header};
use serde::Deserialize;

/// The first four bytes of every ELF file.
pub const MAGIC: [u8; 4] = *b"\x7fELF";

const MAX_PHDRS: u64 = 64 << 10;
const MAX_DYNAMIC: u64 = 1 << 20;
const MAX_NOTES: u64 = 1 << 20;
const MAX_STRING: u64 = 64 << 10;
const MAX_STRINGS: usize = 1 << 20;
/// Headers, interpreter and notes of nearly every file are in its first page.
const HEAD: u64 = 4096;

/// Owner and type of a dlopen note.
const NOTE_DLOPEN: (&[u8], u32) = (b"FDO\0", 0x407c_0c0a);

/// Sun's tags for filters (`elf.h` of glibc), which goblin does not know.
const DT_FILTER: u64 = 0x7fff_ffff;
const DT_AUXILIARY: u64 = 0x7fff_fffd;

/// A file to read by ranges.
pub trait ReadAt {
    /// Its length in bytes.
    fn size(&self) -> u64;

    /// Reads at `offset` into `buf`; fewer bytes than asked for are allowed, 0 means the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// What a loader knows about one ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfInfo {
    /// `ELFCLASS64`, else `ELFCLASS32`.
    pub class64: bool,
    /// `ELFDATA2LSB`, else `ELFDATA2MSB`.
    pub little_endian: bool,
    /// `e_machine`.
    pub machine: u16,
    /// `EI_OSABI`.
    pub osabi: u8,
    /// `e_flags`; on arm and riscv64 they tell the float ABI.
    pub flags: u32,
    /// `e_type`.
    pub kind: ElfKind,
    /// `PT_INTERP`, without the final NUL.
    pub interp: Option<Vec<u8>>,
    /// `DT_SONAME`.
    pub soname: Option<Vec<u8>>,
    /// `DT_NEEDED`, in the order of the file.
    pub needed: Vec<Vec<u8>>,
    /// `DT_FILTER`, in the order of the file: objects that have what this one promises.
    pub filters: Vec<Vec<u8>>,
    /// `DT_AUXILIARY`: the same, where they are there.
    pub auxiliary: Vec<Vec<u8>>,
    /// `DT_RPATH`, as it stands.
    pub rpath: Option<Vec<u8>>,
    /// `DT_RUNPATH`, as it stands.
    pub runpath: Option<Vec<u8>>,
    /// `DF_1_NODEFLIB`: the loader's own directories are not searched.
    pub nodeflib: bool,
    /// `.note.dlopen` entries, in the order of the file.
    pub dlopen: Vec<DlopenNote>,
    /// Notes that could not be understood. The loader ignores them too, so the file is usable.
    pub bad_notes: Vec<String>,
    /// Where the last loaded segment ends in the file; a shorter file is truncated.
    pub load_end: u64,
}

/// The type of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfKind {
    /// `ET_REL`: an object file or a kernel module.
    Rel,
    /// `ET_EXEC`: a program with a fixed address.
    Exec,
    /// `ET_DYN`: a shared object or a position-independent program.
    Dyn,
    /// `ET_CORE`.
    Core,
    /// Anything else.
    Other(u16),
}

/// A library that an object opens at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DlopenNote {
    /// Alternatives, best first.
    pub soname: Vec<String>,
    /// How much it is wanted; `recommended` if the note does not say.
    pub priority: Priority,
    /// The feature it is for.
    pub feature: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// How much an object wants a library that it opens at run time (`.note.dlopen`).
///
/// Ordered: `Suggested < Recommended < Required`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Extends the object.
    Suggested,
    /// Needed for what most users expect; the default of the format.
    #[default]
    Recommended,
    /// The object does not work without it.
    Required,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Priority::Suggested => "suggested",
            Priority::Recommended => "recommended",
            Priority::Required => "required",
        })
    }
}

/// Why an ELF file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file does not start with the ELF magic.
    #[error("no ELF magic at offset 0")]
    NotElf,
    /// Something lies behind the end of the file.
    #[error("{what} at offset {offset:#x} ends at {end:#x}, the file at {size:#x}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        size: u64,
    },
    /// Something is larger than any real file has it.
    #[error("{what} at offset {offset:#x} claims {len} bytes, more than {limit}")]
    TooLarge {
        /// What was to be read.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// The length that the file claims.
        len: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A value that makes no sense.
    #[error("{what} at offset {offset:#x}: {value:#x}")]
    Bad {
        /// Which value.
        what: &'static str,
        /// Where it, or the table it is in, starts.
        offset: u64,
        /// The value.
        value: u64,
    },
    /// The file could not be read.
    #[error("reading {what} at offset {offset:#x}")]
    Read {
        /// What was to be read.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads what a loader reads.
///
/// # Errors
/// No ELF file, or one with values that cannot be.
pub fn parse<F: ReadAt + ?Sized>(file: &F) -> Result<ElfInfo, ElfError> {
    let reader = Reader::new(file)?;
    let (header, ctx) = parse_header(&reader)?;
    let mut info = ElfInfo {
        class64: ctx.container.is_big(),
        little_endian: ctx.le.is_little(),
        machine: header.e_machine,
        osabi: header.e_ident[header::EI_OSABI],
        flags: header.e_flags,
        kind: match header.e_type {
            header::ET_REL => ElfKind::Rel,
            header::ET_EXEC => ElfKind::Exec,
            header::ET_DYN => ElfKind::Dyn,
            header::ET_CORE => ElfKind::Core,
            other => ElfKind::Other(other),
        },
        interp: None,
        soname: None,
        needed: Vec::new(),
        filters: Vec::new(),
        auxiliary: Vec::new(),
        rpath: None,
        runpath: None,
        nodeflib: false,
        dlopen: Vec::new(),
        bad_notes: Vec::new(),
        load_end: 0,
    };
    if !matches!(info.kind, ElfKind::Exec | ElfKind::Dyn) {
        return Ok(info);
    }
    let phdrs = program_headers(&reader, &header, ctx)?;
    let mut notes_left = MAX_NOTES;
    for ph in &phdrs {
        match ph.p_type {
            program_header::PT_LOAD => {
                info.load_end = info.load_end.max(ph.p_offset.saturating_add(ph.p_filesz));
            }
            program_header::PT_INTERP if info.interp.is_none() => {
                let bytes = reader.range("interpreter", ph.p_offset, ph.p_filesz, MAX_STRING)?;
                let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
                info.interp = Some(bytes[..end].to_vec());
            }
            program_header::PT_NOTE => {
                let bytes = reader.range("notes", ph.p_offset, ph.p_filesz, notes_left)?;
                notes_left -= ph.p_filesz;
                let align = if ph.p_align == 8 { 8 } else { 4 };
                read_notes(&bytes, align, ph.p_offset, &mut info);
            }
            _ => {}
        }
    }
    if let Some(ph) = phdrs.iter().find(|ph| ph.p_type == program_header::PT_DYNAMIC) {
        read_dynamic(&reader, ph, &phdrs, ctx, &mut info)?;
    }
    Ok(info)
}

/// Ranges of a file, the first page kept.
struct Reader<'a, F: ?Sized> {
    file: &'a F,
    size: u64,
    head: Vec<u8>,
}

impl<'a, F: ReadAt + ?Sized> Reader<'a, F> {
    fn new(file: &'a F) -> Result<Reader<'a, F>, ElfError> {
        let size = file.size();
        let mut reader = Reader { file, size, head: Vec::new() };
        reader.head = reader.read("header", 0, size.min(HEAD))?;
        Ok(reader)
    }

    /// `len` bytes at `offset`, all of them inside of the file and no more than `limit`.
    fn range(
        &self,
        what: &'static str,
        offset: u64,
        len: u64,
        limit: u64,
    ) -> Result<Vec<u8>, ElfError> {
        if len > limit {
            return Err(ElfError::TooLarge { what, offset, len, limit });
        }
        let end = offset.saturating_add(len);
        if end > self.size {
            return Err(ElfError::Truncated { what, offset, end, size: self.size });
        }
        if let Some(bytes) = usize::try_from(end)
            .ok()
            .and_then(|end| self.head.get(usize::try_from(offset).ok()?..end))
        {
            return Ok(bytes.to_vec());
        }
        self.read(what, offset, len)
    }

    /// `len` is limited by the caller.
    fn read(&self, what: &'static str, offset: u64, len: u64) -> Result<Vec<u8>, ElfError> {
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(offset + done as u64, &mut bytes[done..]) {
                Ok(0) => {
                    let size = offset + done as u64;
                    return Err(ElfError::Truncated { what, offset, end: offset + len, size });
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ElfError::Read { what, offset, source }),
            }
        }
        Ok(bytes)
    }
}

fn parse_header<F: ReadAt + ?Sized>(reader: &Reader<'_, F>) -> Result<(Header, Ctx), ElfError> {
    let head = &reader.head;
    if !head.starts_with(&MAGIC) {
        return Err(ElfError::NotElf);
    }
    let bad = |what, offset: usize| ElfError::Bad {
        what,
        offset: offset as u64,
        value: head.get(offset).copied().unwrap_or_default().into(),
    };
    let (container, len) = match head.get(header::EI_CLASS) {
        Some(&header::ELFCLASS64) => (Container::Big, 64),
        Some(&header::ELFCLASS32) => (Container::Little, 52),
        _ => return Err(bad("ELF class", header::EI_CLASS)),
    };
    let endian = match head.get(header::EI_DATA) {
        Some(&header::ELFDATA2LSB) => Endian::Little,
        Some(&header::ELFDATA2MSB) => Endian::Big,
        _ => return Err(bad("ELF byte order", header::EI_DATA)),
    };
    if (head.len() as u64) < len {
        let size = reader.size;
        return Err(ElfError::Truncated { what: "ELF header", offset: 0, end: len, size });
    }
    let header = Elf::parse_header(head).map_err(|_| bad("ELF header", 0))?;
    Ok((header, Ctx::new(container, endian)))
}

fn program_headers<F: ReadAt + ?Sized>(
    reader: &Reader<'_, F>,
    header: &Header,
    ctx: Ctx,
) -> Result<Vec<ProgramHeader>, ElfError> {
    let count = usize::from(header.e_phnum);
    if count == 0 {
        return Err(ElfError::Bad { what: "number of program headers", offset: 0, value: 0 });
    }
    let size = ProgramHeader::size(ctx);
    if usize::from(header.e_phentsize) != size {
        let value = header.e_phentsize.into();
        return Err(ElfError::Bad { what: "size of a program header", offset: 0, value });
    }
    let offset = header.e_phoff;
    let bytes = reader.range("program headers", offset, (count * size) as u64, MAX_PHDRS)?;
    ProgramHeader::parse(&bytes, 0, count, ctx).map_err(|_| ElfError::Bad {
        what: "program headers",
        offset,
        value: count as u64,
    })
}

fn read_dynamic<F: ReadAt + ?Sized>(
    reader: &Reader<'_, F>,
    ph: &ProgramHeader,
    phdrs: &[ProgramHeader],
    ctx: Ctx,
    info: &mut ElfInfo,
) -> Result<(), ElfError> {
    let offset = ph.p_offset;
    let bytes = reader.range("dynamic section", offset, ph.p_filesz, MAX_DYNAMIC)?;
    // goblin wants the whole file; give it a file that is the dynamic section alone.
    let alone = ProgramHeader {
        p_type: program_header::PT_DYNAMIC,
        p_filesz: bytes.len() as u64,
        ..ProgramHeader::default()
    };
    let bad = |what, value| ElfError::Bad { what, offset, value };
    let dynamic = Dynamic::parse(&bytes, std::slice::from_ref(&alone), ctx)
        .map_err(|_| bad("dynamic section", ph.p_filesz))?
        .map(|dynamic| dynamic.dyns)
        .unwrap_or_default();

    let value = |tag| dynamic.iter().find(|d| d.d_tag == tag).map(|d| d.d_val);
    info.nodeflib = value(dynamic::DT_FLAGS_1).is_some_and(|f| f & dynamic::DF_1_NODEFLIB != 0);
    let named: Vec<u64> = dynamic
        .iter()
        .filter(|d| {
            matches!(
                d.d_tag,
                dynamic::DT_NEEDED
                    | dynamic::DT_SONAME
                    | dynamic::DT_RPATH
                    | dynamic::DT_RUNPATH
                    | DT_FILTER
                    | DT_AUXILIARY
            )
        })
        .map(|d| d.d_val)
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    let address =
        value(dynamic::DT_STRTAB).ok_or_else(|| bad("dynamic section without DT_STRTAB", 0))?;
    let start = file_offset(phdrs, address).ok_or_else(|| bad("address of strings", address))?;
    let rest = reader.size.saturating_sub(start);
    let size = value(dynamic::DT_STRSZ).unwrap_or(rest);
    if size > rest {
        let end = start.saturating_add(size);
        return Err(ElfError::Truncated {
            what: "string table",
            offset: start,
            end,
            size: reader.size,
        });
    }
    let mut strings = Strings { reader, start, size, window: (0, Vec::new()), total: 0 };
    strings.look_ahead(&named)?;
    for entry in &dynamic {
        match entry.d_tag {
            dynamic::DT_NEEDED => info.needed.push(strings.get(entry.d_val)?),
            DT_FILTER => info.filters.push(strings.get(entry.d_val)?),
            DT_AUXILIARY => info.auxiliary.push(strings.get(entry.d_val)?),
            dynamic::DT_SONAME => info.soname = Some(strings.get(entry.d_val)?),
            dynamic::DT_RPATH => info.rpath = Some(strings.get(entry.d_val)?),
            dynamic::DT_RUNPATH => info.runpath = Some(strings.get(entry.d_val)?),
            _ => {}
        }
    }
    Ok(())
}

/// Where in the file the byte with this address is.
fn file_offset(phdrs: &[ProgramHeader], address: u64) -> Option<u64> {
    phdrs
        .iter()
        .filter(|ph| ph.p_type == program_header::PT_LOAD)
        .find_map(|ph| {
            let inside = address.checked_sub(ph.p_vaddr).filter(|at| *at < ph.p_filesz)?;
            Some(ph.p_offset.checked_add(inside))
        })
        .flatten()
}

/// The string table, of which only the strings asked for are read: it may have megabytes.
struct Strings<'a, F: ?Sized> {
    reader: &'a Reader<'a, F>,
    start: u64,
    size: u64,
    /// Offset in the table, and the bytes there.
    window: (u64, Vec<u8>),
    total: usize,
}

impl<F: ReadAt + ?Sized> Strings<'_, F> {
    /// Reads the part of the table with all of the strings at once if they are near each other.
    fn look_ahead(&mut self, offsets: &[u64]) -> Result<(), ElfError> {
        let (Some(&first), Some(&last)) = (offsets.iter().min(), offsets.iter().max()) else {
            return Ok(());
        };
        let end = last.saturating_add(256).min(self.size);
        if first < end && end - first <= 16 << 10 {
            self.window = (first, self.read(first, end - first)?);
        }
        Ok(())
    }

    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, ElfError> {
        self.reader.range("string", self.start.saturating_add(at), len, MAX_STRING)
    }

    fn get(&mut self, at: u64) -> Result<Vec<u8>, ElfError> {
        let bad = |value| ElfError::Bad { what: "offset of a string", offset: self.start, value };
        let rest = self.size.checked_sub(at).ok_or_else(|| bad(at))?;
        let known = at
            .checked_sub(self.window.0)
            .and_then(|skip| self.window.1.get(usize::try_from(skip).ok()?..))
            .unwrap_or_default();
        let string = match until_nul(known) {
            Some(string) => string.to_vec(),
            None => {
                let short = self.read(at, rest.min(512))?;
                match until_nul(&short) {
                    Some(string) => string.to_vec(),
                    None => {
                        let long = self.read(at, rest.min(MAX_STRING))?;
                        until_nul(&long).ok_or_else(|| bad(at))?.to_vec()
                    }
                }
            }
        };
        self.total += string.len();
        if self.total > MAX_STRINGS {
            return Err(ElfError::TooLarge {
                what: "names in the dynamic section",
                offset: self.start,
                len: self.total as u64,
                limit: MAX_STRINGS as u64,
            });
        }
        Ok(string)
    }
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.iter().position(|&b| b == 0).map(|end| &bytes[..end])
}

/// Takes the dlopen entries out of one note segment that starts at `offset` of the file.
fn read_notes(bytes: &[u8], align: usize, offset: u64, info: &mut ElfInfo) {
    let mut at = 0_usize;
    while bytes.len() - at >= 12 {
        let word = |i: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at + 4 * i..at + 4 * i + 4]);
            if info.little_endian { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }
        };
        let (name_len, desc_len, kind) = (word(0) as usize, word(1) as usize, word(2));
        let padded = |at: usize| at.checked_next_multiple_of(align);
        let parts = (|| {
            let name = bytes.get(at + 12..(at + 12).checked_add(name_len)?)?;
            let start = padded((at + 12).checked_add(name_len)?)?;
            let end = start.checked_add(desc_len)?;
            Some((name, bytes.get(start..end)?, padded(end)?))
        })();
        let Some((name, desc, next)) = parts else {
            info.bad_notes.push(format!("note at offset {:#x} has no end", offset + at as u64));
            return;
        };
        if (name, kind) == NOTE_DLOPEN {
            match parse_dlopen(desc) {
                Ok(notes) => info.dlopen.extend(notes),
                Err(e) => info
                    .bad_notes
                    .push(format!("dlopen note at offset {:#x}: {e}", offset + at as u64)),
            }
        }
        if next >= bytes.len() {
            return;
        }
        at = next;
    }
}

/// Reads the JSON of a dlopen note: an array of objects, or the older single object.
///
/// # Errors
/// No such JSON.
pub fn parse_dlopen(desc: &[u8]) -> Result<Vec<DlopenNote>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        Many(Vec<T>),
        One(T),
    }
    impl<T> OneOrMany<T> {
        fn into_vec(self) -> Vec<T> {
            match self {
                OneOrMany::Many(many) => many,
                OneOrMany::One(one) => vec![one],
            }
        }
    }
    #[derive(Deserialize)]
    struct Entry {
        soname: OneOrMany<String>,
        #[serde(default)]
        priority: Priority,
        feature: Option<String>,
        description: Option<String>,
    }
    let end = desc.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    let entries: OneOrMany<Entry> = serde_json::from_slice(&desc[..end])?;
    let note = |entry: Entry| DlopenNote {
        soname: entry.soname.into_vec(),
        priority: entry.priority,
        feature: entry.feature,
        description: entry.description,
    };
    Ok(entries.into_vec().into_iter().map(note).collect())
}

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;
