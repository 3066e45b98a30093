//! `vmtest kernel`: what a kernel can be used for.

use std::fmt::Write as _;
use std::io::{Read, Write, stdout};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;
use vmtest::arch::Arch;
use vmtest::formats::kernel;
use vmtest::named_file;
use vmtest::options::Environment;
use vmtest::preflight::{KernelFacts, Lack, Necessity, State, WANTED, Wanted};

use super::error::Failure;
use super::ui;
use super::value::text;

/// Something necessary is missing.
const LACKING: u8 = 1;

/// Options of `kernel`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what a kernel can be used for: necessary and optional options, built in, module or missing
    #[command(after_help = AFTER_HELP)]
    Check {
        /// Kernel image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Its modules, …/lib/modules/RELEASE
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Its configuration. Default: .config, config-RELEASE or config beside it, .config of the build
        /// tree that it is in, else what the kernel carries itself (CONFIG_IKCONFIG)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Architecture of the guest, where the image can be of several
        #[arg(long, value_parser = text(Arch::from_str), value_name = "ARCH")]
        arch: Option<Arch>,
        /// Option that has to be there, with or without CONFIG_; repeats
        #[arg(long, value_name = "OPTION")]
        require: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

const AFTER_HELP: &str = "\
Exit codes:
  0   all that is necessary, and all that is required, is there or not known to be missing
  1   something of it is missing
  2   wrong usage
  69  the kernel or a file that is named cannot be read

Example:
  vmtest kernel check arch/x86/boot/bzImage --require BPF_SYSCALL";

pub(crate) fn run(args: Args, _: &Environment) -> Result<u8, Failure> {
    let Command::Check { file, modules, config, arch, require, json } = args.command;
    let mut head = Vec::new();
    let read = named_file::open(&file)
        .and_then(|file| file.take(kernel::HEAD_BYTES as u64).read_to_end(&mut head));
    read.map_err(|error| {
        Failure::missing(
            format!("cannot read the kernel `{}`: {error}", file.display()),
            "name a bzImage, an Image, a zImage, a uImage or a vmlinux",
        )
    })?;
    let found = kernel::identify(&head);
    let packed = kernel::Packed::of(&head).is_some();
    if found.is_none() && !packed {
        return Err(Failure::missing(
            format!("`{}` is no kernel image that vmtest knows", file.display()),
            "a kernel is a bzImage, an Image, a zImage, a uImage or a vmlinux",
        ));
    }
    let arches = found.as_ref().map(|found| found.arches.clone()).unwrap_or_default();
    let arch = arch.or_else(|| arches.first().copied());
    let release = found.and_then(|found| found.release);
    if let Some(dir) = modules.as_ref().filter(|dir| !dir.is_dir()) {
        return Err(Failure::missing(
            format!("`{}` is no directory with kernel modules", dir.display()),
            "--modules names …/lib/modules/RELEASE",
        ));
    }
    let facts =
        KernelFacts::look(&file, release.as_deref(), config.as_deref(), modules.as_deref(), true)
            .map_err(|error| Failure::unavailable(&error, Some("--config names it".into())))?;
    facts.remarks.iter().for_each(|remark| ui::note(remark));
    let rows: Vec<(&Wanted, State)> = WANTED
        .iter()
        .filter(|wanted| arch.is_none_or(|arch| wanted.is_for(arch)))
        .map(|wanted| (wanted, facts.state(wanted.option, wanted.module)))
        .collect();
    let required = facts.lacks(&[], &require);
    let required: Vec<&Lack> = required.iter().filter(|lack| lack.purpose == "--require").collect();
    let text = if json {
        let value = as_json(&facts, release.as_deref(), arch, &rows, &required);
        format!("{value:#}\n")
    } else {
        let name = file.display().to_string();
        table(&name, &facts, release.as_deref(), arch, &rows, &required)
    };
    // A reader that has seen enough is no failure.
    let _ = stdout().write_all(text.as_bytes());
    let necessary = |(wanted, state): &&(&Wanted, State)| {
        wanted.necessity == Necessity::Necessary && state.is_missing()
    };
    let lacking = rows.iter().any(|row| necessary(&row)) || !required.is_empty();
    Ok(if lacking { LACKING } else { 0 })
}

fn table(
    name: &str,
    facts: &KernelFacts,
    release: Option<&str>,
    arch: Option<Arch>,
    rows: &[(&Wanted, State)],
    required: &[&Lack],
) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    let arch = arch.map_or("an unknown architecture".to_owned(), |arch| arch.to_string());
    row("kernel", format!("{name}: {}, {arch}", release.unwrap_or("an unknown release")));
    row(
        "options",
        facts.options.as_ref().map_or_else(
            || "not known: no configuration beside it, and it carries none".to_owned(),
            |(_, path)| path.display().to_string(),
        ),
    );
    row(
        "modules",
        facts.modules.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string()),
    );
    for (title, necessity) in
        [("necessary", Necessity::Necessary), ("optional", Necessity::Optional)]
    {
        let _ = writeln!(text, "\n{title}");
        for (wanted, state) in rows.iter().filter(|(wanted, _)| wanted.necessity == necessity) {
            let word = match state {
                State::ModuleMissing | State::NoModules => "module that is not there",
                state => state.text(),
            };
            let _ = writeln!(text, "  {:<26}{word:<26}{}", wanted.option, wanted.purpose);
        }
    }
    if !required.is_empty() {
        let _ = writeln!(text, "\nrequired, and missing");
        for lack in required {
            let _ = writeln!(text, "  {:<26}{}", lack.option, lack.state.text());
        }
    }
    text
}

fn as_json(
    facts: &KernelFacts,
    release: Option<&str>,
    arch: Option<Arch>,
    rows: &[(&Wanted, State)],
    required: &[&Lack],
) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|(wanted, state)| {
            json!({
                "option": wanted.option, "module": wanted.module, "purpose": wanted.purpose,
                "necessary": wanted.necessity == Necessity::Necessary, "state": state,
            })
        })
        .collect();
    let required: Vec<_> =
        required.iter().map(|lack| json!({"option": lack.option, "state": lack.state})).collect();
    json!({
        "release": release,
        "arch": arch.map(|arch| arch.name()),
        "options_from": facts.options.as_ref().map(|(_, path)| path),
        "modules": facts.modules,
        "options": rows,
        "missing_required": required,
    })
}
