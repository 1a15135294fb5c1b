//! What the commands are told that read a finished disk.

use std::path::PathBuf;

use clap::Args;

/// `coracle inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The disk image.
    pub disk: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `coracle logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The disk image.
    pub disk: PathBuf,
    /// Only the lines of this workload, or of kernel or coracle.
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// Only this boot: a number, 0 for the last, -1 for the one before it.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub boot: Option<i64>,
    /// Not the lines, but when the boot (the last one, without --boot) reached each stage, and each workload.
    #[arg(long, conflicts_with = "workload")]
    pub timeline: bool,
}
