//! Why modules cannot be taken.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::arch::Arch;
use crate::formats::kmod::ModInfoError;
use crate::initramfs::closure::Target;

/// Why modules could not be selected or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleProblem {
    /// A directory or file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such module, built in or not.
    #[error("kernel {release} has no module `{name}`")]
    Unknown {
        /// The name or alias.
        name: String,
        /// The kernel's release.
        release: String,
    },
    /// A module that others cannot do without is missing.
    #[error("module `{name}` not found, needed by {}", .chain.join(" <- "))]
    MissingDependency {
        /// The missing module.
        name: String,
        /// Who needs it, up to the requested module.
        chain: Vec<String>,
    },
    /// Modules that need each other.
    #[error("modules need each other: {}", .cycle.join(" -> "))]
    Cycle {
        /// The names, the first one again at the end.
        cycle: Vec<String>,
    },
    /// Longer than any real chain of dependencies; `modules.dep` must be damaged.
    #[error("more than {limit} modules in one chain of dependencies, from `{name}`")]
    TooDeep {
        /// The requested module.
        name: String,
        /// The most that is accepted.
        limit: usize,
    },
    /// A file that is no module.
    #[error("`{}` is no kernel module", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ModInfoError,
    },
    /// A module for another machine.
    #[error("`{}` is a module for {found}, the guest is {wanted}", .path.display())]
    WrongArch {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: Target,
        /// What the guest is.
        wanted: Arch,
    },
    /// A module of another kernel.
    #[error("`{}` is a module of kernel {found}, not of {wanted}", .path.display())]
    WrongRelease {
        /// The file.
        path: PathBuf,
        /// The release it was built for.
        found: String,
        /// The release of its directory.
        wanted: String,
    },
}

impl ModuleProblem {
    /// How to fix it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            ModuleProblem::Unknown { release, .. } => Some(format!(
                "see `modules.dep` and `modules.builtin` of {release}; after adding modules run `depmod -b ROOT {release}`"
            )),
            ModuleProblem::MissingDependency { .. }
            | ModuleProblem::Cycle { .. }
            | ModuleProblem::TooDeep { .. } => Some(
                "install all modules of the kernel and run `depmod -b ROOT RELEASE`".to_owned(),
            ),
            ModuleProblem::WrongArch { found, .. } => found.arch().map(|arch| {
                format!(
                    "give the modules of the guest's kernel, or boot a guest with `--arch {arch}`"
                )
            }),
            ModuleProblem::WrongRelease { .. } => {
                Some("give the modules that were built with the kernel".to_owned())
            }
            ModuleProblem::Read { .. } | ModuleProblem::Damaged { .. } => None,
        }
    }
}

/// All problems of one selection; never empty.
#[derive(Debug)]
pub struct ModuleProblems(pub(super) Vec<ModuleProblem>);

impl ModuleProblems {
    /// The problems, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &ModuleProblem> {
        self.0.iter()
    }
}

impl fmt::Display for ModuleProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            f.write_str(&crate::causes::chain(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for ModuleProblems {}
