//! The only place with unsafe code, each piece with its reason.

pub(crate) mod child;
pub(crate) mod kvm;
