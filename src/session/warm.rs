//! Whether a run boots, goes on from a saved guest, or saves its own: decided before anything starts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vmtest_guest::proto::Hello;

use super::image::Planned;
use super::{Error, Prepared};
use crate::arch::Arch;
use crate::causes::chain;
use crate::options::WarmMode;
use crate::plan::Plan;
use crate::run_record::Origin;
use crate::templates::{self, About, Key, KeyBuilder, Pending, Store, Template};
use crate::vm::{SaveRequest, Saved};

/// How long a saved guest may take to live again before a machine is booted instead. It takes a tenth of
/// a second; a host that is busy with other things may need longer.
pub(super) const RESUME_LIMIT: Duration = Duration::from_secs(10);

/// What a run would do: what `vmtest template why` says.
#[derive(Debug)]
pub enum Outlook {
    /// It would go on from this.
    Warm(Box<Template>),
    /// It would boot and save.
    Save {
        /// What it will be found by.
        key: Key,
        /// What the key is made of.
        made_of: Vec<String>,
        /// Why there is none.
        reason: String,
    },
    /// It would boot.
    Cold {
        /// Why.
        reason: String,
    },
}

/// What a run does.
pub(super) enum Choice {
    Resume(Box<Template>),
    Save { pending: Pending, made_of: Vec<String>, reason: String },
    Cold { reason: String },
}

impl Prepared {
    /// What a run of this machine would do. Starts and saves nothing.
    pub fn outlook(&self) -> Outlook {
        match self.look() {
            Ok((_, key, Ok(template))) => {
                let _ = key;
                Outlook::Warm(Box::new(template))
            }
            Ok((_, key, Err(error))) => Outlook::Save {
                key: key.key(),
                made_of: key.lines().to_vec(),
                reason: chain(&error),
            },
            Err(reason) => Outlook::Cold { reason },
        }
    }

    /// The store, the key, and what is there; or why nothing can be.
    fn look(&self) -> Result<(Store, KeyBuilder, Result<Template, templates::Error>), String> {
        if self.warm.mode == WarmMode::Off {
            return Err("saved guests are switched off (--warm off)".into());
        }
        if let Some(why) = self.plan.why_cold() {
            return Err(why.into());
        }
        let Some(dir) = &self.warm.cache_dir else {
            return Err("there is no cache directory for templates".into());
        };
        let key = self.key().map_err(|(path, error)| format!("{}: {error}", path.display()))?;
        let store = Store::new(dir);
        let found = store.open(&key.key());
        Ok((store, key, found))
    }

    /// Everything that the guest can tell of its machine, and of the files it boots from.
    fn key(&self) -> Result<KeyBuilder, (PathBuf, std::io::Error)> {
        let mut key = KeyBuilder::new();
        key.text(format!("arch {}", self.plan.arch()));
        key.text(self.plan.shape());
        let mut file = |what: &str, path: &Path| {
            key.file(what, path).map_err(|error| (path.to_owned(), error))
        };
        let program = Path::new(self.plan.program());
        let qemu = which::which(program).unwrap_or_else(|_| program.to_owned());
        file("qemu", &qemu)?;
        if let Some(kernel) = &self.kernel.path {
            file("kernel", kernel)?;
        }
        match &self.image {
            Some(Planned::Build { base, before, .. }) => {
                file("guest program", &base.guest)?;
                if let Some(shell) = &base.shell {
                    file("shell", shell)?;
                }
                if let Some(dir) = &base.modules_dir {
                    match dir.join("modules.dep") {
                        index if index.is_file() => file("modules", &index)?,
                        // Of a build tree: any of them may have been built again.
                        _ => {
                            base.module_files().iter().try_for_each(|path| file("module", path))?
                        }
                    }
                }
                if let Some(before) = before {
                    file("initramfs", before)?;
                }
            }
            Some(Planned::Ready(path)) => file("initramfs", path)?,
            None => {}
        }
        Ok(key)
    }

    /// Decides.
    ///
    /// # Errors
    /// [`Error::ColdOnly`] where a saved guest is insisted on and cannot be.
    pub(super) fn choose(&self) -> Result<Choice, Error> {
        let cold = |reason: String| match self.warm.mode {
            WarmMode::On => Err(Error::ColdOnly { reason }),
            _ => Ok(Choice::Cold { reason }),
        };
        let (store, key, found) = match self.look() {
            Ok(found) => found,
            Err(reason) => return cold(reason),
        };
        let reason = match found {
            Ok(template) => return Ok(Choice::Resume(Box::new(template))),
            Err(error) => chain(&error),
        };
        self.save_as(&store, &key, reason)
    }

    /// Boots and saves, for this reason; only boots where nothing can be saved.
    fn save_as(&self, store: &Store, key: &KeyBuilder, reason: String) -> Result<Choice, Error> {
        Ok(match store.begin(&key.key()) {
            Ok(pending) => Choice::Save { pending, made_of: key.lines().to_vec(), reason },
            Err(error) => Choice::Cold { reason: format!("{reason}, and {}", chain(&error)) },
        })
    }

    /// A template could not be resumed: it goes, and the run boots and saves a new one.
    pub(super) fn instead_of(&self, template: &Template, why: &str) -> Result<Choice, Error> {
        let Ok((store, key, _)) = self.look() else {
            return Ok(Choice::Cold { reason: why.to_owned() });
        };
        store.discard(&template.key);
        self.save_as(&store, &key, format!("the template did not work: {why}"))
    }
}

/// The saved guest of a template.
pub(super) fn saved(template: &Template) -> std::io::Result<Saved> {
    Ok(Saved {
        memory: template.memory.try_clone()?,
        state: template.state.try_clone()?,
        hello: template.about.hello.clone(),
    })
}

/// What is kept beside a saved guest.
pub(super) fn about(
    arch: Arch,
    made_of: Vec<String>,
    hello: &Hello,
    qemu_version: Option<String>,
) -> About {
    About {
        arch: arch.name().to_owned(),
        qemu_version: qemu_version.unwrap_or_default(),
        hello: hello.clone(),
        made_of,
    }
}

/// Has a run save its guest; `origin` tells afterwards whether it was.
pub(super) fn save_request(
    pending: Pending,
    made_of: Vec<String>,
    plan: &Plan,
    origin: std::sync::Arc<std::sync::Mutex<Origin>>,
) -> std::io::Result<SaveRequest> {
    let arch = plan.arch();
    let (memory, state) = pending.files()?;
    let done = move |hello: &Hello,
                     qemu_version: Option<String>,
                     result: Result<(), crate::vm::TemplateError>| {
        let about = about(arch, made_of, hello, qemu_version);
        let published = result
            .map_err(|error| chain(&error))
            .and_then(|()| pending.publish(about).map_err(|error| chain(&error)));
        let why = published.err()?;
        let mut origin = origin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *origin = Origin::Cold { reason: format!("its guest could not be saved: {why}") };
        // Not worth a word to who did not ask for it; `run.json` and `-v` have it.
        None
    };
    Ok(SaveRequest { memory, state, done: Box::new(done) })
}
