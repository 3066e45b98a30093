//! A kernel or module with its symbols and debug information.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use gimli::{EndianReader, RunTimeEndian};
use object::read::{Object, ObjectSection, ObjectSymbol};
use object::{CompressionFormat, SectionKind, SymbolKind};

use super::super::frame::{self, Location};
use super::super::text;
use super::relocate;

/// The largest debug section that is decompressed.
const MAX_SECTION_BYTES: u64 = 4 << 30;

type Bytes = EndianReader<RunTimeEndian, Arc<[u8]>>;

/// An ELF file that can say where its functions come from.
pub struct Image {
    context: addr2line::Context<Bytes>,
    functions: HashMap<String, Vec<Function>>,
    build_id: Option<String>,
    has_lines: bool,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    /// As the file says it.
    size: u64,
    /// Up to the next symbol: what the kernel takes for the size.
    reach: u64,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is no ELF file, or a damaged one.
    #[error("it is no ELF file")]
    Elf(#[source] object::Error),
    /// Its debug information cannot be read.
    #[error("its debug information cannot be read")]
    Dwarf(#[source] gimli::Error),
    /// A section's compressed bytes are damaged, too large, or in an unknown form.
    #[error("section `{name}` cannot be decompressed")]
    Compressed {
        /// The section.
        name: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

impl ImageError {
    /// How to fix it.
    pub fn hint(&self) -> &'static str {
        match self {
            ImageError::Elf(_) => {
                "give the vmlinux of the build tree or of the distribution's debug package, not a bzImage"
            }
            _ => "build or fetch the file again",
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("functions", &self.functions.len())
            .field("build_id", &self.build_id)
            .field("has_lines", &self.has_lines)
            .finish_non_exhaustive()
    }
}

impl Image {
    /// Reads a file's bytes: a linked kernel, or a module, whose sections get addresses here.
    ///
    /// # Errors
    /// [`ImageError`]. A file without debug information is no error: [`Image::has_lines`] says so.
    pub fn parse(bytes: &Arc<[u8]>) -> Result<Image, ImageError> {
        let file = object::File::parse(&**bytes).map_err(ImageError::Elf)?;
        let bases = bases(&file);
        let address = |index: object::SectionIndex| bases.get(&index.0).copied().unwrap_or(0);
        let endian =
            if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let dwarf = gimli::Dwarf::load(|id| {
            section(&file, bytes, id.name(), &address).map(|bytes| match bytes {
                Some(bytes) => bytes.reader(endian),
                None => EndianReader::new(Arc::from([]), endian),
            })
        })?;
        let has_lines = file.section_by_name(".debug_line").is_some();
        let context = addr2line::Context::from_dwarf(dwarf).map_err(ImageError::Dwarf)?;
        let build_id = file.build_id().ok().flatten();
        let build_id =
            build_id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        Ok(Image { context, functions: functions(&file, &address), build_id, has_lines })
    }

    /// The build id in hex digits, if it has one.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// Whether it has debug information.
    pub fn has_lines(&self) -> bool {
        self.has_lines
    }

    /// The address of a function's byte. Functions of one name are told apart by the size that the log
    /// says; when none has this size, the only one of the name is taken.
    pub(super) fn address(&self, name: &str, offset: u64, size: Option<u64>) -> Option<u64> {
        let all = self.functions.get(name)?;
        let fits = |function: &&Function| {
            size.is_none_or(|size| function.size == size || function.reach == size)
        };
        let mut fitting = all.iter().filter(fits);
        let function = match (fitting.next(), fitting.next(), all.as_slice()) {
            (Some(one), None, _) => one,
            (None, _, [only]) => only,
            _ => return None,
        };
        function.address.checked_add(offset)
    }

    /// The functions that are at an address and their lines: the innermost inlined one first.
    pub(super) fn locations(&self, address: u64) -> Vec<Location> {
        let Ok(mut frames) = self.context.find_frames(address).skip_all_loads() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        // Bounded: a lying file may nest without end.
        while let (Ok(Some(frame)), true) = (frames.next(), found.len() < 64) {
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            let place = frame.location.as_ref();
            found.push(Location {
                function: name.map(|name| frame::readable(&name)),
                file: place.and_then(|place| place.file).map(text::clean_str),
                line: place.and_then(|place| place.line),
                column: place.and_then(|place| place.column),
            });
        }
        found
    }
}

/// Where a file's sections are: in a module nowhere yet, so one behind the other.
fn bases(file: &object::File<'_>) -> HashMap<usize, u64> {
    if file.kind() != object::ObjectKind::Relocatable {
        return HashMap::new();
    }
    let mut next: u64 = 0x1_0000;
    let mut bases = HashMap::new();
    for section in file.sections() {
        if matches!(
            section.kind(),
            SectionKind::Text | SectionKind::Data | SectionKind::ReadOnlyData
        ) {
            bases.insert(section.index().0, next);
            let size = section.size().min(1 << 32);
            next = next.saturating_add(size).saturating_add(0x1000) & !0xfff;
        }
    }
    bases
}

fn functions(
    file: &object::File<'_>,
    address: &dyn Fn(object::SectionIndex) -> u64,
) -> HashMap<String, Vec<Function>> {
    let mut all: Vec<(u64, u64, &str)> = file
        .symbols()
        .filter(|symbol| {
            matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label)
        })
        .filter_map(|symbol| {
            let base = address(symbol.section_index()?);
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some((base.wrapping_add(symbol.address()), symbol.size(), name))
        })
        .collect();
    all.sort_unstable();
    let mut functions: HashMap<String, Vec<Function>> = HashMap::with_capacity(all.len());
    let mut next = None;
    for at in (0..all.len()).rev() {
        let (address, size, name) = all[at];
        if all.get(at + 1).is_some_and(|later| later.0 > address) {
            next = Some(all[at + 1].0);
        }
        let reach = next.map_or(size, |next: u64| next - address);
        functions.entry(name.to_owned()).or_default().push(Function { address, size, reach });
    }
    functions
}

/// A section's bytes: a part of the file, or made of it.
enum Section {
    Part(Arc<[u8]>, std::ops::Range<usize>),
    Own(Arc<[u8]>),
}

impl Section {
    fn reader(self, endian: RunTimeEndian) -> Bytes {
        match self {
            Section::Part(bytes, range) => EndianReader::new(bytes, endian).range(range),
            Section::Own(bytes) => EndianReader::new(bytes, endian),
        }
    }
}

fn section(
    file: &object::File<'_>,
    bytes: &Arc<[u8]>,
    name: &str,
    address: &dyn Fn(object::SectionIndex) -> u64,
) -> Result<Option<Section>, ImageError> {
    let Some(section) = file.section_by_name(name) else { return Ok(None) };
    let range = section.compressed_file_range().map_err(ImageError::Elf)?;
    let moved = file.kind() == object::ObjectKind::Relocatable;
    let within = usize::try_from(range.offset).ok().and_then(|start| {
        let end = start.checked_add(usize::try_from(range.compressed_size).ok()?)?;
        (end <= bytes.len()).then_some(start..end)
    });
    let Some(within) = within else { return Ok(None) };
    if range.format == CompressionFormat::None && !moved {
        return Ok(Some(Section::Part(Arc::clone(bytes), within)));
    }
    let mut own = decompress(&bytes[within], range.format, name)?;
    if moved {
        relocate::apply(file, &section, &mut own, address);
    }
    Ok(Some(Section::Own(own.into())))
}

fn decompress(bytes: &[u8], format: CompressionFormat, name: &str) -> Result<Vec<u8>, ImageError> {
    let failed = |source| ImageError::Compressed { name: name.to_owned(), source };
    let reader: Box<dyn Read + '_> = match format {
        CompressionFormat::None => Box::new(bytes),
        CompressionFormat::Zlib => Box::new(flate2::read::ZlibDecoder::new(bytes)),
        CompressionFormat::Zstandard => Box::new(zstd::Decoder::new(bytes).map_err(failed)?),
        _ => return Err(failed(std::io::ErrorKind::Unsupported.into())),
    };
    let mut own = Vec::new();
    let limit = MAX_SECTION_BYTES;
    let length = reader.take(limit + 1).read_to_end(&mut own).map_err(failed)?;
    if length as u64 > limit {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(own)
}
