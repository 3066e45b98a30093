//! A kernel's debug information on disk: its vmlinux and its modules, read when a trace needs them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use crate::causes::chain;
use crate::diagnosis::symbols::{Decoder, Image, ImageError};
use crate::diagnosis::{Splat, build_id, prefix};
use crate::named_file;

/// So much of a compressed module is unpacked.
const MAX_MODULE: u64 = 1 << 30;

/// Why there are no symbols.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebugFilesError {
    /// The kernel cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The vmlinux, or a directory of modules.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no ELF file that can be used.
    #[error("cannot use `{}`", .path.display())]
    Image {
        /// The vmlinux.
        path: PathBuf,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// It has nothing to say.
    #[error("`{}` has no debug information", .path.display())]
    NoLines {
        /// The vmlinux.
        path: PathBuf,
    },
}

impl DebugFilesError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            DebugFilesError::Read { .. } => {
                "give the vmlinux with debug information that printed the log; its modules are in the \
                 build tree or /lib/modules/RELEASE"
                    .into()
            }
            DebugFilesError::Image { source, .. } => source.hint().to_owned(),
            DebugFilesError::NoLines { .. } => {
                "build the kernel with CONFIG_DEBUG_INFO, or take the distribution's debug package"
                    .into()
            }
        }
    }
}

/// A decoder that reads a module's file when one of its functions stands in a trace.
#[derive(Debug)]
pub struct DebugFiles {
    path: PathBuf,
    decoder: Decoder,
    modules: HashMap<String, PathBuf>,
    remarks: Vec<String>,
    /// Build ids that have been remarked.
    other: Option<String>,
}

impl DebugFiles {
    /// Reads the kernel, and finds its modules: `.ko` and `.ko.debug` files, compressed or not, in a
    /// directory and those below it.
    ///
    /// # Errors
    /// [`DebugFilesError`].
    pub fn open(vmlinux: &Path, modules: Option<&Path>) -> Result<DebugFiles, DebugFilesError> {
        let path = vmlinux.to_owned();
        let bytes = named_file::read(vmlinux)
            .map_err(|source| DebugFilesError::Read { path: path.clone(), source })?;
        let kernel = Image::parse(&Arc::from(bytes))
            .map_err(|source| DebugFilesError::Image { path: path.clone(), source })?;
        if !kernel.has_lines() {
            return Err(DebugFilesError::NoLines { path });
        }
        let modules = modules.map_or_else(|| Ok(HashMap::new()), find_modules)?;
        let decoder = Decoder::new(kernel);
        Ok(DebugFiles { path, decoder, modules, remarks: Vec::new(), other: None })
    }

    /// A line with the places behind its functions, and lines before it for what was inlined.
    pub fn decode_line(&mut self, line: &str) -> Vec<String> {
        self.check_build(build_id(line));
        self.load_modules(line);
        let (_, message) = prefix::parse(line);
        let before = &line[..line.len() - message.len()];
        let decoded = self.decoder.decode_line(message);
        decoded.into_iter().map(|message| format!("{before}{message}")).collect()
    }

    /// Puts the places into all frames and lines of a report.
    pub fn decode(&mut self, splat: &mut Splat) {
        self.check_build(splat.build_id.clone());
        for line in &splat.lines {
            self.load_modules(line);
        }
        self.decoder.decode(splat);
    }

    /// What a person should know: modules that cannot be used, a log of another kernel.
    pub fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    fn check_build(&mut self, id: Option<String>) {
        let own = self.decoder.kernel().build_id();
        let Some(id) = id.filter(|id| self.other.is_none() && Some(id.as_str()) != own) else {
            return;
        };
        self.remarks.push(format!(
            "the log is of the kernel with build id {id}, `{}` has {}: lines may be wrong",
            self.path.display(),
            own.unwrap_or("none"),
        ));
        self.other = Some(id);
    }

    fn load_modules(&mut self, line: &str) {
        for name in Decoder::modules_of(line) {
            if self.decoder.lacks(name) {
                let image = self.load(name);
                self.decoder.add_module(name, image);
            }
        }
    }

    /// A module, if there is a file for it that can be used.
    fn load(&mut self, name: &str) -> Option<Image> {
        let path = self.modules.remove(&name.replace('-', "_"))?;
        let loaded = read_module(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Image::parse(&Arc::from(bytes)).map_err(|error| chain(&error)));
        match loaded {
            Ok(image) => Some(image),
            Err(reason) => {
                self.remarks.push(format!("cannot use `{}`: {reason}", path.display()));
                None
            }
        }
    }
}

/// Files of modules, by the name that the kernel prints.
fn find_modules(dir: &Path) -> Result<HashMap<String, PathBuf>, DebugFilesError> {
    let mut files = HashMap::new();
    for entry in WalkDir::new(dir) {
        let entry = entry.map_err(|error| DebugFilesError::Read {
            path: dir.to_owned(),
            source: error.into(),
        })?;
        let file = entry.file_name().to_string_lossy();
        let Some((name, ending)) = file.split_once(".ko") else { continue };
        if !["", ".debug", ".gz", ".xz", ".zst"].contains(&ending) {
            continue;
        }
        let path = entry.path().to_owned();
        let name = name.replace('-', "_");
        // One with debug information beside it is the better one.
        if ending == ".debug" || !files.contains_key(&name) {
            files.insert(name, path);
        }
    }
    Ok(files)
}

fn read_module(path: &Path) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let reader: Box<dyn Read> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    let length = reader.take(MAX_MODULE + 1).read_to_end(&mut bytes)?;
    if length as u64 > MAX_MODULE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
