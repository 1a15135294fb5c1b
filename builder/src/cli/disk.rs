//! What the commands are told that read a finished disk.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `coracle inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The disk image.
    pub disk: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `coracle verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The disk image or device.
    #[arg(value_name = "DISK|DEVICE")]
    pub disk: PathBuf,
    /// Hold its packages and images against this lock too.
    #[arg(long, value_name = "coracle.lock")]
    pub lock: Option<PathBuf>,
    /// The root hash that it is to have: 64 hexadecimal digits.
    #[arg(long, value_name = "HASH", value_parser = parse_root_hash)]
    pub root_hash: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn parse_root_hash(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a root hash has 64 hexadecimal digits".to_owned())
    }
}

/// `coracle sbom`.
#[derive(Debug, Args)]
pub struct Sbom {
    /// The disk image.
    pub disk: PathBuf,
    /// The document's format: SPDX 2.3 or CycloneDX 1.6, both as JSON.
    #[arg(long, value_enum, default_value_t = SbomFormat::Spdx)]
    pub format: SbomFormat,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SbomFormat {
    /// SPDX 2.3.
    Spdx,
    /// CycloneDX 1.6.
    Cyclonedx,
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
