//! What a run has brought home.

use std::path::PathBuf;

use super::record::{Kind, Record};

/// What a run brought home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The run's directory.
    pub dir: PathBuf,
    /// What is in it, and what is not.
    pub record: Record,
    /// What could not be put where `VMTEST_KERNEL_COVERAGE_DIR` or `VMTEST_GOCOVERDIR` say.
    pub notices: Vec<String>,
}

impl Collected {
    /// What came home and what did not, a line each, for a person who was told one reason already.
    pub fn lines(&self, told: Option<&str>) -> Vec<String> {
        let mut lines: Vec<String> = self
            .record
            .collected
            .iter()
            .map(|found| {
                let files = if found.files == 1 { "file" } else { "files" };
                format!(
                    "coverage: {} {} {files}, {} KiB, in {}",
                    found.kind.name(),
                    found.files,
                    found.bytes.div_ceil(1024),
                    self.dir.display()
                )
            })
            .collect();
        let missing =
            self.record.missing.iter().filter(|missing| Some(missing.why.as_str()) != told);
        lines.extend(self.notices.iter().cloned());
        lines.extend(missing.map(|missing| {
            let kind = match missing.kind {
                Kind::Kernel => "of the kernel",
                _ => "of programs",
            };
            format!("coverage {kind} is missing: {}", missing.why)
        }));
        lines
    }
}
