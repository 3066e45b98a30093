//! `vmtest shell`: a program of the guest on the user's terminal.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, sink, stdin, stdout};

use tokio::sync::mpsc;
use vmtest::options::Environment;
use vmtest::vm::Streams;

use super::error::Failure;
use super::interrupt::Interrupts;
use super::options::ShellArgs;
use super::run::{Look, dry_run, execute, forget_record, note_failure, prepare};
use super::terminal::{self, Keys};
use super::ui::{self, MessageFormat};

pub(crate) fn run(args: ShellArgs, environment: &Environment) -> Result<u8, Failure> {
    let artifacts = args.machine.record_dir();
    forget_record(artifacts.as_deref());
    run_shell(args, environment).inspect_err(|failure| note_failure(artifacts.as_deref(), failure))
}

fn run_shell(args: ShellArgs, environment: &Environment) -> Result<u8, Failure> {
    let argv =
        if args.command.is_empty() { vec![OsString::from("sh")] } else { args.command.clone() };
    let command = args.machine.command(&argv, true);
    let interrupts = Interrupts::listen()?;
    let prepared = prepare(&args.machine, environment, command, ())?;
    if args.machine.dry_run {
        return dry_run(&prepared.plan);
    }
    let interactive = stdin().is_terminal();
    let (quit, ended) = mpsc::unbounded_channel();
    let keys: Box<dyn Read + Send> = if interactive {
        ui::note("Ctrl-A x ends the guest at once");
        Box::new(Keys::new(quit))
    } else {
        Box::new(stdin())
    };
    let streams =
        Streams { stdin: Some(keys), stdout: Box::new(stdout()), stderr: Box::new(sink()) };
    let look = Look {
        format: MessageFormat::Text,
        terminal: Some(terminal::size()),
        quit: interactive.then_some(ended),
    };
    execute(prepared, &args.machine, streams, look, interrupts)
}
