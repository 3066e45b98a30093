//! `vmtest initramfs ls`, `cat`, `extract`, `diff` and `why`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;
use vmtest::formats::cpio;
use vmtest::initramfs::archive::{ArchiveError, Segment, Source};
use vmtest::initramfs::closure::{self, MissingLibrary, Note};
use vmtest::initramfs::entry::Shown;
use vmtest::initramfs::extract::{self, ExtractError, ExtractOptions};
use vmtest::initramfs::inspect::{self, CatError, Change, Item, Listing};
use vmtest::initramfs::report::{Report, explain};
use vmtest::initramfs::{Problem, Problems};
use vmtest::options::Environment;
use vmtest_guest::proto::Bytes;

use super::args::{ExtractArgs, LsArgs, Sort, WhyArgs};
use super::common::{guarded, problems};
use super::options::ContentArgs;
use crate::cli::error::{Failure, UNAVAILABLE};
use crate::cli::ui;
use vmtest::named_file;

fn open(path: &Path) -> Result<Source, Failure> {
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    Source::open(path).map_err(|err| {
        Failure::missing(
            format!("cannot read the image `{}`: {err}", path.display()),
            "check the path",
        )
    })
}

fn unreadable(path: &Path, err: &ArchiveError) -> Failure {
    let mut failure = Failure::unavailable(err, err.hint());
    failure.text = format!("image `{}`: {}", path.display(), failure.text);
    failure
}

/// Writes to stdout. A reader that has seen enough is no error.
pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::missing(format!("cannot write to stdout: {err}"), "is the disk full?"))
        }
        _ => Ok(()),
    }
}

/// A path on one line: as it is in most cases, odd bytes escaped. Without leading slash, as `cpio`
/// lists it.
fn plain(path: &[u8]) -> String {
    match path {
        b"" => ".".to_owned(),
        path => Shown(path).to_string().split_off(1),
    }
}

fn letter(mode: u32) -> char {
    match mode & cpio::S_IFMT {
        cpio::S_IFDIR => 'd',
        cpio::S_IFLNK => 'l',
        cpio::S_IFCHR => 'c',
        cpio::S_IFBLK => 'b',
        cpio::S_IFIFO => 'p',
        cpio::S_IFSOCK => 's',
        _ => '-',
    }
}

fn kind(mode: u32) -> &'static str {
    match letter(mode) {
        'd' => "directory",
        'l' => "symlink",
        'c' => "char",
        'b' => "block",
        'p' => "fifo",
        's' => "socket",
        _ => "file",
    }
}

/// `drwxr-xr-x`.
fn mode_text(mode: u32) -> String {
    let mut text = String::from(letter(mode));
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

pub(super) fn ls(args: &LsArgs) -> Result<u8, Failure> {
    let source = open(&args.image)?;
    let listing = Listing::read(&source, false).map_err(|err| unreadable(&args.image, &err))?;
    if args.segments {
        return segments(&listing.segments, args.json).map(|()| 0);
    }
    let wanted: Vec<Vec<u8>> = args
        .paths
        .iter()
        .map(|path| {
            let path = path.as_bytes();
            let path = path.strip_prefix(b"/").unwrap_or(path);
            path.strip_suffix(b"/").unwrap_or(path).to_vec()
        })
        .collect();
    let below = |path: &[u8], dir: &[u8]| {
        dir.is_empty()
            || path.strip_prefix(dir).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
    };
    let mut items: Vec<&Item> = listing
        .items
        .iter()
        .filter(|item| wanted.is_empty() || wanted.iter().any(|dir| below(&item.path, dir)))
        .collect();
    let absent: Vec<_> =
        wanted.iter().filter(|dir| !items.iter().any(|item| below(&item.path, dir))).collect();
    match args.sort {
        Sort::Archive => {}
        Sort::Name => items.sort_by(|a, b| a.path.cmp(&b.path)),
        Sort::Size => items.sort_by(|a, b| b.size.cmp(&a.size).then(a.path.cmp(&b.path))),
    }
    let mut out = Vec::with_capacity(items.len() * 48);
    if args.json {
        let rows: Vec<_> = items.iter().map(|item| item_json(item)).collect();
        out = serde_json::to_vec_pretty(&rows).unwrap_or_default();
        out.push(b'\n');
    } else if args.tree {
        out.extend(tree(&items).into_bytes());
    } else {
        for item in items {
            if args.long {
                out.extend(long(item).into_bytes());
            } else if args.null {
                out.extend_from_slice(if item.path.is_empty() { b"." } else { &item.path });
                out.push(0);
            } else {
                out.extend(plain(&item.path).into_bytes());
                out.push(b'\n');
            }
        }
    }
    print(&out)?;
    for path in &absent {
        ui::error(&format!("there is no `{}` in the image", Shown(path)));
    }
    Ok(if absent.is_empty() { 0 } else { UNAVAILABLE })
}

fn long(item: &Item) -> String {
    let size = match item.file_type() {
        cpio::S_IFCHR | cpio::S_IFBLK => format!("{}, {}", item.rdev.0, item.rdev.1),
        _ => item.size.to_string(),
    };
    let mut line = format!(
        "{} {:>2} {:>5} {:>5} {size:>10} {}",
        mode_text(item.mode),
        item.nlink,
        item.uid,
        item.gid,
        plain(&item.path)
    );
    if let Some(target) = &item.target {
        line.push_str(" -> ");
        line.push_str(&Shown(target).to_string()[1..]);
    }
    line.push('\n');
    line
}

fn item_json(item: &Item) -> serde_json::Value {
    let mut row = json!({
        "path": Bytes(item.path.clone()),
        "type": kind(item.mode),
        "mode": format!("{:04o}", item.mode & 0o7777),
        "uid": item.uid,
        "gid": item.gid,
        "nlink": item.nlink,
        "mtime": item.mtime,
        "size_bytes": item.size,
        "segment": item.segment,
    });
    if let Some(target) = &item.target {
        row["target"] = json!(Bytes(target.clone()));
    }
    if matches!(item.file_type(), cpio::S_IFCHR | cpio::S_IFBLK) {
        row["rdev"] = json!([item.rdev.0, item.rdev.1]);
    }
    row
}

fn segments(segments: &[Segment], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let rows: Vec<_> = segments
            .iter()
            .map(|segment| {
                json!({
                    "offset": segment.offset,
                    "compression": segment.codec.name(),
                    "stored_bytes": segment.stored_bytes,
                    "bytes": segment.bytes,
                    "members": segment.members,
                })
            })
            .collect();
        let mut text = serde_json::to_vec_pretty(&rows).unwrap_or_default();
        text.push(b'\n');
        return print(&text);
    }
    let mut out = String::from("      offset  compression        stored      unpacked  members\n");
    for segment in segments {
        out.push_str(&format!(
            "{:>12}  {:<11}  {:>12}  {:>12}  {:>7}\n",
            segment.offset,
            segment.codec.name(),
            segment.stored_bytes,
            segment.bytes,
            segment.members
        ));
    }
    print(out.as_bytes())
}

/// A tree with the sum of sizes at each directory.
fn tree(items: &[&Item]) -> String {
    let mut sums: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut known: BTreeMap<&[u8], Option<&Item>> = BTreeMap::new();
    for item in items.iter().filter(|item| !item.path.is_empty()) {
        let mut end = item.path.len();
        known.insert(&item.path, Some(item));
        loop {
            *sums.entry(&item.path[..end]).or_default() += item.size;
            match item.path[..end].iter().rposition(|&b| b == b'/') {
                Some(slash) => end = slash,
                None => break,
            }
            known.entry(&item.path[..end]).or_insert(None);
        }
    }
    let mut out = String::new();
    // `a-b` sorts between `a` and `a/b`: compare component by component.
    let mut paths: Vec<_> = known.into_iter().collect();
    paths.sort_by(|(a, _), (b, _)| a.split(|&b| b == b'/').cmp(b.split(|&b| b == b'/')));
    for (path, item) in paths {
        let depth = path.iter().filter(|&&b| b == b'/').count();
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let mut line = format!("{:>12}  {}{}", sums[path], "  ".repeat(depth), plain(name));
        match item {
            Some(Item { target: Some(target), .. }) => {
                line.push_str(" -> ");
                line.push_str(&Shown(target).to_string()[1..]);
            }
            Some(item) if item.file_type() != cpio::S_IFDIR => {}
            _ => line.push('/'),
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

pub(super) fn cat(image: &Path, path: &OsStr) -> Result<u8, Failure> {
    let source = open(image)?;
    let mut out = io::stdout().lock();
    let result = inspect::cat(&source, path.as_bytes(), &mut out);
    match result.and_then(|()| out.flush().map_err(CatError::Write)) {
        Ok(()) => Ok(0),
        Err(CatError::Write(err)) if err.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(CatError::Archive(err)) => Err(unreadable(image, &err)),
        Err(err) => Err(Failure::unavailable(&err, None)),
    }
}

pub(super) fn extract(args: &ExtractArgs) -> Result<u8, Failure> {
    let source = open(&args.image)?;
    let done = guarded(|cancel| {
        let options = ExtractOptions {
            owner: args.same_owner,
            skip_nodes: args.skip_nodes,
            cancel: Some(cancel),
        };
        extract::extract(&source, &args.dest, options).map_err(|err| not_unpacked(args, err))
    })?;
    if !done.skipped.is_empty() {
        ui::note(&format!("{} device nodes are left out", done.skipped.len()));
    }
    ui::status(&format!("{}: {} entries", args.dest.display(), done.entries));
    Ok(0)
}

/// Says also what is left in the directory, which a second attempt would not take.
fn not_unpacked(args: &ExtractArgs, err: ExtractError) -> Failure {
    let begun = !matches!(
        err,
        ExtractError::NotEmpty { .. } | ExtractError::Dangling { .. } | ExtractError::Dest { .. }
    );
    let mut failure = match &err {
        ExtractError::Archive(err) => unreadable(&args.image, err),
        err => Failure::unavailable(err, err.hint()),
    };
    let left = begun && std::fs::read_dir(&args.dest).is_ok_and(|mut items| items.next().is_some());
    if left {
        let left =
            format!("`{}` is incomplete: empty it before you try again", args.dest.display());
        failure.hint = Some(match failure.hint {
            Some(hint) => format!("{hint}\nhint: {left}"),
            None => left,
        });
    }
    failure
}

pub(super) fn diff(before: &Path, after: &Path, as_json: bool) -> Result<u8, Failure> {
    let (a, b) = (open(before)?, open(after)?);
    let changes = inspect::diff(&a, &b)
        .map_err(|(index, err)| unreadable(if index == 0 { before } else { after }, &err))?;
    let size = |item: &Option<Item>| item.as_ref().map_or(0, |item| item.size);
    if as_json {
        let side = |item: &Option<Item>| {
            item.as_ref().map(|item| {
                let mut row = item_json(item);
                if let Some(hash) = item.sha256 {
                    row["sha256"] = json!(hash.to_string());
                }
                row
            })
        };
        let rows: Vec<_> = changes
            .iter()
            .map(|change| {
                json!({
                    "path": Bytes(change.path.clone()),
                    "change": sign(change).1,
                    "what": change.what,
                    "before": side(&change.before),
                    "after": side(&change.after),
                })
            })
            .collect();
        let mut text = serde_json::to_vec_pretty(&rows).unwrap_or_default();
        text.push(b'\n');
        print(&text)?;
    } else {
        let mut out = String::new();
        for change in &changes {
            let grown = size(&change.after) as i64 - size(&change.before) as i64;
            out.push_str(&format!("{} {grown:>+10}  {}", sign(change).0, plain(&change.path)));
            if !change.what.is_empty() {
                out.push_str(&format!("  ({})", details(change)));
            }
            out.push('\n');
        }
        print(out.as_bytes())?;
        let total: i64 =
            changes.iter().map(|c| size(&c.after) as i64 - size(&c.before) as i64).sum();
        let count = |wanted| changes.iter().filter(|change| sign(change).0 == wanted).count();
        ui::status(&format!(
            "{} added, {} removed, {} changed, {total:+} bytes",
            count('+'),
            count('-'),
            count('~')
        ));
    }
    Ok(u8::from(!changes.is_empty()))
}

fn sign(change: &Change) -> (char, &'static str) {
    match (&change.before, &change.after) {
        (None, _) => ('+', "added"),
        (_, None) => ('-', "removed"),
        _ => ('~', "changed"),
    }
}

fn details(change: &Change) -> String {
    let (Some(a), Some(b)) = (&change.before, &change.after) else { return String::new() };
    let part = |what: &&'static str| match *what {
        "mode" => format!("mode {:04o} to {:04o}", a.mode & 0o7777, b.mode & 0o7777),
        "owner" => format!("owner {}:{} to {}:{}", a.uid, a.gid, b.uid, b.gid),
        "type" => format!("{} to {}", kind(a.mode), kind(b.mode)),
        "target" => {
            let text = |item: &Item| Shown(item.target.as_deref().unwrap_or_default()).to_string();
            format!("target {} to {}", &text(a)[1..], &text(b)[1..])
        }
        "content" => format!("content, {} to {} bytes", a.size, b.size),
        other => other.to_owned(),
    };
    change.what.iter().map(part).collect::<Vec<_>>().join(", ")
}

pub(super) fn why(args: WhyArgs, environment: &Environment) -> Result<u8, Failure> {
    if let Some(path) = &args.report {
        if args.build != ContentArgs::default() {
            return Err(Failure::wrong(
                "`--report` tells of an image that is made; options of `build` change nothing there",
                "leave them out, or `--report`",
            ));
        }
        let report = named_file::read(path)
            .map_err(|err| err.to_string())
            .and_then(|text| serde_json::from_slice(&text).map_err(|err| err.to_string()))
            .map_err(|err| {
                Failure::missing(
                    format!("cannot read the report `{}`: {err}", path.display()),
                    "`vmtest initramfs build --report FILE` writes one",
                )
            })?;
        return answer(&args, &report);
    }
    let spec = args.build.spec(environment)?;
    let result = spec.finish();
    if let Some(library) = &args.missing {
        return missing(library, &result, &spec.notes());
    }
    let image = result.map_err(|found| problems(&found))?;
    answer(&args, &Report::new(spec.arch(), &image, None))
}

fn answer(args: &WhyArgs, report: &Report) -> Result<u8, Failure> {
    if args.sizes {
        print(report.sizes().as_bytes())?;
    }
    let Some(path) = &args.path else { return Ok(0) };
    let chain = report.why(path.as_bytes());
    if !chain.is_empty() {
        print(explain(&chain).as_bytes())?;
        return Ok(0);
    }
    let named: Vec<_> = report.named(path.as_bytes()).collect();
    if named.is_empty() {
        ui::error(&format!("there is no `{}` in the image", Shown(path.as_bytes())));
        return Ok(UNAVAILABLE);
    }
    for entry in named {
        print(explain(&report.why(&entry.path.0)).as_bytes())?;
    }
    Ok(0)
}

/// Prints every place where a library was looked for.
fn missing(
    library: &OsString,
    result: &Result<vmtest::initramfs::Image, Problems>,
    notes: &[Note],
) -> Result<u8, Failure> {
    let name = library.as_bytes();
    let mut found: Vec<&MissingLibrary> = Vec::new();
    if let Err(problems) = result {
        found.extend(problems.iter().filter_map(|problem| match problem {
            Problem::Closure { problem: closure::Problem::MissingLibrary(missing), .. } => {
                Some(&**missing)
            }
            _ => None,
        }));
    }
    found.extend(notes.iter().filter_map(|note| match note {
        Note::AllowedMissing(missing) | Note::DlopenMissing { missing, .. } => Some(missing),
        _ => None,
    }));
    found.retain(|missing| missing.sonames.iter().any(|soname| soname == name));
    if found.is_empty() {
        ui::error(&format!("nothing in the image misses `{}`", library.display()));
        ui::hint("`vmtest initramfs why NAME` says what brought a library in");
        return Ok(UNAVAILABLE);
    }
    let mut out = String::new();
    for missing in found {
        out.push_str(&format!("{missing}\n"));
        for tried in &missing.tried {
            out.push_str(&format!("  {tried}\n"));
        }
        out.push_str(&format!("  {}\n", missing.hint()));
    }
    print(out.as_bytes())?;
    Ok(0)
}
