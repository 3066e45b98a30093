//! Options of `ls`, `extract` and `why`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::options::ContentArgs;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct LsArgs {
    /// Image; - is stdin
    pub(super) image: PathBuf,
    /// Only these paths and what is below them
    pub(super) paths: Vec<OsString>,
    /// Type, mode, owner, size
    #[arg(short, long)]
    pub(super) long: bool,
    /// Order: as in the archive, by name, or the largest first
    #[arg(long, value_name = "archive|name|size", default_value = "archive")]
    pub(super) sort: Sort,
    /// As a tree, with the size of everything below each directory
    #[arg(long, conflicts_with_all = ["long", "json", "null"])]
    pub(super) tree: bool,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["long", "null"])]
    pub(super) json: bool,
    /// End each path with NUL and escape nothing
    #[arg(short = '0', long, conflicts_with = "long")]
    pub(super) null: bool,
    /// List the segments, with their compression, instead of what is in them
    #[arg(long, conflicts_with_all = ["long", "tree", "null", "paths"])]
    pub(super) segments: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExtractArgs {
    /// Image; - is stdin
    pub(super) image: PathBuf,
    /// Directory; made if it does not exist, and removed again after an error; else it must be
    /// empty
    pub(super) dest: PathBuf,
    /// Take owner and group from the image; needs privileges
    #[arg(long)]
    pub(super) same_owner: bool,
    /// Leave device nodes out that need privileges
    #[arg(long)]
    pub(super) skip_nodes: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// Path in the image, or the name of a file in it
    #[arg(required_unless_present_any = ["missing", "sizes"])]
    pub(super) path: Option<OsString>,
    /// Show every directory in which this library was looked for
    #[arg(long, value_name = "LIB", conflicts_with = "report")]
    pub(super) missing: Option<OsString>,
    /// Who asked for how much
    #[arg(long)]
    pub(super) sizes: bool,
    /// What `build --report` wrote; without it, give the options of `build`
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) build: ContentArgs,
}

/// Orders of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    /// As in the archive.
    Archive,
    /// By path.
    Name,
    /// The largest first.
    Size,
}
