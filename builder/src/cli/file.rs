//! What the commands are told that write a machine's file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `coracle new`.
#[derive(Debug, Args)]
pub struct New {
    /// The folder of the machine, made if it is missing; the machine is named as it is [default: this one].
    pub folder: Option<PathBuf>,
    /// What the machine does.
    #[arg(long, value_enum, default_value_t = Profile::Service)]
    pub profile: Profile,
}

/// `--profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Nothing: it boots.
    Minimal,
    /// One service with a published port.
    Service,
    /// Two services on a network of their own.
    Network,
}
