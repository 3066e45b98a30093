//! What a dynamic loader reads of an ELF file: header, program headers, dynamic section, notes.

/// How much an object wants a library that it opens at run time (`.note.dlopen`).
///
/// Ordered: `Suggested < Recommended < Required`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Extends the object.
    Suggested,
    /// Needed for what most users expect; the default of the format.
    Recommended,
    /// The object does not work without it.
    Required,
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    #[error("no ELF magic")]
    NotElf,
}
