//! The debug information of a run's kernel, for whoever explains its traces afterwards.

use std::path::PathBuf;

use super::error::Error;
use super::kernel::{FoundKernel, readable};
use crate::diagnosis::Splat;

/// Where files and lines would come from. Nothing is read before there is a trace.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    vmlinux: Option<PathBuf>,
    /// Somebody named it, and is told what it lacks.
    named: bool,
    #[cfg(feature = "symbols")]
    modules: Option<PathBuf>,
}

impl Symbols {
    /// Those of the given file, else of the pinned kernel.
    ///
    /// # Errors
    /// The given one cannot be read.
    pub(super) fn of(
        given: Option<PathBuf>,
        kernel: Option<&FoundKernel>,
    ) -> Result<Symbols, Error> {
        if let Some(path) = &given {
            readable("vmlinux", path)?;
        }
        // A manifest may name a file that was removed to save space.
        let pinned =
            || kernel.and_then(|kernel| kernel.vmlinux.clone()).filter(|path| path.is_file());
        Ok(Symbols {
            named: given.is_some(),
            vmlinux: given.or_else(pinned),
            #[cfg(feature = "symbols")]
            modules: kernel.and_then(|kernel| kernel.modules.clone()),
        })
    }

    /// Whoever finds files and lines. Reads nothing before it is asked.
    pub(super) fn open(&self) -> Finder {
        Finder { symbols: self.clone(), files: Files::Unread, remarks: Vec::new() }
    }
}

/// Finds files and lines, where there is debug information.
pub(super) struct Finder {
    symbols: Symbols,
    files: Files,
    remarks: Vec<String>,
}

enum Files {
    Unread,
    #[cfg(feature = "symbols")]
    Read(Box<crate::debug_files::DebugFiles>),
    None,
}

impl Finder {
    /// Puts files and lines into a report.
    pub(super) fn decode(&mut self, splat: &mut Splat) {
        self.read();
        #[cfg(feature = "symbols")]
        if let Files::Read(files) = &mut self.files {
            files.decode(splat);
        }
        #[cfg(not(feature = "symbols"))]
        let _ = splat;
    }

    /// Puts files and lines into lines of the console.
    pub(super) fn decode_text(&mut self, text: &str) -> String {
        self.read();
        #[cfg(feature = "symbols")]
        if let Files::Read(files) = &mut self.files {
            let decoded: Vec<String> =
                text.lines().flat_map(|line| files.decode_line(line)).collect();
            return decoded.join("\n");
        }
        text.to_owned()
    }

    /// What a person should know.
    pub(super) fn take_remarks(&mut self) -> Vec<String> {
        #[cfg(feature = "symbols")]
        if let Files::Read(files) = &mut self.files {
            self.remarks.extend(files.take_remarks());
        }
        std::mem::take(&mut self.remarks)
    }

    #[cfg(feature = "symbols")]
    fn read(&mut self) {
        use crate::debug_files::{DebugFiles, DebugFilesError};
        if !matches!(self.files, Files::Unread) {
            return;
        }
        let opened = self.symbols.vmlinux.as_ref();
        let opened = opened.map(|path| DebugFiles::open(path, self.symbols.modules.as_deref()));
        self.files = match opened {
            None => Files::None,
            Some(Ok(files)) => Files::Read(Box::new(files)),
            // A pinned kernel that was built without is none that anybody could do something about.
            Some(Err(DebugFilesError::NoLines { .. })) if !self.symbols.named => Files::None,
            Some(Err(error)) => {
                let why = crate::causes::chain(&error);
                self.remarks.push(format!("no files and lines in the traces: {why}"));
                Files::None
            }
        };
    }

    #[cfg(not(feature = "symbols"))]
    fn read(&mut self) {
        let asked = self.symbols.named && self.symbols.vmlinux.is_some();
        if asked && matches!(self.files, Files::Unread) {
            let why = "vmtest was built without its feature `symbols`";
            self.remarks.push(format!("no files and lines in the traces: {why}"));
        }
        self.files = Files::None;
    }
}
