//! `/init`, the agent and the small commands, in one static program.

fn main() {}
