//! What was found so far while an image is gathered.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::closure;
use crate::initramfs::entry::{Entry, Reason, Request, Shown};
use crate::initramfs::problem::Problem;

/// A program and where it goes.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) src: PathBuf,
    pub(crate) dest: Vec<u8>,
    pub(crate) by: Request,
    /// It is not put there: the guest has it from elsewhere.
    pub(crate) absent: bool,
}

/// Turns files of the host into entries and gathers what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<Entry>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) notices: Vec<String>,
    pub(crate) notes: Vec<closure::Note>,
    /// Files of the host with several names, by device, inode and what else must be equal.
    pub(super) links: HashMap<(u64, u64, u32, u32, u32), u32>,
    pub(super) is_root: bool,
    pub(super) with_capabilities: Vec<Vec<u8>>,
    /// Files and directories that trees shall not bring in, by their real paths.
    pub(crate) leave_out: Vec<PathBuf>,
    /// Those of them that were met.
    pub(crate) left_out: Vec<PathBuf>,
    /// Symbolic links that were asked for by name: it is their target that was meant.
    pub(crate) named_links: Vec<Vec<u8>>,
}

impl Scan {
    pub(crate) fn new() -> Scan {
        Scan { is_root: rustix::process::geteuid().is_root(), ..Scan::default() }
    }

    /// A number that no other group of hard links has.
    pub(crate) fn new_link(&mut self) -> u32 {
        let number = self.links.len() as u32;
        self.links.insert((u64::MAX, u64::MAX, number, 0, 0), number);
        number
    }

    pub(super) fn unreadable(&mut self, path: &Path, reason: &Reason, source: io::Error) {
        let by = reason.request().cloned().unwrap_or_else(|| "the image".into());
        self.problems.push(Problem::Read { path: path.to_owned(), by, source });
    }

    /// What is to be told once about all files.
    pub(crate) fn finish_notices(&mut self) {
        let Some(first) = self.with_capabilities.first() else { return };
        let more = match self.with_capabilities.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        self.notices.push(format!(
            "file capabilities and extended attributes are not stored, cpio has no place for them: \
             {}{more}",
            Shown(first)
        ));
    }
}
