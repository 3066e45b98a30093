//! Coverage of what ran in guests: what was collected, and what people's and machines' tools read.

pub mod record;
