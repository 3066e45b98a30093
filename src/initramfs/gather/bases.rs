//! Archives of others as the ground of an image.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::scan::{Program, Scan};
use crate::formats::cpio;
use crate::initramfs::entry::{Body, Entry, Kind, Node, Reason, Request, Shown, Stamp, normalize};
use crate::initramfs::problem::Problem;
use crate::initramfs::read::archive::{ArchiveError, Source, Visit};

/// Merges base archives as Linux would unpack them one after the other: the last one wins.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Bodies from compressed segments.
    spool: Option<(Arc<File>, u64)>,
    /// The archive that is being read.
    stamp: Stamp,
}

/// Names of one file of a base archive.
struct Group {
    link: u32,
    body: Body,
    paths: Vec<Vec<u8>>,
}

impl Group {
    fn new(scan: &mut Scan, body: &Body) -> Group {
        Group { link: scan.new_link(), body: body.clone(), paths: Vec::new() }
    }

    /// One more name. Data may come with any of them; the last counts.
    fn join(&mut self, path: &[u8], body: &Body, has_data: bool) -> u32 {
        if has_data {
            self.body = body.clone();
        }
        self.paths.push(path.to_owned());
        self.link
    }
}

enum Stop {
    Archive(ArchiveError),
    Other(Problem),
}

impl From<ArchiveError> for Stop {
    fn from(err: ArchiveError) -> Stop {
        Stop::Archive(err)
    }
}

impl Bases {
    /// Reads an archive and lays it over those before.
    pub(crate) fn add(&mut self, source: &Source, by: &Request, scan: &mut Scan) {
        self.stamp = match source.stamp() {
            Ok(stamp) => stamp,
            Err(err) => {
                let problem = ArchiveError::Io(err);
                return scan.problems.push(Problem::Base { by: by.clone(), problem });
            }
        };
        let mut groups: HashMap<_, Group> = HashMap::new();
        let result = source.read(|visit| self.member(visit, source, by, &mut groups, scan));
        match result {
            Ok(_) => {}
            Err(Stop::Archive(problem)) => {
                scan.problems.push(Problem::Base { by: by.clone(), problem });
            }
            Err(Stop::Other(problem)) => scan.problems.push(problem),
        }
        for group in groups.into_values() {
            for path in group.paths {
                if let Some(Entry { kind: Kind::File { body, link }, .. }) =
                    self.entries.get_mut(&path)
                    && *link == Some(group.link)
                {
                    *body = group.body.clone();
                }
            }
        }
    }

    fn member(
        &mut self,
        visit: Visit<'_>,
        source: &Source,
        by: &Request,
        groups: &mut HashMap<cpio::LinkKey, Group>,
        scan: &mut Scan,
    ) -> Result<(), Stop> {
        let Visit { member, segment, in_place, target, body: reader } = visit;
        let origin = (segment, member.body_offset);
        if let Some(why) = member.ignored_by_linux() {
            scan.notices.push(format!("{} of {by} is left out: {why}", Shown(&member.name)));
            return Ok(());
        }
        let path = match normalize(&member.name) {
            Ok(path) => path,
            Err(problem) => {
                return Err(Stop::Other(Problem::Destination {
                    dest: member.name,
                    by: by.clone(),
                    problem,
                }));
            }
        };
        // The root itself.
        if path.is_empty() {
            return Ok(());
        }
        let mode = member.mode & 0o7777;
        let node = |node| Kind::Node { node, rdev: member.rdev };
        let kind = match member.file_type() {
            cpio::S_IFDIR => Kind::Directory,
            cpio::S_IFLNK => Kind::Symlink { target: target.unwrap_or_default() },
            cpio::S_IFCHR => node(Node::Char),
            cpio::S_IFBLK => node(Node::Block),
            cpio::S_IFIFO => node(Node::Fifo),
            cpio::S_IFSOCK => node(Node::Socket),
            cpio::S_IFREG => {
                let body = match source {
                    _ if member.size == 0 => Body::Bytes(Arc::default()),
                    Source::File(file) if in_place => Body::Range {
                        file: file.clone(),
                        offset: member.body_offset,
                        size: u64::from(member.size),
                        stamp: self.stamp,
                        origin,
                    },
                    _ => self.keep(reader, u64::from(member.size), origin).map_err(|source| {
                        Stop::Other(Problem::Request {
                            by: by.clone(),
                            what: format!("cannot unpack {}: {source}", Shown(&path)),
                            hint: None,
                        })
                    })?,
                };
                let link = member.link_key().map(|key| {
                    let group = groups.entry(key).or_insert_with(|| Group::new(scan, &body));
                    group.join(&path, &body, member.size > 0)
                });
                Kind::File { body, link }
            }
            other => {
                scan.notices
                    .push(format!("{} of {by} is left out: unknown type {other:o}", Shown(&path)));
                return Ok(());
            }
        };
        let reason = Reason::Base(by.clone());
        let entry = Entry { path, kind, mode, uid: member.uid, gid: member.gid, reason };
        self.lay(entry, scan);
        Ok(())
    }

    /// Lays one entry over those before. Linux cannot replace a directory that is not empty.
    fn lay(&mut self, entry: Entry, scan: &mut Scan) {
        if let Some(old) = self.entries.get(&entry.path)
            && matches!(old.kind, Kind::Directory)
            && !matches!(entry.kind, Kind::Directory)
        {
            let mut inside = entry.path.clone();
            inside.push(b'/');
            let next = self.entries.range(inside.clone()..).next();
            if next.is_some_and(|(path, _)| path.starts_with(&inside)) {
                scan.notices.push(format!(
                    "{} of {} is left out, as Linux would: it is a directory with content",
                    Shown(&entry.path),
                    entry.reason
                ));
                return;
            }
        }
        self.entries.insert(entry.path.clone(), entry);
    }

    /// Keeps a body that cannot be read again: in memory while small, else in a nameless file.
    fn keep(&mut self, reader: &mut dyn Read, size: u64, origin: (usize, u64)) -> io::Result<Body> {
        const SMALL_BYTES: u64 = 4096;
        if size <= SMALL_BYTES {
            let mut bytes = Vec::with_capacity(size as usize);
            reader.read_to_end(&mut bytes)?;
            return if bytes.len() as u64 == size {
                Ok(Body::Bytes(bytes.into()))
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let (file, end) = match &mut self.spool {
            Some(spool) => spool,
            none => none.insert((Arc::new(tempfile::tempfile()?), 0)),
        };
        let offset = *end;
        let copied = io::copy(reader, &mut &**file)?;
        *end += copied;
        if copied != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Body::Range { file: file.clone(), offset, size, stamp: self.stamp, origin })
    }

    /// Lays the default base archive over those before.
    pub(crate) fn lay_default(&mut self, scan: &mut Scan) {
        for entry in super::uroot::default_base() {
            self.lay(entry, scan);
        }
    }

    /// What is in them so far.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The merged entries; `use_init` says whose `init` keeps its name when the image has one of
    /// its own too. The other one becomes `inito`.
    pub(crate) fn finish(self, use_init: bool, program: Option<&mut Program>, scan: &mut Scan) {
        let mut bases = self.entries;
        let own = scan.entries.iter_mut().map(|entry| &mut entry.path);
        let own = own.chain(program.map(|program| &mut program.dest));
        let own: Vec<_> = own.filter(|path| *path == b"init").collect();
        if !own.is_empty() && bases.contains_key(&b"init"[..]) {
            if use_init {
                own.into_iter().for_each(|path| *path = b"inito".to_vec());
            } else if let Some(mut base) = bases.remove(&b"init"[..]) {
                base.path = b"inito".to_vec();
                bases.insert(base.path.clone(), base);
            }
        }
        // Earlier than what was asked for: that wins.
        let own = std::mem::replace(&mut scan.entries, bases.into_values().collect());
        scan.entries.extend(own);
    }
}
