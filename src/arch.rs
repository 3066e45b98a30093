//! The five guest architectures and the facts about each that other modules need.

use std::fmt;
use std::str::FromStr;

/// A guest architecture.
///
/// The canonical spellings are Go's (`amd64`, `i386`, `arm64`, `arm`, `riscv64`), as in
/// `hugelgupf/vmtest`; [`FromStr`] also takes the names used by `uname -m`, Debian, Rust, Nix and QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 32-bit x86 (with PAE).
    I386,
    /// 64-bit ARM, little endian.
    Arm64,
    /// 32-bit ARM, little endian, hard float (ARMv7).
    Arm,
    /// 64-bit RISC-V, little endian.
    Riscv64,
}

/// What is known about an architecture, one row each: a part of `arches.json`, with which a test
/// compares it.
struct Facts {
    name: &'static str,
    aliases: &'static [&'static str],
    qemu: &'static str,
    elf_machine: u16,
    elf_64: bool,
    multiarch: &'static str,
    console: &'static str,
}

impl Arch {
    /// All of them, in the order used in tables and listings.
    pub const ALL: [Arch; 5] = [Arch::Amd64, Arch::I386, Arch::Arm64, Arch::Arm, Arch::Riscv64];

    fn facts(self) -> &'static Facts {
        match self {
            Arch::Amd64 => &Facts {
                name: "amd64",
                aliases: &["x86_64", "x86-64", "x64"],
                qemu: "qemu-system-x86_64",
                elf_machine: 62, // EM_X86_64
                elf_64: true,
                multiarch: "x86_64-linux-gnu",
                console: "ttyS0",
            },
            Arch::I386 => &Facts {
                name: "i386",
                aliases: &["386", "i486", "i586", "i686", "x86"],
                qemu: "qemu-system-i386",
                elf_machine: 3, // EM_386
                elf_64: false,
                multiarch: "i386-linux-gnu",
                console: "ttyS0",
            },
            Arch::Arm64 => &Facts {
                name: "arm64",
                aliases: &["aarch64", "armv8"],
                qemu: "qemu-system-aarch64",
                elf_machine: 183, // EM_AARCH64
                elf_64: true,
                multiarch: "aarch64-linux-gnu",
                console: "ttyAMA0",
            },
            Arch::Arm => &Facts {
                name: "arm",
                aliases: &["armhf", "armv7", "armv7l", "armv7a", "armv7hl"],
                qemu: "qemu-system-arm",
                elf_machine: 40, // EM_ARM
                elf_64: false,
                multiarch: "arm-linux-gnueabihf",
                console: "ttyAMA0",
            },
            Arch::Riscv64 => &Facts {
                name: "riscv64",
                aliases: &["riscv64gc"],
                qemu: "qemu-system-riscv64",
                elf_machine: 243, // EM_RISCV
                elf_64: true,
                multiarch: "riscv64-linux-gnu",
                console: "ttyS0",
            },
        }
    }

    /// The canonical name, `amd64` for instance.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Other accepted spellings of the name.
    pub fn aliases(self) -> &'static [&'static str] {
        self.facts().aliases
    }

    /// The name of QEMU's program, `qemu-system-x86_64` for instance.
    pub fn qemu_program(self) -> &'static str {
        self.facts().qemu
    }

    /// `e_machine` of this architecture's programs (ELF specification, `elf.h`).
    pub fn elf_machine(self) -> u16 {
        self.facts().elf_machine
    }

    /// Whether programs are `ELFCLASS64`.
    pub fn elf_64(self) -> bool {
        self.facts().elf_64
    }

    /// Debian's multiarch tuple, the name of library directories below `/lib` and `/usr/lib`.
    pub fn multiarch(self) -> &'static str {
        self.facts().multiarch
    }

    /// The kernel's name of the first UART, where its messages go.
    pub fn serial_console(self) -> &'static str {
        self.facts().console
    }

    /// Whether it is x86, of 32 or 64 bits: what PCs have, others lack.
    pub fn is_x86(self) -> bool {
        match self {
            Arch::Amd64 | Arch::I386 => true,
            Arch::Arm64 | Arch::Arm | Arch::Riscv64 => false,
        }
    }

    /// The architecture this program was built for, where that is one of the five.
    pub fn host() -> Option<Arch> {
        std::env::consts::ARCH.parse().ok()
    }

    /// The guest architecture named by `VMTEST_ARCH`, else the host's.
    ///
    /// `value` is the variable's value; the environment is read at the edge, not here. Empty counts
    /// as unset, as in `hugelgupf/vmtest`.
    ///
    /// # Errors
    /// [`UnsupportedArch`] for an unknown value, never a silent fallback.
    pub fn from_env(value: Option<&str>) -> Result<Arch, UnsupportedArch> {
        match value {
            None | Some("") => {
                Arch::host().ok_or_else(|| UnsupportedArch { given: std::env::consts::ARCH.into() })
            }
            Some(name) => name.parse(),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Arch {
    type Err = UnsupportedArch;

    fn from_str(text: &str) -> Result<Arch, UnsupportedArch> {
        let wanted = text.to_ascii_lowercase();
        Arch::ALL
            .into_iter()
            .find(|arch| arch.name() == wanted || arch.aliases().contains(&wanted.as_str()))
            .ok_or_else(|| UnsupportedArch { given: text.to_owned() })
    }
}

/// A name that is none of the five architectures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture `{given}`")]
pub struct UnsupportedArch {
    /// The name that was given.
    pub given: String,
}

impl UnsupportedArch {
    /// How to fix it.
    pub fn hint(&self) -> String {
        let names: Vec<String> = Arch::ALL
            .iter()
            .map(|arch| format!("{arch} ({})", arch.aliases().join(", ")))
            .collect();
        format!("vmtest knows {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_unambiguous_and_round_trip() {
        let mut seen = std::collections::BTreeSet::new();
        for arch in Arch::ALL {
            for name in std::iter::once(&arch.name()).chain(arch.aliases()) {
                assert!(seen.insert(*name), "`{name}` stands for two architectures");
                assert_eq!(name.parse(), Ok(arch));
                assert_eq!(name.to_uppercase().parse(), Ok(arch));
            }
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it_and_the_accepted_ones() {
        let err = "sparc".parse::<Arch>().unwrap_err();
        assert_eq!(err.to_string(), "unknown architecture `sparc`");
        for arch in Arch::ALL {
            assert!(err.hint().contains(arch.name()));
        }
        assert!(Arch::from_env(Some("amd46")).is_err());
    }

    #[test]
    fn an_unset_or_empty_variable_means_the_host() {
        assert_eq!(Arch::from_env(None).ok(), Arch::host());
        assert_eq!(Arch::from_env(Some("")).ok(), Arch::host());
        assert_eq!(Arch::from_env(Some("aarch64")), Ok(Arch::Arm64));
    }
}
