//! What a program sees of the host, and what of it changes there.
//!
//! The project, the working directory and cargo's target directory are seen; what the program writes to them
//! stays in the guest. Where a tool waits for files, writes reach the host: `OUT_DIR` and `tmp` of cargo's
//! target directory, `GOCOVERDIR`, and the files and directories that `go test` names (`-test.testlogfile`,
//! `-test.coverprofile`, …).

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::project::Project;
use super::request::{Request, path_variable};
use crate::qemu::{Mirror, MirrorWrites};

/// Variables that name a directory for files that somebody waits for.
const OUTPUT_VARIABLES: [&str; 3] = ["OUT_DIR", "CARGO_TARGET_TMPDIR", "GOCOVERDIR"];

/// Flags of Go's test programs that name a file to write.
const GO_FILES: [&str; 7] = [
    "testlogfile",
    "coverprofile",
    "cpuprofile",
    "memprofile",
    "blockprofile",
    "mutexprofile",
    "trace",
];

/// Those that name a directory.
const GO_DIRS: [&str; 3] = ["gocoverdir", "outputdir", "fuzzcachedir"];

/// Directories of the guest's own that nothing may lie over: its programs, libraries and devices are there.
const GUESTS_OWN: [&str; 14] = [
    "/", "/.vmtest", "/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin",
    "/sys", "/usr", "/usr/bin",
];

/// Those of the kernel's, in which there is nothing of the host's to see.
const KERNELS_OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Directories that a guest has at their own paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Parents before what is in them.
    dirs: Vec<(PathBuf, MirrorWrites)>,
}

impl Places {
    /// Whether a path of the host is seen in the guest.
    pub(super) fn show(&self, path: &Path) -> bool {
        self.dirs.iter().any(|(dir, _)| path.starts_with(dir))
    }

    /// As devices.
    pub(super) fn mirrors(&self) -> Vec<Mirror> {
        let mirror =
            |(dir, writes): &(PathBuf, MirrorWrites)| Mirror { dir: dir.clone(), writes: *writes };
        self.dirs.iter().map(mirror).collect()
    }

    /// Adds a directory under the name it was given, and under its real one.
    fn add(&mut self, dir: &Path, writes: MirrorWrites) {
        let real = std::fs::canonicalize(dir).ok();
        for dir in std::iter::once(dir.to_owned()).chain(real) {
            if dir.is_dir() && refused(&dir).is_none() {
                self.dirs.push((dir, writes));
            }
        }
    }

    /// Leaves out what another one has, and puts parents first.
    fn settle(mut self) -> Places {
        use MirrorWrites::{Host, Private};
        // Where one directory is named both ways, somebody wants what is written.
        self.dirs.sort_by(|(a, a_writes), (b, b_writes)| {
            a.cmp(b).then((*a_writes == Private).cmp(&(*b_writes == Private)))
        });
        let mut kept: Vec<(PathBuf, MirrorWrites)> = Vec::new();
        for (dir, writes) in self.dirs {
            // The nearest one above is the last that has it.
            let above = kept.iter().rev().find(|(above, _)| dir.starts_with(above));
            match (above, writes) {
                (Some((_, Host)), _) | (Some((_, Private)), Private) => {}
                _ => kept.push((dir, writes)),
            }
        }
        Places { dirs: kept }
    }
}

/// Why a directory cannot be at its own path in a guest.
fn refused(dir: &Path) -> Option<&'static str> {
    if GUESTS_OWN.iter().any(|own| dir == Path::new(own)) {
        return Some("the guest has its own one there");
    }
    if KERNELS_OWN.iter().any(|own| dir.starts_with(own)) {
        return Some("the guest's kernel makes it");
    }
    dir.to_str().is_none().then_some("its name is not UTF-8")
}

/// What a program sees.
///
/// # Errors
/// A directory that was named cannot be at its own path.
pub(super) fn of(
    request: &Request<'_>,
    project: &Project,
    program: Option<&Path>,
) -> Result<Places, Error> {
    use MirrorWrites::{Host, Private};
    for dir in request.projects.iter().chain(request.write) {
        if let Some(why) = refused(dir) {
            return Err(Error::Directory { dir: dir.clone(), why });
        }
        std::fs::read_dir(dir).map_err(|source| Error::Unreadable { dir: dir.clone(), source })?;
    }
    let mut places = Places::default();
    for dir in project.dirs.iter().chain([&request.cwd.to_owned()]) {
        places.add(dir, Private);
    }
    for dir in request.write {
        places.add(dir, Host);
    }
    if let (true, Some(program)) = (project.cargo, program) {
        let (target, tmp) = cargo_target(program);
        target.iter().for_each(|dir| places.add(dir, Private));
        tmp.iter().for_each(|dir| places.add(dir, Host));
    }
    for name in OUTPUT_VARIABLES {
        path_variable(request.env, name).iter().for_each(|dir| places.add(dir, Host));
    }
    for dir in go_outputs(request.argv, request.cwd) {
        places.add(&dir, Host);
    }
    Ok(places.settle())
}

/// cargo's target directory of a program, and the directories for temporary files in it
/// (`CARGO_TARGET_TMPDIR`, which only the compiler is told).
fn cargo_target(program: &Path) -> (Option<PathBuf>, Vec<PathBuf>) {
    let tagged = |dir: &&Path| {
        std::fs::read_to_string(dir.join("CACHEDIR.TAG"))
            .is_ok_and(|text| text.contains("created by cargo"))
    };
    let dirs = || program.ancestors().skip(1);
    // An unpacked archive of nextest's has no tag.
    let deps = || dirs().find(|dir| dir.ends_with("deps")).and_then(|deps| deps.ancestors().nth(2));
    let Some(target) = dirs().find(tagged).or_else(deps) else { return (None, Vec::new()) };
    // target/tmp, or target/TRIPLE/tmp.
    let tmp = dirs().filter(|dir| dir.starts_with(target)).map(|dir| dir.join("tmp"));
    (Some(target.to_owned()), tmp.filter(|dir| dir.is_dir()).collect())
}

/// Directories to which `go test` has a program write.
fn go_outputs(argv: &[OsString], cwd: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for arg in argv.iter().skip(1) {
        let Some(flag) = arg.as_bytes().strip_prefix(b"-test.") else { continue };
        let Some(at) = flag.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&flag[..at], &flag[at + 1..]);
        let path = cwd.join(std::ffi::OsStr::from_bytes(value));
        if value.is_empty() {
        } else if GO_DIRS.iter().any(|dir| name == dir.as_bytes()) {
            dirs.push(path);
        } else if GO_FILES.iter().any(|file| name == file.as_bytes()) {
            dirs.extend(path.parent().map(Path::to_owned));
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use MirrorWrites::{Host, Private};

    use super::*;

    fn settled(dirs: &[(&str, MirrorWrites)]) -> Vec<(String, MirrorWrites)> {
        let dirs = dirs.iter().map(|(dir, writes)| (PathBuf::from(dir), *writes)).collect();
        let places = Places { dirs }.settle();
        places.dirs.iter().map(|(dir, writes)| (dir.display().to_string(), *writes)).collect()
    }

    #[test]
    fn each_directory_is_there_once_and_parents_come_first() {
        for (given, kept) in [
            (
                &[("/w/a/b", Private), ("/w/a", Private), ("/w/a", Private)][..],
                &[("/w/a", Private)][..],
            ),
            (&[("/w/a/out", Host), ("/w/a", Private)], &[("/w/a", Private), ("/w/a/out", Host)]),
            (&[("/w/a", Host), ("/w/a", Private)], &[("/w/a", Host)]),
            (&[("/w", Host), ("/w/a", Private), ("/w/a/b", Host)], &[("/w", Host)]),
            (&[("/w/ab", Private), ("/w/a", Private)], &[("/w/a", Private), ("/w/ab", Private)]),
            (
                &[("/w", Private), ("/w/o", Host), ("/w/o/p", Private), ("/w/p", Private)],
                &[("/w", Private), ("/w/o", Host)],
            ),
        ] {
            let expected: Vec<_> = kept.iter().map(|(dir, w)| ((*dir).to_owned(), *w)).collect();
            assert_eq!(settled(given), expected, "{given:?}");
        }
    }

    #[test]
    fn nothing_lies_over_what_the_guest_needs() {
        for dir in ["/", "/usr", "/lib64", "/proc/self", "/dev/shm", "/etc"] {
            assert!(refused(Path::new(dir)).is_some(), "{dir}");
        }
        for dir in ["/usr/src/x", "/home/me", "/tmp", "/etc/x", "/root/x"] {
            assert_eq!(refused(Path::new(dir)), None, "{dir}");
        }
    }

    #[test]
    fn go_says_where_it_waits_for_files() {
        let argv: Vec<OsString> = [
            "/tmp/go-build1/b001/x.test",
            "-test.testlogfile=/tmp/go-build1/b001/testlog.txt",
            "-test.paniconexit0",
            "-test.timeout=10m0s",
            "-test.outputdir=/m/pkg",
            "-test.trace=",
            "-test.cpuprofile=cpu.out",
        ]
        .map(OsString::from)
        .into();
        let dirs = go_outputs(&argv, Path::new("/m/pkg"));
        assert_eq!(dirs, ["/tmp/go-build1/b001", "/m/pkg", "/m/pkg"].map(PathBuf::from));
    }

    #[test]
    fn cargos_target_directory_has_a_tag() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let deps = target.join("riscv64gc-unknown-linux-gnu/debug/deps");
        std::fs::create_dir_all(&deps).unwrap();
        let program = deps.join("x-0123");
        // Without it: the profile's directory.
        let (found, tmp) = cargo_target(&program);
        assert_eq!((found.as_deref(), tmp.len()), (deps.ancestors().nth(1 + 1), 0));
        std::fs::write(target.join("CACHEDIR.TAG"), "# tag created by cargo.").unwrap();
        let tmps = [target.join("tmp"), target.join("riscv64gc-unknown-linux-gnu/tmp")];
        tmps.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let (found, mut tmp) = cargo_target(&program);
        tmp.sort();
        let mut expected = tmps.to_vec();
        expected.sort();
        assert_eq!((found, tmp), (Some(target), expected));
        assert_eq!(cargo_target(Path::new("/tmp/rustdoctest1/rust_out")), (None, Vec::new()));
    }
}
