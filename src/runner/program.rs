//! What kind of file a program is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::arch::Arch;
use crate::formats::elf::MAGIC;

/// What a hook has been given to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A compiled program for this architecture.
    Elf(Arch),
    /// A script whose `#!` line names this very runner: a shell runs it in the guest.
    OwnScript,
    /// Another script, or whatever else the kernel may know.
    Other,
    /// A name without a slash, or no file of the host: the guest's own.
    Guests,
}

/// `e_machine` ends here.
const HEAD_BYTES: usize = 256;

impl Program {
    /// Looks at the file.
    ///
    /// # Errors
    /// It cannot be read, or is for a machine that vmtest does not know.
    pub(super) fn look(cwd: &Path, name: &OsStr) -> Result<Program, Error> {
        if !name.as_bytes().contains(&b'/') {
            return Ok(Program::Guests);
        }
        let path = cwd.join(name);
        let read = |source| Error::Read { path: path.clone(), source };
        let mut head = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Program::Guests),
            Err(error) => return Err(read(error)),
        };
        if head.starts_with(b"#!") {
            return Ok(if runs_us(&head) { Program::OwnScript } else { Program::Other });
        }
        match machine(&head) {
            None => Ok(Program::Other),
            Some((class64, machine)) => Arch::ALL
                .into_iter()
                .find(|arch| arch.elf_machine() == machine && arch.elf_64() == class64)
                .map(Program::Elf)
                .ok_or(Error::UnknownMachine { path, machine }),
        }
    }

    /// The program's file on the host.
    pub(super) fn file(self, cwd: &Path, name: &OsStr) -> Option<PathBuf> {
        (self != Program::Guests).then(|| cwd.join(name))
    }
}

/// Class and `e_machine` of a little-endian ELF file; all our architectures are. The class of x32's
/// programs is 32, with the machine of amd64, so that both count.
fn machine(head: &[u8]) -> Option<(bool, u16)> {
    let rest = head.strip_prefix(&MAGIC[..])?;
    let (&class, machine) = (rest.first()?, head.get(18..20)?);
    let machine = [machine[0], machine[1]];
    let little = rest.get(1) == Some(&1);
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    Some((class == 2, machine))
}

/// Whether a `#!` line has the words `vmtest` (a path or not) and `runner`.
fn runs_us(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words: Vec<&[u8]> = line[2..]
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        .collect();
    let ours = |word: &[u8]| word.rsplit(|byte| *byte == b'/').next() == Some(b"vmtest");
    words.windows(2).any(|pair| ours(pair[0]) && pair[1] == b"runner")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> Result<Program, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p"), bytes).unwrap();
        Program::look(dir.path(), OsStr::new("./p"))
    }

    fn elf(class: u8, order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', class, order];
        bytes.resize(18, 0);
        bytes.extend(machine);
        bytes.resize(64, 0);
        bytes
    }

    #[test]
    fn the_header_says_the_architecture() {
        for (class, machine, arch) in [
            (2, [62, 0], Arch::Amd64),
            (1, [3, 0], Arch::I386),
            (2, [183, 0], Arch::Arm64),
            (1, [40, 0], Arch::Arm),
            (2, [243, 0], Arch::Riscv64),
        ] {
            assert_eq!(look(&elf(class, 1, machine)).unwrap(), Program::Elf(arch));
        }
        // riscv32, x32, s390x.
        for (bytes, number) in
            [(elf(1, 1, [243, 0]), "243"), (elf(1, 1, [62, 0]), "62"), (elf(2, 2, [0, 22]), "22")]
        {
            let error = look(&bytes).unwrap_err();
            assert!(error.to_string().contains(number), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn scripts_that_name_this_runner_are_for_a_shell() {
        for own in [
            "#!/usr/bin/env -S vmtest runner --\necho",
            "#!/opt/bin/vmtest runner\n",
            "#! /usr/bin/env -S vmtest runner --arch riscv64 --",
        ] {
            assert_eq!(look(own.as_bytes()).unwrap(), Program::OwnScript, "{own}");
        }
        for other in
            ["#!/bin/sh\nvmtest runner", "#!/usr/bin/env -S vmtest run --", "#!\n", "", "x"]
        {
            assert_eq!(look(other.as_bytes()).unwrap(), Program::Other, "{other}");
        }
    }

    #[test]
    fn what_is_not_on_the_host_is_the_guests() {
        let there = Path::new("/");
        assert_eq!(Program::look(there, OsStr::new("sh")).unwrap(), Program::Guests);
        assert_eq!(Program::look(there, OsStr::new("/no/such")).unwrap(), Program::Guests);
        assert!(Program::look(there, OsStr::new("/proc")).is_err());
    }
}
