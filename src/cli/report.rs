//! `vmtest report`, and where reports of suites go.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write, stdout};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use vmtest::suite::report::{self, Form, Wanted, github};
use vmtest::suite::{Run, read};

use super::error::Failure;
use super::value::value;

/// Reports of suites.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Join results of several machines, and write them in another form
    Convert(Convert),
}

/// Options of `report convert`.
#[derive(Debug, clap::Args)]
struct Convert {
    /// Results that `vmtest test --report json=FILE` wrote; `-` is stdin
    #[arg(value_name = "IN", required = true)]
    input: Vec<PathBuf>,
    /// Where it goes; its name says the form: .xml (JUnit), .html, .jsonl, .ktap, .trace.json; repeats
    #[arg(short, long, value_name = "OUT")]
    output: Vec<PathBuf>,
    /// The same with the form said: junit=FILE, html=FILE, …; `-` is stdout; or github; repeats
    #[arg(long, value_parser = value(Wanted::parse), value_name = "FORM=FILE")]
    report: Vec<Wanted>,
}

pub(crate) fn run(args: Args) -> Result<u8, Failure> {
    let Commands::Convert(args) = args.command;
    let mut wanted = args.report;
    for path in args.output {
        let form = Form::of_file(&path).ok_or_else(|| {
            Failure::wrong(
                format!("`-o {}`: its name says no form", path.display()),
                "end it with .xml, .html, .jsonl, .ktap or .trace.json, or use --report FORM=FILE",
            )
        })?;
        wanted.push(Wanted::File(form, path));
    }
    if wanted.is_empty() {
        return Err(Failure::wrong("nothing is to be written", "name a file with -o OUT"));
    }
    let outputs = Outputs::check(&wanted, Path::new(""))?;
    let mut run = Run::default();
    for path in &args.input {
        read_lines(path, &mut run)?;
    }
    run.fill();
    outputs.write_all(&run, "vmtest.toml")?;
    Ok(0)
}

fn read_lines(path: &Path, run: &mut Run) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        let text = format!("cannot use the results `{}`: {error}", path.display());
        Failure::missing(text, "they are what `vmtest test --report json=FILE` writes")
    };
    if path.as_os_str() == "-" {
        return read(io::stdin().lock(), run).map_err(|error| failed(&error));
    }
    let file = vmtest::named_file::open(path).map_err(|error| failed(&error))?;
    read(BufReader::new(file), run).map_err(|error| failed(&error))
}

/// Reports that are wanted, of which it is known that they can be written.
#[derive(Debug)]
pub(crate) struct Outputs(Vec<Wanted>);

impl Outputs {
    /// Finds out, before anything is run, whether the files can be written. `home` is what they are relative
    /// to.
    pub(crate) fn check(wanted: &[Wanted], home: &Path) -> Result<Outputs, Failure> {
        let mut checked = Vec::new();
        for wanted in wanted {
            checked.push(match wanted {
                Wanted::Github => Wanted::Github,
                Wanted::File(form, path) if path.as_os_str() == "-" => {
                    Wanted::File(*form, path.clone())
                }
                Wanted::File(form, path) => {
                    let path = home.join(path);
                    check_file(&path).map_err(|error| cannot_write(&path, &error))?;
                    Wanted::File(*form, path)
                }
            });
        }
        Ok(Outputs(checked))
    }

    /// Files that are written line by line, while tests end; `-` is stdout.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|wanted| match wanted {
            Wanted::File(Form::Json, path) => Some(path.as_path()),
            _ => None,
        })
    }

    /// Writes all but those that are written line by line; `suite` is the file that annotations point to.
    pub(crate) fn write(&self, run: &Run, suite: &str) -> Result<(), Failure> {
        self.write_but(run, suite, |form| form == Form::Json)
    }

    /// Writes all.
    fn write_all(&self, run: &Run, suite: &str) -> Result<(), Failure> {
        self.write_but(run, suite, |_| false)
    }

    fn write_but(
        &self,
        run: &Run,
        suite: &str,
        is_written: impl Fn(Form) -> bool,
    ) -> Result<(), Failure> {
        // One that cannot be written does not keep the others from it.
        let mut failed = None;
        for wanted in &self.0 {
            let result = match wanted {
                Wanted::File(form, _) if is_written(*form) => Ok(()),
                Wanted::File(form, path) if path.as_os_str() == "-" => {
                    let mut bytes = Vec::new();
                    let written = report::write(*form, run, &mut bytes);
                    written.map_err(|error| cannot_write(path, &error))?;
                    to_stdout(&bytes).map(drop)
                }
                Wanted::File(form, path) => {
                    write_file(*form, run, path).map_err(|error| cannot_write(path, &error))
                }
                Wanted::Github => write_github(run, suite),
            };
            failed = failed.or(result.err());
        }
        failed.map_or(Ok(()), Err)
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::missing(
        format!("cannot write the report `{}`: {error}", path.display()),
        "name a file in a directory that vmtest may write to",
    )
}

/// Whether a file can be written: what it is replaced by is made beside it.
fn check_file(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Says it without the name of a file that nobody knows.
    parent(path).metadata()?;
    tempfile::Builder::new().prefix(".vmtest-report.").tempfile_in(parent(path)).map(drop)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whole or not at all.
fn write_file(form: Form, run: &Run, path: &Path) -> io::Result<()> {
    let file = tempfile::Builder::new().prefix(".vmtest-report.").tempfile_in(parent(path))?;
    let mut out = BufWriter::with_capacity(256 << 10, file);
    report::write(form, run, &mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    // A temporary file is private; a report is as public as its directory.
    let mode = parent(path).metadata()?.permissions().mode() & 0o666;
    file.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}

fn write_github(run: &Run, suite: &str) -> Result<(), Failure> {
    to_stdout(github::annotations(run, suite).as_bytes())?;
    let Some(path) =
        std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path: &OsString| !path.is_empty())
    else {
        return Ok(());
    };
    let path = PathBuf::from(path);
    let file = File::options().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(github::summary(run).as_bytes()))
        .map_err(|error| cannot_write(&path, &error))
}

/// Writes to stdout; a reader that left is no failure.
pub(crate) fn to_stdout(bytes: &[u8]) -> Result<u8, Failure> {
    match stdout().write_all(bytes).and_then(|()| stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::unavailable(&error, None))
        }
        _ => Ok(0),
    }
}
