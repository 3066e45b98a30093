//! Go: `go tool covdata textfmt` for the counters of programs, and the text profile of both.
//!
//! A profile counts blocks of statements from one line and column to another. A line counts as often
//! as the block that ran most of those that touch it: the line of an `if` is also where its body
//! begins.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::NamedTempFile;

use super::collect::Collector;
use super::model::{FileCoverage, Line, TestId};
use super::problem::Problem;
use super::record::Object;
use super::sources::{Base, Resolver};
use super::text::{self, Count};
use crate::causes::chain;
use crate::named_file;

/// A line behind this one is none: Go's compiler counts no further (`lineMax` of `cmd/internal/src`).
const MAX_LINE: u32 = 1 << 20;
/// How the files in Go's directory are called: what describes a program, what a process of it has
/// counted, and text.
pub(super) const META: &str = "covmeta.";
pub(super) const COUNTERS: &str = "covcounters.";
pub(super) const PROFILE: &str = ".coverprofile";
/// What a program's description begins with.
const META_MAGIC: [u8; 4] = [0, b'c', b'v', b'm'];

/// What was wrong with a profile, by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The line's number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A block: its position and whether a profile counts or only tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    from: (u32, u32),
    to: (u32, u32),
}

/// Reads a text profile; `file` gets each name and its coverage. Lines that are wrong are skipped and
/// returned; counts that cannot be read count as not run.
///
/// # Errors
/// Reading fails.
pub fn read(
    reader: &mut dyn BufRead,
    mut file: impl FnMut(&str, FileCoverage),
) -> io::Result<Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mut files: BTreeMap<String, BTreeMap<Block, u64>> = BTreeMap::new();
    let mut bytes = Vec::new();
    let mut first = true;
    for number in 1u64.. {
        bytes.clear();
        if io::Read::take(&mut *reader, 1 << 20).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let text = text::escaped(&bytes);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let mut fail = |why: &str| {
            if wrong.len() < 100 {
                wrong.push(Wrong { line: number, why: why.to_owned() });
            }
        };
        if text.starts_with("mode: ") {
            first = false;
            continue;
        }
        if std::mem::take(&mut first) {
            fail("a profile begins with `mode:`");
        }
        match block(text) {
            Some((name, block, count)) => {
                if let Some(why) = count.wrong {
                    fail(&format!("a block's count {why}"));
                }
                // Several packages' tests may each have counted a block.
                let blocks = match files.get_mut(name) {
                    Some(blocks) => blocks,
                    None => files.entry(name.to_owned()).or_default(),
                };
                let known = blocks.entry(block).or_insert(0);
                *known = known.saturating_add(count.value);
            }
            None => fail("this is no block of a profile"),
        }
    }
    for (name, blocks) in files {
        file(&name, FileCoverage::new(lines(&blocks), Vec::new(), Vec::new()));
    }
    Ok(wrong)
}

/// The lines that blocks touch, each with the highest count, in one pass: the blocks that begin on a
/// line join those that are open, the highest of which is on top.
fn lines(blocks: &BTreeMap<Block, u64>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut open: BinaryHeap<(u64, u32)> = BinaryHeap::new();
    let mut blocks = blocks.iter().peekable();
    let mut line = 0;
    loop {
        while open.peek().is_some_and(|(_, last)| *last < line) {
            open.pop();
        }
        if open.is_empty() {
            let Some((next, _)) = blocks.peek() else { return lines };
            line = line.max(next.from.0);
        }
        while let Some((block, count)) = blocks.next_if(|(block, _)| block.from.0 <= line) {
            // A block that ends before a line's first column does not touch it.
            let last = if block.to.1 <= 1 { block.to.0 - 1 } else { block.to.0 };
            open.push((*count, last.max(block.from.0)));
        }
        if let Some((count, _)) = open.peek() {
            lines.push(Line { line, count: *count });
        }
        line += 1;
    }
}

/// `example.com/m/f.go:4.21,5.11 1 1`: from, to, statements, count.
fn block(text: &str) -> Option<(&str, Block, Count)> {
    let mut words = text.rsplitn(3, ' ');
    let count = text::count(words.next()?);
    words.next()?.parse::<u32>().ok()?;
    let (name, range) = words.next()?.rsplit_once(':')?;
    let (from, to) = range.split_once(',')?;
    let position = |text: &str| {
        let (line, column) = text.split_once('.')?;
        Some((line.parse::<u32>().ok()?, column.parse::<u32>().ok()?))
    };
    let (from, to) = (position(from)?, position(to)?);
    let sane = from.0 > 0 && from <= to && to.0 <= MAX_LINE && !name.is_empty();
    sane.then_some((name, Block { from, to }, count))
}

/// Converts what is in a directory: counters of programs and text profiles.
pub(crate) fn profiles(collector: &Collector<'_>, test: TestId, dir: &Path, objects: &[Object]) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            return collector.problem(Problem::at(dir, format!("cannot be read: {error}")));
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let modules = modules(objects, collector.sources.roots.iter().map(|root| root.to.as_path()));
    let resolver = Resolver::new(collector.sources, Base::Go(modules));
    let of = |prefix: &str| -> Vec<&Path> {
        paths.iter().map(PathBuf::as_path).filter(|path| name(path).starts_with(prefix)).collect()
    };
    let (metas, mut counted) = (of(META), of(COUNTERS));
    if counted.is_empty() && !metas.is_empty() {
        let hint = "a program writes its counters when it exits; one that is killed cannot";
        collector.problem(Problem::at(dir, "there are no covcounters files").hint(hint));
    }
    counted.retain(|path| {
        let meta = meta(path);
        let there = metas.iter().any(|path| name(path) == meta);
        if !there {
            let why = format!("{meta}, which describes its program, is not beside it");
            collector.problem(Problem::at(path, why));
        }
        there
    });
    if !counted.is_empty()
        && let Err(problem) = counters(collector, test, dir, &counted, &resolver)
    {
        collector.problem(problem);
    }
    for path in paths.iter().filter(|path| name(path).ends_with(PROFILE)) {
        profile(collector, test, path, path, &resolver);
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What describes the program that wrote these counters: `covcounters.HASH.PID.TIME`, `covmeta.HASH`.
fn meta(counters: &Path) -> String {
    let name = name(counters);
    META.to_owned() + name.split('.').nth(1).unwrap_or_default()
}

fn profile(
    collector: &Collector<'_>,
    test: TestId,
    path: &Path,
    called: &Path,
    resolver: &Resolver<'_>,
) {
    let read = named_file::open_stream(path).and_then(|opened| {
        read(&mut BufReader::new(opened), |name, file| {
            collector.add(test, resolver, None, name, file);
        })
    });
    match read {
        Ok(wrong) => {
            if let Some(first) = wrong.first() {
                let why = format!("line {}: {} ({} such)", first.line, first.why, wrong.len());
                collector.problem(Problem::at(called, why));
            }
        }
        Err(error) => collector.problem(Problem::at(called, format!("cannot be read: {error}"))),
    }
}

/// Converts counters. Go's tool gives up at the first file that it cannot read, and where programs of
/// one call count in different ways (`-covermode`): each way has a call of its own, and where that
/// fails, each file.
fn counters(
    collector: &Collector<'_>,
    test: TestId,
    dir: &Path,
    files: &[&Path],
    resolver: &Resolver<'_>,
) -> Result<(), Problem> {
    let go = collector.tools.go.clone().or_else(|| which::which("go").ok()).ok_or_else(|| {
        Problem::at(dir, "there is no `go` to convert it")
            .hint("install Go 1.20 or newer, or name it with --go")
    })?;
    let mut modes: BTreeMap<Option<[u8; 2]>, Vec<&Path>> = BTreeMap::new();
    for file in files {
        modes.entry(mode(&file.with_file_name(meta(file)))).or_default().push(file);
    }
    for files in modes.into_values() {
        match convert(collector, &go, dir, &files) {
            Ok(text) => profile(collector, test, text.path(), dir, resolver),
            Err(_) if files.len() > 1 && !collector.tools.cancel.is_cancelled() => {
                for file in files {
                    match convert(collector, &go, file, &[file]) {
                        Ok(text) => profile(collector, test, text.path(), file, resolver),
                        Err(problem) => collector.problem(problem),
                    }
                }
            }
            Err(problem) => collector.problem(problem),
        }
    }
    Ok(())
}

/// How a program counts: what its description says of mode and granularity (`MetaFileHeader` of Go's
/// `internal/coverage`); `None` where it does not.
fn mode(meta: &Path) -> Option<[u8; 2]> {
    let mut head = [0; 50];
    File::open(meta).ok()?.read_exact(&mut head).ok()?;
    (head[..4] == META_MAGIC).then_some([head[48], head[49]])
}

/// `go tool covdata textfmt` of these counters; `object` is what a problem is about.
fn convert(
    collector: &Collector<'_>,
    go: &Path,
    object: &Path,
    files: &[&Path],
) -> Result<NamedTempFile, Problem> {
    let no_room = |error: io::Error| {
        Problem::at(collector.scratch, format!("cannot write temporary files: {error}"))
            .hint("TMPDIR says where they go")
    };
    let out = NamedTempFile::new_in(collector.scratch).map_err(no_room)?;
    // A directory of links: it has only what is wanted, and no comma, which separates directories.
    let input = tempfile::tempdir_in(collector.scratch).map_err(no_room)?;
    for file in files {
        let file = fs::canonicalize(file).map_err(|error| Problem::at(file, error))?;
        let meta = file.with_file_name(meta(&file));
        for path in [&file, &meta] {
            let linked = symlink(path, input.path().join(name(path)));
            linked.or_else(|error| match error.kind() {
                // Several processes of one program have their description in common.
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(no_room(error)),
            })?;
        }
    }
    let mut command = Command::new(go);
    command
        .args(["tool", "covdata", "textfmt", "-i=.", "-o"])
        .arg(out.path())
        .current_dir(input.path());
    collector.tools.run_well(&mut command, |_| Ok(())).map_err(|error| {
        let text = chain(&error);
        let problem = Problem::at(object, &text);
        if text.contains("no such tool") {
            return problem.hint("`go tool covdata` needs Go 1.20 or newer; name it with --go");
        }
        problem
    })?;
    Ok(out)
}

/// The modules that are near the programs, in the current directory, or at the given roots: their
/// names and directories. The longest name is first: modules lie within others.
fn modules<'a>(
    objects: &'a [Object],
    roots: impl Iterator<Item = &'a Path>,
) -> Vec<(String, PathBuf)> {
    let starts = objects.iter().filter_map(|object| object.host.parent()).chain(roots);
    let current = std::env::current_dir().ok();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for start in starts.map(Path::to_owned).chain(current) {
        for dir in start.ancestors() {
            if !seen.insert(dir.to_owned()) {
                break;
            }
            let Ok(text) = fs::read_to_string(dir.join("go.mod")) else { continue };
            let name = text.lines().find_map(|line| line.trim().strip_prefix("module "));
            if let Some(name) = name {
                found.push((name.trim().trim_matches('"').to_owned(), dir.to_owned()));
            }
        }
    }
    found.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Lines = BTreeMap<String, Vec<(u32, u64)>>;

    fn parse(text: &str) -> (Lines, Vec<Wrong>) {
        let mut found = BTreeMap::new();
        let wrong = read(&mut text.as_bytes(), |name, file| {
            let lines = file.lines().iter().map(|line| (line.line, line.count)).collect();
            found.insert(name.to_owned(), lines);
        });
        (found, wrong.unwrap())
    }

    #[test]
    fn blocks_become_lines() {
        let (files, wrong) = parse(
            "mode: count\nm/l.go:4.21,5.11 1 7\nm/l.go:11.2,11.10 1 0\nm/l.go:5.11,7.3 1 2\n\
             m/l.go:5.11,7.3 1 3\n",
        );
        assert_eq!(wrong, []);
        assert_eq!(files["m/l.go"], [(4, 7), (5, 7), (6, 5), (7, 5), (11, 0)]);
    }

    #[test]
    fn names_may_have_spaces_and_colons() {
        let (files, _) = parse("mode: set\n/a b/c:d.go:1.1,1.9 1 1\n");
        assert_eq!(files["/a b/c:d.go"], [(1, 1)]);
    }

    #[test]
    fn the_good_part_of_a_bad_profile_is_kept() {
        let text = "m.go:1.1,2.2 1 1\nx\nm.go:9.1,8.1 1 1\nm.go:0.1,8.1 1 1\n\
                    m.go:1.1,4294967295.2 1 1\nm.go:5.1,5.3 1 4\n";
        let (files, wrong) = parse(text);
        assert_eq!(wrong.iter().map(|wrong| wrong.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(files["m.go"], [(1, 1), (2, 1), (5, 4)]);
    }

    #[test]
    fn modules_are_found_above_programs() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/bin")).unwrap();
        fs::write(dir.path().join("go.mod"), "// x\nmodule example.com/m\n\ngo 1.22\n").unwrap();
        fs::write(dir.path().join("sub/go.mod"), "module example.com/m/sub\n").unwrap();
        let object = Object { host: dir.path().join("sub/bin/prog"), guest: None };
        let found = modules(&[object], std::iter::empty());
        assert_eq!(found[0], ("example.com/m/sub".to_owned(), dir.path().join("sub")));
        assert_eq!(found[1], ("example.com/m".to_owned(), dir.path().to_owned()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([a.:, 0-9]{0,12}\n|mode: set\n){0,8}") {
            parse(&text);
        }
    }
}
