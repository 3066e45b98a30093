//! Bytes to structures and back, over `&[u8]`, `Read` and `Write`.
//!
//! Nothing here opens a file, reads a clock or looks at the environment; that is what makes the
//! formats fuzzable.

pub mod fat;
