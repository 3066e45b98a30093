//! Where sources are on this host, and which of them are wanted.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use crate::formats::glob;

/// Which sources are wanted, and where to look for them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Where sources are that the compiler knew elsewhere.
    pub roots: Vec<SourceRoot>,
    /// Only files that match one of these patterns; all, if there are none.
    ///
    /// A pattern that begins with neither `/` nor `*` matches at any directory: `fs/*.c`.
    pub include: Vec<String>,
    /// No files that match one of these.
    pub exclude: Vec<String>,
}

/// A place of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRoot {
    /// What the paths of the compiler begin with; without it, where relative paths begin.
    pub from: Option<PathBuf>,
    /// The directory on this host.
    pub to: PathBuf,
}

impl Sources {
    /// Whether the file is wanted.
    pub fn wants(&self, path: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    if glob::matches(pattern.as_bytes(), path.as_bytes()) {
        return true;
    }
    let anywhere = !pattern.starts_with(['/', '*']);
    anywhere && glob::matches(format!("*/{pattern}").as_bytes(), path.as_bytes())
}

/// What the names that a converter gives are relative to.
#[derive(Clone, Debug)]
pub(crate) enum Base {
    /// The directory that is given with them, or its nearest parent that has the file.
    Near,
    /// A kernel's build directory, and where its source is now.
    Kernel { build_dir: PathBuf, source: PathBuf },
    /// Import paths of Go: directories whose `go.mod`, or a parent's, names the module.
    Go(Vec<(String, PathBuf)>),
    /// Nothing: they stay as they are.
    Nothing,
}

/// Makes paths on this host of a converter's names.
#[derive(Debug)]
pub(crate) struct Resolver<'a> {
    sources: &'a Sources,
    base: Base,
    /// A kernel's headers are named by every object.
    known: Mutex<HashMap<(PathBuf, String), Option<String>>>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(sources: &'a Sources, base: Base) -> Resolver<'a> {
        Resolver { sources, base, known: Mutex::default() }
    }

    /// The path of the source `name`, which is relative to `dir` where the converter knows one;
    /// `None` if it is not wanted, or was made by a kernel's build.
    pub(crate) fn resolve(&self, dir: Option<&str>, name: &str) -> Option<String> {
        let dir = Path::new(dir.unwrap_or_default());
        let mut known = self.known.lock().unwrap_or_else(|err| err.into_inner());
        let key = (dir.to_owned(), name.to_owned());
        if let Some(path) = known.get(&key) {
            return path.clone();
        }
        let path = self.locate(dir, Path::new(name));
        let gone = self.is_generated(&path);
        let path = path.to_string_lossy().into_owned();
        let path = (!gone && self.sources.wants(&path)).then_some(path);
        known.insert(key, path.clone());
        path
    }

    /// Whether a kernel's build has made this file: it is gone with its objects, and the source has none like it.
    fn is_generated(&self, path: &Path) -> bool {
        match &self.base {
            Base::Kernel { source, .. } => {
                path.starts_with(source) && !path.exists() && source.is_dir()
            }
            _ => false,
        }
    }

    fn locate(&self, dir: &Path, name: &Path) -> PathBuf {
        let full = normal(&dir.join(name));
        for SourceRoot { from, to } in &self.sources.roots {
            match from {
                Some(from) => {
                    if let Ok(rest) = full.strip_prefix(normal(from)) {
                        return normal(&to.join(rest));
                    }
                }
                None if name.is_relative() => {
                    let there = normal(&to.join(name));
                    if there.exists() {
                        return there;
                    }
                }
                None => {}
            }
        }
        match &self.base {
            Base::Nothing => full,
            Base::Near => {
                let mut places = dir.ancestors().map(|parent| normal(&parent.join(name)));
                places.find(|path| path.exists()).unwrap_or(full)
            }
            Base::Kernel { build_dir, source } => {
                let built = if full.is_absolute() { full } else { normal(&build_dir.join(full)) };
                let moved = match built.strip_prefix(build_dir) {
                    Ok(rest) => normal(&source.join(rest)),
                    Err(_) => built.clone(),
                };
                if !moved.exists() && built.exists() { built } else { moved }
            }
            Base::Go(modules) => {
                let inside = modules.iter().find_map(|(module, dir)| {
                    let rest = name.strip_prefix(module).ok()?;
                    Some(normal(&dir.join(rest)))
                });
                inside.unwrap_or(full)
            }
        }
    }
}

/// Without `.`, `..` and doubled slashes, as the text says: links are not looked at.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                // Above the root is the root.
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_plain() {
        for (path, expected) in [
            ("./a//b/./c", "a/b/c"),
            ("/a/../../b", "/b"),
            ("../x", "../x"),
            ("a/../../x", "../x"),
            ("/build/obj/../../fs/open.c", "/fs/open.c"),
        ] {
            assert_eq!(normal(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn patterns_match_whole_paths_or_from_a_directory_on() {
        let sources = Sources {
            include: vec!["fs/*.c".into(), "/abs/*".into()],
            exclude: vec!["*/ext4/*".into()],
            ..Sources::default()
        };
        for (path, wanted) in [
            ("/k/fs/open.c", true),
            ("fs/open.c", true),
            ("/k/nofs/open.c", false),
            ("/k/fs/ext4/x.c", false),
            ("/abs/y", true),
            ("/k/abs/y", false),
        ] {
            assert_eq!(sources.wants(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_kernel_that_was_built_elsewhere_is_found_here() {
        let here = tempfile::tempdir().unwrap();
        std::fs::create_dir(here.path().join("fs")).unwrap();
        std::fs::write(here.path().join("fs/open.c"), "").unwrap();
        let sources = Sources::default();
        let base =
            Base::Kernel { build_dir: "/nowhere/linux".into(), source: here.path().to_owned() };
        let resolver = Resolver::new(&sources, base);
        let open = here.path().join("fs/open.c").to_string_lossy().into_owned();
        for name in ["fs/open.c", "./fs/open.c", "/nowhere/linux/fs/../fs/open.c"] {
            assert_eq!(resolver.resolve(None, name).as_ref(), Some(&open), "{name}");
        }
        assert_eq!(resolver.resolve(Some("/nowhere/linux"), "fs/open.c").as_ref(), Some(&open));
        assert_eq!(resolver.resolve(None, "/usr/include/x.h").as_deref(), Some("/usr/include/x.h"));
        // The build has made it.
        assert_eq!(resolver.resolve(None, "/nowhere/linux/lib/crc32table.h"), None);
    }

    #[test]
    fn roots_replace_what_paths_begin_with() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("x.c"), "").unwrap();
        let root = |from: Option<&str>| SourceRoot {
            from: from.map(PathBuf::from),
            to: here.path().to_owned(),
        };
        let sources =
            Sources { roots: vec![root(Some("/build")), root(None)], ..Sources::default() };
        let resolver = Resolver::new(&sources, Base::Nothing);
        let x = here.path().join("x.c").to_string_lossy().into_owned();
        assert_eq!(resolver.resolve(None, "/build/x.c").as_ref(), Some(&x));
        assert_eq!(resolver.resolve(None, "x.c").as_ref(), Some(&x));
        assert_eq!(resolver.resolve(None, "/builder/x.c").as_deref(), Some("/builder/x.c"));
        assert_eq!(resolver.resolve(None, "y.c").as_deref(), Some("y.c"));
    }
}
