//! Paths as the guest will resolve them: links are followed inside of the sysroot, and each is kept.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `MAXSYMLINKS` of the kernel: more links than this on one way are `ELOOP`.
const MAX_LINKS: usize = 40;
/// The kernel takes no longer path, the final NUL included.
const PATH_MAX: usize = 4096;

/// A directory tree that will be the guest's root; remembers what it has seen.
#[derive(Debug)]
pub(super) struct Sysroot {
    root: PathBuf,
    /// What lies at a path whose directory part has no links.
    nodes: HashMap<Arc<[u8]>, Node>,
    /// Whole paths, as asked for.
    resolved: HashMap<Vec<u8>, Resolution>,
}

/// What a path leads to.
pub(super) type Resolution = Result<Arc<Resolved>, Arc<PathError>>;

/// The end of a path and the links on the way.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Path from the root without any link; empty for the root itself.
    pub(super) real: Arc<[u8]>,
    pub(super) is_dir: bool,
    pub(super) hops: Vec<Hop>,
    /// Directories left by `..`: they must exist in the guest though nothing may be in them.
    pub(super) crossed: Vec<Arc<[u8]>>,
}

/// One symbolic link.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    /// Where the link is; its directory part has no links.
    pub(super) at: Arc<[u8]>,
    /// Its text.
    pub(super) text: Arc<[u8]>,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub(super) enum PathError {
    /// This component of it is missing or below something that is no directory.
    Absent(Vec<u8>),
    /// Links that lead to each other (the first one again at the end), or too many of them.
    Loop(Vec<Vec<u8>>),
    /// A directory or link cannot be read.
    Io(PathBuf, io::Error),
}

#[derive(Clone, Debug)]
enum Node {
    Absent,
    Dir,
    File,
    Link(Arc<[u8]>),
}

impl Sysroot {
    pub(super) fn new(root: &Path) -> Sysroot {
        Sysroot { root: root.to_owned(), nodes: HashMap::new(), resolved: HashMap::new() }
    }

    /// The host path of `path`, which must have no links, or only ones that are wanted.
    pub(super) fn host(&self, path: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }

    /// Follows `path` from the root, `..` included; leading slashes make no difference.
    pub(super) fn resolve(&mut self, path: &[u8]) -> Resolution {
        if let Some(known) = self.resolved.get(path) {
            return known.clone();
        }
        let resolution = self.walk(path).map(Arc::new).map_err(Arc::new);
        self.resolved.insert(path.to_vec(), resolution.clone());
        resolution
    }

    fn walk(&mut self, path: &[u8]) -> Result<Resolved, PathError> {
        // Components still to do, last one first.
        let mut todo: Vec<Arc<[u8]>> = Vec::new();
        push_reversed(&mut todo, path);
        let mut real: Vec<u8> = Vec::new();
        let mut is_dir = true;
        let mut hops: Vec<Hop> = Vec::new();
        let mut crossed: Vec<Arc<[u8]>> = Vec::new();
        if path.len() >= PATH_MAX {
            return Err(PathError::Absent(path[..64].to_vec()));
        }
        // Only as long as nothing but the last component is left can the directory be looked up
        // at once; this makes a library in a known directory one look-up.
        if let Some(cut) = path.iter().rposition(|&b| b == b'/').filter(|cut| *cut > 0)
            && !matches!(&path[cut + 1..], b"" | b"." | b"..")
        {
            let dir = self.resolve(&path[..cut]).map_err(|e| e.again())?;
            real.extend(&dir.real[..]);
            is_dir = dir.is_dir;
            hops.extend(dir.hops.iter().cloned());
            crossed.extend(dir.crossed.iter().cloned());
            todo.truncate(1);
        }
        while let Some(name) = todo.pop() {
            if !is_dir {
                return Err(PathError::Absent(join(&real, &name)));
            }
            if &name[..] == b".." {
                if !real.is_empty() {
                    crossed.push(Arc::from(&real[..]));
                }
                let cut = real.iter().rposition(|&b| b == b'/').unwrap_or(0);
                real.truncate(cut);
                continue;
            }
            let parent = real.len();
            if parent > 0 {
                real.push(b'/');
            }
            real.extend(&name[..]);
            match self.node(&real)? {
                Node::Absent => return Err(PathError::Absent(real)),
                Node::Dir => is_dir = true,
                Node::File => is_dir = false,
                Node::Link(text) => {
                    hops.push(Hop { at: Arc::from(&real[..]), text: Arc::clone(&text) });
                    if hops.len() > MAX_LINKS {
                        return Err(PathError::Loop(cycle(&hops)));
                    }
                    real.truncate(if text.starts_with(b"/") { 0 } else { parent });
                    push_reversed(&mut todo, &text);
                    is_dir = true;
                }
            }
        }
        Ok(Resolved { real: real.into(), is_dir, hops, crossed })
    }

    fn node(&mut self, real: &[u8]) -> Result<Node, PathError> {
        if let Some(node) = self.nodes.get(real) {
            return Ok(node.clone());
        }
        let host = self.host(real);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Node::Absent),
            // A name too long for the file system is in no directory.
            _ if e.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()) => {
                Ok(Node::Absent)
            }
            io::ErrorKind::InvalidInput => Ok(Node::Absent),
            _ => Err(PathError::Io(host.clone(), e)),
        };
        let node = match std::fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_dir() => Node::Dir,
            Ok(meta) if meta.is_symlink() => match std::fs::read_link(&host) {
                Ok(text) => Node::Link(text.into_os_string().into_vec().into()),
                Err(e) => failed(e)?,
            },
            Ok(_) => Node::File,
            Err(e) => failed(e)?,
        };
        self.nodes.insert(real.into(), node.clone());
        Ok(node)
    }

    /// Sorted names in the directory `real`, none if it cannot be read.
    pub(super) fn list(&self, real: &[u8]) -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = std::fs::read_dir(self.host(real))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().into_vec())
            .collect();
        names.sort();
        names
    }

    /// Where in the sysroot a host path is, if it is in there.
    pub(super) fn inside(&self, host: &Path) -> Option<Vec<u8>> {
        let host = std::path::absolute(host).ok()?;
        let roots = [std::path::absolute(&self.root), std::fs::canonicalize(&self.root)];
        roots
            .into_iter()
            .flatten()
            .find_map(|root| Some(host.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec()))
    }
}

impl PathError {
    /// The same error for a path that contains the first.
    fn again(&self) -> PathError {
        match self {
            PathError::Absent(at) => PathError::Absent(at.clone()),
            PathError::Loop(cycle) => PathError::Loop(cycle.clone()),
            PathError::Io(path, e) => PathError::Io(path.clone(), copy_error(e)),
        }
    }
}

/// `io::Error` cannot be cloned.
pub(super) fn copy_error(e: &io::Error) -> io::Error {
    e.raw_os_error()
        .map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error)
}

fn push_reversed(todo: &mut Vec<Arc<[u8]>>, path: &[u8]) {
    let names = path.split(|&b| b == b'/').rev().filter(|n| !n.is_empty() && *n != b".");
    todo.extend(names.map(Arc::from));
}

/// The part of too many hops that repeats; all of them if none does.
fn cycle(hops: &[Hop]) -> Vec<Vec<u8>> {
    for (i, hop) in hops.iter().enumerate() {
        if let Some(len) = hops[i + 1..].iter().position(|again| again.at == hop.at) {
            return hops[i..=i + 1 + len].iter().map(|hop| hop.at.to_vec()).collect();
        }
    }
    hops.iter().map(|hop| hop.at.to_vec()).collect()
}

/// `path` as an archive has it: no leading slash, no `.` or empty components, `..` taken back
/// (at the root it stays there, as in the kernel).
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            name => out.push(name),
        }
    }
    out.join(&b'/')
}

/// The directory part of an archive path; empty for the root.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(&[], |cut| &path[..cut])
}

/// `dir/name`, or `name` in the root.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn text(path: &[u8]) -> String {
        String::from_utf8(path.to_vec()).unwrap()
    }

    #[test]
    fn links_are_followed_inside_and_every_hop_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("usr/lib/x")).unwrap();
        std::fs::write(root.join("usr/lib/x/libc.so.6.1"), "").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/lib/x/libc.so.6.1", root.join("usr/lib/x/libc.so.6")).unwrap();
        symlink("../../../../../lib/../lib/x", root.join("usr/lib/up")).unwrap();
        let mut sysroot = Sysroot::new(root);
        let found = sysroot.resolve(b"/lib/up/./libc.so.6").unwrap();
        assert_eq!(text(&found.real), "usr/lib/x/libc.so.6.1");
        let hops: Vec<_> = found.hops.iter().map(|hop| text(&hop.at)).collect();
        assert_eq!(hops, ["lib", "usr/lib/up", "lib", "usr/lib/x/libc.so.6", "lib"]);
        assert!(sysroot.resolve(b"lib/x").unwrap().is_dir);
        assert!(sysroot.resolve(b"/").unwrap().is_dir);
        assert!(sysroot.resolve(b"../..").unwrap().real.is_empty());
        assert!(matches!(*sysroot.resolve(b"lib/no").unwrap_err(), PathError::Absent(_)));
        let below_file = sysroot.resolve(b"lib/x/libc.so.6/y").unwrap_err();
        assert!(matches!(*below_file, PathError::Absent(_)));
        assert!(matches!(*sysroot.resolve(&[b'x'; 300]).unwrap_err(), PathError::Absent(_)));
    }

    #[test]
    fn loops_name_their_links() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("/c", dir.path().join("b")).unwrap();
        symlink("b", dir.path().join("c")).unwrap();
        let mut sysroot = Sysroot::new(dir.path());
        match &*sysroot.resolve(b"a/file").unwrap_err() {
            PathError::Loop(cycle) => {
                assert_eq!(cycle.iter().map(|p| text(p)).collect::<Vec<_>>(), ["b", "c", "b"]);
            }
            other => panic!("{other:?}"),
        }
        for i in 0..45 {
            symlink(format!("l{}", i + 1), dir.path().join(format!("l{i}"))).unwrap();
        }
        std::fs::write(dir.path().join("l45"), "").unwrap();
        assert!(sysroot.resolve(b"l5").is_ok());
        match &*sysroot.resolve(b"l4").unwrap_err() {
            PathError::Loop(links) => assert_eq!(links.len(), 41),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_normalised_lexically() {
        for (given, expected) in
            [("/a/./b//c/", "a/b/c"), ("a/../../b", "b"), ("", ""), ("..", ""), ("x/y/..", "x")]
        {
            assert_eq!(text(&normal(given.as_bytes())), expected);
        }
        assert_eq!(parent(b"a/b/c"), b"a/b");
        assert_eq!(parent(b"a"), b"");
        assert_eq!(join(b"", b"x"), b"x");
    }
}
