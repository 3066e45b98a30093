//! What depmod and modpost write about kernel modules: text files and the `.modinfo` section.
//!
//! | input | line or entry |
//! |---|---|
//! | `modules.dep` | `PATH: PATH…`, the dependencies so that the last one is loaded first |
//! | `modules.softdep` | `softdep NAME pre: NAME… post: NAME…` |
//! | `modules.weakdep` | `weakdep NAME NAME…` |
//! | `modules.alias` | `alias PATTERN NAME` |
//! | `modules.builtin` | `PATH` |
//! | `modules.builtin.modinfo`, `.modinfo` | `KEY=VALUE`, each ended by NUL; the first with `NAME.` before KEY |
//!
//! In names `-` and `_` are the same; [`normal_name`] makes them `_`. Lines that cannot be
//! understood are left out, as kmod does.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::section_header::SectionHeader;
use goblin::elf::{Elf, header, section_header};

use super::glob;

/// The suffixes of module files, longest first.
const SUFFIXES: [&str; 4] = [".ko.zst", ".ko.gz", ".ko.xz", ".ko"];

/// `name` as the kernel spells it: `-` becomes `_`, except in the brackets of a pattern.
pub fn normal_name(name: &str) -> String {
    let mut bracket = false;
    name.chars()
        .map(|c| {
            match c {
                '[' => bracket = true,
                ']' => bracket = false,
                '-' if !bracket => return '_',
                _ => {}
            }
            c
        })
        .collect()
}

/// The name of the module in the file `path`, `None` if that is no module file.
pub fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = SUFFIXES.iter().find_map(|suffix| file.strip_suffix(suffix))?;
    (!stem.is_empty()).then(|| stem.replace('-', "_"))
}

/// The lines of `modules.dep`: a module's path and the paths it depends on, in the file's order.
pub fn dep_lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (path, deps) = line.split_once(':')?;
        Some((path.trim(), deps.trim()))
    })
}

/// Soft dependencies of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftDep {
    /// The module, normalised.
    pub name: String,
    /// Names or aliases to load before it.
    pub pre: Vec<String>,
    /// Names or aliases to load after it.
    pub post: Vec<String>,
}

/// The lines of `modules.softdep`; a module may have several.
///
/// Names before the first `pre:` or `post:` mean nothing to kmod (`cifs` has such lines).
pub fn softdeps(text: &str) -> impl Iterator<Item = SoftDep> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? != "softdep" {
            return None;
        }
        let name = normal_name(words.next()?);
        Some(softdep_words(name, words))
    })
}

/// The value of `softdep=` in `.modinfo`: what [`softdeps`] has after the name.
pub fn softdep_value(name: &str, value: &str) -> SoftDep {
    softdep_words(normal_name(name), value.split_whitespace())
}

fn softdep_words<'a>(name: String, words: impl Iterator<Item = &'a str>) -> SoftDep {
    let mut soft = SoftDep { name, ..SoftDep::default() };
    let mut post = None;
    for word in words {
        match (word, post) {
            ("pre:", _) => post = Some(false),
            ("post:", _) => post = Some(true),
            (name, Some(false)) => soft.pre.push(normal_name(name)),
            (name, Some(true)) => soft.post.push(normal_name(name)),
            (_, None) => {}
        }
    }
    soft
}

/// The lines of `modules.weakdep`: a module and names or aliases it may want.
pub fn weakdeps(text: &str) -> impl Iterator<Item = (String, Vec<String>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? != "weakdep" {
            return None;
        }
        Some((normal_name(words.next()?), words.map(normal_name).collect()))
    })
}

/// The modules of which an alias in `modules.alias` matches, in the order of the file; `alias` is
/// normalised.
pub fn find_aliases<'a>(text: &'a str, alias: &str) -> Vec<&'a str> {
    // There are tens of thousands of patterns: most differ before their first wildcard.
    let likely = |pattern: &str| {
        let fixed = pattern.bytes().take_while(|b| !matches!(b, b'*' | b'?' | b'[' | b'\\'));
        let mut alias = alias.bytes();
        fixed.map(|b| if b == b'-' { b'_' } else { b }).all(|b| alias.next() == Some(b))
    };
    let matching = |pattern: &str| {
        likely(pattern) && glob::matches(normal_name(pattern).as_bytes(), alias.as_bytes())
    };
    let lines = text.lines().filter_map(|line| line.strip_prefix("alias ")?.split_once(' '));
    lines.filter(|(pattern, _)| matching(pattern)).map(|(_, name)| name.trim()).collect()
}

/// The names in `modules.builtin`.
pub fn builtin(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| module_name(line.trim()))
}

/// The entries of `modules.builtin.modinfo`: module, key, value.
pub fn builtin_modinfo(bytes: &[u8]) -> impl Iterator<Item = (&str, &str, &str)> {
    entries(bytes).filter_map(|(key, value)| {
        let (module, key) = key.split_once('.')?;
        Some((module, key, value))
    })
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    bytes.split(|&b| b == 0).filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
}

/// What a module file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModInfo {
    /// `ELFCLASS64`.
    pub class64: bool,
    /// `ELFDATA2LSB`.
    pub little_endian: bool,
    /// `e_machine`.
    pub machine: u16,
    /// Whether it has versions of the symbols that it uses (`__versions`). A kernel with
    /// `CONFIG_MODVERSIONS` compares those, and not its release with that in `vermagic=`.
    pub versioned: bool,
    /// Keys and values in the order of the file.
    pub entries: Vec<(String, String)>,
}

impl ModInfo {
    /// All values of `key`, in the order of the file.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The modules of `depends=`, normalised.
    pub fn depends(&self) -> Vec<String> {
        let names = self.values("depends").flat_map(|value| value.split(','));
        names.filter(|name| !name.is_empty()).map(normal_name).collect()
    }

    /// The kernel release at the start of `vermagic=`.
    pub fn release(&self) -> Option<&str> {
        self.values("vermagic").next()?.split_whitespace().next()
    }
}

/// Why a file is no kernel module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModInfoError {
    /// No ELF object file.
    #[error("no ELF object file")]
    NotElf,
    /// The section headers are damaged.
    #[error("bad section headers at offset {offset:#x}")]
    Sections {
        /// Where they are said to be.
        offset: u64,
    },
    /// No `.modinfo`.
    #[error("no .modinfo section")]
    NoModInfo,
}

/// Reads `.modinfo` of a decompressed module.
///
/// # Errors
/// `file` is no kernel module.
pub fn modinfo(file: &[u8]) -> Result<ModInfo, ModInfoError> {
    if !file.starts_with(b"\x7fELF") {
        return Err(ModInfoError::NotElf);
    }
    let head = Elf::parse_header(file).map_err(|_| ModInfoError::NotElf)?;
    if head.e_type != header::ET_REL {
        return Err(ModInfoError::NotElf);
    }
    let class64 = head.e_ident[header::EI_CLASS] == header::ELFCLASS64;
    let little_endian = head.e_ident[header::EI_DATA] == header::ELFDATA2LSB;
    let ctx = Ctx::new(
        if class64 { Container::Big } else { Container::Little },
        if little_endian { Endian::Little } else { Endian::Big },
    );
    let bad = ModInfoError::Sections { offset: head.e_shoff };
    let size = SectionHeader::size(ctx);
    let count = usize::from(head.e_shnum);
    let start = usize::try_from(head.e_shoff).map_err(|_| bad)?;
    let end = start.checked_add(count * size).ok_or(bad)?;
    let table = file.get(start..end).filter(|table| !table.is_empty()).ok_or(bad)?;
    if usize::from(head.e_shentsize) != size {
        return Err(bad);
    }
    let sections = SectionHeader::parse_from(table, 0, count, ctx).map_err(|_| bad)?;
    let body = |section: &SectionHeader| {
        let start = usize::try_from(section.sh_offset).ok()?;
        file.get(start..start.checked_add(usize::try_from(section.sh_size).ok()?)?)
    };
    let names = sections.get(usize::from(head.e_shstrndx)).and_then(body).ok_or(bad)?;
    let find = |wanted: &[u8]| {
        sections.iter().find(|section| {
            section.sh_type != section_header::SHT_NOBITS
                && names.get(section.sh_name..).is_some_and(|name| name.starts_with(wanted))
        })
    };
    let found = find(b".modinfo\0").ok_or(ModInfoError::NoModInfo)?;
    let versioned = find(b"__versions\0").is_some();
    let bytes = body(found).ok_or(bad)?;
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let entries = entries(bytes).map(owned).collect();
    Ok(ModInfo { class64, little_endian, machine: head.e_machine, versioned, entries })
}

/// Writes the smallest object file with a `.modinfo` section, for tests.
#[cfg(test)]
pub(crate) fn build_module(arch: crate::arch::Arch, entries: &[&str]) -> Vec<u8> {
    build_with(arch, entries, &[])
}

/// As [`build_module`], with versions of the symbols that it uses.
#[cfg(test)]
pub(crate) fn build_versioned_module(arch: crate::arch::Arch, entries: &[&str]) -> Vec<u8> {
    build_with(arch, entries, &[20])
}

/// `more` are the names of further sections, as offsets into the table of names.
#[cfg(test)]
fn build_with(arch: crate::arch::Arch, entries: &[&str], more: &[usize]) -> Vec<u8> {
    let word = if arch.elf_64() { 8 } else { 4 };
    let mut info = Vec::new();
    for entry in entries {
        info.extend(entry.as_bytes());
        info.push(0);
    }
    let names = b"\0.modinfo\0.shstrtab\0__versions\0";
    let (ehsize, shsize) = if arch.elf_64() { (64, 64) } else { (52, 40) };
    let names_at = ehsize + info.len();
    let table = (names_at + names.len()).next_multiple_of(8);
    let mut out = b"\x7fELF".to_vec();
    out.extend([if arch.elf_64() { 2 } else { 1 }, 1, 1]);
    out.resize(16, 0);
    let int = |out: &mut Vec<u8>, value: usize, size: usize| {
        out.extend(&(value as u64).to_le_bytes()[..size]);
    };
    int(&mut out, 1, 2);
    int(&mut out, arch.elf_machine().into(), 2);
    int(&mut out, 1, 4);
    int(&mut out, 0, word);
    int(&mut out, 0, word);
    int(&mut out, table, word);
    int(&mut out, 0, 4);
    for half in [ehsize, 0, 0, shsize, 3 + more.len(), 2] {
        int(&mut out, half, 2);
    }
    out.extend(&info);
    out.extend(names);
    out.resize(table, 0);
    let first = [(0, 0, 0, 0), (1, 1, ehsize, info.len()), (10, 3, names_at, names.len())];
    for (name, kind, at, len) in first.into_iter().chain(more.iter().map(|&name| (name, 1, 0, 0))) {
        int(&mut out, name, 4);
        int(&mut out, kind, 4);
        for value in [0, 0, at, len] {
            int(&mut out, value, word);
        }
        int(&mut out, 0, 8);
        int(&mut out, 1, word);
        int(&mut out, 0, word);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arch::Arch;

    #[test]
    fn names_are_normalised() {
        assert_eq!(normal_name("virtio-pci"), "virtio_pci");
        assert_eq!(normal_name("a-[0-9]-b"), "a_[0-9]_b");
        for file in ["a/snd-hda.ko", "snd-hda.ko.xz", "x/y/snd-hda.ko.zst", "snd-hda.ko.gz"] {
            assert_eq!(module_name(file).as_deref(), Some("snd_hda"));
        }
        assert_eq!(module_name("x/y.o"), None);
        assert_eq!(module_name("x/.ko"), None);
    }

    #[test]
    fn index_lines_are_read() {
        let deps: Vec<_> = dep_lines("a/b.ko: c.ko d.ko\nc.ko:\njunk\n").collect();
        assert_eq!(deps, [("a/b.ko", "c.ko d.ko"), ("c.ko", "")]);
        let text = "# c\nsoftdep a-b pre: x-y z post: q pre: w\nsoftdep cifs gcm\nsoftdep\n";
        let soft: Vec<_> = softdeps(text).collect();
        assert_eq!(soft.len(), 2);
        assert_eq!(
            (soft[0].name.as_str(), &soft[0].pre[..]),
            ("a_b", &["x_y", "z", "w"].map(String::from)[..])
        );
        assert_eq!(soft[0].post, ["q"]);
        assert!(soft[1].pre.is_empty());
        assert_eq!(weakdeps("weakdep a b-c d\n").next().unwrap().1, ["b_c", "d"]);
        let text = "# x\nalias fs-vfat vfat\nalias x\nalias fs-v[a-f]* v-x\nalias pci:v* p\n";
        assert_eq!(find_aliases(text, "fs_vfat"), ["vfat", "v-x"]);
        assert!(find_aliases(text, "fs_").is_empty() && find_aliases(text, "").is_empty());
        assert_eq!(builtin("kernel/fs/ext4.ko\nx\n").collect::<Vec<_>>(), ["ext4"]);
        let entries: Vec<_> = builtin_modinfo(b"a.alias=x=y\0\0junk\0b.c.d=e\0").collect();
        assert_eq!(entries, [("a", "alias", "x=y"), ("b", "c.d", "e")]);
    }

    #[test]
    fn modinfo_of_every_architecture_is_read() {
        for arch in Arch::ALL {
            let file = build_module(arch, &["depends=a-b,c", "vermagic=6.1 SMP", "firmware=x.bin"]);
            let info = modinfo(&file).unwrap();
            assert_eq!((info.class64, info.machine), (arch.elf_64(), arch.elf_machine()));
            assert_eq!(info.depends(), ["a_b", "c"]);
            assert_eq!(info.release(), Some("6.1"));
            for len in 0..file.len() {
                assert!(modinfo(&file[..len]).is_err(), "cut at {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_index_ends(text in "((softdep|weakdep|alias|pre:|post:|[a-c/.-]{1,4}|\\.ko|:)[ \n]?){0,40}") {
            dep_lines(&text).count();
            softdeps(&text).count();
            weakdeps(&text).count();
            find_aliases(&text, "a");
            builtin(&text).count();
            builtin_modinfo(text.as_bytes()).count();
        }

        #[test]
        fn mutated_modules_never_panic(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            small: bool,
        ) {
            let arch = if small { Arch::Arm } else { Arch::Amd64 };
            let mut file = build_module(arch, &["depends=a", "vermagic=6.1"]);
            for (at, value) in edits {
                let at = at.index(file.len());
                file[at] = value;
            }
            let _ = modinfo(&file);
        }
    }
}
