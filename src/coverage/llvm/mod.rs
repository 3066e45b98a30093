//! LLVM's source-based coverage, of Rust and clang: `llvm-profdata merge`, then `llvm-cov export`.
//!
//! A raw profile can be read by the versions of LLVM with its format only, so the tools that there
//! are, are tried until one can. Profiles are sorted by the program that wrote them: functions of one
//! name in two programs are two functions.

mod objects;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::collect::{Collector, in_parallel};
use super::lcov;
use super::model::TestId;
use super::problem::Problem;
use super::record::Object;
use super::sources::{Base, Resolver};
use super::tools::{Llvm, ToolError, hint_llvm};
use crate::causes::chain;
use objects::{Fit, Instrumented};

/// What raw profiles begin with, as the machine stores it; the `R` is for 32-bit programs.
const MAGIC: [[u8; 8]; 4] = [
    [0x81, b'r', b'f', b'o', b'r', b'p', b'l', 0xff],
    [0x81, b'R', b'f', b'o', b'r', b'p', b'l', 0xff],
    [0xff, b'l', b'p', b'r', b'o', b'f', b'r', 0x81],
    [0xff, b'l', b'p', b'r', b'o', b'f', b'R', 0x81],
];

/// A program and those of its profiles that have one format.
#[derive(Debug)]
struct Group {
    program: PathBuf,
    format: u64,
    profiles: Vec<PathBuf>,
}

/// Converts the profiles in `dir`.
pub(crate) fn profiles(
    collector: &Collector<'_>,
    test: TestId,
    dir: &Path,
    objects: &[Object],
    record: &Path,
) {
    let profiles = match raw_profiles(dir) {
        Ok(profiles) => profiles,
        Err(error) => {
            return collector.problem(Problem::at(dir, format!("cannot be read: {error}")));
        }
    };
    if profiles.is_empty() {
        return;
    }
    let mut programs = Vec::new();
    for object in objects {
        match objects::instrumented(&object.host) {
            Ok(Some(program)) => programs.push(program),
            Ok(None) => {}
            Err(error) => {
                let why = format!("cannot be read: {error}");
                collector.problem(Problem::at(&object.host, why).hint(
                    "the program that ran in the guest is needed to make sense of its profiles",
                ));
            }
        }
    }
    let groups = groups(collector, profiles, &programs, record);
    let resolver = Resolver::new(collector.sources, Base::Nothing);
    in_parallel(
        collector.jobs,
        |send| groups.into_iter().for_each(|group| send.send(group).unwrap_or(())),
        |group| {
            if let Err(problem) = export(collector, test, &resolver, &group) {
                collector.problem(problem);
            }
        },
    );
}

fn raw_profiles(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "profraw") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The format of a raw profile.
fn format(path: &Path) -> Result<u64, Problem> {
    let mut head = [0; 16];
    let file = fs::symlink_metadata(path).and_then(|metadata| match metadata.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is no regular file")),
    });
    let mut file = file.map_err(|error| Problem::at(path, format!("cannot be read: {error}")))?;
    if file.read_exact(&mut head).is_err() {
        return Err(Problem::at(path, "it is empty or cut short")
            .hint("a program writes its profile when it exits; one that is killed cannot"));
    }
    let (magic, version) = head.split_at(8);
    let version: [u8; 8] = version.try_into().expect("eight bytes");
    let version = match MAGIC.iter().position(|known| known == magic) {
        Some(0 | 1) => u64::from_le_bytes(version),
        Some(_) => u64::from_be_bytes(version),
        None => return Err(Problem::at(path, "it is no raw profile of LLVM's")),
    };
    // The upper byte has flags.
    Ok(version & 0x00ff_ffff_ffff_ffff)
}

/// Sorts profiles by program and format.
fn groups(
    collector: &Collector<'_>,
    profiles: Vec<PathBuf>,
    programs: &[Instrumented],
    record: &Path,
) -> Vec<Group> {
    let mut groups: BTreeMap<(usize, u64), Vec<PathBuf>> = BTreeMap::new();
    for path in profiles {
        let format = match format(&path) {
            Ok(format) => format,
            Err(problem) => {
                collector.problem(problem);
                continue;
            }
        };
        let fits = programs.iter().enumerate().map(|(index, program)| {
            (program.fit(&path, format).unwrap_or(Fit::None), Reverse(index))
        });
        let best = fits.max().filter(|(fit, _)| *fit != Fit::None);
        let owner = best.map(|(_, Reverse(index))| index);
        match owner {
            Some(owner) => groups.entry((owner, format)).or_default().push(path),
            None => {
                let why = match programs {
                    [] => "there is no instrumented program to make sense of it",
                    _ => "it is of none of the run's programs, of another build, or cut short",
                };
                collector.problem(Problem::at(&path, why).hint(format!(
                    "`objects` in {} names the programs; was one built anew after the run?",
                    record.display()
                )));
            }
        }
    }
    let mut found = Vec::new();
    for ((owner, format), profiles) in groups {
        let program = &programs[owner];
        if program.mapped {
            found.push(Group { program: program.path.clone(), format, profiles });
        } else {
            let why = "it has no coverage map: it was stripped, or built without \
                       -fcoverage-mapping";
            collector.problem(Problem::at(&program.path, why));
        }
    }
    found
}

/// Merges a group's profiles and exports them.
fn export(
    collector: &Collector<'_>,
    test: TestId,
    resolver: &Resolver<'_>,
    group: &Group,
) -> Result<(), Problem> {
    let scratch = tempfile::tempdir_in(collector.scratch).map_err(|error| {
        Problem::at(collector.scratch, format!("cannot write temporary files: {error}"))
    })?;
    // Numbers for names: a list of files cannot hold any name.
    let mut list = String::new();
    for (index, profile) in group.profiles.iter().enumerate() {
        let name = scratch.path().join(format!("{index}.profraw"));
        let target = fs::canonicalize(profile).unwrap_or_else(|_| profile.clone());
        symlink(target, name).map_err(|error| Problem::at(profile, error))?;
        list.push_str(&format!("{index}.profraw\n"));
    }
    fs::write(scratch.path().join("list"), list)
        .map_err(|error| Problem::at(scratch.path(), error))?;
    let mut failed = None;
    for llvm in collector.llvm_dirs() {
        let merged = match merge(collector, llvm, scratch.path(), group) {
            Ok(complaints) => complaints,
            Err(error) => {
                failed = Some((llvm, error));
                continue;
            }
        };
        match lines(collector, llvm, scratch.path(), &group.program) {
            Ok(files) => {
                merged.into_iter().for_each(|problem| collector.problem(problem));
                for (path, file) in files {
                    collector.add(test, resolver, None, &path, file);
                }
                return Ok(());
            }
            Err(error) => failed = Some((llvm, error)),
        }
    }
    let object = match group.profiles.as_slice() {
        [one] => one.display().to_string(),
        [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
        [] => group.program.display().to_string(),
    };
    let which = versions(group.format);
    Err(match failed {
        None => Problem::new(object, "there is no llvm-cov to read it").hint(hint_llvm(&which)),
        Some((_, error @ ToolError::Cancelled)) => Problem::new(object, error),
        Some((llvm, error)) => {
            let why = format!(
                "no LLVM here reads this profile of {} (raw format {}); the last tried was \
                 {llvm}: {}",
                group.program.display(),
                group.format,
                chain(&error),
            );
            Problem::new(object, why).hint(hint_llvm(&which))
        }
    })
}

/// Which versions of LLVM write a raw format (`INSTR_PROF_RAW_VERSION` of their sources).
fn versions(format: u64) -> String {
    match format {
        0..=4 => "10 or older".into(),
        5 => "11 or 12".into(),
        6 | 7 => "13".into(),
        8 => "14 to 17".into(),
        9 => "18".into(),
        10 => "19 or newer".into(),
        newer => format!("one with raw format {newer}, newer than 19"),
    }
}

/// Merges the profiles; those that cannot be used are problems as long as one can.
fn merge(
    collector: &Collector<'_>,
    llvm: &Llvm,
    scratch: &Path,
    group: &Group,
) -> Result<Vec<Problem>, ToolError> {
    let mut command = Command::new(&llvm.profdata);
    command
        .args(["merge", "-sparse", "-failure-mode=all", "-num-threads=1"])
        .args(["-input-files=list", "-o", "merged.profdata"])
        .current_dir(scratch);
    let finished = collector.tools.run(&mut command, |_| Ok(()))?;
    if !finished.status.success() {
        let program = llvm.profdata.clone();
        let (status, stderr) = (finished.status, finished.stderr);
        return Err(ToolError::Failed { program, status, stderr });
    }
    let problems = finished.stderr.lines().filter_map(|line| {
        let rest = line.split_once("warning: ")?.1;
        let (name, why) = rest.split_once(".profraw: ")?;
        let index = name.rsplit('/').next()?.parse::<usize>().ok()?;
        Some(Problem::at(group.profiles.get(index)?, why))
    });
    Ok(problems.collect())
}

type Files = Vec<(String, super::model::FileCoverage)>;

fn lines(
    collector: &Collector<'_>,
    llvm: &Llvm,
    scratch: &Path,
    program: &Path,
) -> Result<Files, ToolError> {
    let mut command = Command::new(&llvm.cov);
    command
        .args(["export", "--format=lcov", "--num-threads=1", "--instr-profile"])
        .arg(scratch.join("merged.profdata"))
        .arg(program);
    collector.tools.run_well(&mut command, |stdout| {
        let mut files = Vec::new();
        lcov::read(stdout, |_, path, file| {
            if collector.sources.wants(path) || !collector.sources.roots.is_empty() {
                files.push((path.to_owned(), file));
            }
        })?;
        Ok(files)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_in_the_head() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.profraw");
        let of = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            format(&path)
        };
        let raw = |magic: [u8; 8], version: [u8; 8]| [magic, version].concat();
        assert_eq!(of(&raw(MAGIC[0], [10, 0, 0, 0, 0, 0, 0, 1])), Ok(10));
        assert_eq!(of(&raw(MAGIC[1], 8u64.to_le_bytes())), Ok(8));
        assert_eq!(of(&raw(MAGIC[2], 9u64.to_be_bytes())), Ok(9));
        assert!(of(b"").is_err());
        assert!(of(&MAGIC[0]).is_err());
        assert!(of(b"this is a text, no profile").is_err());
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(format(&path).unwrap_err().why.contains("no regular file"));
    }
}
