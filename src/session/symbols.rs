//! The debug information of a run's kernel, for whoever explains its traces afterwards.

use std::path::PathBuf;

use super::error::Error;
use super::kernel::{FoundKernel, readable};
use crate::diagnosis::gate::Judged;

/// Where files and lines would come from. Nothing is read before there is a trace.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    vmlinux: Option<PathBuf>,
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
            vmlinux: given.or_else(pinned),
            modules: kernel.and_then(|kernel| kernel.modules.clone()),
        })
    }

    /// Puts files and lines into the traces of reports. Says what a person should know of that.
    #[cfg(feature = "symbols")]
    pub(super) fn decode(&self, judged: &mut Judged) -> Vec<String> {
        use crate::causes::chain;
        use crate::debug_files::DebugFiles;
        let Some(vmlinux) = self.vmlinux.as_ref().filter(|_| !judged.reports.is_empty()) else {
            return Vec::new();
        };
        match DebugFiles::open(vmlinux, self.modules.as_deref()) {
            Ok(mut files) => {
                for report in &mut judged.reports {
                    files.decode(&mut report.splat);
                }
                files.take_remarks()
            }
            Err(error) => vec![format!("no files and lines in the traces: {}", chain(&error))],
        }
    }

    /// As above, where nothing can be decoded.
    #[cfg(not(feature = "symbols"))]
    pub(super) fn decode(&self, judged: &mut Judged) -> Vec<String> {
        match (&self.vmlinux, judged.reports.is_empty()) {
            (Some(_), false) => vec![
                "no files and lines in the traces: vmtest was built without its feature `symbols`"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }
}
