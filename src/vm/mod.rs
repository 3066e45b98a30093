//! A running guest and everything that must be torn down with it.

pub mod accel;
