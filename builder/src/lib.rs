//! The builder behind the `coracle` command.
#![forbid(unsafe_code)]

pub mod format;
pub mod progress;
pub mod source;
pub mod tree;
pub mod vm;
