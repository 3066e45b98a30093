//! `vmtest doctor`: whether this machine is fit, and what to do about what is not.
//!
//! All checks run at the same time and have one deadline: whoever is not through by then says so. What is
//! printed can be pasted anywhere: no environment but vmtest's own places, the home directory as `~`.

mod host;
mod line;
mod programs;
mod stores;

use std::io::{Write, stdout};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use vmtest::options::Environment;

use super::error::Failure;
use line::{Line, State};

/// What is not through by then is not waited for.
const DEADLINE: Duration = Duration::from_millis(1700);

/// Something is broken.
const BROKEN: u8 = 1;

/// Say whether this machine is fit, and what to do
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Each line is ok, warn (vmtest works, something is slow or missing) or fail, with the command that
mends it. The report has no secrets: the home directory is ~, variables are not shown.

Exit codes:
  0   nothing fails
  1   something does
  2   wrong usage";

/// A check: its name, and what it does.
type Check = (&'static str, fn(&Environment) -> Vec<Line>);

/// In the order in which they are told.
const CHECKS: [Check; 12] = [
    ("host", host::host),
    ("memory", host::memory),
    ("kvm", host::kvm),
    ("assets", stores::assets),
    ("qemu", programs::qemu),
    ("cache", stores::cache),
    ("temporary files", stores::temporary),
    ("/dev/shm", stores::shared_memory),
    ("limits", host::limits),
    ("nix", programs::nix),
    ("toolchains", programs::toolchains),
    ("PATH", programs::path),
];

pub(crate) fn run(args: &Args, environment: &Environment) -> Result<u8, Failure> {
    let lines = examine(environment);
    let worst = lines.iter().map(|line| line.state).max().unwrap_or(State::Ok);
    let text = if args.json {
        let report = serde_json::json!({
            "vmtest_version": env!("CARGO_PKG_VERSION"), "state": worst, "checks": lines,
        });
        format!("{report:#}\n")
    } else {
        lines.iter().map(shown).collect()
    };
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::unavailable(&error, None))
        }
        _ => Ok(if worst == State::Fail { BROKEN } else { 0 }),
    }
}

fn examine(environment: &Environment) -> Vec<Line> {
    let until = Instant::now() + DEADLINE;
    let (sender, results) = channel();
    for (n, (_, check)) in CHECKS.iter().enumerate() {
        let (sender, environment, check) = (sender.clone(), environment.clone(), *check);
        // One that hangs is left behind: it ends with the program.
        std::thread::spawn(move || sender.send((n, check(&environment))));
    }
    drop(sender);
    let mut found: Vec<Option<Vec<Line>>> = vec![None; CHECKS.len()];
    // Until all are there, or time is up.
    let left = || until.saturating_duration_since(Instant::now());
    while let Ok((n, lines)) = results.recv_timeout(left()) {
        found[n] = Some(lines);
    }
    let late = |name: &str| {
        vec![Line::warn(
            name,
            "not known: this took too long",
            "try again when the machine is idle",
        )]
    };
    let lines = found.into_iter().zip(CHECKS);
    let lines = lines.flat_map(|(lines, (name, _))| lines.unwrap_or_else(|| late(name)));
    lines.map(tidied).collect()
}

/// Without the home directory's name, and in one line.
fn tidied(mut line: Line) -> Line {
    let home = std::env::home_dir().filter(|home| home.as_os_str().len() > 1);
    let home = home.map(|home| home.display().to_string());
    let tidy = |text: String| {
        let text = match &home {
            Some(home) => text.replace(home.as_str(), "~"),
            None => text,
        };
        text.split('\n').map(str::trim).collect::<Vec<_>>().join("; ")
    };
    line.fix = line.fix.map(&tidy);
    line.text = tidy(line.text);
    line
}

fn shown(line: &Line) -> String {
    let state = match line.state {
        State::Ok => "ok  ",
        State::Warn => "warn",
        State::Fail => "fail",
    };
    let mut text = format!("{state} {:<16} {}\n", line.name, line.text);
    if let Some(fix) = &line.fix {
        text.push_str(&format!("     {:<16} -> {fix}\n", ""));
    }
    text
}
