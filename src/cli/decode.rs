//! `vmtest decode`: files and lines in the traces of a kernel's log.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use vmtest::debug_files::DebugFiles;
use vmtest::diagnosis::text;

use super::error::Failure;
use super::{splats, ui};

/// Longer lines are decoded in pieces.
const MAX_LINE: u64 = 64 << 10;

/// Put files and lines into the traces of a kernel's log
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A console's log or the output of dmesg, gzip or not; - is stdin
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// The kernel that printed it, with debug information
    #[arg(long, value_name = "FILE")]
    vmlinux: PathBuf,
    /// Its modules, in this directory and those below it: .ko and .ko.debug, compressed or not
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
The log goes to stdout. Behind each func+0x12/0x34 stands its (file:line); functions that were
inlined there come before it on lines of their own. What is not known stays as it is.

Exit codes:
  0   decoded
  2   wrong usage
  69  the log or the kernel cannot be read, or the kernel has no debug information

Example:
  vmtest decode console.log --vmlinux build/vmlinux --modules build";

/// Decodes the log.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let mut files = DebugFiles::open(&args.vmlinux, args.modules.as_deref())
        .map_err(|error| Failure::unavailable(&error, Some(error.hint())))?;
    let unreadable = |error: io::Error| {
        Failure::missing(
            format!("cannot read `{}`: {error}", args.log.display()),
            "a log is a file of text, or gzip; - is stdin",
        )
    };
    let mut input = BufReader::new(splats::open(&args.log).map_err(unreadable)?);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        let line = text::clean(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        let decoded = files.decode_line(&line);
        files.take_remarks().iter().for_each(|remark| ui::note(remark));
        if let Err(error) = decoded.iter().try_for_each(|line| writeln!(out, "{line}")) {
            return ended(error);
        }
    }
    out.flush().map_or_else(ended, |()| Ok(0))
}

/// Nobody reads any more, or nothing can be written.
fn ended(error: io::Error) -> Result<u8, Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(0),
        _ => Err(Failure::unavailable(&error, None)),
    }
}
