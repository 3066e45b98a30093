//! Templates and pools of ready guests for callers without a runtime.

use std::sync::Arc;

use super::Guest;
use crate::arch::Arch;
use crate::configure::Configure;
use crate::pool;
use crate::session::{self, Error};
use crate::vm::BlockingRuntime;

/// A guest that was saved. Handles are cheap to clone; several threads may make guests at once.
///
/// ```no_run
/// use std::sync::LazyLock;
/// use vmtest::arch::Arch;
/// use vmtest::blocking::Template;
///
/// // One for all tests of the program.
/// static TEMPLATE: LazyLock<Template> = LazyLock::new(|| Template::new(Arch::Amd64, ()).unwrap());
///
/// #[test]
/// fn a_test_with_a_guest_of_its_own() {
///     let guest = TEMPLATE.clone_guest().unwrap();
///     // …
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Template {
    template: session::Template,
    runtime: Arc<BlockingRuntime>,
}

impl Template {
    /// As [`session::Template::new`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(arch: Arch, configurator: impl Configure) -> Result<Template, Error> {
        let prepared = session::Template::prepare(arch, configurator)?;
        let runtime = Arc::new(BlockingRuntime::new().map_err(Error::Runtime)?);
        let template = runtime.block_on(session::Template::of(prepared))?;
        Ok(Template { template, runtime })
    }

    /// As [`session::Template::save`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn save(original: Original) -> Result<Template, Error> {
        let Original { mut guest, recipe } = original;
        let runtime = Arc::clone(&guest.runtime);
        let ready = guest.guest.take().and_then(Arc::into_inner).ok_or(Error::GuestInUse)?;
        let original = session::Original::put_together(ready, recipe);
        let template = runtime.block_on(session::Template::save(original))?;
        Ok(Template { template, runtime })
    }

    /// As [`session::Template::clone_guest`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn clone_guest(&self) -> Result<Guest, Error> {
        let template = self.template.clone();
        let guest = self.runtime.block_on(async move { template.clone_guest().await })?;
        Ok(Guest { guest: Some(Arc::new(guest)), runtime: Arc::clone(&self.runtime) })
    }
}

/// A guest that is to be saved; see [`session::Original`].
#[derive(Debug)]
pub struct Original {
    guest: Guest,
    recipe: session::Recipe,
}

impl Original {
    /// As [`session::Original::boot`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn boot(arch: Arch, configurator: impl Configure) -> Result<Original, Error> {
        let prepared = session::Template::prepare(arch, configurator)?;
        let runtime = Arc::new(BlockingRuntime::new().map_err(Error::Runtime)?);
        let original = runtime.block_on(session::Original::of(prepared))?;
        let (guest, recipe) = original.take_apart();
        Ok(Original { guest: Guest { guest: Some(Arc::new(guest)), runtime }, recipe })
    }

    /// The guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
}

/// Ready guests of one template; see [`crate::pool`]. Several threads may take guests at once.
#[derive(Debug)]
pub struct Pool {
    /// `None` once it is dropped.
    pool: Option<Arc<pool::Pool>>,
    runtime: Arc<BlockingRuntime>,
}

impl Pool {
    /// As [`pool::Pool::new`].
    pub fn new(template: &Template, size: usize) -> Pool {
        let runtime = Arc::clone(&template.runtime);
        let template = template.template.clone();
        let pool = runtime.block_on(async move { pool::Pool::new(template, size) });
        Pool { pool: Some(Arc::new(pool)), runtime }
    }

    fn pool(&self) -> Arc<pool::Pool> {
        Arc::clone(self.pool.as_ref().expect("only `drop` takes it"))
    }

    /// As [`pool::Pool::take`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn take(&self) -> Result<Guest, Error> {
        let pool = self.pool();
        let guest = self.runtime.block_on(async move { pool.take().await })?;
        Ok(Guest { guest: Some(Arc::new(guest)), runtime: Arc::clone(&self.runtime) })
    }

    /// As [`pool::Pool::parked`].
    pub fn parked(&self) -> usize {
        self.pool().parked()
    }

    /// As [`pool::Pool::pids`].
    pub fn pids(&self) -> Vec<u32> {
        self.pool().pids()
    }

    /// As [`pool::Pool::filled`].
    pub fn filled(&self, count: usize) {
        let pool = self.pool();
        self.runtime.block_on(async move { pool.filled(count).await });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let pool = self.pool.take();
        // On the runtime: what is dropped there are machines.
        self.runtime.block_on(async move { drop(pool) });
    }
}
