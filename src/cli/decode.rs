//! `vmtest decode`: files and lines in the traces of a kernel's log.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmtest::diagnosis::symbols::{Decoder, Image};
use vmtest::diagnosis::{build_id, prefix, text};
use walkdir::WalkDir;

use super::error::{Failure, chain};
use super::{splats, ui};

/// Longer lines are decoded in pieces.
const MAX_LINE: u64 = 64 << 10;
/// So much of a compressed module is unpacked.
const MAX_MODULE: u64 = 1 << 30;

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
    let kernel = image(&args.vmlinux)?;
    if !kernel.has_lines() {
        return Err(Failure::missing(
            format!("`{}` has no debug information", args.vmlinux.display()),
            "build the kernel with CONFIG_DEBUG_INFO, or take the distribution's debug package",
        ));
    }
    let mut modules = Modules::find(args.modules.as_deref())?;
    let mut decoder = Decoder::new(kernel);
    let unreadable = |error: io::Error| {
        Failure::missing(
            format!("cannot read `{}`: {error}", args.log.display()),
            "a log is a file of text, or gzip; - is stdin",
        )
    };
    let mut input = BufReader::new(splats::open(&args.log).map_err(unreadable)?);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut other = None;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        let line = text::clean(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        if other.is_none() {
            other = build_id(&line).filter(|id| Some(id.as_str()) != decoder.kernel().build_id());
            if let Some(id) = &other {
                let own = decoder.kernel().build_id().unwrap_or("none");
                ui::note(&format!(
                    "the log is of the kernel with build id {id}, `{}` has {own}: lines may be wrong",
                    args.vmlinux.display()
                ));
            }
        }
        if let Err(error) = decode(&line, &mut decoder, &mut modules, &mut out) {
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

fn decode(
    line: &str,
    decoder: &mut Decoder,
    modules: &mut Modules,
    out: &mut impl Write,
) -> io::Result<()> {
    for name in Decoder::modules_of(line) {
        if decoder.lacks(name) {
            decoder.add_module(name, modules.load(name));
        }
    }
    let (_, message) = prefix::parse(line);
    let before = &line[..line.len() - message.len()];
    for decoded in decoder.decode_line(message) {
        writeln!(out, "{before}{decoded}")?;
    }
    Ok(())
}

fn image(path: &Path) -> Result<Image, Failure> {
    let failed = |text: String, hint: &str| {
        Failure::missing(format!("cannot use `{}`: {text}", path.display()), hint)
    };
    let bytes = std::fs::read(path).map_err(|error| {
        failed(error.to_string(), "give the vmlinux with debug information that printed the log")
    })?;
    Image::parse(&Arc::from(bytes)).map_err(|error| failed(chain(&error), error.hint()))
}

/// Files of modules, by the name that the kernel prints.
#[derive(Debug, Default)]
struct Modules {
    files: HashMap<String, PathBuf>,
}

impl Modules {
    fn find(dir: Option<&Path>) -> Result<Modules, Failure> {
        let mut modules = Modules::default();
        let Some(dir) = dir else { return Ok(modules) };
        for entry in WalkDir::new(dir) {
            let entry = entry.map_err(|error| {
                Failure::missing(
                    format!("cannot read `{}`: {error}", dir.display()),
                    "--modules is the build tree or /lib/modules/RELEASE",
                )
            })?;
            let file = entry.file_name().to_string_lossy();
            let Some((name, ending)) = file.split_once(".ko") else { continue };
            if !["", ".debug", ".gz", ".xz", ".zst"].contains(&ending) {
                continue;
            }
            let path = entry.path().to_owned();
            let name = name.replace('-', "_");
            // One with debug information beside it is the better one.
            if ending == ".debug" || !modules.files.contains_key(&name) {
                modules.files.insert(name, path);
            }
        }
        Ok(modules)
    }

    /// A module, if there is a file for it that can be used.
    fn load(&mut self, name: &str) -> Option<Image> {
        let path = self.files.remove(&name.replace('-', "_"))?;
        let loaded = read_module(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Image::parse(&Arc::from(bytes)).map_err(|error| chain(&error)));
        match loaded {
            Ok(image) => Some(image),
            Err(reason) => {
                ui::note(&format!("cannot use `{}`: {reason}", path.display()));
                None
            }
        }
    }
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
