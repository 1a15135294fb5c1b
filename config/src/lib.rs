//! Coracle's declarative file, in three stages: [`manifest::Manifest`] (what the user wrote) →
//! [`spec::Spec`] (validated) → [`boot::BootSpec`] (what init reads).
//!
//! Every error is a [`diagnostic::Diagnostic`] that knows its place in the file and how to mend it. This crate
//! does no I/O and depends on no other crate of ours.
#![forbid(unsafe_code)]

pub mod boot;
mod condition;
pub mod diagnostic;
pub mod ending;
mod interface;
pub mod linux;
pub mod log;
pub mod manifest;
mod mistakes;
pub mod network;
mod order;
pub mod pod;
pub mod registry;
pub mod root;
mod secret;
mod secure_boot;
pub mod socket;
pub mod spec;
pub mod template;
pub mod trust;
pub mod value;
mod workload;

pub use diagnostic::{Diagnostic, Diagnostics, steers};
pub use spec::Spec;

/// Reads and validates a file's text.
///
/// # Errors
/// Everything that is wrong with it: the first mistake of form, or all mistakes of meaning.
pub fn parse(text: &str) -> Result<Spec, Diagnostics> {
    Spec::new(manifest::Manifest::parse(text)?)
}
