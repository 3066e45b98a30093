//! What a kernel can, before it is booted: from its configuration and the lists of its modules.
//!
//! | source | says |
//! |---|---|
//! | `.config`, `config-RELEASE` or `config` beside the image, `.config` of the build tree | built in, module, not set |
//! | the image itself (CONFIG_IKCONFIG) | the same |
//! | `modules.builtin`, `modules.dep` | built in, module; what is in neither is missing |
//!
//! Where none of them is there, nothing is known, and nothing is refused.

mod table;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::formats::kconfig::{KernelOptions, Setting, module_names};
use crate::initramfs::kconfig;

pub use table::{Necessity, WANTED, Wanted, of_module};

/// How far above an image the configuration of its build tree is: `arch/x86/boot/bzImage`.
const BUILD_TREE_DEPTH: usize = 4;

/// Larger files are no configurations and no lists.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// What is known of a kernel.
#[derive(Clone, Debug, Default)]
pub struct KernelFacts {
    /// Its options, and where they are from.
    pub options: Option<(KernelOptions, PathBuf)>,
    /// Its modules' directory, if there is one with lists.
    pub modules: Option<PathBuf>,
    /// What a person should know: a configuration that is of another kernel.
    pub remarks: Vec<String>,
    built_in: HashSet<String>,
    loadable: HashSet<String>,
}

/// Whether a kernel has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is built in.
    BuiltIn,
    /// It is a module, and the module is there.
    Module,
    /// It is a module, and the module is not in the directory of modules.
    ModuleMissing,
    /// It is a module, and there is no directory of modules.
    NoModules,
    /// The kernel does not have it.
    Missing,
    /// Nothing says so or so.
    Unknown,
}

impl State {
    /// Whether a guest can use it.
    pub fn is_there(self) -> bool {
        matches!(self, State::BuiltIn | State::Module)
    }

    /// Whether it is certain that a guest cannot.
    pub fn is_missing(self) -> bool {
        matches!(self, State::ModuleMissing | State::NoModules | State::Missing)
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            State::BuiltIn => "built in",
            State::Module => "module",
            State::ModuleMissing => "a module that is not in the directory of modules",
            State::NoModules => "a module, and no directory of modules is known",
            State::Missing => "not set",
            State::Unknown => "not known",
        }
    }
}

/// A configuration or a list that is named and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", .path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Something that a run needs and its kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The option, without `CONFIG_`.
    pub option: String,
    /// What needs it.
    pub purpose: String,
    /// How it lacks it.
    pub state: State,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CONFIG_{} for {}: {}", self.option, self.purpose, self.state.text())
    }
}

impl KernelFacts {
    /// Looks at the files around a kernel. `config` is named by somebody; `inside`: also looks into the
    /// image, which takes a fraction of a second.
    ///
    /// # Errors
    /// The named configuration cannot be read.
    pub fn look(
        image: &Path,
        release: Option<&str>,
        config: Option<&Path>,
        modules: Option<&Path>,
        inside: bool,
    ) -> Result<KernelFacts, ReadError> {
        let mut facts = KernelFacts::default();
        // Not every image says its release; its modules' directory is called by it.
        let named = modules.and_then(|dir| dir.file_name()?.to_str());
        let release =
            release.or(named.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())));
        if let Some(path) = config {
            let text =
                text_of(path).map_err(|source| ReadError { path: path.to_owned(), source })?;
            facts.options = Some((KernelOptions::parse(&text), path.to_owned()));
        } else {
            facts.find_beside(image, release);
        }
        if facts.options.is_none()
            && inside
            && let Ok(text) = kconfig::read(image)
        {
            facts.options = Some((KernelOptions::parse(&text), image.to_owned()));
        }
        if let Some(dir) = modules {
            let read = |name: &str| text_of(&dir.join(name)).ok();
            if let Some(list) = read("modules.builtin") {
                facts.built_in = module_names(&list).collect();
            }
            if let Some(list) = read("modules.dep") {
                facts.loadable = module_names(&list).collect();
                facts.modules = Some(dir.to_owned());
            }
        }
        Ok(facts)
    }

    fn find_beside(&mut self, image: &Path, release: Option<&str>) {
        let Some(dir) = image.parent() else { return };
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let mut candidates = vec![dir.join(".config")];
        candidates.extend(release.map(|release| dir.join(format!("config-{release}"))));
        candidates.push(dir.join("config"));
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        // Only of a tree that built it.
        if dir.ends_with("boot") || dir.components().any(|part| part.as_os_str() == "arch") {
            let above = dir.ancestors().skip(1).take(BUILD_TREE_DEPTH);
            candidates.extend(above.map(|dir| dir.join(".config")));
        }
        for path in candidates {
            let Ok(text) = text_of(&path) else { continue };
            let options = KernelOptions::parse(&text);
            if options.is_empty() {
                continue;
            }
            if release.is_some_and(|release| options.is_foreign(release)) {
                self.remarks.push(format!(
                    "`{}` is of another kernel: {}",
                    path.display(),
                    options.version().unwrap_or("no version")
                ));
                continue;
            }
            self.options = Some((options, path));
            return;
        }
    }

    /// Whether the kernel has something that makes this module, if it can be one.
    pub fn state(&self, option: &str, module: Option<&str>) -> State {
        let module = module.map(|module| module.replace('-', "_"));
        let is_in =
            |names: &HashSet<String>| module.as_ref().is_some_and(|name| names.contains(name));
        if is_in(&self.built_in) {
            return State::BuiltIn;
        }
        match &self.options {
            Some((options, _)) => match options.get(option) {
                Some(Setting::Module) if is_in(&self.loadable) => State::Module,
                Some(Setting::Module) if self.modules.is_none() => State::NoModules,
                // The module of an option that the table does not know.
                Some(Setting::Module) if module.is_none() => State::Module,
                Some(Setting::Module) => State::ModuleMissing,
                Some(_) => State::BuiltIn,
                // Options get new names; a module is there or not.
                None if is_in(&self.loadable) => State::Module,
                None => State::Missing,
            },
            None if is_in(&self.loadable) => State::Module,
            None if module.is_some() && self.modules.is_some() && !self.built_in.is_empty() => {
                State::Missing
            }
            None => State::Unknown,
        }
    }

    /// What a run lacks: modules that its devices need, and options that somebody requires.
    pub fn lacks(&self, modules: &[String], required: &[String]) -> Vec<Lack> {
        let devices = modules.iter().filter_map(|module| of_module(module)).map(|wanted| {
            (wanted.option, wanted.purpose, self.state(wanted.option, wanted.module))
        });
        let basic = WANTED
            .iter()
            .filter(|wanted| matches!(wanted.option, "BLK_DEV_INITRD" | "BINFMT_ELF"))
            .map(|wanted| (wanted.option, wanted.purpose, self.state(wanted.option, None)));
        let mut lacks: Vec<Lack> = Vec::new();
        for (option, purpose, state) in
            basic.chain(devices).filter(|(_, _, state)| state.is_missing())
        {
            if lacks.iter().all(|lack| lack.option != option) {
                lacks.push(Lack { option: option.to_owned(), purpose: purpose.to_owned(), state });
            }
        }
        for option in required {
            let option = option.strip_prefix("CONFIG_").unwrap_or(option);
            let module = WANTED.iter().find(|wanted| wanted.option == option);
            let state = self.state(option, module.and_then(|wanted| wanted.module));
            // What is required has to be known.
            if !state.is_there() {
                lacks.push(Lack { option: option.to_owned(), purpose: "--require".into(), state });
            }
        }
        lacks
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = crate::named_file::open(path)?;
    file.take(MAX_TEXT_BYTES).read_to_end(&mut text)?;
    if text.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let packed = flate2::read::GzDecoder::new(&text[..]);
        packed.take(MAX_TEXT_BYTES).read_to_end(&mut unpacked)?;
        text = unpacked;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(config: &str, built_in: Option<&str>, dep: Option<&str>) -> KernelFacts {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: Option<&str>| {
            text.iter().for_each(|text| std::fs::write(dir.path().join(name), text).unwrap());
        };
        write(".config", Some(config).filter(|text| !text.is_empty()));
        write("modules.builtin", built_in);
        write("modules.dep", dep);
        let image = dir.path().join("bzImage");
        KernelFacts::look(&image, Some("6.12.1"), None, Some(dir.path()), false).unwrap()
    }

    #[test]
    fn each_source_says_its_part() {
        let dep = Some("kernel/fs/9p/9p.ko: x.ko\n");
        let built_in = Some("kernel/fs/fat/vfat.ko\n");
        let known = facts("CONFIG_9P_FS=m\nCONFIG_VIRTIO_BLK=m\nCONFIG_A=y\n", built_in, dep);
        assert_eq!(known.state("9P_FS", Some("9p")), State::Module);
        assert_eq!(known.state("VFAT_FS", Some("vfat")), State::BuiltIn);
        assert_eq!(known.state("VIRTIO_BLK", Some("virtio-blk")), State::ModuleMissing);
        assert_eq!(
            (known.state("A", None), known.state("B", None)),
            (State::BuiltIn, State::Missing)
        );
        let lists = facts("", built_in, dep);
        assert_eq!(lists.state("9P_FS", Some("9p")), State::Module);
        assert_eq!(lists.state("E1000", Some("e1000")), State::Missing);
        assert_eq!(lists.state("INET", None), State::Unknown);
        let alone = facts("CONFIG_9P_FS=m\n", None, None);
        assert_eq!(alone.state("9P_FS", Some("9p")), State::NoModules);
        assert_eq!(facts("", None, None).state("9P_FS", Some("9p")), State::Unknown);
    }

    #[test]
    fn a_configuration_of_another_kernel_is_not_believed() {
        let other = facts("# Linux/x86 5.10.0 Kernel Configuration\nCONFIG_A=y\n", None, None);
        assert!(other.options.is_none());
        assert!(other.remarks[0].contains("is of another kernel: 5.10.0"), "{:?}", other.remarks);
    }

    #[test]
    fn what_a_run_lacks_is_named_with_what_needs_it() {
        let facts = facts("CONFIG_BLK_DEV_INITRD=y\nCONFIG_BINFMT_ELF=y\nCONFIG_X=y\n", None, None);
        let modules = ["9p", "vfat", "unknown_module", "9p"].map(str::to_owned);
        let required = ["CONFIG_X", "BPF_SYSCALL"].map(str::to_owned);
        let lacks: Vec<String> =
            facts.lacks(&modules, &required).iter().map(Lack::to_string).collect();
        assert_eq!(
            lacks,
            [
                "CONFIG_9P_FS for --share, --root, --coverage: not set",
                "CONFIG_VFAT_FS for --ro-dir: not set",
                "CONFIG_BPF_SYSCALL for --require: not set",
            ]
        );
    }
}
