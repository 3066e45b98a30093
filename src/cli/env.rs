//! `vmtest env`: runs a program with the pins in its environment, as `hugelgupf/vmtest`'s `runvmtest` does.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::options::Environment;
use vmtest::quote;

use super::error::Failure;

/// Options of `env`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Guest architecture. Default: VMTEST_ARCH, else the host's
    #[arg(long)]
    arch: Option<Arch>,
    /// Program and arguments; without them the variables are printed
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: Args, environment: &Environment) -> Result<u8, Failure> {
    let arch = vmtest::session::guest_arch(args.arch, environment)?;
    let fail = |error: vmtest::assets::Error| Failure::unavailable(&error, Some(error.hint()));
    let location = Assets::location(environment).map_err(fail)?;
    let assets = Assets::load(&location).map_err(fail)?;
    let guest = assets.guest(arch);
    let mut variables: Vec<(&str, OsString)> = vec![
        ("VMTEST_ARCH", arch.name().into()),
        ("VMTEST_ASSETS", std::path::absolute(&location).unwrap_or(location).into()),
    ];
    // What the user has set is kept: it overrides single pins.
    if let (Some(qemu), None) = (&guest.qemu, &environment.qemu) {
        variables.push(("VMTEST_QEMU", quote::join([qemu.path.as_os_str()])));
    }
    if let (Some(kernel), None) = (&guest.kernel, &environment.kernel) {
        variables.push(("VMTEST_KERNEL", kernel.image.path.clone().into()));
    }
    if let (Some(firmware), None) = (&guest.firmware, &environment.ovmf_code) {
        variables.push(("VMTEST_OVMF_CODE", firmware.code.path.clone().into()));
        variables.push(("VMTEST_OVMF_VARS", firmware.vars.path.clone().into()));
    }
    let Some((program, arguments)) = args.command.split_first() else {
        for (name, value) in variables {
            println!("{name}={}", quote::word(&value).display());
        }
        return Ok(0);
    };
    let error = Command::new(program).args(arguments).envs(variables).exec();
    Err(Failure::missing(
        format!("cannot run `{}`: {error}", program.display()),
        "env runs a program of the host",
    ))
}
