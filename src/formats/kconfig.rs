//! A kernel's configuration as text, `.config`: which options are built in, modules, values.
//!
//! ```text
//! CONFIG_9P_FS=m
//! # CONFIG_KASAN is not set
//! CONFIG_LOCALVERSION="-test"
//! ```

use std::collections::BTreeMap;

/// So many options are read; a kernel has some 15,000.
const MAX_OPTIONS: usize = 1 << 17;

/// What an option is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `=y`.
    BuiltIn,
    /// `=m`.
    Module,
    /// A number or a text, as it is written.
    Value(String),
}

/// The options of a kernel. What is not set is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelOptions {
    options: BTreeMap<String, Setting>,
    version: Option<String>,
}

impl KernelOptions {
    /// Reads a configuration. Lines that are none of it are passed over; of several settings of one option
    /// the last counts, as for the kernel's own tools.
    pub fn parse(text: &str) -> KernelOptions {
        let mut read = KernelOptions::default();
        for line in text.lines() {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("# Linux/") {
                // `# Linux/x86 6.12.1 Kernel Configuration`
                let version = rest.strip_suffix(" Kernel Configuration");
                let version = version.and_then(|rest| rest.rsplit(' ').next());
                read.version = version.map(str::to_owned).or(read.version);
                continue;
            }
            if let Some(rest) = line.strip_prefix("# CONFIG_") {
                if let Some(name) = rest.strip_suffix(" is not set") {
                    read.options.remove(name);
                }
                continue;
            }
            let Some((name, value)) = line.strip_prefix("CONFIG_").and_then(|l| l.split_once('='))
            else {
                continue;
            };
            if !is_name(name) || read.options.len() >= MAX_OPTIONS {
                continue;
            }
            let setting = match value {
                "y" => Setting::BuiltIn,
                "m" => Setting::Module,
                "n" => {
                    read.options.remove(name);
                    continue;
                }
                value => Setting::Value(value.to_owned()),
            };
            read.options.insert(name.to_owned(), setting);
        }
        read
    }

    /// An option by its name, with `CONFIG_` or without. `None` when it is not set.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.options.get(name.strip_prefix("CONFIG_").unwrap_or(name))
    }

    /// The version of the kernel that it is for, as its first line says.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether it is of another kernel than the one of this release.
    pub fn is_foreign(&self, release: &str) -> bool {
        let Some(version) = self.version() else { return false };
        // `6.12.1` of `6.12.1-test`, and not of `6.12.117`.
        match release.strip_prefix(version) {
            Some(rest) => rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'),
            // A distribution's release may name the series only: `6.1.0-50` of 6.1.170.
            None => series(version) != series(release),
        }
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty()
    }
}

/// The first two numbers of a version.
fn series(version: &str) -> Option<(&str, &str)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?, parts.next()?))
}

/// Whether this can be an option's name, without `CONFIG_`.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Names of modules in `modules.builtin` or `modules.dep`: what stands before a line's colon, without
/// directory and ending, `-` as `_`.
pub fn module_names(list: &str) -> impl Iterator<Item = String> + '_ {
    list.lines().filter_map(|line| {
        let path = line.split(':').next()?.trim();
        let file = path.rsplit('/').next()?;
        let (name, _) = file.split_once(".ko")?;
        (!name.is_empty()).then(|| name.replace('-', "_"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let text = "#\n# Linux/x86 6.12.117 Kernel Configuration\n#\nCONFIG_A=y\nCONFIG_9P_FS=m\r\n\
            # CONFIG_B is not set\nCONFIG_C=\"x=y\"\nCONFIG_D=0x10\nCONFIG_E=n\nCONFIG_=y\nCONFIG_a b=y\nnothing\n";
        let options = KernelOptions::parse(text);
        assert_eq!(options.get("A"), Some(&Setting::BuiltIn));
        assert_eq!(options.get("CONFIG_9P_FS"), Some(&Setting::Module));
        assert_eq!((options.get("B"), options.get("E"), options.get("")), (None, None, None));
        assert_eq!(options.get("C"), Some(&Setting::Value("\"x=y\"".into())));
        assert_eq!(options.version(), Some("6.12.117"));
        let last = KernelOptions::parse("CONFIG_A=y\n# CONFIG_A is not set\n");
        assert!(last.is_empty() && KernelOptions::parse("").is_empty());
    }

    #[test]
    fn a_configuration_of_another_kernel_is_told() {
        let of = |version: &str, release: &str| {
            let text = format!("# Linux/x86 {version} Kernel Configuration\n");
            KernelOptions::parse(&text).is_foreign(release)
        };
        assert!(!of("6.12.117", "6.12.117+deb13-amd64") && !of("6.1.170", "6.1.0-50-686-pae"));
        assert!(of("6.12.1", "6.12.117") && of("5.10.0", "6.12.117") && of("6.1", "6.12.1"));
        assert!(!KernelOptions::parse("CONFIG_A=y").is_foreign("6.12"));
    }

    #[test]
    fn names_of_modules_are_read() {
        let dep =
            "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz\nkernel/a/virtio-pci.ko:\nx\n.ko:\n";
        assert_eq!(module_names(dep).collect::<Vec<_>>(), ["9p", "virtio_pci"]);
    }
}
