//! What is in an image and why, for people and programs: `--report`, `why`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};
use vmtest_guest::proto::Bytes;

use super::entry::{Body, Entry, Kind, Node, Reason, Shown};
use super::write::image::Image;

/// Version of [`Report`]'s form.
pub const SCHEMA: u32 = 1;

/// An image and the reasons of everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of vmtest that made the image.
    pub vmtest: String,
    /// The guest's architecture.
    pub arch: String,
    /// The finished archive; absent where none was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Who asked for how much, the largest first.
    pub requests: Vec<RequestSize>,
    /// What the user should know.
    pub notices: Vec<String>,
    /// Everything, in the order of the archive.
    pub entries: Vec<ReportEntry>,
}

/// Sizes and identity of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Bytes, uncompressed.
    pub bytes: u64,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// BLAKE3 of the uncompressed archive, in hexadecimal digits, as `b3sum` prints it.
    pub blake3: String,
    /// How it is compressed, with the level.
    pub compression: String,
    /// Whether it was taken from the cache.
    pub cached: bool,
}

/// How much one request brought in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestSize {
    /// Who asked.
    pub by: String,
    /// Number of entries.
    pub entries: usize,
    /// Bytes of their content.
    pub bytes: u64,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportEntry {
    /// Path in the image, without leading slash.
    pub path: Bytes,
    /// `file`, `directory`, `symlink`, `char`, `block`, `fifo` or `socket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Permissions, octal.
    pub mode: String,
    /// Bytes of content.
    pub size: u64,
    /// The host's file that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Bytes>,
    /// Text of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Bytes>,
    /// Why it is there, in words.
    pub why: String,
    /// Who asked for it, or for what needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Path of the entry that needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Bytes>,
}

impl ReportEntry {
    fn new(entry: &Entry) -> ReportEntry {
        let (kind, source, target) = match &entry.kind {
            Kind::Directory => ("directory", None, None),
            Kind::File { body: Body::Host(file), .. } => ("file", Some(file.path()), None),
            Kind::File { .. } => ("file", None, None),
            Kind::Symlink { target } => ("symlink", None, Some(Bytes(target.clone()))),
            Kind::Node { node: Node::Char, .. } => ("char", None, None),
            Kind::Node { node: Node::Block, .. } => ("block", None, None),
            Kind::Node { node: Node::Fifo, .. } => ("fifo", None, None),
            Kind::Node { node: Node::Socket, .. } => ("socket", None, None),
        };
        let of = match &entry.reason {
            Reason::Needed { why, .. } => why.of().map(|of| Bytes(of.to_vec())),
            _ => None,
        };
        ReportEntry {
            path: Bytes(entry.path.clone()),
            kind: kind.to_owned(),
            mode: format!("{:04o}", entry.mode),
            size: entry.size(),
            source: source.map(|path| Bytes(path.as_os_str().as_bytes().to_vec())),
            target,
            why: entry.reason.to_string(),
            by: entry.reason.request().map(|by| by.to_string()),
            of,
        }
    }
}

impl Report {
    /// The report of an image.
    pub fn new(arch: crate::arch::Arch, image: &Image, archive: Option<Archive>) -> Report {
        let entries: Vec<_> = image.entries().iter().map(ReportEntry::new).collect();
        Report {
            schema: SCHEMA,
            vmtest: env!("CARGO_PKG_VERSION").to_owned(),
            arch: arch.to_string(),
            archive,
            requests: requests(&entries),
            notices: image.notices().to_vec(),
            entries,
        }
    }

    /// Why a path is in the image: the entry, then what needs it, up to what was asked for. Empty
    /// if it is not there. Symbolic links are followed.
    pub fn why(&self, path: &[u8]) -> Vec<&ReportEntry> {
        let find = |path: &[u8]| self.entries.iter().find(|entry| entry.path.0 == path);
        let look = |path: &[u8]| {
            find(path).map(|entry| entry.target.as_ref().map(|target| target.0.clone()))
        };
        let plain = super::read::inspect::plain(path.to_vec());
        let mut next = find(&plain).or_else(|| find(&super::links::follow(&plain, &look)?));
        let mut chain: Vec<&ReportEntry> = Vec::new();
        while let Some(entry) = next {
            if chain.iter().any(|seen| seen.path == entry.path) {
                break;
            }
            chain.push(entry);
            next = entry.of.as_ref().and_then(|of| find(&of.0));
        }
        chain
    }

    /// Entries whose last component is this name: what a person may have meant.
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a ReportEntry> + 'a {
        self.entries
            .iter()
            .filter(move |entry| entry.path.0.rsplit(|&b| b == b'/').next() == Some(name))
    }

    /// The report of sizes as a table for people.
    pub fn sizes(&self) -> String {
        let mut out = String::from("     bytes  entries  asked for by\n");
        for request in &self.requests {
            out.push_str(&format!(
                "{:>10}  {:>7}  {}\n",
                request.bytes, request.entries, request.by
            ));
        }
        out
    }
}

fn requests(entries: &[ReportEntry]) -> Vec<RequestSize> {
    let mut sizes: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for entry in entries {
        let by = entry.by.as_deref().unwrap_or("directories of other entries");
        let size = sizes.entry(by).or_default();
        size.0 += 1;
        size.1 += entry.size;
    }
    let mut requests: Vec<_> = sizes
        .into_iter()
        .map(|(by, (entries, bytes))| RequestSize { by: by.to_owned(), entries, bytes })
        .collect();
    requests.sort_by_key(|request| std::cmp::Reverse(request.bytes));
    requests
}

/// A chain of [`Report::why`] for people, one line each.
pub fn explain(chain: &[&ReportEntry]) -> String {
    let mut out = String::new();
    for (depth, entry) in chain.iter().enumerate() {
        let indent = "  ".repeat(depth);
        out.push_str(&format!("{indent}{}: {}\n", Shown(&entry.path.0), entry.why));
    }
    out
}
