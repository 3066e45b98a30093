//! Flags that say which reports of the kernel count: of `run` and its kind, and of `splats`.

use std::path::{Path, PathBuf};

use clap::Args;
use vmtest::diagnosis::gate::{self, PatternError};
use vmtest::diagnosis::{Gate, Mode};
use vmtest::named_file;

use super::error::Failure;

/// Patterns, and files of them.
#[derive(Clone, Debug, Args)]
pub(crate) struct GateArgs {
    /// Reports of the kernel that match do not count: title, or any line; repeats
    #[arg(long, value_name = "REGEX", help_heading = "Splats")]
    pub(crate) allow_splat: Vec<String>,
    /// The same, one on each line of FILE; # begins a comment
    #[arg(long, alias = "allow-file", value_name = "FILE", help_heading = "Splats")]
    pub(crate) allow_splat_file: Vec<PathBuf>,
    /// Reports that match count, whatever is allowed; one on each line of FILE
    #[arg(long, alias = "deny-file", value_name = "FILE", help_heading = "Splats")]
    pub(crate) deny_splat_file: Vec<PathBuf>,
}

impl GateArgs {
    /// The gate.
    pub(crate) fn gate(&self, mode: Mode) -> Result<Gate, Failure> {
        let mut allow = self.allow_splat.clone();
        for file in &self.allow_splat_file {
            allow.extend(list(file)?);
        }
        let mut deny = Vec::new();
        for file in &self.deny_splat_file {
            deny.extend(list(file)?);
        }
        let wrong = |error: PatternError| Failure::usage(&error, Some(error.hint().to_owned()));
        Gate::new(mode).allow(&allow).map_err(wrong)?.deny(&deny).map_err(wrong)
    }
}

fn list(file: &Path) -> Result<Vec<String>, Failure> {
    let text = named_file::read_to_string(file).map_err(|error| {
        Failure::missing(
            format!("cannot read the list of reports `{}`: {error}", file.display()),
            "it has one regular expression on each line; # begins a comment",
        )
    })?;
    Ok(gate::patterns(&text))
}
