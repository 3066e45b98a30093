//! `gouinit [-coverprofile FILE] [-test_timeout DURATION] [-list=true]`: runs compiled Go tests from a share.
//!
//! Every `*.test` below `/mount/9p/gotestdata/tests` is run in its directory, tests and benchmarks,
//! and may take as long as the timeout says (a minute by default). What happened lands on the share
//! in `hugelgupf/vmtest`'s wire format:
//!
//! * `results.json`: the events of `go test -json`, made from the programs' output by
//!   [`Converter`], so that the image needs no `test2json`. What programs say on stderr, such as why one
//!   gave up, is in them as `go test` has it. With `-list`, which `hugelgupf/vmtest` does not know, the tests
//!   of a program that ended without a result follow as events `listed`: some of them did not run;
//! * `errors.json`: `{"Binary":…,"Error":…}` for each program that could not run, ended with
//!   another status than 0 or took too long;
//! * the file of `-coverprofile`: the programs' coverage profiles, one after the other.
//!
//! The programs' output goes to stdout and stderr as well. What outlives a program is not waited for.
//! The exit status is 1 when there was any error; `hugelgupf/vmtest` swallows it.

use super::common::{USAGE, fail, shell_status};
use super::go_events::Converter;
use serde::Serialize;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use vmtest_guest::Emitter;
use vmtest_guest::events::{Error, event_channel};

const DIR: &str = "/mount/9p/gotestdata";
const TIMEOUT: Duration = Duration::from_secs(60);
/// A program stops itself at its `-test.timeout` and says where it hung; this is for one that cannot.
const GRACE: Duration = Duration::from_millis(500);

/// So many of the last lines of stderr wait for the end of stdout.
const ASIDES: usize = 1000;

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
    list: bool,
}

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let options = match parse(args) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("gouinit: {why}");
            eprintln!("usage: gouinit [-coverprofile FILE] [-test_timeout DURATION] [-list=true]");
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
    let mut options = Options { cover_profile: None, timeout: TIMEOUT, list: false };
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
            "list" => {
                options.list =
                    value.parse().map_err(|_| format!("`{value}` is neither true nor false"))?;
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
    let (status, finished) = run_and_convert(&mut command, dir, package, options, results)?;
    if options.list && !finished {
        list(program, dir, package, options, results)?;
    }
    let status = status?;
    let covered = options.cover_profile.as_ref().map_or(Ok(()), |all| append(&profile, all));
    if !status.success() {
        return Err(format!("test exited with non-zero status: {}", shell_status(status)));
    }
    covered.map_err(|error| format!("could not append to coverage file: {error}"))
}

/// What comes from a program.
enum Piece {
    /// A line of its stdout, with the newline.
    Out(Vec<u8>),
    /// A line of its stderr.
    Err(Vec<u8>),
    OutEnd,
    ErrEnd,
}

/// Runs a program to its end: its output goes to people as it is, and to the host as events. Returns
/// its status, or why it has none, and whether it came to a result of its own.
fn run_and_convert(
    command: &mut Command,
    dir: &Path,
    package: &str,
    options: &Options,
    results: &Emitter<()>,
) -> Result<(Result<ExitStatus, String>, bool), String> {
    // A group of its own, so that its children end with it.
    command.current_dir(dir).process_group(0);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("failed to start: {error}"))?;
    let (send, pieces) = sync_channel(64);
    pass_lines(child.stdout.take(), send.clone(), Piece::Out, Piece::OutEnd);
    pass_lines(child.stderr.take(), send, Piece::Err, Piece::ErrEnd);
    let limit = options.timeout + GRACE;
    let mut until = Instant::now() + limit;
    let mut converter = Converter::new(package);
    let mut emitted = Ok(());
    let mut verdict = None;
    // The two streams come in any order: why a program died is said by the test it died in.
    let mut asides: VecDeque<String> = VecDeque::new();
    // A test's output must be drained to its end even when nobody takes it any more.
    let mut pass = |events: Vec<String>| {
        for event in events {
            let result = results.emit_json(&event);
            emitted = std::mem::replace(&mut emitted, Ok(())).and(result);
        }
    };
    loop {
        match pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Piece::Out(line)) => {
                write(&mut io::stdout(), &line);
                pass(converter.line(&String::from_utf8_lossy(&line)));
            }
            Ok(Piece::Err(line)) => {
                write(&mut io::stderr(), &line);
                asides.push_back(String::from_utf8_lossy(&line).into_owned());
                if asides.len() > ASIDES {
                    pass(asides.pop_front().map_or_else(Vec::new, |line| converter.aside(&line)));
                }
            }
            // What it left running may keep stderr forever.
            Ok(Piece::OutEnd) => until = until.min(Instant::now() + GRACE),
            Ok(Piece::ErrEnd) => {}
            Err(RecvTimeoutError::Timeout) if verdict.is_none() && is_running(&mut child) => {
                let text = format!("*** Test killed: ran too long ({} s).\n", limit.as_secs_f64());
                verdict = Some(text);
                kill_group(&child);
                until = Instant::now() + GRACE;
            }
            Err(_) => break,
        }
    }
    let killed = verdict.is_some();
    asides.extend(verdict);
    for line in asides {
        pass(converter.aside(&line));
    }
    let status = child.wait().map_err(|error| format!("cannot wait for it: {error}"))?;
    let finished = converter.is_finished() && !killed;
    pass(converter.end());
    if killed {
        return Ok((Err(format!("killed after {} s", limit.as_secs_f64())), finished));
    }
    emitted.map_err(|error| format!("cannot pass on its output: {error}"))?;
    Ok((Ok(status), finished))
}

/// Sends what a stream has, by lines, from a thread of its own.
fn pass_lines(
    stream: Option<impl io::Read + Send + 'static>,
    send: SyncSender<Piece>,
    piece: fn(Vec<u8>) -> Piece,
    end: Piece,
) {
    std::thread::spawn(move || {
        let mut lines = stream.map(BufReader::new);
        while let Some(lines) = &mut lines {
            let mut line = Vec::new();
            if !lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0)
                || send.send(piece(line)).is_err()
            {
                break;
            }
        }
        let _ = send.send(end);
    });
}

fn write(out: &mut dyn Write, line: &[u8]) {
    let _ = out.write_all(line);
    let _ = out.flush();
}

fn is_running(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}

fn kill_group(child: &Child) {
    let group = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
}

/// Says which tests a program has.
fn list(
    program: &Path,
    dir: &Path,
    package: &str,
    options: &Options,
    results: &Emitter<()>,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg("-test.list=.").arg(format!("-test.timeout={}ms", options.timeout.as_millis()));
    // A program that cannot even say this has said before why it failed.
    let Ok(output) = command.current_dir(dir).stderr(Stdio::null()).output() else { return Ok(()) };
    for name in String::from_utf8_lossy(&output.stdout).lines().filter(|line| is_test(line)) {
        results
            .emit_json(&super::go_events::listed(package, name))
            .map_err(|error| format!("cannot pass on its tests: {error}"))?;
    }
    Ok(())
}

fn is_test(name: &str) -> bool {
    ["Test", "Benchmark", "Example", "Fuzz"].iter().any(|kind| name.starts_with(kind))
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
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
