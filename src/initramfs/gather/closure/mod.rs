//! Which files a program needs to run in a guest, found without running anything.
//!
//! ```no_run
//! use std::path::Path;
//! use vmtest::{arch::Arch, initramfs::closure::Resolver};
//!
//! let mut resolver = Resolver::new(Arch::Riscv64, Path::new("/srv/riscv64-sysroot"));
//! let closure = resolver.program(Path::new("./hello"), b"bin/hello", &|_| false)?;
//! for item in &closure.items {
//!     println!("{item}: {}", item.reason);
//! }
//! # Ok::<(), vmtest::initramfs::closure::Problems>(())
//! ```
//!
//! What is followed: `PT_INTERP`, `DT_NEEDED` in the loader's own order, `.note.dlopen`, and `#!`
//! lines. Symbolic links are kept as links, every hop of them, including linked directories on the
//! way (`lib -> usr/lib`), so that a file has one place in the image whatever path leads to it.
//! Absolute links are followed inside of the sysroot, never out of it.
//!
//! # Where libraries are looked for
//!
//! glibc, as `ld.so(8)` says: a name with a slash is a path. Otherwise
//! 1. `DT_RPATH` of the object, then of what loaded it, up to the executable; only if the object
//!    has no `DT_RUNPATH`. An object that has both loses its `DT_RPATH`;
//! 2. `DT_RUNPATH` of the object itself;
//! 3. [`Resolver::library_dirs`];
//! 4. the directories of `/etc/ld.so.conf` (what `ld.so.cache` is made from);
//! 5. `/lib/TUPLE /usr/lib/TUPLE /lib64 /usr/lib64 /lib /usr/lib` (`lib64` for 64-bit guests only).
//!    `DF_1_NODEFLIB` takes these away, also where step 4 names them.
//!
//! musl, when the interpreter is called `ld-musl-*`: `DT_RUNPATH`, else `DT_RPATH`, of the object
//! and of what loaded it; [`Resolver::library_dirs`]; then `/etc/ld-musl-*.path`, else
//! `/lib /usr/local/lib /usr/lib`.
//!
//! A candidate of another class, byte order, machine or OS ABI is passed over and noted, as the
//! loader does.
//!
//! # What is deliberately absent
//!
//! - `glibc-hwcaps` and the older hardware directories: the guest's CPU is not known here, so only
//!   the baseline library is taken. One that exists in such a directory only is reported missing,
//!   with that as the hint.
//! - `LD_LIBRARY_PATH`, `LD_PRELOAD` and `/etc/ld.so.preload`: an image must not depend on the
//!   caller's environment.
//! - What no file declares: NSS modules (`libnss_*.so`), gconv, PAM, Python's or Perl's modules,
//!   plugins. Name them with `--file` or `--tree`.
//!
//! # A program from outside of the sysroot
//!
//! Any host file can be put at any `dest`. If that is not its place in the sysroot, `$ORIGIN` has
//! two readings: the host directory, where libraries are found now, and the directory of `dest`,
//! where the guest's loader will look. `$ORIGIN/../lib/libx.so` of `/home/me/app/bin/tool` placed
//! at `opt/bin/tool` is therefore read from `/home/me/app/lib/libx.so` and placed at
//! `opt/lib/libx.so`. Everything else, the interpreter included, comes from the sysroot.

mod item;
pub mod ldconf;
mod problem;
mod resolver;
pub mod script;
mod search;
mod sysroot;
mod walk;

pub use item::{Closure, Item, Reason, Source};
pub use problem::{MissingLibrary, Note, Outcome, Problem, Problems, SearchStep, Target, Tried};
pub use resolver::{DEFAULT_PATH, Resolver, is_file_in};
pub(crate) use search::is_loadable;

#[cfg(test)]
mod tests;
