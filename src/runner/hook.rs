//! For which architectures a tool calls the runner.
//!
//! cargo hands the tests of proc-macro crates, and what else it has built for the host, to the runner of the
//! target (rust-lang/cargo#4336), and does not say for which target the call is. What can be known is which
//! targets have a runner: variables `CARGO_TARGET_<TRIPLE>_RUNNER`, `target.<triple>.runner` of its
//! configuration files, the target that `CARGO_BUILD_TARGET` or `build.target` names. If all of them are
//! foreign, a program of the host's is none of theirs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::request::{path_variable, variable};
use crate::arch::Arch;

/// What is known of the hooks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hooks {
    /// Those that have one.
    arches: BTreeSet<String>,
    /// There is one for a set of targets (`target.'cfg(…)'`): any may be in it.
    any: bool,
}

impl Hooks {
    /// The names of all architectures with a hook, if there are some and this one is not among them.
    pub(super) fn without(&self, arch: Arch) -> Option<String> {
        let others = !self.any && !self.arches.is_empty() && !self.arches.contains(arch.name());
        others.then(|| self.arches.iter().map(String::as_str).collect::<Vec<_>>().join(" and "))
    }

    fn triple(&mut self, triple: &str) {
        self.arches.insert(of_triple(triple));
    }

    /// What a configuration file of cargo's says. Only tables and keys of the usual spelling count.
    fn config(&mut self, text: &str) {
        let mut table = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                // A quoted name may have brackets of its own, which end nothing that matters here.
                table = name.replace(['"', '\''], "");
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            match (table.strip_prefix("target."), key) {
                (Some(target), "runner") if target.starts_with("cfg(") => self.any = true,
                (Some(triple), "runner") => self.triple(triple),
                (None, "target") if table == "build" => {
                    value.split(['"', '\'']).skip(1).step_by(2).for_each(|name| self.triple(name));
                }
                _ => {}
            }
        }
    }
}

/// The architectures that have a hook.
pub(super) fn architectures(
    env: &[(OsString, OsString)],
    cwd: &Path,
    default: Option<Arch>,
) -> Hooks {
    let mut hooks = Hooks::default();
    hooks.arches.extend(default.map(|arch| arch.name().to_owned()));
    for (name, value) in env {
        let triple = name.to_str().and_then(|name| name.strip_prefix("CARGO_TARGET_"));
        let triple = triple.and_then(|rest| rest.strip_suffix("_RUNNER"));
        if let (Some(triple), false) = (triple, value.is_empty()) {
            hooks.triple(&triple.to_ascii_lowercase());
        }
    }
    if variable(env, "CARGO").is_none() && variable(env, "NEXTEST").is_none() {
        // Not cargo: its configuration does not count.
        return hooks;
    }
    if let Some(triple) = variable(env, "CARGO_BUILD_TARGET").and_then(|value| value.to_str()) {
        hooks.triple(triple);
    }
    for file in config_files(env, cwd) {
        if let Ok(text) = std::fs::read_to_string(file) {
            hooks.config(&text);
        }
    }
    hooks
}

/// Where cargo looks for its configuration.
fn config_files(env: &[(OsString, OsString)], cwd: &Path) -> Vec<PathBuf> {
    let home = path_variable(env, "CARGO_HOME")
        .or_else(|| path_variable(env, "HOME").map(|home| home.join(".cargo")));
    let dirs = cwd.ancestors().map(|dir| dir.join(".cargo")).chain(home);
    dirs.flat_map(|dir| ["config.toml", "config"].map(|name| dir.join(name))).collect()
}

/// vmtest's name for a target of Rust's, or the target's own first word. Underscores stand for what a
/// variable's name cannot have.
fn of_triple(triple: &str) -> String {
    const STARTS: [(&str, Arch); 8] = [
        ("x86_64", Arch::Amd64),
        ("i686", Arch::I386),
        ("i586", Arch::I386),
        ("aarch64", Arch::Arm64),
        ("armv", Arch::Arm),
        ("arm", Arch::Arm),
        ("thumb", Arch::Arm),
        ("riscv64", Arch::Riscv64),
    ];
    let known = STARTS.iter().find(|(start, _)| triple.starts_with(start));
    known.map_or_else(
        || triple.split(['-', '_']).next().unwrap_or_default().to_owned(),
        |(_, arch)| arch.name().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn variables_tell_which_targets_have_a_runner() {
        let hooks = |pairs| architectures(&env(pairs), Path::new("/"), None);
        let foreign = hooks(&[
            ("CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_RUNNER", "vmtest runner --"),
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER", "vmtest runner --"),
        ]);
        assert_eq!(foreign.without(Arch::Amd64).as_deref(), Some("arm64 and riscv64"));
        assert_eq!(foreign.without(Arch::Arm64), None);
        // Nothing known, or an empty one.
        assert_eq!(hooks(&[]).without(Arch::Amd64), None);
        let empty = hooks(&[("CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_RUNNER", "")]);
        assert_eq!(empty.without(Arch::Amd64), None);
        let own = hooks(&[("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "vmtest runner --")]);
        assert_eq!(own.without(Arch::Amd64), None);
        let unknown = hooks(&[("CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_RUNNER", "qemu-s390x")]);
        assert_eq!(unknown.without(Arch::Amd64).as_deref(), Some("s390x"));
    }

    #[test]
    fn so_do_configuration_files_of_cargo() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(dir.path().join(".cargo")).unwrap();
        std::fs::create_dir_all(&below).unwrap();
        let with = |text: &str, pairs: &[(&str, &str)]| {
            std::fs::write(dir.path().join(".cargo/config.toml"), text).unwrap();
            architectures(&env(pairs), &below, None).without(Arch::Amd64)
        };
        let cargo = [("CARGO", "/bin/cargo"), ("CARGO_HOME", "/nowhere")];
        let runner = "[target.riscv64gc-unknown-linux-gnu]\nrunner = [\"vmtest\", \"runner\"]\n";
        assert_eq!(with(runner, &cargo).as_deref(), Some("riscv64"));
        assert_eq!(with(runner, &[]), None, "cargo is not there");
        assert_eq!(
            with("[build]\ntarget = \"armv7-unknown-linux-gnueabihf\"", &cargo).as_deref(),
            Some("arm")
        );
        let both =
            format!("{runner}[target.x86_64-unknown-linux-gnu]\nrunner = 'vmtest runner --'");
        assert_eq!(with(&both, &cargo), None);
        let cfg =
            format!("{runner}[target.'cfg(target_os = \"linux\")']\nrunner = 'vmtest runner --'");
        assert_eq!(with(&cfg, &cargo), None);
        assert_eq!(with("[target.riscv64gc-unknown-linux-gnu]\nlinker = 'x'", &cargo), None);
    }
}
