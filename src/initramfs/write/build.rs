//! From a gathered image to a file: the early segment in front, compression, the cache, and a name only
//! when all is written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

use super::cache::{Cache, key};
use super::compress::{Compression, Encoder};
use super::image::{Image, Summary};
use super::publish::Pending;
use crate::initramfs::problem::{Problem, Problems};
use crate::initramfs::spec::ImageSpec;

/// Bytes that are gathered before they are written to something that is no regular file.
const BUFFER_BYTES: usize = 256 << 10;

/// A gathered image, and how it shall be stored.
#[derive(Debug)]
#[must_use = "nothing is written yet"]
pub struct Build {
    early: Option<Image>,
    image: Image,
    compression: Compression,
    cache: Option<Cache>,
    /// Before the first file was looked at: what changed later must not be cached.
    started: SystemTime,
}

/// What was built.
#[derive(Debug)]
#[non_exhaustive]
pub struct Built {
    /// The image proper, uncompressed; without the early segment.
    pub summary: Summary,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// The cache had it.
    pub cached: bool,
    /// Why the cache did not keep it. The image is there; only the next build will be slower.
    pub not_kept: Option<io::Error>,
}

/// Why an image was not built. What was at the destination is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Something is wrong with what shall be in it.
    #[error(transparent)]
    Image(#[from] Problems),
    /// The destination cannot be written.
    #[error("cannot write the image")]
    Output(#[source] io::Error),
}

impl BuildError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            BuildError::Image(problems) => {
                let hints = problems.hints();
                (!hints.is_empty()).then(|| hints.join("; "))
            }
            BuildError::Output(_) => Some(
                "give a path in a directory that exists, can be written to and has room".into(),
            ),
        }
    }
}

/// Builds an image as a file, all of it or nothing: the short form of [`Build`]. With a cache, an image
/// of the same inputs is not made again.
///
/// ```no_run
/// # use std::path::Path;
/// # use vmtest::{arch::Arch, initramfs::{self, Cache, Compression, ImageSpec}};
/// let mut spec = ImageSpec::new(Arch::Riscv64);
/// spec.binary("./hello", Some("/init"));
/// let cache = Cache::new(Path::new("/var/cache/vmtest"));
/// let built = initramfs::build(&spec, Compression::NONE, Some(cache), Path::new("my.cpio"))?;
/// eprintln!("{} bytes, {}", built.stored_bytes, built.summary.blake3);
/// # Ok::<(), vmtest::initramfs::BuildError>(())
/// ```
///
/// # Errors
/// See [`BuildError`].
pub fn build(
    spec: &ImageSpec,
    compression: Compression,
    cache: Option<Cache>,
    dest: &Path,
) -> Result<Built, BuildError> {
    Build::gather(spec)?.compression(compression).cache(cache).to_file(dest, |_| Ok(()))
}

impl Build {
    /// Looks at everything that is asked for. It will be stored uncompressed and without a cache unless
    /// more is said.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first problem.
    pub fn gather(spec: &ImageSpec) -> Result<Build, Problems> {
        let started = SystemTime::now();
        let early = spec.early()?.map(|early| early.finish()).transpose()?;
        let image = spec.finish()?;
        Ok(Build { early, image, compression: Compression::NONE, cache: None, started })
    }

    /// Compresses the image; the early segment has to stay as it is.
    pub fn compression(self, compression: Compression) -> Build {
        Build { compression, ..self }
    }

    /// Takes the image from a cache where it has it, and puts it there where it has not.
    pub fn cache(self, cache: Option<Cache>) -> Build {
        Build { cache, ..self }
    }

    /// What was gathered.
    pub fn image(&self) -> &Image {
        &self.image
    }

    fn parts(&self) -> Vec<&Image> {
        self.early.iter().chain([&self.image]).collect()
    }

    /// Builds the image as a file, which gets its name when it is complete. `check` is told how many
    /// bytes it will have, before that; what it refuses is not published.
    ///
    /// # Errors
    /// See [`BuildError`], and those of `check`.
    pub fn to_file<E: From<BuildError>>(
        &self,
        dest: &Path,
        check: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<Built, E> {
        let output = |source| E::from(BuildError::Output(source));
        let parts = self.parts();
        // Files that only some users of the host may read are not for all to read in an image.
        let private = parts.iter().any(|image| image.is_private());
        let mode = if private { 0o600 } else { 0o666 };
        let cache = self.cache.as_ref().map(|cache| (cache, key(&parts, self.compression)));
        if let Some(found) = cache.as_ref().and_then(|(cache, key)| cache.get(key)) {
            check(found.stored_bytes)?;
            found.deliver(dest, mode).map_err(output)?;
            let (summary, stored_bytes) = (found.summary, found.stored_bytes);
            return Ok(Built { summary, stored_bytes, cached: true, not_kept: None });
        }
        let pending = Pending::new(dest).map_err(output)?;
        let regular = pending.is_regular();
        let (summary, stored_bytes) = self.write_pending(&pending).map_err(BuildError::Image)?;
        check(stored_bytes)?;
        pending.publish(mode).map_err(output)?;
        let settled = || parts.iter().all(|image| image.settled(self.started));
        let not_kept = match &cache {
            Some((cache, key)) if regular && settled() => cache.put(key, dest, &summary).err(),
            _ => None,
        };
        Ok(Built { summary, stored_bytes, cached: false, not_kept })
    }

    /// Writes the image to anything; no cache is asked. Returns also the bytes that were written.
    ///
    /// # Errors
    /// Those of the image and of writing. What was written is then worthless.
    pub fn to_stream(&self, out: &mut (impl Write + Send)) -> Result<(Summary, u64), Problems> {
        let sink = |source| Problems::from(Problem::Write { source });
        let mut counted = Counted { out, bytes: 0 };
        if let Some(early) = &self.early {
            early.write_to(&mut counted)?;
        }
        let mut encoder = Encoder::new(self.compression, &mut counted).map_err(sink)?;
        let summary = self.image.write_to(&mut encoder)?;
        encoder.finish().map_err(sink)?;
        counted.out.flush().map_err(sink)?;
        Ok((summary, counted.bytes))
    }

    /// Bytes that the file will have, where that is known before it is written.
    pub fn stored_bytes(&self) -> Option<u64> {
        let plain = self.compression == Compression::NONE;
        plain.then(|| self.parts().iter().map(|image| image.archive_bytes()).sum())
    }

    fn write_pending(&self, pending: &Pending) -> Result<(Summary, u64), Problems> {
        let file: &File = pending.file();
        if self.early.is_none() && self.compression == Compression::NONE && pending.is_regular() {
            let summary = self.image.write_to_file(file)?;
            let bytes = summary.bytes;
            return Ok((summary, bytes));
        }
        self.to_stream(&mut BufWriter::with_capacity(BUFFER_BYTES, file))
    }
}

struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.out.write(buf)?;
        self.bytes += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
