//! Templates as values: a guest that was saved, and any number of fresh ones that go on from there.
//!
//! ```text
//!   Template::new(arch, configurator) ──clone_guest──> Guest, Guest, …
//!
//!   Original::boot(arch, configurator) ─(whatever is to be the same in all)─> Template::save ──clone_guest──> …
//! ```
//!
//! [`Template::new`] takes the saved guest that runs of the same machine use (`docs/warm-start.md`), and boots
//! and saves one where there is none. An [`Original`] is for what is to be done once for all: start a
//! server, fill a directory. Its template is in memory and is gone with its last handle.
//!
//! Clones share the pages that they have not changed. Each has random numbers, a boot id and a clock of its
//! own, and then what the configurator asks for each guest: networks, mounts, files of the image.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::conduct::not_ready;
use super::warm::{self, Choice};
use super::{Error, Init, Prepared, prepare_with};
use crate::arch::Arch;
use crate::causes::chain;
use crate::configure::{Configure, ResourcePart};
use crate::plan::Plan;
use crate::vm::{Guest, Resources, Saved, Vm};

/// A guest that was saved. Handles are cheap to clone, and mean the same saved guest.
#[derive(Clone, Debug)]
pub struct Template(Arc<Inner>);

struct Inner {
    saved: Saved,
    recipe: Recipe,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("saved", &self.saved).finish_non_exhaustive()
    }
}

/// What each guest needs besides what was saved.
pub(crate) struct Recipe {
    plan: Plan,
    /// The user's files, which are put into each guest.
    files: Option<Arc<File>>,
    resources: Vec<ResourcePart>,
    timeout: Option<Duration>,
    boot_limit: Duration,
}

impl Recipe {
    fn resources(&self) -> Resources {
        let mut resources = Resources { timeout: self.timeout, ..Resources::default() };
        self.resources.iter().for_each(|part| part(&mut resources));
        resources
    }
}

impl Template {
    /// The saved guest of this machine: that of the cache, else one that is booted and saved now, for
    /// later runs too where the cache can take it.
    ///
    /// # Errors
    /// [`Error::ColdOnly`] for a machine whose guest cannot be saved, with the reason; others of
    /// [`super::boot`].
    ///
    /// # Panics
    /// Outside of a tokio runtime; [`crate::blocking::Template`] needs none.
    pub async fn new(arch: Arch, configurator: impl Configure) -> Result<Template, Error> {
        Template::of(Template::prepare(arch, configurator)?).await
    }

    /// Prepares a machine whose guest can be saved.
    pub(crate) fn prepare(arch: Arch, configurator: impl Configure) -> Result<Prepared, Error> {
        let prepared = prepare_with(arch, configurator, Init::Agent(None))?;
        match prepared.plan.why_cold() {
            None => Ok(prepared),
            Some(reason) => Err(Error::ColdOnly { reason: reason.to_owned() }),
        }
    }

    /// The saved guest of a prepared machine.
    pub(crate) async fn of(mut prepared: Prepared) -> Result<Template, Error> {
        match prepared.choose()? {
            Choice::Resume(template) => {
                let saved = warm::saved(&template).map_err(Error::Temporary)?;
                let recipe = prepared.recipe()?;
                Ok(Template(Arc::new(Inner { saved, recipe })))
            }
            Choice::Save { pending, made_of, .. } => {
                let recipe = prepared.recipe()?;
                let guest = prepared.boot_saveable(&recipe).await?;
                let (memory, state) = pending.files().map_err(Error::Temporary)?;
                let result = guest.save(&memory, &state).await;
                result.map_err(|error| Error::ColdOnly { reason: chain(&error) })?;
                let hello = guest.hello().clone();
                let version = guest.vm().qemu_version();
                // Where it cannot be kept for others, it can be used all the same.
                let _ = pending.publish(warm::about(recipe.plan.arch(), made_of, &hello, version));
                let saved = Saved { memory, state, hello };
                Ok(Template(Arc::new(Inner { saved, recipe })))
            }
            Choice::Cold { .. } => {
                let recipe = prepared.recipe()?;
                let guest = prepared.boot_saveable(&recipe).await?;
                Template::save(Original { guest, recipe }).await
            }
        }
    }

    /// Saves a guest as it is now, and ends it. What still runs in it goes on in each clone.
    ///
    /// # Errors
    /// [`Error::ColdOnly`] when QEMU cannot save it: something is mounted over 9p, for instance.
    pub async fn save(original: Original) -> Result<Template, Error> {
        let Original { guest, recipe } = original;
        let saved = Saved::nameless(guest.hello()).map_err(Error::Temporary)?;
        let result = guest.save(&saved.memory, &saved.state).await;
        result.map_err(|error| Error::ColdOnly { reason: chain(&error) })?;
        Ok(Template(Arc::new(Inner { saved, recipe })))
    }

    /// A fresh guest. Any number may be made, also at the same time.
    ///
    /// # Errors
    /// [`Error::NotResumed`], and [`Error::NotReady`] when what the configurator asks for each guest
    /// cannot be done in it. Nothing is left of it then.
    pub async fn clone_guest(&self) -> Result<Guest, Error> {
        let Inner { saved, recipe } = &*self.0;
        let saved = saved.try_clone().map_err(Error::Temporary)?;
        let limit = warm::RESUME_LIMIT.min(recipe.boot_limit);
        let resumed = Vm::resume(recipe.plan.clone().to_be_resumed(), saved, limit).await;
        let resumed = resumed.map_err(|error| Error::NotResumed { why: Box::new(error) })?;
        let guest = resumed.with(recipe.resources())?;
        if let Some(file) = &recipe.files {
            let files = FromStart { file: file.clone(), at: 0 };
            guest.put_files(files).await.map_err(not_ready)?;
        }
        guest.set_up().await.map_err(not_ready)?;
        Ok(guest)
    }

    /// The memory of a guest, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.0.recipe.plan.memory_bytes()
    }
}

/// A guest that is to be saved: commands may run in it, files be put into it. Networks, mounts and the
/// files of the configurator come to each clone and are not there yet.
#[derive(Debug)]
pub struct Original {
    guest: Guest,
    recipe: Recipe,
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipe").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Original {
    /// Boots it.
    ///
    /// # Errors
    /// As [`Template::new`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn boot(arch: Arch, configurator: impl Configure) -> Result<Original, Error> {
        Original::of(Template::prepare(arch, configurator)?).await
    }

    /// Boots a prepared machine.
    pub(crate) async fn of(mut prepared: Prepared) -> Result<Original, Error> {
        let recipe = prepared.recipe()?;
        let guest = prepared.boot_saveable(&recipe).await?;
        Ok(Original { guest, recipe })
    }

    pub(crate) fn take_apart(self) -> (Guest, Recipe) {
        (self.guest, self.recipe)
    }

    pub(crate) fn put_together(guest: Guest, recipe: Recipe) -> Original {
        Original { guest, recipe }
    }

    /// The guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
}

impl Prepared {
    /// What each clone needs. The base alone is left to boot from.
    fn recipe(&mut self) -> Result<Recipe, Error> {
        Ok(Recipe {
            plan: self.plan.clone(),
            files: self.files_of_run()?.map(Arc::new),
            resources: self.parts.clone(),
            timeout: self.resources.timeout,
            boot_limit: self.boot_limit,
        })
    }

    /// Boots the base as a guest that can be saved.
    async fn boot_saveable(mut self, recipe: &Recipe) -> Result<Guest, Error> {
        self.build(false)?;
        let resources = Resources { initramfs: self.resources.initramfs, ..recipe.resources() };
        let vm = Vm::start(recipe.plan.clone().to_be_saved(), resources)?;
        vm.ready(recipe.boot_limit).await.map_err(|failed| not_ready(failed.why))
    }
}

/// Reads a file from its start, whoever else reads it.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
