//! The builder behind the `coracle` command.
#![forbid(unsafe_code)]

pub mod progress;
pub mod tree;
