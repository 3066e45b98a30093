//! Writes small ELF files for tests: all four combinations of class and byte order.

/// An ELF file to be.
#[derive(Clone, Debug)]
pub(crate) struct ElfBuilder {
    pub(crate) class64: bool,
    pub(crate) little_endian: bool,
    pub(crate) machine: u16,
    pub(crate) kind: u16,
    pub(crate) osabi: u8,
    pub(crate) interp: Option<Vec<u8>>,
    pub(crate) soname: Option<Vec<u8>>,
    pub(crate) needed: Vec<Vec<u8>>,
    /// Tag and name of filters.
    pub(crate) filters: Vec<(u64, Vec<u8>)>,
    pub(crate) rpath: Option<Vec<u8>>,
    pub(crate) runpath: Option<Vec<u8>>,
    pub(crate) flags_1: u64,
    pub(crate) dlopen: Vec<String>,
}

impl ElfBuilder {
    /// A shared object for amd64 that needs nothing.
    pub(crate) fn new() -> ElfBuilder {
        ElfBuilder {
            class64: true,
            little_endian: true,
            machine: 62,
            kind: 3,
            osabi: 0,
            interp: None,
            soname: None,
            needed: Vec::new(),
            filters: Vec::new(),
            rpath: None,
            runpath: None,
            flags_1: 0,
            dlopen: Vec::new(),
        }
    }

    pub(crate) fn needs(mut self, names: &[&str]) -> ElfBuilder {
        self.needed.extend(names.iter().map(|n| n.as_bytes().to_vec()));
        self
    }

    /// `DT_FILTER`, or `DT_AUXILIARY`.
    pub(crate) fn filter(mut self, tag: u64, name: &str) -> ElfBuilder {
        self.filters.push((tag, name.as_bytes().to_vec()));
        self
    }

    pub(crate) fn interp(mut self, path: &str) -> ElfBuilder {
        self.interp = Some(path.into());
        self
    }

    pub(crate) fn soname(mut self, name: &str) -> ElfBuilder {
        self.soname = Some(name.into());
        self
    }

    pub(crate) fn runpath(mut self, path: &str) -> ElfBuilder {
        self.runpath = Some(path.into());
        self
    }

    pub(crate) fn rpath(mut self, path: &str) -> ElfBuilder {
        self.rpath = Some(path.into());
        self
    }

    pub(crate) fn dlopen(mut self, json: &str) -> ElfBuilder {
        self.dlopen.push(json.into());
        self
    }

    pub(crate) fn arch(mut self, arch: crate::arch::Arch) -> ElfBuilder {
        self.class64 = arch.elf_64();
        self.machine = arch.elf_machine();
        self
    }

    fn int(&self, out: &mut Vec<u8>, value: u64, size: usize) {
        if self.little_endian {
            out.extend(&value.to_le_bytes()[..size]);
        } else {
            out.extend(&value.to_be_bytes()[8 - size..]);
        }
    }

    fn word(&self) -> usize {
        if self.class64 { 8 } else { 4 }
    }

    fn notes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for json in &self.dlopen {
            let mut desc = json.as_bytes().to_vec();
            desc.push(0);
            self.int(&mut out, 4, 4);
            self.int(&mut out, desc.len() as u64, 4);
            self.int(&mut out, 0x407c_0c0a, 4);
            out.extend(b"FDO\0");
            out.extend(&desc);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    /// The table of strings, and the tags that lead into it.
    fn dynamic(&self) -> (Vec<u8>, Vec<(u64, u64)>) {
        let mut strings = vec![0];
        let mut add = |bytes: &[u8]| {
            let at = strings.len() as u64;
            strings.extend(bytes);
            strings.push(0);
            at
        };
        let mut tags: Vec<(u64, u64)> = Vec::new();
        tags.extend(self.needed.iter().map(|n| (1, add(n))));
        tags.extend(self.filters.iter().map(|(tag, n)| (*tag, add(n))));
        tags.extend(self.soname.iter().map(|n| (14, add(n))));
        tags.extend(self.rpath.iter().map(|n| (15, add(n))));
        tags.extend(self.runpath.iter().map(|n| (29, add(n))));
        if self.flags_1 != 0 {
            tags.push((0x6fff_fffb, self.flags_1));
        }
        (strings, tags)
    }

    /// Header, program headers, interpreter, strings, dynamic section, notes; no sections.
    pub(crate) fn build(&self) -> Vec<u8> {
        const BASE: u64 = 0x10000;
        let word = self.word();
        let (ehsize, phsize) = if self.class64 { (64, 56) } else { (52, 32) };
        let (strings, mut tags) = self.dynamic();
        let interp = self.interp.clone().map(|mut path| {
            path.push(0);
            path
        });
        let notes = self.notes();

        let phnum = 2 + u64::from(interp.is_some()) + u64::from(!notes.is_empty());
        let interp_at = ehsize + phnum * phsize;
        let strings_at = interp_at + interp.as_ref().map_or(0, Vec::len) as u64;
        let dynamic_at = (strings_at + strings.len() as u64).next_multiple_of(8);
        tags.extend([(5, BASE + strings_at), (10, strings.len() as u64), (0, 0)]);
        let dynamic_len = (tags.len() * 2 * word) as u64;
        let notes_at = dynamic_at + dynamic_len;
        let end = notes_at + notes.len() as u64;

        let mut out = b"\x7fELF".to_vec();
        out.push(if self.class64 { 2 } else { 1 });
        out.push(if self.little_endian { 1 } else { 2 });
        out.extend([1, self.osabi]);
        out.resize(16, 0);
        self.int(&mut out, self.kind.into(), 2);
        self.int(&mut out, self.machine.into(), 2);
        self.int(&mut out, 1, 4);
        self.int(&mut out, BASE, word);
        self.int(&mut out, ehsize, word);
        self.int(&mut out, 0, word);
        self.int(&mut out, 0, 4);
        for half in [ehsize, phsize, phnum, 0, 0, 0] {
            self.int(&mut out, half, 2);
        }
        let mut phdr = |kind: u64, offset: u64, len: u64| {
            self.int(&mut out, kind, 4);
            if self.class64 {
                self.int(&mut out, 5, 4);
            }
            for value in [offset, BASE + offset, BASE + offset, len, len] {
                self.int(&mut out, value, word);
            }
            if !self.class64 {
                self.int(&mut out, 5, 4);
            }
            self.int(&mut out, 4, word);
        };
        phdr(1, 0, end);
        phdr(2, dynamic_at, dynamic_len);
        if let Some(path) = &interp {
            phdr(3, interp_at, path.len() as u64);
        }
        if !notes.is_empty() {
            phdr(4, notes_at, notes.len() as u64);
        }
        out.extend(interp.unwrap_or_default());
        out.extend(&strings);
        out.resize(dynamic_at as usize, 0);
        for (tag, value) in tags {
            self.int(&mut out, tag, word);
            self.int(&mut out, value, word);
        }
        out.extend(&notes);
        out
    }
}
