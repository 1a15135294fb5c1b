//! The command line: raw arguments only; what they mean is the commands' to say. A room for each group of commands.

mod build;
mod disk;
mod file;
mod keys;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use build::{Build, Choice, Update};
pub use disk::{Inspect, Logs, Sbom, SbomFormat, Verify};
pub use file::{New, Profile};
pub use keys::{Keys, NewKeys};
pub use run::{Accel, Run};

/// Builds and boots minimal, verified, container-first OS images from one TOML file.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Tell no progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a machine's file and show what it says.
    Check(Check),
    /// Build the disk image of a machine.
    Build(Build),
    /// Move the pins of coracle.lock to what archives, registries and files have now.
    Update(Update),
    /// Boot a machine in QEMU: a file is built first, a disk image keeps its state.
    Run(Run),
    /// Show what is in a disk image.
    Inspect(Inspect),
    /// Check a disk image or a device byte for byte against itself, and against a lock.
    Verify(Verify),
    /// Print what a disk image is made of, as a bill of materials.
    Sbom(Sbom),
    /// Write a commented starter file, os.toml, that builds as it is.
    New(New),
    /// Print the JSON Schema of the machine's file.
    Schema,
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command.
    Man {
        /// Their folder.
        folder: PathBuf,
    },
    /// Show what a machine that is off has said: its workloads, its kernel and init.
    Logs(Logs),
    /// Make keys for Secure Boot.
    #[command(subcommand)]
    Keys(Keys),
}

impl Command {
    /// Whether what the command tells is to be JSON, a message a line.
    pub fn tells_json(&self) -> bool {
        match self {
            Self::Check(Check { telling, .. }) | Self::Build(Build { telling, .. }) => telling.json,
            _ => false,
        }
    }
}

/// How a command that works on a machine's file tells of it.
#[derive(Debug, Clone, Copy, Args)]
pub struct Telling {
    /// Tell everything on standard output as JSON, one message a line.
    #[arg(long)]
    pub json: bool,
}

/// `coracle check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The machine's file.
    pub file: PathBuf,
    /// Print its firewall instead, as nft(8) reads it.
    #[arg(long)]
    pub firewall: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as help")]
    pub telling: Telling,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
