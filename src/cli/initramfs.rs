//! `vmtest initramfs`: makes images and looks into them.

mod build;
mod look;
mod options;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Subcommand;
use vmtest::initramfs::Problems;
use vmtest::options::Environment;

use super::error::{Failure, UNAVAILABLE};
use super::{interrupt, ui};

/// Make initramfs images and look into them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    diff: the images differ
  2    wrong usage
  69   an input, or what was asked for in an image, is missing or unusable; or the output could not
       be written
  130  interrupted; what was half done is removed";

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make an image
    Build(Box<build::BuildArgs>),
    /// List what is in an image, whoever made it
    Ls(LsArgs),
    /// Print a file of an image; links are followed
    Cat {
        /// Image; - is stdin
        image: PathBuf,
        /// Path in the image
        path: OsString,
    },
    /// Unpack an image into a directory, and never beyond it
    Extract(ExtractArgs),
    /// Compare what two images unpack to; the exit code is 1 if they differ
    Diff {
        /// First image
        before: PathBuf,
        /// Second image
        after: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say why a path is in an image, or where a library was looked for
    Why(Box<WhyArgs>),
}

#[derive(Clone, Debug, clap::Args)]
struct LsArgs {
    /// Image; - is stdin
    image: PathBuf,
    /// Only these paths and what is below them
    paths: Vec<OsString>,
    /// Type, mode, owner, size
    #[arg(short, long)]
    long: bool,
    /// Order: as in the archive, by name, or the largest first
    #[arg(long, value_name = "archive|name|size", default_value = "archive")]
    sort: look::Sort,
    /// As a tree, with the size of everything below each directory
    #[arg(long, conflicts_with_all = ["long", "json", "null"])]
    tree: bool,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["long", "null"])]
    json: bool,
    /// End each path with NUL and escape nothing
    #[arg(short = '0', long, conflicts_with = "long")]
    null: bool,
    /// List the segments, with their compression, instead of what is in them
    #[arg(long, conflicts_with_all = ["long", "tree", "null", "paths"])]
    segments: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ExtractArgs {
    /// Image; - is stdin
    image: PathBuf,
    /// Directory; made if it does not exist, and removed again after an error; else it must be
    /// empty
    dest: PathBuf,
    /// Take owner and group from the image; needs privileges
    #[arg(long)]
    same_owner: bool,
    /// Leave device nodes out that need privileges
    #[arg(long)]
    skip_nodes: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct WhyArgs {
    /// Path in the image, or the name of a file in it
    #[arg(required_unless_present_any = ["missing", "sizes"])]
    path: Option<OsString>,
    /// Show every directory in which this library was looked for
    #[arg(long, value_name = "LIB", conflicts_with = "report")]
    missing: Option<OsString>,
    /// Who asked for how much
    #[arg(long)]
    sizes: bool,
    /// What `build --report` wrote; without it, give the options of `build`
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    build: options::ContentArgs,
}

/// Runs one of them and tells the exit code.
pub(crate) fn run(args: Args, environment: &Environment) -> Result<u8, Failure> {
    match args.command {
        Command::Build(args) => build::build(*args, environment),
        Command::Ls(args) => look::ls(&args),
        Command::Cat { image, path } => look::cat(&image, &path),
        Command::Extract(args) => look::extract(&args),
        Command::Diff { before, after, json } => look::diff(&before, &after, json),
        Command::Why(args) => look::why(*args, environment),
    }
}

/// Shows all problems but the last, which is left to the caller, with all hints.
fn problems(problems: &Problems) -> Failure {
    let mut texts: Vec<String> = problems.iter().map(|p| super::error::chain(p)).collect();
    let last = texts.pop().unwrap_or_default();
    texts.iter().for_each(|text| ui::error(text));
    let hints = problems.hints();
    let hint = (!hints.is_empty()).then(|| hints.join("\nhint: "));
    Failure { code: UNAVAILABLE, text: last, hint }
}

/// Does `work`, whose argument is set when a signal wants it to clean up and fail.
fn guarded<T>(work: impl FnOnce(&AtomicBool) -> Result<T, Failure>) -> Result<T, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let ask = {
        let cancel = cancel.clone();
        move || cancel.store(true, Ordering::SeqCst)
    };
    interrupt::guarded(ask, || work(&cancel))
}
