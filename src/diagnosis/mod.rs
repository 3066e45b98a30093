//! What a kernel's log says about its faults, by looking at bytes only.
//!
//! ```text
//! bytes --lines--> messages --head--> reports begin --open--> frames, facts --blame, title--> Splat
//! ```
//!
//! Deliberately absent: files, processes, clocks. Who has a log feeds it ([`Reader`]), decides which
//! reports count ([`Gate`]) and what to print. The classes of reports, what is
//! harmless and how titles are made: `docs/splats.md`.

mod blame;
mod facts;
pub mod frame;
pub mod gate;
pub mod harmless;
pub mod head;
mod kind;
pub mod lines;
mod marks;
mod open;
mod patterns;
pub mod prefix;
mod reader;
pub mod registers;
mod splat;
pub mod stacks;
#[cfg(feature = "symbols")]
pub mod symbols;
mod taint;
pub mod text;
pub mod title;

#[cfg(test)]
mod tests;

pub use facts::build_id;
pub use gate::{Gate, Judged, Mode, Ruled, Ruling};
pub use kind::Kind;
pub use reader::Reader;
pub use splat::{Corruption, MAX_LINES, Position, Splat, Task, Trace};
pub use stacks::Stacks;
pub use taint::Taint;
