//! Integration tests, one binary.

mod closure;
