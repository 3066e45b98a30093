//! The sections of programs and libraries, which tell what instrumentation they have.

use crate::named_file;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header;
use goblin::elf::section_header::SectionHeader;

/// No program has more sections than this.
const MAX_SECTIONS: u64 = 1 << 16;

/// Name, offset and size of each section.
type Table = Vec<(Vec<u8>, u64, u64)>;

/// An ELF file's table of sections.
#[derive(Debug)]
pub(super) struct Sections {
    file: File,
    length: u64,
    table: Table,
}

impl Sections {
    /// Reads the table; `None` if it is no ELF file or has none.
    pub(super) fn read(path: &Path) -> io::Result<Option<Sections>> {
        let file = named_file::open(path)?;
        let length = file.metadata()?.len();
        let mut head = [0; header::header64::SIZEOF_EHDR];
        // A file that is shorter than a header is no program.
        if file.read_exact_at(&mut head, 0).is_err() || head[..4] != *header::ELFMAG {
            return Ok(None);
        }
        Ok(table(&file, &head)?.map(|table| Sections { file, length, table }))
    }

    #[cfg(feature = "coverage")]
    pub(super) fn has(&self, section: &[u8]) -> bool {
        self.table.iter().any(|(name, ..)| name == section)
    }

    /// What is in a section; `None` if there is no such section, or if it is larger than `limit` or than
    /// the file.
    pub(super) fn bytes(&self, section: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
        let found = self.table.iter().find(|(name, ..)| name == section);
        let Some((_, offset, size)) = found else { return Ok(None) };
        let end = offset.checked_add(*size);
        if *size > limit || end.is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; *size as usize];
        self.file.read_exact_at(&mut bytes, *offset)?;
        Ok(Some(bytes))
    }
}

fn table(file: &File, head: &[u8]) -> io::Result<Option<Table>> {
    let container = match head[header::EI_CLASS] {
        header::ELFCLASS32 => Container::Little,
        header::ELFCLASS64 => Container::Big,
        _ => return Ok(None),
    };
    let endian = match head[header::EI_DATA] {
        header::ELFDATA2LSB => Endian::Little,
        header::ELFDATA2MSB => Endian::Big,
        _ => return Ok(None),
    };
    let ctx = Ctx::new(container, endian);
    let Ok(header) = goblin::elf::Elf::parse_header(head) else { return Ok(None) };
    let entry = SectionHeader::size(ctx) as u64;
    let count = u64::from(header.e_shnum);
    if header.e_shoff == 0 || count == 0 || count > MAX_SECTIONS {
        return Ok(None);
    }
    // For goblin an offset of 0 means that there are none: the table begins after one empty entry.
    let first = entry as usize;
    let mut bytes = vec![0; first + (count * entry) as usize];
    if file.read_exact_at(&mut bytes[first..], header.e_shoff).is_err() {
        return Ok(None);
    }
    let Ok(headers) = SectionHeader::parse(&bytes, first, count as usize, ctx) else {
        return Ok(None);
    };
    let Some(strings) = headers.get(usize::from(header.e_shstrndx)) else { return Ok(None) };
    let mut names = Vec::new();
    let mut from = File::try_clone(file)?;
    io::Seek::seek(&mut from, io::SeekFrom::Start(strings.sh_offset))?;
    from.take(strings.sh_size.min(MAX_SECTIONS * 64)).read_to_end(&mut names)?;
    let name = |at: usize| {
        let rest = names.get(at..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    };
    let found =
        headers.iter().map(|section| (name(section.sh_name), section.sh_offset, section.sh_size));
    Ok(Some(found.collect()))
}
