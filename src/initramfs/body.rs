//! The content of entries, read.

use crate::named_file;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::entry::Body;
use super::problem::Problem;

/// Opens a body for reading from its start.
pub(crate) fn open(body: &Body) -> Result<Box<dyn Read + Send + '_>, Problem> {
    Ok(match body {
        Body::Bytes(bytes) => Box::new(&bytes[..]),
        Body::Host(file) => {
            let path = file.path();
            let by = "the image".into();
            match named_file::open(&path) {
                Ok(file) => Box::new(file),
                Err(source) => return Err(Problem::Read { path, by, source }),
            }
        }
        Body::Range { file, offset, size, .. } => {
            Box::new(RangeReader { file, offset: *offset, end: offset + size })
        }
    })
}

struct RangeReader<'a> {
    file: &'a fs::File,
    offset: u64,
    end: u64,
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let limit = left.min(buf.len());
        let count = self.file.read_at(&mut buf[..limit], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
