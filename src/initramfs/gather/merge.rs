//! Entries from many requests to one consistent tree, in the order of the archive.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Read;

use super::uroot::relative;
use crate::initramfs::body;
use crate::initramfs::entry::{Body, Entry, Kind, Reason, Shown, parent};
use crate::initramfs::links::follow;
use crate::initramfs::problem::Problem;

/// Links that Linux follows in one look-up.
const HOPS_MAX: usize = 40;

/// Merges entries; later ones were asked for later.
///
/// 1. A path that leads through a symbolic link of the image is replaced by where it leads, as
///    Linux would do when unpacking; a directory at the link's own path is the directory it leads to.
/// 2. Equal entries become one. Different ones are a conflict, unless one is from a base archive
///    (then it loses) or `take_later`. Directories merge.
/// 3. Missing parents are added with mode 0755.
///
/// The result is sorted by path, byte by byte, so that parents come first.
pub(crate) fn merge(
    entries: Vec<Entry>,
    take_later: bool,
    problems: &mut Vec<Problem>,
    notices: &mut Vec<String>,
) -> Vec<Entry> {
    let mut entries = follow_links(entries, problems);
    // Stable: within a path the order of the requests is kept.
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match merged.last_mut() {
            Some(last) if last.path == entry.path => {
                unite(last, entry, take_later, problems, notices);
            }
            _ => merged.push(entry),
        }
    }
    let mut entries = add_parents(merged, problems);
    lead_to_commands(&mut entries, problems);
    entries
}

/// Tells of links that were asked for by name and lead nowhere in the image.
pub(crate) fn dangling(entries: &[Entry], links: &[Vec<u8>], notices: &mut Vec<String>) {
    let find = |path: &[u8]| {
        let found = entries.binary_search_by(|other| other.path.as_slice().cmp(path));
        Some(&entries[found.ok()?].kind)
    };
    let look = |path: &[u8]| match find(path)? {
        Kind::Symlink { target } => Some(Some(target.clone())),
        _ => Some(None),
    };
    for link in links {
        // It may have been put below a link of a base's to a directory: `bin/x` is `usr/bin/x` then.
        let mut place = follow(parent(link), &look).unwrap_or_else(|| parent(link).to_vec());
        let name = &link[parent(link).len()..];
        place.extend_from_slice(match place.is_empty() {
            true => name.strip_prefix(b"/").unwrap_or(name),
            false => name,
        });
        if let (Some(Kind::Symlink { target }), None) = (find(&place), follow(link, &look)) {
            notices.push(format!(
                "{} is a symbolic link to `{}`, which is not in the image",
                Shown(link),
                target.escape_ascii()
            ));
        }
    }
}

/// Writes the texts of links to commands, relative to where the links are in the end, and makes
/// sure that the commands exist.
fn lead_to_commands(entries: &mut [Entry], problems: &mut Vec<Problem>) {
    for index in 0..entries.len() {
        let Reason::Command { by, target } = &entries[index].reason else { continue };
        if !matches!(entries[index].kind, Kind::Symlink { .. }) {
            continue;
        }
        let look = |path: &[u8]| {
            let found = entries.binary_search_by(|other| other.path.as_slice().cmp(path)).ok()?;
            match &entries[found].kind {
                // Its own old text must not be followed.
                Kind::Symlink { target } if found != index => Some(Some(target.clone())),
                _ => Some(None),
            }
        };
        // The command's own name stays: programs with many names look at it.
        let dir = follow(parent(target), &look).unwrap_or_else(|| parent(target).to_vec());
        let name = &target[parent(target).len()..];
        let mut path = dir;
        path.extend_from_slice(if path.is_empty() {
            name.strip_prefix(b"/").unwrap_or(name)
        } else {
            name
        });
        if follow(&path, &look).is_none_or(|end| end == entries[index].path) {
            problems.push(Problem::Request {
                by: by.clone(),
                what: format!("{} leads nowhere in the image", Shown(target)),
                hint: Some("put the command into the image with `--bin`".into()),
            });
            continue;
        }
        let text = relative(&entries[index].path, &path);
        entries[index].kind = Kind::Symlink { target: text };
    }
}

/// How much an entry's mode was meant: the higher one wins among directories.
fn rank(entry: &Entry) -> u8 {
    match &entry.reason {
        Reason::Parent => 0,
        // A tree's 0755 says nothing: it is what every directory gets.
        Reason::Tree(_) | Reason::Needed { .. } if entry.mode == 0o755 => 1,
        Reason::Base(_) => 2,
        Reason::Tree(_) | Reason::Needed { .. } => 3,
        Reason::Asked(_) | Reason::Command { .. } | Reason::ModuleList(_) => 4,
    }
}

fn unite(
    first: &mut Entry,
    second: Entry,
    take_later: bool,
    problems: &mut Vec<Problem>,
    notices: &mut Vec<String>,
) {
    if matches!((&first.kind, &second.kind), (Kind::Directory, Kind::Directory)) {
        let attributes = |entry: &Entry| (entry.mode, entry.uid, entry.gid);
        let (old, new) = (rank(first), rank(&second));
        if old == new && attributes(first) != attributes(&second) && !take_later && old != 2 {
            return problems.push(conflict(first, &second));
        }
        if new >= old {
            *first = second;
        }
        return;
    }
    let is_base = |entry: &Entry| matches!(entry.reason, Reason::Base(_));
    match (is_base(first), is_base(&second)) {
        // Base archives are already merged among themselves.
        (true, false) => {
            let by = |entry: &Entry| match entry.reason.request() {
                Some(by) => by.to_string(),
                None => entry.reason.to_string(),
            };
            notices.push(format!(
                "{} is taken from {}, not from {}",
                Shown(&first.path),
                by(&second),
                by(first)
            ));
            return *first = second;
        }
        (false, true) => return,
        _ => {}
    }
    match same(first, &second) {
        Ok(true) => {}
        Ok(false) if take_later => *first = second,
        Ok(false) => problems.push(conflict(first, &second)),
        Err(problem) => problems.push(problem),
    }
}

fn conflict(first: &Entry, second: &Entry) -> Problem {
    Problem::Conflict { path: first.path.clone(), first: describe(first), second: describe(second) }
}

/// What an entry is and who asked for it.
fn describe(entry: &Entry) -> String {
    let what = match &entry.kind {
        Kind::Directory => format!("a directory of mode {:04o}", entry.mode),
        Kind::File { body: Body::Host(file), .. } => format!("`{}`", file.path().display()),
        Kind::File { body, .. } => format!("a file of {} bytes", body.size()),
        Kind::Symlink { target } => format!("a link to `{}`", target.escape_ascii()),
        Kind::Node { node, rdev } => format!("a node {node:?} {}:{}", rdev.0, rdev.1),
    };
    format!("{what} ({})", entry.reason)
}

fn same(a: &Entry, b: &Entry) -> Result<bool, Problem> {
    if (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid) {
        return Ok(false);
    }
    Ok(match (&a.kind, &b.kind) {
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => a == b,
        (Kind::Node { node: a, rdev: ra }, Kind::Node { node: b, rdev: rb }) => (a, ra) == (b, rb),
        (Kind::File { body: a, .. }, Kind::File { body: b, .. }) => same_body(a, b)?,
        _ => false,
    })
}

fn same_body(a: &Body, b: &Body) -> Result<bool, Problem> {
    if let (Body::Host(a), Body::Host(b)) = (a, b)
        && a.stamp == b.stamp
    {
        return Ok(true);
    }
    if a.size() != b.size() {
        return Ok(false);
    }
    let (mut a, mut b) = (body::open(a)?, body::open(b)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = fill(&mut *a, &mut left)?;
        if count != fill(&mut *b, &mut right)? || left[..count] != right[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Problem> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Problem::Write { source }),
        }
    }
    Ok(filled)
}

/// Replaces paths that lead through symbolic links of the image.
fn follow_links(mut entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    // Where a link leads changes where other links are, so this is repeated until nothing moves.
    for _ in 0..HOPS_MAX {
        let links: HashMap<Vec<u8>, Vec<u8>> = entries
            .iter()
            .filter_map(|entry| match &entry.kind {
                Kind::Symlink { target } => Some((entry.path.clone(), target.clone())),
                _ => None,
            })
            .collect();
        if links.is_empty() {
            return entries;
        }
        let mut moved = false;
        let mut last: Option<(Vec<u8>, Option<Vec<u8>>)> = None;
        let before = problems.len();
        entries.retain_mut(|entry| {
            // The directory of an entry; of a directory itself, since a link may stand in for it.
            let is_dir = matches!(entry.kind, Kind::Directory);
            let dir = if is_dir { &entry.path[..] } else { parent(&entry.path) };
            if last.as_ref().is_none_or(|(known, _)| known != dir) {
                last = Some((dir.to_vec(), resolve(dir, &links)));
            }
            let Some((dir, resolved)) = &last else { return true };
            let Some(resolved) = resolved else {
                problems.push(Problem::LinkLoop {
                    path: entry.path.clone(),
                    by: entry.reason.to_string(),
                });
                return false;
            };
            if resolved != dir {
                let rest = entry.path[dir.len()..].to_vec();
                entry.path = resolved.clone();
                entry.path.extend_from_slice(if resolved.is_empty() && !rest.is_empty() {
                    &rest[1..]
                } else {
                    &rest
                });
                moved = true;
            }
            !entry.path.is_empty()
        });
        if !moved || problems.len() > before {
            return entries;
        }
    }
    entries
}

/// Where a directory's path leads, component by component; `None` for a circle.
fn resolve(dir: &[u8], links: &HashMap<Vec<u8>, Vec<u8>>) -> Option<Vec<u8>> {
    let mut path: Vec<u8> = Vec::with_capacity(dir.len());
    let mut todo: VecDeque<Vec<u8>> = split(dir).collect();
    let mut hops = 0;
    while let Some(component) = todo.pop_front() {
        if component == b".." {
            path.truncate(parent(&path).len());
            continue;
        }
        let end = path.len();
        if end > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&component);
        if let Some(target) = links.get(&path) {
            hops += 1;
            if hops > HOPS_MAX {
                return None;
            }
            path.truncate(if target.starts_with(b"/") { 0 } else { end });
            for component in split(target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(component);
            }
        }
    }
    Some(path)
}

fn split(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec)
}

/// Adds the directories that nobody asked for, and finds entries below something else.
fn add_parents(mut entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut missing: BTreeMap<Vec<u8>, ()> = BTreeMap::new();
    let mut last: &[u8] = b"";
    for entry in &entries {
        let direct = parent(&entry.path);
        if direct == last {
            continue;
        }
        last = direct;
        let mut dir = direct;
        while !dir.is_empty() && !missing.contains_key(dir) {
            match entries.binary_search_by(|other| other.path.as_slice().cmp(dir)) {
                // Its own parents are looked at when its turn comes.
                Ok(found) if matches!(entries[found].kind, Kind::Directory) => break,
                Ok(found) => {
                    problems.push(Problem::NotADirectory {
                        path: entry.path.clone(),
                        by: entry.reason.to_string(),
                        under: dir.to_vec(),
                        under_by: entries[found].reason.to_string(),
                    });
                    break;
                }
                Err(_) => {
                    missing.insert(dir.to_vec(), ());
                }
            }
            dir = parent(dir);
        }
    }
    entries.extend(missing.into_keys().map(|path| Entry {
        path,
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        reason: Reason::Parent,
    }));
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}
