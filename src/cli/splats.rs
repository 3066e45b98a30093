//! `vmtest splats`: the reports of faults in a kernel's log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use vmtest::diagnosis::{Gate, Mode, Reader, Ruled, Splat};
use vmtest::named_file;

use super::error::Failure;
use super::gate::GateArgs;
use super::ui::MessageFormat;

/// A report counts.
const FOUND: u8 = 1;
/// So many titles have a line of their own.
const MAX_TITLES: usize = 1000;
const CHUNK: usize = 64 << 10;

/// Find the reports of faults in a kernel's log
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A console's log or the output of dmesg, gzip or not; - is stdin
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    lists: GateArgs,
    /// A table for people or one JSON object a report for programs, on stdout
    #[arg(long, value_name = "text|json", default_value = "text")]
    message_format: MessageFormat,
}

const AFTER_HELP: &str = "\
Exit codes:
  0   no report counts
  1   at least one does
  2   wrong usage
  69  the log or a list cannot be read

Examples:
  dmesg | vmtest splats -
  vmtest splats console.log --allow-splat 'WARNING in my_probe'";

/// Reports with one title.
struct Row {
    first: Splat,
    allowed_by: Option<String>,
    times: u64,
}

/// Reads the log, prints what is in it.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let gate = args.lists.gate(Mode::Fail)?;
    let mut found = Found { gate, rows: BTreeMap::new(), counts: 0, allowed: 0, unlisted: 0 };
    let mut out = io::stdout().lock();
    let json = args.message_format == MessageFormat::Json;
    read_log(&args.log, |splats| {
        for splat in splats {
            found.take(splat, json.then_some(&mut out as &mut dyn Write))?;
        }
        Ok(())
    })?;
    if !json {
        match out.write_all(found.table(&name(&args.log)).as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failure::unavailable(&error, None));
            }
            _ => {}
        }
    }
    Ok(if found.counts > 0 { FOUND } else { 0 })
}

/// A log that cannot be read.
fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::missing(
        format!("cannot read `{}`: {error}", file.display()),
        "a log is a file of text, or gzip; - is stdin",
    )
}

/// Gives a log's bytes to a reader, and the reports as they end.
pub(super) fn read_log(
    log: &Path,
    mut each: impl FnMut(Vec<Splat>) -> io::Result<()>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| unreadable(log, &error);
    let mut input = open(log).map_err(failed)?;
    let mut reader = Reader::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        if give(each(reader.feed(&buffer[..length])))? {
            return Ok(());
        }
    }
    give(each(reader.finish()))?;
    Ok(())
}

/// Whether nobody reads what we write any more.
fn give(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(Failure::unavailable(&error, None)),
    }
}

/// The log's text, decompressed if it begins like gzip.
pub(super) fn open(log: &Path) -> io::Result<Box<dyn Read>> {
    let mut input: Box<dyn BufRead> = match log == Path::new("-") {
        true => Box::new(BufReader::new(io::stdin())),
        false => Box::new(BufReader::new(named_file::open_stream(log)?)),
    };
    let gzip = input.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzip { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) })
}

/// How a log is called.
fn name(log: &Path) -> String {
    if log == Path::new("-") { "stdin".to_owned() } else { log.display().to_string() }
}

struct Found {
    gate: Gate,
    rows: BTreeMap<String, Row>,
    counts: u64,
    allowed: u64,
    /// Reports whose titles have no row: there were too many.
    unlisted: u64,
}

impl Found {
    fn take(&mut self, splat: Splat, json: Option<&mut dyn Write>) -> io::Result<()> {
        let ruled = self.gate.ruled(splat);
        match ruled.counts {
            true => self.counts += 1,
            false => self.allowed += 1,
        }
        if let Some(out) = json {
            let line = serde_json::to_string(&ruled).map_err(io::Error::other)?;
            return writeln!(out, "{line}").and_then(|()| out.flush());
        }
        let Ruled { splat, allowed_by, .. } = ruled;
        if let Some(row) = self.rows.get_mut(&splat.title) {
            row.times += 1;
            return Ok(());
        }
        if self.rows.len() >= MAX_TITLES {
            self.unlisted += 1;
            return Ok(());
        }
        self.rows.insert(splat.title.clone(), Row { first: splat, allowed_by, times: 1 });
        Ok(())
    }

    /// What a person reads: a row a title, in the log's order.
    fn table(&self, log: &str) -> String {
        let total = self.counts + self.allowed;
        let mut text = match total {
            0 => format!("no reports in {log}\n"),
            1 => format!("1 report in {log}"),
            total => format!("{total} reports in {log}"),
        };
        if total == 0 {
            return text;
        }
        if self.allowed > 0 {
            let _ = write!(text, ", {} allowed", self.allowed);
        }
        text.push_str("\n\n");
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| row.first.begin.byte);
        let cells: Vec<[String; 4]> = rows.iter().map(|row| cells(row)).collect();
        let heads = ["line", "cpu", "task", "report"].map(str::to_owned);
        let width = |column: usize| {
            let all = std::iter::once(&heads).chain(&cells);
            all.map(|cells| cells[column].chars().count()).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        let line = |cells: &[String; 4]| {
            let [from, cpu, task, report] = cells;
            let [a, b, c] = widths;
            format!("  {from:<a$}  {cpu:<b$}  {task:<c$}  {report}\n")
        };
        text.push_str(&line(&heads));
        for (row, cells) in rows.iter().zip(&cells) {
            text.push_str(&line(cells));
            for note in notes(row) {
                let indent = widths.iter().sum::<usize>() + 8;
                let _ = writeln!(text, "{:indent$}{note}", "");
            }
        }
        if self.unlisted > 0 {
            let _ = writeln!(text, "  and {} more with other titles", self.unlisted);
        }
        text
    }
}

fn cells(row: &Row) -> [String; 4] {
    let splat = &row.first;
    let lines = format!("{}-{}", splat.begin.line, splat.end.line);
    let cpu = splat.processor.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let task = match &splat.task {
        None => "-".to_owned(),
        Some(task) => {
            let pid = task.pid.map_or_else(String::new, |pid| pid.to_string());
            match &task.name {
                Some(name) => format!("{name}/{pid}"),
                None => pid,
            }
        }
    };
    let times = if row.times > 1 { format!(" ({} times)", row.times) } else { String::new() };
    [lines, cpu, task, format!("{}{times}", splat.title)]
}

fn notes(row: &Row) -> Vec<String> {
    let splat = &row.first;
    let mut notes = Vec::new();
    if let Some(reason) = &splat.panic {
        notes.push(format!("the kernel panicked: {reason}"));
    }
    if let Some(corrupted) = splat.corrupted {
        notes.push(format!("not whole: {}", corrupted.text()));
    }
    if let Some(pattern) = &row.allowed_by {
        notes.push(format!("allowed by `{pattern}`"));
    }
    notes
}
