//! Which directories are a tool's project.
//!
//! | tool | known by | its directories |
//! |---|---|---|
//! | cargo, cargo-nextest | `CARGO_MANIFEST_DIR` | the workspace's root: `NEXTEST_WORKSPACE_ROOT`, else the nearest `Cargo.toml` with `[workspace]`, else the package |
//! | Go | `go.work` or `go.mod` above the working directory | the one that has it |
//! | CMake | `CMakeCache.txt` above it | build and source tree |
//! | Meson | `meson-info/meson-info.json` above it | build and source tree |
//! | git | `.git` above it | the repository |
//! | none of them | | the working directory |
//!
//! Variables are inherited by whatever a test starts: a project that does not have the working directory in it
//! is another one's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::request::path_variable;

/// A tool's project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Project {
    /// Its directories.
    pub(super) dirs: Vec<PathBuf>,
    /// cargo has built the program.
    pub(super) cargo: bool,
}

/// Finds it; directories that are given go before all else.
pub(super) fn find(cwd: &Path, env: &[(OsString, OsString)], given: &[PathBuf]) -> Project {
    let workspace = cargo_workspace(env).filter(|root| has(root, cwd));
    let cargo = workspace.is_some();
    let found = || {
        let found = workspace
            .map(|root| vec![root])
            .or_else(|| [go_module, cmake, meson, git].iter().find_map(|find| find(cwd)));
        found.unwrap_or_else(|| vec![cwd.to_owned()])
    };
    let dirs = if given.is_empty() { found() } else { given.to_vec() };
    Project { dirs, cargo }
}

/// Whether a directory is in another, whatever links lead there.
fn has(root: &Path, dir: &Path) -> bool {
    dir.starts_with(root) || std::fs::canonicalize(root).is_ok_and(|root| dir.starts_with(root))
}

fn cargo_workspace(env: &[(OsString, OsString)]) -> Option<PathBuf> {
    let package = path_variable(env, "CARGO_MANIFEST_DIR")?;
    if let Some(root) = path_variable(env, "NEXTEST_WORKSPACE_ROOT")
        && has(&root, &package)
    {
        return Some(root);
    }
    let root = package.ancestors().find(|dir| is_workspace(&dir.join("Cargo.toml")));
    Some(root.map_or(package.clone(), Path::to_owned))
}

/// Whether a manifest has a table of the workspace.
fn is_workspace(manifest: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(manifest) else { return false };
    text.lines().any(|line| {
        let table = line.trim_start().strip_prefix("[workspace");
        table.is_some_and(|rest| rest.starts_with([']', '.']))
    })
}

fn above(cwd: &Path, name: &str) -> Option<PathBuf> {
    cwd.ancestors().find(|dir| dir.join(name).exists()).map(Path::to_owned)
}

fn go_module(cwd: &Path) -> Option<Vec<PathBuf>> {
    let module = above(cwd, "go.mod")?;
    // One that lists modules may be further up.
    Some(vec![above(&module, "go.work").unwrap_or(module)])
}

fn cmake(cwd: &Path) -> Option<Vec<PathBuf>> {
    let build = above(cwd, "CMakeCache.txt")?;
    let cache = std::fs::read_to_string(build.join("CMakeCache.txt")).unwrap_or_default();
    let source = cache.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    let source = source.map(PathBuf::from).filter(|dir| dir.is_absolute());
    Some([Some(build), source].into_iter().flatten().collect())
}

fn meson(cwd: &Path) -> Option<Vec<PathBuf>> {
    const INFO: &str = "meson-info/meson-info.json";
    let build = above(cwd, INFO)?;
    let text = std::fs::read(build.join(INFO)).unwrap_or_default();
    let info: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let source = info["directories"]["source"].as_str().map(PathBuf::from);
    let source = source.filter(|dir| dir.is_absolute());
    Some([Some(build), source].into_iter().flatten().collect())
}

fn git(cwd: &Path) -> Option<Vec<PathBuf>> {
    above(cwd, ".git").map(|root| vec![root])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.replace("ROOT", dir.path().to_str().unwrap())).unwrap();
        }
        dir
    }

    fn found(tree: &tempfile::TempDir, cwd: &str, env: &[(&str, &str)]) -> Vec<String> {
        let root = tree.path().to_str().unwrap();
        let env: Vec<(OsString, OsString)> = env
            .iter()
            .map(|(name, value)| (name.into(), value.replace("ROOT", root).into()))
            .collect();
        let dirs = find(&tree.path().join(cwd), &env, &[]).dirs;
        dirs.iter().map(|dir| dir.to_str().unwrap().replace(root, "ROOT")).collect()
    }

    #[test]
    fn cargos_project_is_the_workspace() {
        let tree = tree(&[
            ("ws/Cargo.toml", "[workspace]\nmembers = ['a']\n"),
            ("ws/a/Cargo.toml", "[package]\n"),
            ("ws/a/b/x", ""),
            ("alone/Cargo.toml", "[package]\nname = 'alone'\n"),
        ]);
        let package = [("CARGO_MANIFEST_DIR", "ROOT/ws/a")];
        assert_eq!(found(&tree, "ws/a", &package), ["ROOT/ws"]);
        assert_eq!(found(&tree, "ws/a/b", &package), ["ROOT/ws"]);
        assert_eq!(found(&tree, "alone", &[("CARGO_MANIFEST_DIR", "ROOT/alone")]), ["ROOT/alone"]);
        // Somebody else's variable.
        assert_eq!(found(&tree, "alone", &package), ["ROOT/alone"]);
        let nextest = [package[0], ("NEXTEST_WORKSPACE_ROOT", "ROOT")];
        assert_eq!(found(&tree, "ws/a", &nextest), ["ROOT"]);
    }

    #[test]
    fn other_tools_leave_files_above_the_working_directory() {
        let tree = tree(&[
            ("go/go.mod", ""),
            ("go/pkg/x", ""),
            ("work/go.work", ""),
            ("work/m/go.mod", ""),
            ("cm/build/CMakeCache.txt", "A:B=c\nCMAKE_HOME_DIRECTORY:INTERNAL=ROOT/cm/src\n"),
            ("cm/build/sub/x", ""),
            ("me/build/meson-info/meson-info.json", r#"{"directories":{"source":"ROOT/me"}}"#),
            ("repo/.git/HEAD", ""),
            ("repo/deep/er/x", ""),
            ("none/x", ""),
        ]);
        for (cwd, dirs) in [
            ("go/pkg", &["ROOT/go"][..]),
            ("work/m", &["ROOT/work"]),
            ("cm/build/sub", &["ROOT/cm/build", "ROOT/cm/src"]),
            ("me/build", &["ROOT/me/build", "ROOT/me"]),
            ("repo/deep/er", &["ROOT/repo"]),
            ("none", &["ROOT/none"]),
        ] {
            assert_eq!(found(&tree, cwd, &[]), dirs, "{cwd}");
        }
    }
}
