//! Suites of tests: `vmtest.toml`, what was done of it, and reports.
//!
//! ```text
//! vmtest.toml --File--> Entry × Cell --select--> Job --schedule--> Run --report--> JUnit, HTML, …
//!                                                      |
//!                                                      each a fresh guest; its output has Cases
//! ```
//!
//! A suite knows machines only by the words of `vmtest run`'s options: who runs a job makes a machine of
//! them ([`schedule::run`] takes a function for that). So there is one grammar of options and one way to
//! boot.

mod expect;
mod file;
mod keys;
mod parse;
mod place;
mod read;
mod record;
pub mod report;
pub mod schedule;
mod select;

pub use expect::{Expect, Judged, judge};
pub use file::{Cell, Entry, File, What};
pub use keys::{MACHINE_OPTIONS, Repeats, schema};
pub use parse::FileError;
pub use place::{FILE_NAME, find};
pub use read::{Broken, read};
pub use record::{Attempt, Line, Names, Run, SCHEMA, Test};
pub use select::{Filter, Partition, PartitionError};
