//! The places where vmtest talks to the kernel in ways that need `unsafe`. Nowhere else has any.

pub(crate) mod kvm;
