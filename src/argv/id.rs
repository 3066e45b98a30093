//! Ids for QEMU's options.

use std::collections::BTreeMap;

/// Hands out ids that do not repeat within one machine.
///
/// The same prefixes in the same order give the same ids, so that argv is deterministic.
#[derive(Clone, Debug, Default)]
pub struct IdAllocator {
    next: BTreeMap<String, u32>,
}

impl IdAllocator {
    /// An allocator that has handed out nothing.
    pub fn new() -> IdAllocator {
        IdAllocator::default()
    }

    /// The next id for `prefix`: the prefix and a number that counts from 0. Digits at the prefix's
    /// end are not part of it, or `pipe` and `pipe1` could both become `pipe12`.
    pub fn id(&mut self, prefix: &str) -> String {
        let stem = prefix.trim_end_matches(|c: char| c.is_ascii_digit());
        let next = self.next.entry(stem.to_owned()).or_default();
        let id = format!("{stem}{next}");
        *next += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_reference() {
        let mut ids = IdAllocator::new();
        let prefixes = ["pipe", "pipe", "pipe0", "pipe45", "0pipe34", "pip", "id", "pip"];
        let got: Vec<String> = prefixes.iter().map(|prefix| ids.id(prefix)).collect();
        assert_eq!(
            got,
            ["pipe0", "pipe1", "pipe2", "pipe3", "0pipe0", "pip0", "id0", "pip1"],
            "the list of hugelgupf/vmtest's own test"
        );
    }
}
