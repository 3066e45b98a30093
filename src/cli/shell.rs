//! `vmtest shell`: a program of the guest on the user's terminal.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write, sink, stderr, stdin, stdout};

use tokio::sync::mpsc;
use vmtest::options::Environment;
use vmtest::vm::Streams;

use super::error::{Failure, UNAVAILABLE};
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
    if interactive && !terminal::in_foreground() {
        return Err(Failure {
            code: UNAVAILABLE,
            text: "the shell needs the terminal, and vmtest runs in the background".to_owned(),
            hint: Some("start it without `&`, or `fg` it".to_owned()),
        });
    }
    let (quit, ended) = mpsc::unbounded_channel();
    // Without a terminal here there is none in the guest: what is read ends with our stdin, as with `ssh`.
    let (keys, errors): (Box<dyn Read + Send>, Box<dyn Write + Send>) = if interactive {
        ui::note("Ctrl-A x ends the guest at once");
        (Box::new(Keys::new(quit)), Box::new(sink()))
    } else {
        (Box::new(stdin()), Box::new(stderr()))
    };
    let streams = Streams { stdin: Some(keys), stdout: Box::new(stdout()), stderr: errors };
    let look = Look {
        format: MessageFormat::Text,
        terminal: interactive.then(terminal::size),
        quit: interactive.then_some(ended),
    };
    execute(prepared, &args.machine, streams, look, interrupts)
}
