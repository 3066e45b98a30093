//! The command line: flags to options, progress and verdict to the terminal, exit codes.

mod assets;
mod coverage;
mod decode;
mod diagnosis;
mod doctor;
mod env;
mod error;
mod gate;
mod generate;
mod initramfs;
mod interrupt;
mod kernel;
mod options;
mod plain;
mod profile;
mod report;
mod run;
mod runner;
mod shell;
mod splats;
mod template;
mod terminal;
mod test;
mod ui;
mod value;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use vmtest::options::Environment;

use error::Failure;

/// Boots a Linux guest for a test, runs a program in it and tells exactly what happened.
#[derive(Debug, Parser)]
#[command(
    name = "vmtest",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Commands>,
    #[command(flatten)]
    run: options::RunArgs,
}

const AFTER_HELP: &str = "\
Exit codes:
  0-255  the command's own status (128+n when signal n killed it)
  2      wrong usage
  69     could not start: missing or unusable kernel, QEMU, file; or output could not be delivered
  70     the guest's kernel panicked, or its init died
  71     QEMU died or the guest was lost
  72     the guest hangs (--hang-after)
  73     the kernel reported a fault, and all else passed (--splats fail)
  124    timed out (the message says which limit), or --boot-budget is over
  130    interrupted

In values with several parts a backslash takes a colon, a comma or a backslash as it is: 'DIR\\:X:TAG'.

Examples:
  vmtest --arch riscv64                       boot a riscv64 guest and say what it found
  vmtest -- uname -a                          a program of the guest
  vmtest --share .:src -- ./my-test --fast    a program of the host, with all it needs";

#[derive(Debug, Subcommand)]
enum Commands {
    /// Boot a guest, run COMMAND in it, report (the default)
    Run(options::RunArgs),
    /// Run a test program for cargo, nextest, go, CTest, Meson or make: in a guest, as if it ran here
    Runner(options::RunnerArgs),
    /// An interactive shell in the guest
    Shell(options::ShellArgs),
    /// Say whether this machine is fit, and what to do
    Doctor(doctor::Args),
    /// Say what a kernel can be used for
    Kernel(kernel::Args),
    /// Run a suite of tests, each in a fresh guest
    Test(Box<test::TestArgs>),
    /// Join and convert results of suites
    Report(report::Args),
    /// List, verify or locate kernels, QEMUs and guest programs
    Assets(assets::Args),
    /// Make initramfs images and look into them
    Initramfs(initramfs::Args),
    /// Convert and combine what `run --coverage` collected
    Coverage(coverage::Args),
    /// Find the reports of faults in a kernel's log
    Splats(splats::Args),
    /// Put files and lines into the traces of a kernel's log
    Decode(decode::Args),
    /// List and remove saved guests, and say why a run boots
    Template(template::Args),
    /// Run CMD with VMTEST_QEMU, VMTEST_KERNEL, … set to the pinned ones
    Env(env::Args),
    /// Print the shell's completions
    Completions(generate::CompletionsArgs),
    /// Print the manual page
    Man,
}

/// Parses the command line, runs it, and prints what went wrong, once.
pub(crate) fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let environment =
        Environment::read().map_err(|error| Failure::usage(&error, Some(error.hint())))?;
    match cli.command {
        None => run::run(cli.run, &environment),
        Some(Commands::Run(args)) => run::run(args, &environment),
        Some(Commands::Runner(args)) => runner::run(args, &environment),
        Some(Commands::Shell(args)) => shell::run(args, &environment),
        Some(Commands::Doctor(args)) => doctor::run(&args, &environment),
        Some(Commands::Kernel(args)) => kernel::run(args, &environment),
        Some(Commands::Test(args)) => test::run(*args, &environment),
        Some(Commands::Report(args)) => report::run(args),
        Some(Commands::Assets(args)) => assets::run(args, &environment),
        Some(Commands::Initramfs(args)) => initramfs::run(args, &environment),
        Some(Commands::Coverage(args)) => coverage::run(args),
        Some(Commands::Decode(args)) => decode::run(&args),
        Some(Commands::Splats(args)) => splats::run(&args),
        Some(Commands::Template(args)) => template::run(args, &environment),
        Some(Commands::Env(args)) => env::run(args, &environment),
        Some(Commands::Completions(args)) => generate::completions(args, &mut Cli::command()),
        Some(Commands::Man) => generate::man(Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        for words in [&["vmtest", "--arch", "arm", "--", "ls"][..], &["vmtest", "run", "--", "ls"]]
        {
            let cli = Cli::try_parse_from(words).unwrap();
            let args = match cli.command {
                Some(Commands::Run(args)) => args,
                _ => cli.run,
            };
            assert_eq!(args.command, ["ls"]);
        }
    }
}
