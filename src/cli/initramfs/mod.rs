//! `vmtest initramfs`: makes images and looks into them.

mod args;
mod build;
mod common;
mod look;
mod options;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;
use vmtest::options::Environment;

use self::args::{ExtractArgs, LsArgs, WhyArgs};
use super::error::Failure;

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
