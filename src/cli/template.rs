//! `vmtest template`: the saved guests that runs go on from.

use std::io::{Write, stdout};
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::json;
use vmtest::duration;
use vmtest::options::Environment;
use vmtest::session::{Command as GuestCommand, Outlook};
use vmtest::size::Bytes;
use vmtest::templates::{Error, Listed, Store};

use super::error::Failure;
use super::options::MachineArgs;
use super::run::prepare;
use super::ui;

/// Options of `template`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a table of them, the last used first
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove those not used for the longest time
    Prune {
        /// How much may stay: all go where nothing is said
        #[arg(long, value_name = "SIZE", default_value = "0")]
        keep: Bytes,
    },
    /// Say whether a run with these options would boot, and why
    Why {
        #[command(flatten)]
        machine: Box<MachineArgs>,
        /// The command of the run
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
}

pub(crate) fn run(args: Args, environment: &Environment) -> Result<u8, Failure> {
    match args.command {
        Command::List { json } => list(&store(environment)?, json),
        Command::Prune { keep } => {
            let (count, bytes) =
                store(environment)?.prune(keep.0).map_err(|error| failed(&error))?;
            ui::status(&format!("{count} templates removed, {} MiB", bytes >> 20));
            Ok(0)
        }
        Command::Why { machine, command } => why(&machine, command, environment),
    }
}

fn store(environment: &Environment) -> Result<Store, Failure> {
    let dir = environment.cache_dir.as_deref();
    dir.map(Store::new).ok_or_else(|| {
        Failure::missing(
            "there is no cache directory",
            "VMTEST_CACHE, XDG_CACHE_HOME or HOME name one",
        )
    })
}

fn failed(error: &Error) -> Failure {
    Failure::unavailable(error, Some("VMTEST_CACHE names another cache directory".into()))
}

fn list(store: &Store, json: bool) -> Result<u8, Failure> {
    let found = store.list().map_err(|error| failed(&error))?;
    let age = |listed: &Listed| {
        SystemTime::now().duration_since(listed.used).unwrap_or_default().as_secs()
    };
    let text = if json {
        let rows: Vec<_> = found
            .iter()
            .map(|listed| {
                json!({
                    "template": listed.key.name(),
                    "arch": listed.about.arch,
                    "kernel_release": listed.about.hello.kernel_release,
                    "qemu_version": listed.about.qemu_version,
                    "stored_bytes": listed.stored_bytes,
                    "used_secs_ago": age(listed),
                    "made_of": listed.about.made_of,
                })
            })
            .collect();
        format!("{:#}\n", json!({ "dir": store.dir(), "templates": rows }))
    } else {
        let row = |listed: &Listed| {
            format!(
                "{}  {:8} Linux {:28} QEMU {:8} {:5} MiB  used {} ago\n",
                listed.key,
                listed.about.arch,
                listed.about.hello.kernel_release,
                listed.about.qemu_version,
                listed.stored_bytes >> 20,
                duration::display(std::time::Duration::from_secs(age(listed)))
            )
        };
        found.iter().map(row).collect()
    };
    print(&text)
}

fn why(
    machine: &MachineArgs,
    command: Vec<std::ffi::OsString>,
    environment: &Environment,
) -> Result<u8, Failure> {
    let prepared = prepare(machine, environment, GuestCommand::from_argv(command), ())?;
    let text = match prepared.outlook() {
        Outlook::Warm(template) => {
            format!("warm: it goes on from template {}\n", template.key)
        }
        Outlook::Cold { reason } => format!("cold: {reason}\n"),
        Outlook::Save { key, made_of, reason } => {
            let mut text = format!("saved: it boots ({reason}) and is saved as {key}\n");
            if let Some(listed) = nearest(environment, &made_of)? {
                text.push_str(&format!("what is new since template {}:\n", listed.key));
                let new = |line: &&String| !listed.about.made_of.contains(line);
                for line in made_of.iter().filter(new) {
                    text.push_str(&format!("  {line}\n"));
                }
            }
            text
        }
    };
    print(&text)
}

/// The template that shares most with what a run is made of.
fn nearest(environment: &Environment, made_of: &[String]) -> Result<Option<Listed>, Failure> {
    let found = store(environment)?.list().map_err(|error| failed(&error))?;
    let shared =
        |listed: &Listed| made_of.iter().filter(|line| listed.about.made_of.contains(line)).count();
    Ok(found.into_iter().filter(|listed| 2 * shared(listed) > made_of.len()).max_by_key(shared))
}

fn print(text: &str) -> Result<u8, Failure> {
    // A reader that left has what it wanted.
    let _ = stdout().write_all(text.as_bytes());
    Ok(0)
}
