//! Coracle's declarative file, in three stages: `Manifest` (what the user wrote) → `Spec` (validated) →
//! [`boot::BootSpec`] (what init reads). This crate does no I/O and depends on no other crate of ours.
#![forbid(unsafe_code)]

pub mod boot;
