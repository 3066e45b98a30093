//! The options of `test`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use vmtest::arch::Arch;
use vmtest::results::Format;
use vmtest::suite::report::Wanted;
use vmtest::suite::{MACHINE_OPTIONS, Partition};

use crate::cli::options::RunArgs;
use crate::cli::value::{text, value};

/// Options of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run tests whose name has one of these words; `*` and `?` make one a pattern for the whole name
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Architectures to run on, of those that a test has; repeats. Default: all that it has
    #[arg(long, value_parser = text(Arch::from_str), value_name = "ARCH", value_delimiter = ',')]
    pub(crate) arch: Vec<Arch>,
    /// Kernels to run with, instead of those that a test has; repeats
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Vec<String>,
    /// Run tests that have this tag; repeats: any of them
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Say which tests would run, and run none
    #[arg(long)]
    pub(crate) list: bool,
    /// The suite. Default: vmtest.toml of this directory, or upwards of it
    #[arg(long, value_name = "FILE")]
    pub(crate) suite: Option<PathBuf>,

    /// Guests at a time. Default: as many as there are processors. Memory has to be there for each
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "How")]
    pub(crate) jobs: Option<u32>,
    /// Try a failure again so often; a pass after it is flaky. Default: what the suite says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100), help_heading = "How")]
    pub(crate) retries: Option<u32>,
    /// Run all tests so often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "How")]
    pub(crate) repeat: Option<u32>,
    /// Run all tests again and again, until one fails; with --repeat at most so often
    #[arg(long, help_heading = "How")]
    pub(crate) until_fail: bool,
    /// Start no further test after a failure
    #[arg(long, overrides_with = "no_fail_fast", help_heading = "How")]
    pub(crate) fail_fast: bool,
    /// Run all tests, whatever fails (the default)
    #[arg(long, help_heading = "How")]
    pub(crate) no_fail_fast: bool,
    /// Run one of N parts of the suite, K from 1
    #[arg(long, value_parser = text(Partition::from_str), value_name = "hash:K/N", help_heading = "How")]
    pub(crate) partition: Option<Partition>,
    /// Run what the last run of this suite did not pass, or did not get to
    #[arg(long, help_heading = "How")]
    pub(crate) rerun_failed: bool,

    /// Write a report: junit=FILE, ktap=FILE, json=FILE, html=FILE, trace=FILE (`-` is stdout), or github:
    /// annotations and the job's summary; repeats
    #[arg(long, value_parser = value(Wanted::parse), value_name = "FORM=FILE", help_heading = "Report")]
    pub(crate) report: Vec<Wanted>,

    /// Build a crate's tests and run them; ARGS are for `cargo test --no-run`
    #[arg(long, help_heading = "Programs")]
    pub(crate) cargo: bool,
    /// What PROGRAMs print. Default: what they look like: libtest, go, gtest, else exit
    #[arg(long, value_parser = text(Format::from_str), value_name = "FORMAT", help_heading = "Programs")]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) machine: Overrides,
    /// Compiled test programs to run instead of the suite, each in a guest; with --cargo, cargo's arguments
    #[arg(last = true, value_name = "PROGRAM|ARGS")]
    pub(crate) rest: Vec<OsString>,
}

/// Options of `run`, which go before what the suite says: name and value.
#[derive(Debug, Default)]
pub(crate) struct Overrides(pub(crate) Vec<(String, String)>);

/// The options of `run` that a suite may set, but for those that `test` has itself.
fn arguments() -> Vec<clap::Arg> {
    let run = RunArgs::augment_args(Command::new("run"));
    let known = |arg: &clap::Arg| {
        let name = arg.get_long().unwrap_or_default();
        name != "kernel" && MACHINE_OPTIONS.iter().any(|(known, _)| *known == name)
    };
    run.get_arguments().filter(|arg| known(arg)).cloned().collect()
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        command.args(arguments())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Overrides::augment_args(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Overrides, clap::Error> {
        let mut given = Vec::new();
        for arg in arguments() {
            let (id, name) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            if !arg.get_action().takes_values() {
                given.push((name.to_owned(), "true".to_owned()));
                continue;
            }
            for raw in matches.get_raw(id).into_iter().flatten() {
                let Some(text) = raw.to_str() else {
                    let what = format!("--{name} {}: a suite's options are text\n", raw.display());
                    return Err(clap::Error::raw(clap::error::ErrorKind::InvalidUtf8, what));
                };
                given.push((name.to_owned(), text.to_owned()));
            }
        }
        Ok(Overrides(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Overrides::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vmtest::suite::Repeats;

    use super::*;

    /// Options of `run` that a suite has no key for.
    const NOT_OF_A_SUITE: [&str; 10] = [
        "arch",
        "artifacts",
        "coverage-name",
        "dry-run",
        "event",
        "message-format",
        "profile",
        "stdin",
        "verbose",
        "no-such-option-of-the-test",
    ];

    #[test]
    fn the_options_of_a_suite_are_those_of_run() {
        let run = RunArgs::augment_args(Command::new("run"));
        for (name, repeats) in MACHINE_OPTIONS {
            let arg = run.get_arguments().find(|arg| arg.get_long() == Some(name));
            let arg = arg.unwrap_or_else(|| panic!("`run` has no --{name}"));
            let expected = match arg.get_action() {
                clap::ArgAction::Append => Repeats::Yes,
                clap::ArgAction::SetTrue => Repeats::Flag,
                _ => Repeats::No,
            };
            assert_eq!(repeats, expected, "--{name}");
        }
        let missing: Vec<&str> = run
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|name| !MACHINE_OPTIONS.iter().any(|(known, _)| known == name))
            .filter(|name| !NOT_OF_A_SUITE.contains(name))
            .collect();
        assert_eq!(missing, [""; 0], "name them in suite::MACHINE_OPTIONS, or here");
    }
}
