//! `vmtest coverage`: what runs collected becomes what people's and machines' tools read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use vmtest::coverage::table::{Rows, Totals};
use vmtest::coverage::{
    self, Cancel, Loaded, Problem, SourceRoot, Sources, Tools, cobertura, html, json, lcov, table,
};
use vmtest::initramfs::Pending;

use super::error::{Failure, USAGE};
use super::{interrupt, ui};

/// `--fail-under` is not reached.
const UNDER: u8 = 1;
/// `--strict`, and something could not be used (`EX_DATAERR` of `sysexits.h`).
const PROBLEMS: u8 = 65;
/// So many objects with the same problem are named.
const NAMED: usize = 5;

/// Convert and combine what `run --coverage` collected.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Combine everything into one file
    #[command(after_help = EXIT_CODES.replace(UNDER_LINE, ""))]
    Merge(MergeArgs),
    /// Print a summary, and write a report for people or files for tools
    #[command(after_help = EXIT_CODES)]
    Report(ReportArgs),
}

const UNDER_LINE: &str = "  1    lines covered are fewer than --fail-under\n";

const EXIT_CODES: &str = "\
Exit codes:
  0    written; what could not be used is named on stderr
  1    lines covered are fewer than --fail-under
  2    wrong usage
  65   written, but with --strict and something could not be used
  69   nothing could be read, or the output cannot be written
  130  interrupted; nothing was written";

#[derive(Clone, Debug, clap::Args)]
struct InputArgs {
    /// Directories that `run --coverage DIR` wrote, or with several such; lcov files; our JSON
    #[arg(required = true, value_name = "DIR|FILE")]
    inputs: Vec<PathBuf>,
    /// Where sources are: those at FROM, or those with relative paths
    #[arg(long, value_name = "[FROM=]DIR")]
    source_root: Vec<OsString>,
    /// Only sources that match, such as 'fs/*' or '*.rs'; repeats
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No sources that match; repeats
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Fail if anything could not be used
    #[arg(long)]
    strict: bool,
    /// gcc's gcov; found by the version of gcc that is needed if not given
    #[arg(long, value_name = "PROGRAM")]
    gcov: Option<PathBuf>,
    /// Directory with llvm-cov and llvm-profdata
    #[arg(long, value_name = "DIR")]
    llvm_bin: Option<PathBuf>,
    /// The go program
    #[arg(long, value_name = "PROGRAM")]
    go: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
struct MergeArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Output; - is stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Its format; that of its ending (.info, .xml, .json) if not given
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// lcov's text, for genhtml and editors
    Lcov,
    /// Cobertura's XML, for CI services
    Cobertura,
    /// Everything that is known; can be read again
    Json,
}

#[derive(Clone, Debug, clap::Args)]
struct ReportArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Write static pages for people; a report that is there is replaced
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Write an lcov file
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,
    /// Write a Cobertura file
    #[arg(long, value_name = "FILE")]
    cobertura: Option<PathBuf>,
    /// Write a JSON file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print a row for each file instead of each directory
    #[arg(long)]
    files: bool,
    /// Print no summary
    #[arg(short, long)]
    quiet: bool,
    /// Fail if a smaller part of the lines was covered
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_under: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| "a percentage is a number from 0 to 100".to_owned())
}

/// Runs the command, in a way that a signal ends it cleanly.
pub(crate) fn run(args: Args) -> Result<u8, Failure> {
    let cancel = Cancel::default();
    let ask = {
        let cancel = cancel.clone();
        move || cancel.cancel()
    };
    // What was asked to end ends its tools and removes its temporary files.
    interrupt::guarded(ask, || match args.command {
        Command::Merge(args) => merge(&args, cancel),
        Command::Report(args) => report(&args, cancel),
    })
}

fn load(args: &InputArgs, cancel: Cancel) -> Result<Loaded, Failure> {
    let roots =
        args.source_root.iter().map(|value| source_root(value)).collect::<Result<_, _>>()?;
    let sources = Sources { roots, include: args.include.clone(), exclude: args.exclude.clone() };
    // They are started in other directories.
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let program = |path: &PathBuf| match path.as_os_str().as_bytes().contains(&b'/') {
        true => absolute(path),
        false => path.clone(),
    };
    let tools = Tools {
        gcov: args.gcov.as_ref().map(program),
        llvm: args.llvm_bin.as_ref().map(absolute),
        go: args.go.as_ref().map(program),
        cancel,
        ..Tools::default()
    };
    let loaded = coverage::load(&args.inputs, &tools, &sources)
        .map_err(|error| Failure::unavailable(&error, error.hint().map(str::to_owned)))?;
    loaded.notes.iter().for_each(|note| ui::note(note));
    print(&loaded.problems);
    if loaded.coverage.files.is_empty() {
        let (text, hint) = match (loaded.problems.as_slice(), args.include.is_empty()) {
            ([], true) if args.exclude.is_empty() => {
                ("there is no coverage in what was given", "did an instrumented program run?")
            }
            ([], _) => ("no source is left", "do --include and --exclude leave anything?"),
            _ => ("nothing could be read", "the problems above say why"),
        };
        return Err(Failure::missing(text, hint));
    }
    absent(&loaded);
    Ok(loaded)
}

/// Says so where sources are not on this host: tools that show lines need them.
fn absent(loaded: &Loaded) {
    let mut paths = loaded.coverage.files.keys().filter(|path| !Path::new(path).is_file());
    if let Some(first) = paths.next() {
        let (missing, all) = (1 + paths.count(), loaded.coverage.files.len());
        ui::note(&format!("{missing} of {all} sources are not on this host, such as {first}"));
        ui::hint("--source-root FROM=DIR says where they are");
    }
}

fn source_root(value: &OsStr) -> Result<SourceRoot, Failure> {
    let bytes = value.as_bytes();
    let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
    let root = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => SourceRoot { from: Some(path(&bytes[..at])), to: path(&bytes[at + 1..]) },
        None => SourceRoot { from: None, to: path(bytes) },
    };
    let empty = |path: &PathBuf| path.as_os_str().is_empty();
    if empty(&root.to) || root.from.as_ref().is_some_and(empty) {
        return Err(Failure::wrong(
            format!("`--source-root {}` has an empty part", value.display()),
            "write `--source-root DIR` or `--source-root FROM=DIR`",
        ));
    }
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    Ok(SourceRoot { to: absolute(&root.to), ..root })
}

/// Prints problems; of many objects with the same one, the first.
fn print(problems: &[Problem]) {
    let mut groups: BTreeMap<(String, Option<&str>), Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        // Messages differ in the names of files that they mention.
        let words = problem.why.split(' ').filter(|word| !word.contains('/'));
        let key = (words.collect::<Vec<_>>().join(" "), problem.hint.as_deref());
        groups.entry(key).or_default().push(problem);
    }
    for ((_, hint), group) in groups {
        group.iter().take(NAMED).for_each(|problem| ui::note(&problem.to_string()));
        if group.len() > NAMED {
            ui::note(&format!("… the same of {} more", group.len() - NAMED));
        }
        if let Some(hint) = hint {
            ui::hint(hint);
        }
    }
}

fn merge(args: &MergeArgs, cancel: Cancel) -> Result<u8, Failure> {
    let by_name = || match args.output.extension().and_then(OsStr::to_str) {
        Some("info") => Some(Format::Lcov),
        Some("xml") => Some(Format::Cobertura),
        Some("json") => Some(Format::Json),
        _ if args.output == Path::new("-") => Some(Format::Lcov),
        _ => None,
    };
    let format = args.format.or_else(by_name).ok_or_else(|| Failure {
        code: USAGE,
        text: format!("the format of {} is not known", args.output.display()),
        hint: Some("name it: --format lcov, cobertura or json".into()),
    })?;
    let loaded = load(&args.input, cancel)?;
    write(&args.output, &loaded, format)?;
    Ok(strict(&args.input, &loaded))
}

fn report(args: &ReportArgs, cancel: Cancel) -> Result<u8, Failure> {
    let files = [
        (&args.lcov, "--lcov", Format::Lcov),
        (&args.cobertura, "--cobertura", Format::Cobertura),
        (&args.json, "--json", Format::Json),
    ];
    let mut taken = BTreeMap::new();
    for (path, option, _) in &files {
        if let Some(path) = path
            && let Some(other) = taken.insert(path, option)
        {
            return Err(Failure::wrong(
                format!("{other} and {option} both write to {}", path.display()),
                "name a file for each",
            ));
        }
    }
    let loaded = load(&args.input, cancel.clone())?;
    let totals = Totals::new(&loaded.coverage);
    if !args.quiet {
        let rows = if args.files { Rows::Files } else { Rows::Directories };
        let mut out: Box<dyn Write> = match taken.contains_key(&PathBuf::from("-")) {
            // stdout is a file's
            true => Box::new(BufWriter::new(io::stderr().lock())),
            false => Box::new(BufWriter::new(io::stdout().lock())),
        };
        let printed = table::write(&totals, rows, &mut out).and_then(|()| out.flush());
        // Whoever reads the summary may have seen enough.
        if let Err(error) = printed
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(Failure::unavailable(&error, None));
        }
    }
    for (path, _, format) in files {
        if let Some(path) = path {
            write(path, &loaded, format)?;
        }
    }
    if let Some(dir) = &args.html {
        html::write(&loaded.coverage, &totals, dir, &cancel)
            .map_err(|error| Failure::unavailable(&error, error.hint().map(str::to_owned)))?;
        ui::status(&format!("report: {}", dir.join("index.html").display()));
    }
    if let Some(wanted) = args.fail_under {
        match totals.all.lines.percent() {
            Some(covered) if covered >= wanted => {}
            Some(covered) => {
                let lines = totals.all.lines;
                ui::failed(&format!(
                    "{} of {} lines are covered, {covered:.2}%, fewer than {wanted}%",
                    lines.hit, lines.found
                ));
                return Ok(UNDER);
            }
            None => {
                ui::failed("no line was found that could have been covered");
                return Ok(UNDER);
            }
        }
    }
    Ok(strict(&args.input, &loaded))
}

fn strict(args: &InputArgs, loaded: &Loaded) -> u8 {
    if args.strict && !loaded.problems.is_empty() { PROBLEMS } else { 0 }
}

/// Writes a file, as a whole or not at all.
fn write(path: &Path, loaded: &Loaded, format: Format) -> Result<(), Failure> {
    let to = |out: &mut dyn Write| match format {
        Format::Lcov => lcov::write(&loaded.coverage, out),
        Format::Cobertura => cobertura::write(&loaded.coverage, timestamp(), out),
        Format::Json => json::write(&loaded.coverage, out),
    };
    let written = if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        to(&mut out).and_then(|()| out.flush())
    } else {
        Pending::new(path).and_then(|pending| {
            let mut out = BufWriter::with_capacity(256 << 10, pending.file());
            to(&mut out)?;
            out.flush()?;
            drop(out);
            pending.publish(0o666)
        })
    };
    written.map_err(|error| {
        Failure::missing(
            format!("cannot write {}: {error}", path.display()),
            "is the directory there and writable, and is there room?",
        )
    })
}

/// Now, in milliseconds since 1970; `SOURCE_DATE_EPOCH` for reports that are the same each time.
fn timestamp() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    given.map(|seconds| seconds.saturating_mul(1000)).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    })
}
