//! Why a program could not be executed, in words that name the thing at fault.
//!
//! The kernel says "No such file or directory" for a script whose interpreter is missing and "Exec
//! format error" for a program of another architecture. The file itself tells which it is.

use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// As much of a `#!` line as the kernel reads.
const SHEBANG_BYTES: usize = 256;

/// What the beginning of a file says about how it is executed.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Script { interpreter: PathBuf, crlf: bool },
    Elf { arch: String, interpreter: Option<PathBuf> },
    Unknown,
    Empty,
}

/// A sentence for the user: executing `program` from `cwd` failed with `error`.
pub(crate) fn exec_error(program: &Path, cwd: &Path, error: &io::Error) -> String {
    let path = cwd.join(program);
    let shown = program.display();
    let errno = Errno::from_io_error(error);
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(missing)
            if errno == Some(Errno::NOENT) && missing.kind() == io::ErrorKind::NotFound =>
        {
            return match fs::symlink_metadata(&path) {
                Ok(_) => format!(
                    "`{shown}` is a link to `{}`, which is not in the guest",
                    fs::read_link(&path).unwrap_or_default().display()
                ),
                Err(_) => format!("no program `{shown}` in the guest"),
            };
        }
        Err(_) => return format!("cannot run `{shown}`: {error}"),
    };
    if meta.is_dir() {
        return format!("cannot run `{shown}`: it is a directory");
    }
    if errno == Some(Errno::ACCESS) && meta.permissions().mode() & 0o111 == 0 {
        return format!("cannot run `{shown}`: it is not executable (chmod +x)");
    }
    let kind = File::open(&path).and_then(|mut file| kind_of(&mut file)).unwrap_or(Kind::Unknown);
    match (errno, kind) {
        (Some(Errno::NOENT), Kind::Script { interpreter, crlf: true }) => format!(
            "cannot run `{shown}`: its first line ends with CR LF, so its interpreter would be \
             `{}\\r`; save it with LF line ends",
            interpreter.display()
        ),
        (Some(Errno::NOENT | Errno::ACCESS), Kind::Script { interpreter, .. }) => {
            format!("cannot run `{shown}`: {}", interpreter_at_fault(&interpreter, cwd))
        }
        (Some(Errno::NOENT | Errno::ACCESS), Kind::Elf { interpreter: Some(interpreter), .. }) => {
            format!("cannot run `{shown}`: {}", interpreter_at_fault(&interpreter, cwd))
        }
        (Some(Errno::NOEXEC), Kind::Script { interpreter, .. }) => {
            format!(
                "cannot run `{shown}`: its interpreter `{}` is no program",
                interpreter.display()
            )
        }
        (Some(Errno::NOEXEC | Errno::INVAL), Kind::Elf { arch, .. }) => format!(
            "cannot run `{shown}`: it is a program for {arch}, and this guest's kernel ({}) does \
             not run it",
            rustix::system::uname().machine().to_string_lossy()
        ),
        (Some(Errno::NOEXEC), Kind::Empty) => format!("cannot run `{shown}`: it is empty"),
        (Some(Errno::NOEXEC), Kind::Unknown) => {
            format!("cannot run `{shown}`: neither an ELF program nor a script with a `#!` line")
        }
        (Some(Errno::TOOBIG), _) => {
            format!("cannot run `{shown}`: arguments and environment are too long for the kernel")
        }
        _ => format!("cannot run `{shown}`: {error}"),
    }
}

fn interpreter_at_fault(interpreter: &Path, cwd: &Path) -> String {
    let shown = interpreter.display();
    match fs::metadata(cwd.join(interpreter)) {
        Err(_) => format!("its interpreter `{shown}` is not in the guest"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            format!("its interpreter `{shown}` is not executable")
        }
        Ok(_) => format!("the interpreter of its interpreter `{shown}` is missing"),
    }
}

fn kind_of(file: &mut (impl Read + Seek)) -> io::Result<Kind> {
    let mut start = Vec::new();
    file.take(SHEBANG_BYTES as u64).read_to_end(&mut start)?;
    Ok(if start.is_empty() {
        Kind::Empty
    } else if let Some(line) = start.strip_prefix(b"#!") {
        script(line)
    } else if start.starts_with(b"\x7fELF") {
        elf(&start, file).unwrap_or(Kind::Unknown)
    } else {
        Kind::Unknown
    })
}

fn script(line: &[u8]) -> Kind {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let word = line.trim_ascii_start();
    let word = word.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    let (word, crlf) = match word.strip_suffix(b"\r") {
        Some(word) => (word, true),
        None => (word, false),
    };
    Kind::Script { interpreter: PathBuf::from(OsStr::from_bytes(word)), crlf }
}

/// Little- and big-endian fields of both classes; `None` where the file is too short for them.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.big_endian {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        })
    }
}

fn elf(start: &[u8], file: &mut (impl Read + Seek)) -> Option<Kind> {
    const PT_INTERP: u64 = 3;
    let is_64 = *start.get(4)? == 2;
    let big_endian = *start.get(5)? == 2;
    let header = Fields { bytes: start, big_endian };
    let arch = arch_name(header.number(18, 2)?, is_64);
    let (table, entry_size, count) = if is_64 {
        (header.number(32, 8)?, header.number(54, 2)?, header.number(56, 2)?)
    } else {
        (header.number(28, 4)?, header.number(42, 2)?, header.number(44, 2)?)
    };
    let entries = read_at(file, table, (entry_size * count) as usize).unwrap_or_default();
    let interpreter = entries.chunks_exact(entry_size.max(1) as usize).find_map(|entry| {
        let entry = Fields { bytes: entry, big_endian };
        if entry.number(0, 4)? != PT_INTERP {
            return None;
        }
        let (offset, size) = if is_64 {
            (entry.number(8, 8)?, entry.number(32, 8)?)
        } else {
            (entry.number(4, 4)?, entry.number(16, 4)?)
        };
        let path = read_at(file, offset, size.min(4096) as usize).ok()?;
        let path = path.split(|byte| *byte == 0).next()?;
        Some(PathBuf::from(OsStr::from_bytes(path)))
    });
    Some(Kind::Elf { arch, interpreter })
}

fn read_at(file: &mut (impl Read + Seek), offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(bytes as u64).read_to_end(&mut buffer)?;
    Ok(buffer)
}

fn arch_name(machine: u64, is_64: bool) -> String {
    let name = match (machine, is_64) {
        (3, _) => "i386",
        (62, true) => "amd64",
        (62, false) => "x32",
        (40, _) => "arm",
        (183, _) => "arm64",
        (243, true) => "riscv64",
        (243, false) => "riscv32",
        (8, _) => "mips",
        (20, _) => "powerpc",
        (21, _) => "ppc64",
        (22, _) => "s390x",
        (258, _) => "loongarch",
        _ => return format!("an unknown machine (ELF machine {machine})"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn kind(bytes: &[u8]) -> Kind {
        kind_of(&mut Cursor::new(bytes)).unwrap()
    }

    fn elf_bytes(machine: u16, is_64: bool, interpreter: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0; 0x200];
        bytes[..4].copy_from_slice(b"\x7fELF");
        bytes[4] = if is_64 { 2 } else { 1 };
        bytes[5] = 1;
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        let Some(interpreter) = interpreter else { return bytes };
        let (table, entry_size): (u8, u8) = if is_64 { (64, 56) } else { (52, 32) };
        let (at_table, at_size) = if is_64 { (32, 54) } else { (28, 42) };
        bytes[at_table] = table;
        bytes[at_size] = entry_size;
        bytes[at_size + 2] = 2;
        // The second entry is the one.
        let entry = usize::from(table + entry_size);
        let (at_offset, at_length) = if is_64 { (8, 32) } else { (4, 16) };
        bytes[entry] = 3;
        bytes[entry + at_offset + 1] = 1; // 0x100
        bytes[entry + at_length] = interpreter.len() as u8 + 1;
        bytes[0x100..0x100 + interpreter.len()].copy_from_slice(interpreter.as_bytes());
        bytes
    }

    #[test]
    fn scripts() {
        let script = |text: &str| match kind(text.as_bytes()) {
            Kind::Script { interpreter, crlf } => (interpreter.display().to_string(), crlf),
            other => panic!("{other:?}"),
        };
        assert_eq!(script("#!/bin/sh\necho"), ("/bin/sh".into(), false));
        assert_eq!(script("#! /usr/bin/env  python3\n"), ("/usr/bin/env".into(), false));
        assert_eq!(script("#!/bin/sh\r\necho\r\n"), ("/bin/sh".into(), true));
        assert_eq!(script("#!"), ("".into(), false));
    }

    #[test]
    fn elf_programs_of_both_classes() {
        let arch = |arch: &str, interpreter: Option<&str>| Kind::Elf {
            arch: arch.into(),
            interpreter: interpreter.map(PathBuf::from),
        };
        assert_eq!(
            kind(&elf_bytes(183, true, Some("/lib/ld.so"))),
            arch("arm64", Some("/lib/ld.so"))
        );
        assert_eq!(kind(&elf_bytes(40, false, Some("/lib/l"))), arch("arm", Some("/lib/l")));
        assert_eq!(kind(&elf_bytes(243, true, None)), arch("riscv64", None));
    }

    #[test]
    fn garbage_is_no_panic() {
        assert_eq!(kind(b""), Kind::Empty);
        assert_eq!(kind(b"echo hi\n"), Kind::Unknown);
        assert_eq!(kind(b"\x7fELF"), Kind::Unknown);
        let mut wild = elf_bytes(62, true, Some("/x"));
        wild[32..40].fill(0xff);
        wild[54..58].fill(0xff);
        assert!(matches!(kind(&wild), Kind::Elf { interpreter: None, .. }));
    }

    #[test]
    fn the_sentence_names_the_thing_at_fault() {
        let dir = std::env::temp_dir().join(format!("vmtest-diagnose-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let say = |bytes: &[u8], mode: u32, errno: Errno| {
            let path = dir.join("x");
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            exec_error(Path::new("./x"), &dir, &errno.into())
        };
        let noent = say(b"#!/none/sh\n", 0o755, Errno::NOENT);
        assert_eq!(noent, "cannot run `./x`: its interpreter `/none/sh` is not in the guest");
        let crlf = say(b"#!/bin/sh\r\n", 0o755, Errno::NOENT);
        assert!(crlf.contains("CR LF") && crlf.contains("`/bin/sh\\r`"), "{crlf}");
        let dynamic = say(&elf_bytes(62, true, Some("/none/ld.so")), 0o755, Errno::NOENT);
        assert_eq!(dynamic, "cannot run `./x`: its interpreter `/none/ld.so` is not in the guest");
        let foreign = say(&elf_bytes(40, false, None), 0o755, Errno::NOEXEC);
        assert!(foreign.starts_with("cannot run `./x`: it is a program for arm, and"), "{foreign}");
        let mode = say(b"#!/bin/sh\n", 0o644, Errno::ACCESS);
        assert_eq!(mode, "cannot run `./x`: it is not executable (chmod +x)");
        let text = say(b"echo\n", 0o755, Errno::NOEXEC);
        assert_eq!(text, "cannot run `./x`: neither an ELF program nor a script with a `#!` line");
        let gone = exec_error(Path::new("./y"), &dir, &Errno::NOENT.into());
        assert_eq!(gone, "no program `./y` in the guest");
        std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
        let link = exec_error(Path::new("./link"), &dir, &Errno::NOENT.into());
        assert_eq!(link, "`./link` is a link to `nowhere`, which is not in the guest");
        let directory = exec_error(Path::new("."), &dir, &Errno::ACCESS.into());
        assert_eq!(directory, "cannot run `.`: it is a directory");
        fs::remove_dir_all(&dir).unwrap();
    }
}
