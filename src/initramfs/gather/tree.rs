//! Files and directories of the host to entries, without opening any of them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::closure::is_loadable;
use super::scan::{Program, Scan};
use crate::arch::Arch;
use crate::formats::cpio;
use crate::initramfs::entry::{
    Body, Entry, HostFile, HostPath, Kind, Node, PathProblem, Reason, Request, Shown, Stamp,
    normal_mode, normalize,
};
use crate::initramfs::problem::Problem;
use crate::initramfs::spec::Attributes;

impl Scan {
    /// Adds one file of any kind; a symbolic link stays one unless `follow`.
    pub(crate) fn file(
        &mut self,
        src: &Path,
        dest: Vec<u8>,
        attributes: Attributes,
        reason: Reason,
        follow: bool,
    ) {
        let metadata = if follow { fs::metadata(src) } else { fs::symlink_metadata(src) };
        match metadata {
            Ok(metadata) => {
                if metadata.is_symlink() {
                    self.named_links.push(dest.clone());
                }
                self.add(HostPath::whole(src), &metadata, dest, attributes, reason);
            }
            Err(source) => self.unreadable(src, &reason, source),
        }
    }

    /// Adds a directory and everything in it. `dest` may be the root (empty).
    pub(crate) fn tree(&mut self, src: &Path, dest: &[u8], attributes: Attributes, by: &Request) {
        let reason = Reason::Tree(by.clone());
        let root: Arc<Path> = src.into();
        match fs::metadata(src) {
            Ok(metadata) if !dest.is_empty() => {
                self.add(
                    HostPath::whole(src),
                    &metadata,
                    dest.to_vec(),
                    attributes,
                    reason.clone(),
                );
            }
            Ok(_) => {}
            Err(source) => return self.unreadable(src, &reason, source),
        }
        // A tree has no links to directories: below its real path all paths are real.
        let whole = real(src);
        let hidden = self.leave_out.iter().filter_map(|path| path.strip_prefix(&whole).ok());
        let hidden: Vec<PathBuf> =
            hidden.filter(|rest| !rest.as_os_str().is_empty()).map(Path::to_owned).collect();
        let mut listings = list(&root);
        // Problems and notices come out in the same order everywhere.
        listings.sort_by(|a, b| a.below.cmp(&b.below));
        for Listing { below, items } in listings {
            if hidden.iter().any(|path| Path::new(OsStr::from_bytes(&below)).starts_with(path)) {
                continue;
            }
            let items = match items {
                Ok(items) => items,
                Err(source) => {
                    self.unreadable(&HostPath::below(&root, &below).get(), &reason, source);
                    continue;
                }
            };
            for (name, metadata) in items {
                let rest = join(&below, name.as_bytes());
                let host = HostPath::below(&root, &rest);
                if hidden.iter().any(|path| path.as_os_str().as_bytes() == rest) {
                    self.left_out.push(host.get());
                    continue;
                }
                let metadata = match metadata {
                    Ok(metadata) => metadata,
                    Err(source) => {
                        self.unreadable(&host.get(), &reason, source);
                        continue;
                    }
                };
                let path = join(dest, &rest);
                if let Err(problem) = check(&path, name.as_bytes()) {
                    self.problems.push(Problem::Destination {
                        dest: path,
                        by: by.clone(),
                        problem,
                    });
                    continue;
                }
                self.add(host, &metadata, path, attributes, reason.clone());
            }
        }
    }

    /// Takes the programs and libraries out of the entries from `first` on: they come back with what they
    /// need. Object files, modules, cores and what is for another machine are data.
    pub(crate) fn take_elf_files(
        &mut self,
        first: usize,
        arch: Arch,
        by: &Request,
    ) -> Vec<Program> {
        let mut programs = Vec::new();
        let added = self.entries.split_off(first);
        for entry in added {
            match &entry.kind {
                Kind::File { body: Body::Host(file), .. } if is_loadable(arch, &file.path()) => {
                    programs.push(Program {
                        src: file.path(),
                        dest: entry.path,
                        by: by.clone(),
                        absent: false,
                    });
                }
                _ => self.entries.push(entry),
            }
        }
        programs
    }

    fn add(
        &mut self,
        host: HostPath,
        metadata: &fs::Metadata,
        path: Vec<u8>,
        attributes: Attributes,
        reason: Reason,
    ) {
        let file_type = metadata.file_type();
        let mode = if attributes.preserve_modes && !file_type.is_symlink() {
            metadata.mode() & 0o7777
        } else {
            normal_mode(metadata.mode())
        };
        let (uid, gid) =
            if attributes.preserve_owner { (metadata.uid(), metadata.gid()) } else { (0, 0) };
        let kind = if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_file() {
            let size = metadata.len();
            if size > cpio::SIZE_MAX {
                let allocated = metadata.blocks().saturating_mul(512);
                return self.problems.push(Problem::TooLarge { path: host.get(), size, allocated });
            }
            if let Err(source) = self.readable(&host, metadata) {
                return self.unreadable(&host.get(), &reason, source);
            }
            if metadata.mode() & 0o111 != 0 && has_capabilities(&host) {
                self.with_capabilities.push(path.clone());
            }
            let link = (metadata.nlink() > 1).then(|| {
                let next = self.links.len() as u32;
                let key = (metadata.dev(), metadata.ino(), mode, uid, gid);
                *self.links.entry(key).or_insert(next)
            });
            let public = metadata.mode() & 0o004 != 0;
            let file = HostFile { path: host, size, stamp: Stamp::of(metadata), public };
            Kind::File { body: Body::Host(file), link }
        } else if file_type.is_symlink() {
            match fs::read_link(host.get()) {
                Ok(target) => Kind::Symlink { target: target.into_os_string().into_vec() },
                Err(source) => return self.unreadable(&host.get(), &reason, source),
            }
        } else if file_type.is_socket() {
            let notice = format!(
                "{} left out: `{}` is a socket, which means nothing in another machine",
                Shown(&path),
                host.get().display()
            );
            return self.notices.push(notice);
        } else {
            let rdev = metadata.rdev();
            let rdev = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            let (node, rdev) = if file_type.is_fifo() {
                (Node::Fifo, (0, 0))
            } else if file_type.is_block_device() {
                (Node::Block, rdev)
            } else {
                (Node::Char, rdev)
            };
            Kind::Node { node, rdev }
        };
        self.entries.push(Entry { path, kind, mode, uid, gid, reason });
    }

    /// Whether a file can be read, found out without opening it.
    fn readable(&self, host: &HostPath, metadata: &fs::Metadata) -> io::Result<()> {
        if self.is_root || metadata.mode() & 0o444 == 0o444 {
            return Ok(());
        }
        Ok(rustix::fs::access(host.get(), rustix::fs::Access::READ_OK)?)
    }
}

/// What is in one directory, by name.
struct Listing {
    /// The directory's path below the tree's root.
    below: Vec<u8>,
    items: io::Result<Vec<(OsString, io::Result<fs::Metadata>)>>,
}

/// Directories that one thread may have before it for others to help it.
const HELP_FROM_DIRS: usize = 16;

/// Lists a tree, with several threads if it is large: the kernel's look-ups are what takes time.
fn list(root: &Arc<Path>) -> Vec<Listing> {
    let mut listings = Vec::new();
    // Directories still to be read. A list instead of recursion: the depth of a tree is up to
    // whoever made it.
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while todo.len() < HELP_FROM_DIRS {
        let Some(below) = todo.pop() else { return listings };
        listings.push(read_dir(root, below, &mut todo));
    }
    // Besides the list: how many directories are being read, which may add to it.
    let state = Mutex::new((todo, 0usize));
    let changed = Condvar::new();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let mut listings = Vec::new();
        let mut found = Vec::new();
        let mut now = lock();
        loop {
            let Some(below) = now.0.pop() else {
                if now.1 == 0 {
                    return listings;
                }
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            now.1 += 1;
            drop(now);
            listings.push(read_dir(root, below, &mut found));
            now = lock();
            now.1 -= 1;
            now.0.append(&mut found);
            changed.notify_all();
        }
    };
    let helpers = std::thread::available_parallelism().map_or(1, usize::from).min(4) - 1;
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        listings.extend(work());
        for helper in helpers {
            listings.extend(helper.join().unwrap_or_default());
        }
    });
    listings
}

/// Lists one directory; directories in it are added to `todo`.
fn read_dir(root: &Arc<Path>, below: Vec<u8>, todo: &mut Vec<Vec<u8>>) -> Listing {
    let dir = HostPath::below(root, &below).get();
    let items = fs::read_dir(dir).and_then(|items| {
        let mut listed = Vec::new();
        for item in items {
            let item = item?;
            listed.push((item.file_name(), item.metadata()));
        }
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(listed)
    });
    for (name, metadata) in items.iter().flatten() {
        if metadata.as_ref().is_ok_and(fs::Metadata::is_dir) {
            todo.push(join(&below, name.as_bytes()));
        }
    }
    Listing { below, items }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// [`normalize`]'s rules for a path that is put together from checked parts and one file name.
fn check(path: &[u8], name: &[u8]) -> Result<(), PathProblem> {
    if name.len() > cpio::COMPONENT_MAX {
        Err(PathProblem::Component(name.len()))
    } else if path.len() > cpio::NAME_MAX {
        Err(PathProblem::Length(path.len()))
    } else if path == cpio::TRAILER {
        Err(PathProblem::Trailer)
    } else {
        Ok(())
    }
}

/// The destination of a source that was given without one: the same path, from the root.
pub(crate) fn default_dest(src: &Path) -> Result<Vec<u8>, PathProblem> {
    normalize(src.as_os_str().as_bytes())
}

/// Whether a program has file capabilities: losing them changes what it can do.
fn has_capabilities(host: &HostPath) -> bool {
    // The longest form has 24 bytes (`VFS_CAP_REVISION_3`).
    let mut value = [0u8; 64];
    rustix::fs::lgetxattr(host.get(), "security.capability", &mut value).is_ok()
}

/// Whether a file begins as ELF files do. One that cannot be read is reported later.
/// The path without symbolic links; its last part need not exist.
pub(crate) fn real(path: &Path) -> PathBuf {
    let path = absolute(path);
    path.canonicalize().unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => dir.canonicalize().unwrap_or(dir.to_owned()).join(name),
        _ => path.clone(),
    })
}

/// What a request for a host path means for the closure and for messages.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
