//! From a suite to what is run: each test in each of its machines, with the options of `vmtest run`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use clap::Parser;
use vmtest::options::{Environment, WarmMode};
use vmtest::quote;
use vmtest::results::Format;
use vmtest::session;
use vmtest::suite::schedule::Needs;
use vmtest::suite::{Cell, Expect, File};

use super::args::TestArgs;
use crate::cli::error::Failure;
use crate::cli::options::RunArgs;

/// What QEMU itself takes beside the guest's memory, in bytes.
const QEMU_BYTES: u64 = 96 << 20;

/// A test in a machine.
#[derive(Debug)]
pub(super) struct Job {
    /// The suite's entry.
    pub(super) suite: String,
    pub(super) cell: Cell,
    pub(super) run: RunArgs,
    pub(super) argv: Vec<String>,
    pub(super) format: Format,
    pub(super) expect: Expect,
    pub(super) retries: u32,
    pub(super) tags: Vec<String>,
    pub(super) needs: Needs,
    /// The command line that repeats it.
    pub(super) repeat: String,
}

/// The words of `vmtest run`, as they would be typed.
#[derive(Debug, Parser)]
#[command(name = "vmtest", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    run: RunArgs,
}

/// All jobs of a suite, in its order.
pub(super) fn plan(
    args: &TestArgs,
    file: &File,
    environment: &Environment,
    root: &Path,
) -> Result<Vec<Job>, Failure> {
    let usual = session::guest_arch(None, environment)?;
    let mut parsed: HashMap<Vec<String>, RunArgs> = HashMap::new();
    let mut jobs = Vec::new();
    for entry in &file.entries {
        for cell in file.cells(entry, &args.arch, &args.kernel, usual) {
            let words = file.words(entry, &cell, &args.machine.0);
            let run = match parsed.get(&words) {
                Some(run) => run.clone(),
                None => {
                    let run = parse(&words, &entry.name, entry.line)?;
                    parsed.insert(words.clone(), run.clone());
                    run
                }
            };
            let argv = entry.what.argv();
            let needs = needs(&run, &words, environment);
            jobs.push(Job {
                repeat: repeat(root, &words, &argv),
                suite: entry.name.clone(),
                run,
                argv,
                format: file.format(entry, &cell.arch),
                expect: entry.expect.clone(),
                retries: args.retries.unwrap_or_else(|| file.retries(entry, &cell.arch)),
                tags: file.tags(entry).map(str::to_owned).collect(),
                needs,
                cell,
            });
        }
    }
    Ok(jobs)
}

fn parse(words: &[String], name: &str, line: usize) -> Result<RunArgs, Failure> {
    let parsed = Words::try_parse_from(words).map_err(|error| {
        let place = if line > 0 { format!(" (vmtest.toml, line {line})") } else { String::new() };
        let text = error.to_string();
        // Clap's text begins with `error: `, and ends with the usage of a command that nobody typed.
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let text = text.split("\n\nUsage:").next().unwrap_or(text);
        let text = text.split("\n\nFor more information").next().unwrap_or(text).trim_end();
        match text.split_once("\nhint: ") {
            Some((text, hint)) => Failure::wrong(format!("test `{name}`{place}: {text}"), hint),
            None => Failure::wrong(
                format!("test `{name}`{place}: {text}"),
                "options of a suite are those of `vmtest run`, with the same values",
            ),
        }
    })?;
    Ok(parsed.run)
}

fn needs(run: &RunArgs, words: &[String], environment: &Environment) -> Needs {
    let bytes = run.machine.memory.bytes().0 + QEMU_BYTES;
    let warm = run.machine.warm.or(environment.warm).unwrap_or_default();
    let kind = (warm != WarmMode::Off).then(|| {
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        hasher.finish()
    });
    Needs { bytes, kind }
}

/// As a person types it: in the suite's directory, since its paths are relative to that.
fn repeat(root: &Path, words: &[String], argv: &[String]) -> String {
    let all = ["vmtest"].into_iter().chain(words.iter().map(String::as_str));
    let all = all.chain(["--"]).chain(argv.iter().map(String::as_str));
    let line = quote::join(all.map(std::ffi::OsString::from));
    let cd = quote::join([std::ffi::OsStr::new("cd"), root.as_os_str()]);
    format!("({} && {})", cd.display(), line.display())
}
