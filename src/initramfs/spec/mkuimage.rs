//! `.mkuimage.yaml`, the templates of u-root's mkuimage, for the part that concerns archives.
//!
//! Go packages are not built here: a template that has commands is refused unless the caller says
//! that they shall be left out.

use crate::named_file;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Name of the file.
pub const FILE_NAME: &str = ".mkuimage.yaml";

/// All of a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Templates {
    /// Lists of Go packages by name.
    #[serde(default)]
    pub commands: BTreeMap<String, Vec<String>>,
    /// Images by name.
    #[serde(default)]
    pub configs: BTreeMap<String, Config>,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Must be `linux` where given.
    pub goos: Option<String>,
    /// The guest's architecture.
    pub goarch: Option<String>,
    /// For the Go compiler.
    #[serde(default)]
    pub build_tags: Vec<String>,
    /// Go packages.
    #[serde(default)]
    pub commands: Vec<Commands>,
    /// `SRC[:DST]`, with the libraries that ELF files need.
    #[serde(default)]
    pub files: Vec<String>,
    /// Command that `init` leads to.
    pub init: Option<String>,
    /// Command that `bin/uinit` leads to, with arguments.
    pub uinit: Option<String>,
    /// Command that `bin/sh` leads to.
    pub shell: Option<String>,
}

/// Go packages that are built in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// `bb`, `gbb` or `binary`.
    pub builder: Option<String>,
    /// Packages, or names from [`Templates::commands`].
    #[serde(default)]
    pub commands: Vec<String>,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// No file in any directory.
    #[error("there is no `{FILE_NAME}` in `{}` or above", from.display())]
    NoFile {
        /// Where the search began.
        from: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML, or has unknown keys.
    #[error("`{}` cannot be used: {text}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        text: String,
    },
    /// No image of that name.
    #[error("`{}` has no config `{name}`", path.display())]
    NoConfig {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// An image for something else than Linux.
    #[error("config `{name}` is for `{goos}`, and vmtest makes images for linux")]
    Goos {
        /// The image's name.
        name: String,
        /// Its system.
        goos: String,
    },
    /// Go packages, which nothing here builds.
    #[error("config `{name}` has Go commands, which vmtest does not build: {}", commands.join(" "))]
    Commands {
        /// The image's name.
        name: String,
        /// The packages.
        commands: Vec<String>,
    },
}

impl TemplateError {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            TemplateError::NoFile { .. } => "name it with `--config-file FILE`".into(),
            TemplateError::NoConfig { known, .. } => format!("it has {}", known.join(", ")),
            TemplateError::Commands { .. } => {
                "build them with `go build` and give the result with `--multicall` or `--bin`; \
                 `--nocmd` leaves them out"
                    .into()
            }
            _ => return None,
        })
    }
}

/// Looks for the file in a directory and those above it, the root excepted.
pub fn find(from: &Path) -> Option<PathBuf> {
    from.ancestors()
        .filter(|dir| dir.parent().is_some())
        .map(|dir| dir.join(FILE_NAME))
        .find(|path| path.is_file())
}

impl Templates {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn read(path: &Path) -> Result<Templates, TemplateError> {
        let text = named_file::read_to_string(path)
            .map_err(|source| TemplateError::Read { path: path.to_owned(), source })?;
        Templates::parse(path, &text)
    }

    /// Parses a file's text; `path` is for messages.
    ///
    /// # Errors
    /// See [`TemplateError::Parse`].
    pub fn parse(path: &Path, text: &str) -> Result<Templates, TemplateError> {
        serde_saphyr::from_str(text)
            .map_err(|err| TemplateError::Parse { path: path.to_owned(), text: err.to_string() })
    }

    /// One image; its Go packages are refused unless `without_commands`.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn config(
        &self,
        path: &Path,
        name: &str,
        without_commands: bool,
    ) -> Result<&Config, TemplateError> {
        let config = self.configs.get(name).ok_or_else(|| TemplateError::NoConfig {
            path: path.to_owned(),
            name: name.to_owned(),
            known: self.configs.keys().cloned().collect(),
        })?;
        if let Some(goos) = config.goos.as_ref().filter(|goos| *goos != "linux") {
            return Err(TemplateError::Goos { name: name.to_owned(), goos: goos.clone() });
        }
        let named = config.commands.iter().flat_map(|commands| &commands.commands);
        let commands: Vec<String> = named
            .flat_map(|name| match self.commands.get(name) {
                Some(list) => list.clone(),
                None => vec![name.clone()],
            })
            .collect();
        if !commands.is_empty() && !without_commands {
            return Err(TemplateError::Commands { name: name.to_owned(), commands });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
commands:
  minimal:
    - github.com/u-root/u-root/cmds/core/ls
    - github.com/u-root/u-root/cmds/core/init
configs:
  plain:
    goarch: arm64
    files:
      - ./a:etc/a
    init: /bin/busybox
    uinit: sh -c 'echo hi'
    shell: ''
  go:
    goos: linux
    commands:
      - builder: bb
        commands: [minimal, ./cmd]
  other:
    goos: plan9
";

    #[test]
    fn templates_are_read_for_what_concerns_archives() {
        let path = Path::new(FILE_NAME);
        let templates = Templates::parse(path, TEXT).unwrap();
        let plain = templates.config(path, "plain", false).unwrap();
        assert_eq!(plain.files, ["./a:etc/a"]);
        assert_eq!(plain.shell.as_deref(), Some(""));
        assert_eq!(plain.uinit.as_deref(), Some("sh -c 'echo hi'"));
        let err = templates.config(path, "go", false).unwrap_err();
        assert!(err.to_string().contains("cmds/core/init ./cmd"), "{err}");
        assert!(templates.config(path, "go", true).is_ok());
        assert!(templates.config(path, "other", true).is_err());
        let err = templates.config(path, "absent", true).unwrap_err();
        assert_eq!(err.hint().unwrap(), "it has go, other, plain");
    }

    #[test]
    fn unknown_keys_are_errors() {
        for text in ["config: {}", "configs: {a: {file: [x]}}"] {
            assert!(Templates::parse(Path::new(FILE_NAME), text).is_err(), "{text}");
        }
    }
}
