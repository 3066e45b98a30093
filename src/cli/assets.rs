//! `vmtest assets`: what kernels, QEMUs and guest programs there are.

use std::io::{Write, stdout};

use clap::Subcommand;
use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::options::Environment;

use super::error::{Failure, UNAVAILABLE};
use super::ui;

/// Options of `assets`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a table of them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare each file with its SHA-256
    Verify,
    /// Print the manifest's path, or an asset's
    Path {
        /// Architecture
        arch: Option<Arch>,
        /// qemu, kernel, distribution-kernel, gcov-kernel, each of these with -direct behind it, guest,
        /// shell, firmware-code or firmware-vars
        #[arg(requires = "arch")]
        asset: Option<String>,
    },
}

pub(crate) fn run(args: Args, environment: &Environment) -> Result<u8, Failure> {
    let location = Assets::location(environment)
        .map_err(|error| Failure::unavailable(&error, Some(error.hint())))?;
    if let Command::Path { arch: None, .. } = args.command {
        return print(&format!("{}\n", location.display()));
    }
    let assets = Assets::load(&location)
        .map_err(|error| Failure::unavailable(&error, Some(error.hint())))?;
    match args.command {
        Command::List { json: true } => {
            let guests: serde_json::Map<_, _> = assets
                .guests
                .iter()
                .map(|(arch, guest)| (arch.to_string(), serde_json::json!(guest)))
                .collect();
            let text = serde_json::json!({
                "manifest": assets.manifest, "generator": assets.generator, "guests": guests,
            });
            print(&format!("{text:#}\n"))
        }
        Command::List { json: false } => {
            let mut table = String::new();
            for (arch, guest) in &assets.guests {
                for (name, asset) in guest.files() {
                    table.push_str(&format!(
                        "{arch:8} {name:26} {:28} {}  {}\n",
                        asset.version,
                        asset.sha256.get(..12).unwrap_or(&asset.sha256),
                        asset.path.display()
                    ));
                }
            }
            print(&table)
        }
        Command::Verify => verify(&assets),
        Command::Path { arch, asset } => {
            let arch = arch.expect("checked above");
            let guest = assets.guest(arch);
            let name = asset.as_deref().unwrap_or("kernel");
            match guest.files().into_iter().find(|(found, _)| *found == name) {
                Some((_, asset)) => print(&format!("{}\n", asset.path.display())),
                None => Err(Failure::missing(
                    format!("the asset manifest names no `{name}` for {arch}"),
                    "`vmtest assets list` shows what there is; `make assets` fetches what is missing",
                )),
            }
        }
    }
}

fn verify(assets: &Assets) -> Result<u8, Failure> {
    let (mut good, mut bad) = (0, 0);
    for (arch, guest) in &assets.guests {
        for (name, asset) in guest.files() {
            match asset.verify() {
                Ok(()) => good += 1,
                Err(error) => {
                    bad += 1;
                    ui::error(&format!("{arch} {name}: {error}"));
                }
            }
        }
    }
    if bad > 0 {
        ui::hint("`make assets` in vmtest's source fetches what is broken or missing");
        return Ok(UNAVAILABLE);
    }
    print(&format!("{good} files are as the manifest says\n"))
}

fn print(text: &str) -> Result<u8, Failure> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::unavailable(&error, None))
        }
        _ => Ok(0),
    }
}
