//! `gouinit [-coverprofile FILE] [-test_timeout DURATION]`: runs compiled Go tests from a share.
//!
//! Every `*.test` below `/mount/9p/gotestdata/tests` is run in its directory, tests and benchmarks,
//! and may take as long as the timeout says (a minute by default). What happened lands on the share
//! in the reference's wire format:
//!
//! * `results.json`: the events of `go test -json`, made from the programs' output by
//!   [`Converter`], so that the image needs no `test2json`;
//! * `errors.json`: `{"Binary":…,"Error":…}` for each program that could not run, ended with
//!   another status than 0 or took too long;
//! * the file of `-coverprofile`: the programs' coverage profiles, one after the other.
//!
//! The programs' output goes to stdout and stderr as well. The exit status is 1 when there was any
//! error; the reference swallows it.

use super::common::{USAGE, fail, shell_status};
use super::go_events::Converter;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use vmtest_guest::Emitter;
use vmtest_guest::events::{Error, event_channel};

const DIR: &str = "/mount/9p/gotestdata";
const TIMEOUT: Duration = Duration::from_secs(60);
/// A program stops itself at its `-test.timeout` and says where it hung; this is for one that cannot.
const GRACE: Duration = Duration::from_millis(500);

/// What went wrong with one program, or with all of it.
#[derive(Debug, Serialize)]
struct ErrorEvent {
    #[serde(rename = "Binary")]
    binary: String,
    #[serde(rename = "Error")]
    error: String,
}

struct Options {
    cover_profile: Option<PathBuf>,
    timeout: Duration,
}

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let options = match parse(args) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("gouinit: {why}");
            eprintln!("usage: gouinit [-coverprofile FILE] [-test_timeout DURATION]");
            return ExitCode::from(USAGE);
        }
    };
    match run_all(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail("gouinit", error),
    }
}

/// Go's flags: `-name value`, `-name=value`, with one dash or two.
fn parse(args: &[OsString]) -> Result<Options, String> {
    let mut options = Options { cover_profile: None, timeout: TIMEOUT };
    let mut args = args.iter().map(|arg| arg.to_str().ok_or("an argument is not UTF-8"));
    while let Some(arg) = args.next().transpose()? {
        let flag = arg.strip_prefix('-').ok_or_else(|| format!("unexpected argument `{arg}`"))?;
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value),
            None => {
                (flag, args.next().transpose()?.ok_or_else(|| format!("`{arg}` needs a value"))?)
            }
        };
        match name {
            "coverprofile" => {
                options.cover_profile =
                    Some(value).filter(|file| !file.is_empty()).map(PathBuf::from);
            }
            "test_timeout" => {
                options.timeout = parse_duration(value)
                    .ok_or_else(|| format!("`{value}` is no duration such as 1m20s or 300ms"))?;
            }
            _ => return Err(format!("unknown option `{arg}`")),
        }
    }
    Ok(options)
}

/// Go's notation: numbers with units from `h` to `ns`, one after the other.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

/// The number of errors.
fn run_all(options: &Options) -> Result<usize, Error> {
    let errors = event_channel::<ErrorEvent>(Path::new(DIR).join("errors.json"))?;
    let results = event_channel::<()>(Path::new(DIR).join("results.json"))?;
    let root = Path::new(DIR).join("tests");
    let mut count = 0;
    let mut failed = |program: &Path, error: String| {
        eprintln!("gouinit: {}: {error}", program.display());
        count += 1;
        errors.emit(&ErrorEvent { binary: program.display().to_string(), error })
    };
    let mut programs = Vec::new();
    if let Err(error) = find_tests(&root, &mut programs) {
        failed(&root, format!("cannot be searched for tests: {error}"))?;
    }
    for program in &programs {
        let package = program.parent().and_then(|dir| dir.strip_prefix(&root).ok());
        let package = package.unwrap_or(Path::new("")).display().to_string();
        if let Err(error) = run_one(program, &package, options, &results) {
            failed(program, error)?;
        }
    }
    results.close()?;
    errors.close()?;
    Ok(count)
}

/// All `*.test` below `dir`, in the order of their names.
fn find_tests(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            find_tests(&path, found)?;
        } else if kind.is_file() && path.extension() == Some(OsStr::new("test")) {
            found.push(path);
        }
    }
    Ok(())
}

fn run_one(
    program: &Path,
    package: &str,
    options: &Options,
    results: &Emitter<()>,
) -> Result<(), String> {
    let dir = program.parent().unwrap_or(Path::new("/"));
    let profile = dir.join("coverage.txt");
    let mut command = Command::new(program);
    command.args(["-test.v", "-test.bench=.", "-test.run=."]);
    command.arg(format!("-test.timeout={}ms", options.timeout.as_millis()));
    if options.cover_profile.is_some() {
        command.arg("-test.coverprofile").arg(&profile);
    }
    // A group of its own, so that its children end with it.
    command.current_dir(dir).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("failed to start: {error}"))?;
    let output = child.stdout.take();
    let (sender, ended) = channel();
    let status = std::thread::scope(|scope| {
        scope.spawn(move || {
            let emitted = output.map(|output| convert(output, package, results));
            let _ = sender.send(emitted.unwrap_or(Ok(())));
        });
        let mut timed_out = false;
        let converted = match ended.recv_timeout(options.timeout + GRACE) {
            Err(RecvTimeoutError::Timeout) => {
                timed_out = true;
                kill_group(&child);
                ended.recv().unwrap_or(Ok(()))
            }
            result => result.unwrap_or(Ok(())),
        };
        let status = child.wait().map_err(|error| format!("cannot wait for it: {error}"))?;
        if timed_out {
            return Err(format!("killed after {} s", (options.timeout + GRACE).as_secs_f64()));
        }
        converted.map_err(|error| format!("cannot pass on its output: {error}"))?;
        Ok(status)
    })?;
    let covered = options.cover_profile.as_ref().map_or(Ok(()), |all| append(&profile, all));
    if !status.success() {
        return Err(format!("test exited with non-zero status: {}", shell_status(status)));
    }
    covered.map_err(|error| format!("could not append to coverage file: {error}"))
}

fn kill_group(child: &Child) {
    let group = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
}

/// To people as it is, to the host as events.
fn convert(output: impl io::Read, package: &str, results: &Emitter<()>) -> Result<(), Error> {
    let mut converter = Converter::new(package);
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    let mut result = Ok(());
    let mut stdout = io::stdout();
    loop {
        line.clear();
        // A test's output must be drained to its end even when nobody takes it any more.
        if !reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            break;
        }
        let _ = stdout.write_all(&line);
        let _ = stdout.flush();
        for event in converter.line(&String::from_utf8_lossy(&line)) {
            result = result.and(results.emit_json(&event));
        }
    }
    for event in converter.end() {
        result = result.and(results.emit_json(&event));
    }
    result
}

fn append(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = fs::File::open(from)?;
    let mut target = OpenOptions::new().create(true).append(true).open(to)?;
    io::copy(&mut source, &mut target).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1m20s"), Some(Duration::from_secs(80)));
        assert_eq!(parse_duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("300ms"), Some(Duration::from_millis(300)));
        for bad in ["", "900", "s", "1x", "1.2.3s", "-1s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn options_are_gos() {
        let parse = |args: &[&str]| parse(&args.iter().map(OsString::from).collect::<Vec<_>>());
        let options = parse(&["-coverprofile=/x", "--test_timeout", "2s"]).unwrap();
        assert_eq!(options.cover_profile, Some(PathBuf::from("/x")));
        assert_eq!(options.timeout, Duration::from_secs(2));
        assert!(parse(&["-x=1"]).is_err());
        assert!(parse(&["-test_timeout"]).is_err());
        assert!(parse(&["word"]).is_err());
    }
}
