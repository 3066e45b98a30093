//! What is generated from the definitions of the command line.

use std::io::stdout;

use clap_complete::Shell;

use super::error::Failure;

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh
    shell: Shell,
}

pub(crate) fn completions(
    args: CompletionsArgs,
    command: &mut clap::Command,
) -> Result<u8, Failure> {
    clap_complete::generate(args.shell, command, "vmtest", &mut stdout());
    Ok(0)
}

pub(crate) fn man(command: clap::Command) -> Result<u8, Failure> {
    clap_mangen::Man::new(command)
        .render(&mut stdout())
        .map_err(|error| Failure::unavailable(&error, None))?;
    Ok(0)
}
