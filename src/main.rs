//! The `vmtest` program.

fn main() {}
