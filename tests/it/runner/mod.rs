//! `vmtest runner`: programs that tools of others hand over, and what they expect of it.

mod attribute;
mod contract;

mod docs;
mod fixture;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::support::{Run, vmtest};

/// A directory with these files in it; `ROOT` in a text is the directory. Scripts can be executed.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text.replace("ROOT", dir.path().to_str().unwrap())).unwrap();
        if text.starts_with("#!") {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        }
    }
    dir
}

/// `vmtest runner` in a directory, with a clean environment: the tests' own is that of cargo.
fn runner(cwd: &Path, options: &[&str]) -> Run {
    let run = vmtest(["runner"]).args(options).cwd(cwd);
    let names = std::env::vars().map(|(name, _)| name).filter(|name| is_of_cargo(name));
    names.fold(run, |run, name| run.env_remove(&name))
}

/// A program of the host's, by its path.
fn host(program: &str) -> PathBuf {
    which::which(program)
        .unwrap_or_else(|_| panic!("no `{program}` here: setup/test-tools installs it"))
}

/// A shell script in a guest that sees the directory.
fn sh(cwd: &Path, options: &[&str], script: impl AsRef<OsStr>) -> Run {
    runner(cwd, options).args(["--", "sh", "-c"]).arg(script)
}

/// Whether a variable is of the cargo that runs these tests.
fn is_of_cargo(name: &str) -> bool {
    const ITS_OWN: [&str; 2] = ["CARGO_HOME", "CARGO_NET_OFFLINE"];
    let begins = ["CARGO", "NEXTEST", "RUST_", "LLVM_"].iter().any(|start| name.starts_with(start));
    (begins || name == "LD_LIBRARY_PATH" || name == "OUT_DIR") && !ITS_OWN.contains(&name)
}
