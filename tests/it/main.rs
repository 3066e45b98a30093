//! Integration tests, one binary.

mod boot;
mod cli;
mod closure;
mod hostile;
mod layers;
mod support;
