//! Programs of others: QEMU, Nix, compilers, and where they are looked for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::options::Environment;

use super::line::Line;

/// QEMUs whose defects vmtest's guests meet: how the version begins, for which guests, what happens.
const DEFECTS: [(&str, &[Arch], &str); 2] = [
    ("7.", &Arch::ALL, "emulated guests of Linux 6.12 crash now and then"),
    ("10.0.", &[Arch::Riscv64], "timers of riscv64 guests may come late"),
];

/// Each QEMU that a run would take, with what it says of itself.
pub(super) fn qemu(environment: &Environment) -> Vec<Line> {
    let assets = Assets::find(environment).ok();
    let found: Vec<(Arch, Option<PathBuf>)> = Arch::ALL
        .into_iter()
        .map(|arch| {
            let pinned = assets.as_ref().and_then(|assets| assets.guest(arch).qemu);
            let pinned = pinned.map(|asset| asset.path).filter(|path| path.is_file());
            let path = pinned.or_else(|| which::which(arch.qemu_program()).ok());
            (arch, path)
        })
        .collect();
    let asked: Vec<_> = found
        .into_iter()
        .map(|(arch, path)| thread::spawn(move || of_arch(arch, path.as_deref())))
        .collect();
    asked.into_iter().flat_map(|asked| asked.join().unwrap_or_default()).collect()
}

fn of_arch(arch: Arch, path: Option<&Path>) -> Vec<Line> {
    let name = format!("QEMU {arch}");
    let fetch = format!("make assets ARCH={arch}");
    let Some(path) = path else {
        let text = format!("no {} in the asset manifest or in PATH", arch.qemu_program());
        return vec![Line::warn(&name, text, fetch)];
    };
    let place = path.display();
    let Some(version) = says(path, &["--version"]) else {
        return vec![Line::fail(&name, format!("`{place}` does not run"), fetch)];
    };
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or(&version)
        .to_owned();
    let defect = DEFECTS
        .iter()
        .find(|(begin, arches, _)| number.starts_with(begin) && arches.contains(&arch));
    vec![match defect {
        Some((_, _, what)) => Line::warn(
            &name,
            format!("{number} ({place}): {what}"),
            "a newer QEMU, by VMTEST_QEMU or --qemu, does not",
        ),
        None => Line::ok(&name, format!("{number} ({place})")),
    }]
}

/// The first line that a program prints.
fn says(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

pub(super) fn nix(_: &Environment) -> Vec<Line> {
    let Ok(program) = which::which("nix") else {
        return vec![Line::ok("nix", "not there: only the flake needs it")];
    };
    let Some(version) = says(&program, &["--version"]) else {
        let fix = "see what `nix --version` says";
        return vec![Line::warn("nix", format!("`{}` does not run", program.display()), fix)];
    };
    let flakes = says(&program, &["config", "show", "experimental-features"])
        .or_else(|| says(&program, &["show-config", "experimental-features"]));
    vec![if flakes.as_deref().is_some_and(|features| features.contains("flakes")) {
        Line::ok("nix", format!("{version}, with flakes"))
    } else {
        Line::warn(
            "nix",
            format!("{version}, without flakes"),
            "echo 'experimental-features = nix-command flakes' >>~/.config/nix/nix.conf",
        )
    }]
}

/// Compilers for the guests that are not of the host.
pub(super) fn toolchains(_: &Environment) -> Vec<Line> {
    let triples = [
        (Arch::Amd64, "x86_64-linux-gnu"),
        (Arch::I386, "i686-linux-gnu"),
        (Arch::Arm64, "aarch64-linux-gnu"),
        (Arch::Arm, "arm-linux-gnueabihf"),
        (Arch::Riscv64, "riscv64-linux-gnu"),
    ];
    let there: Vec<String> = triples
        .iter()
        .filter(|(arch, _)| Some(*arch) != Arch::host())
        .filter(|(_, triple)| which::which(format!("{triple}-gcc")).is_ok())
        .map(|(arch, triple)| format!("{arch} ({triple}-gcc)"))
        .collect();
    vec![if there.is_empty() {
        Line::ok(
            "toolchains",
            "no cross compilers: only tests that are built for other guests need them",
        )
    } else {
        Line::ok("toolchains", there.join(", "))
    }]
}

/// Programs of the current directory may run in place of others.
pub(super) fn path(_: &Environment) -> Vec<Line> {
    let Some(path) = std::env::var_os("PATH") else {
        let fix = "export PATH=/usr/local/bin:/usr/bin:/bin";
        return vec![Line::fail("PATH", "it is not set", fix)];
    };
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let relative = dirs.iter().filter(|dir| dir.is_relative()).count();
    let absent = dirs.iter().filter(|dir| !dir.is_dir()).count();
    vec![if relative > 0 {
        Line::warn(
            "PATH",
            format!(
                "{relative} of {} directories are relative: what runs depends on where",
                dirs.len()
            ),
            "leave them out of PATH, and empty ones too",
        )
    } else {
        Line::ok("PATH", format!("{} directories, {absent} of them not there", dirs.len()))
    }]
}
