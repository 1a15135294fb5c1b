//! The builder behind the `coracle` command.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cli;
pub mod commands;
pub mod contents;
pub mod disk;
pub mod export;
pub mod failure;
pub mod firewall;
pub mod format;
pub mod guest;
pub mod guest_log;
pub mod identity;
pub mod image;
pub mod inputs;
pub mod lock;
pub mod machine_file;
pub mod message;
pub mod output;
pub mod overlay_files;
pub mod plan;
pub mod progress;
pub mod sbom;
pub mod schema;
pub mod seccomp;
pub mod secure_boot;
pub mod source;
pub mod streams;
pub mod terminal;
pub mod tree;
pub mod unchanged;
pub mod verify;
pub mod vm;
