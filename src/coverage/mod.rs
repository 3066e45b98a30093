//! Coverage of what ran in guests: what was collected, and what people's and machines' tools read.
//!
//! [`record`] says what a run's directory holds. [`load`] turns directories into [`model::Coverage`]
//! with the converters of others: gcov, llvm-cov, go. [`lcov`], [`cobertura`], [`json`], [`table`] and
//! [`html`] write it. What cannot be used is a [`Problem`]; the rest is used all the same. All this is the
//! feature `coverage`; what collects during a run is always there.

#[cfg(feature = "coverage")]
pub mod cobertura;
#[cfg(feature = "coverage")]
mod collect;
mod collected;
mod elf;
#[cfg(feature = "coverage")]
mod error;
#[cfg(feature = "coverage")]
mod gcov;
#[cfg(feature = "coverage")]
pub mod go;
#[cfg(feature = "coverage")]
pub mod html;
#[cfg(feature = "coverage")]
mod input;
mod instrumented;
#[cfg(feature = "coverage")]
pub mod json;
#[cfg(feature = "coverage")]
pub mod lcov;
#[cfg(feature = "coverage")]
mod llvm;
#[cfg(feature = "coverage")]
mod load;
#[cfg(feature = "coverage")]
pub mod model;
#[cfg(feature = "coverage")]
mod problem;
pub mod record;
pub mod run_dir;
#[cfg(feature = "coverage")]
mod sources;
#[cfg(feature = "coverage")]
pub mod table;
#[cfg(feature = "coverage")]
mod text;
#[cfg(feature = "coverage")]
mod tools;

pub use collected::Collected;
#[cfg(feature = "coverage")]
pub use error::Error;
pub use instrumented::is_instrumented;
#[cfg(feature = "coverage")]
pub use load::{Loaded, load};
#[cfg(feature = "coverage")]
pub use problem::Problem;
#[cfg(feature = "coverage")]
pub use sources::{SourceRoot, Sources};
#[cfg(feature = "coverage")]
pub use tools::{Cancel, ToolError, Tools};
