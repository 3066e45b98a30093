//! Before the boot: whether the kernel has what the run needs.

use std::path::PathBuf;

use super::error::Error;
use super::kernel::FoundKernel;
use crate::plan::Plan;
use crate::preflight::KernelFacts;

/// What is to be looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Preflight {
    kernel: Option<Looked>,
    required: Vec<String>,
}

#[derive(Clone, Debug)]
struct Looked {
    image: PathBuf,
    release: Option<String>,
    config: Option<PathBuf>,
    modules: Option<PathBuf>,
    /// Somebody has given it: nobody has tried it before.
    given: bool,
}

impl Preflight {
    /// What is to be looked at for a run of this kernel.
    pub(super) fn of(kernel: Option<&FoundKernel>, required: Vec<String>) -> Preflight {
        let kernel = kernel.map(|kernel| Looked {
            image: kernel.path.clone(),
            release: kernel.release.clone(),
            config: kernel.config.clone().filter(|path| path.is_file()),
            modules: kernel.modules.clone(),
            given: kernel.given,
        });
        Preflight { kernel, required }
    }

    /// Whether options are required: then a guest that was saved is looked at, too.
    pub(super) fn is_required(&self) -> bool {
        !self.required.is_empty()
    }

    /// Looks. Says what a person should know.
    ///
    /// # Errors
    /// [`Error::Lacking`] names what is missing.
    pub(super) fn check(&self, plan: &Plan, image_of_ours: bool) -> Result<Vec<String>, Error> {
        let Some(kernel) = &self.kernel else { return Ok(Vec::new()) };
        let Looked { image, release, config, modules, given } = kernel;
        let inside = config.is_none() && (*given || self.is_required());
        let (release, config, modules) =
            (release.as_deref(), config.as_deref(), modules.as_deref());
        let facts =
            KernelFacts::look(image, release, config, modules, inside).map_err(|error| {
                Error::Read {
                    what: "kernel's configuration",
                    path: error.path,
                    source: error.source,
                }
            })?;
        let wanted: &[String] = if image_of_ours { plan.modules() } else { &[] };
        let lacks = facts.lacks(wanted, &self.required);
        if lacks.is_empty() {
            return Ok(facts.remarks);
        }
        let known_from = facts.options.map(|(_, path)| path);
        Err(Error::Lacking { kernel: image.clone(), known_from, lacks })
    }
}
