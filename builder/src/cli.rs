//! The command line: raw arguments only; what they mean is the commands' to say.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use config::manifest::Text;
use config::value;

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
    Check {
        /// The machine's file.
        file: PathBuf,
        /// Print its firewall instead, as nft(8) reads it.
        #[arg(long)]
        firewall: bool,
    },
    /// Build the disk image of a machine.
    Build(Build),
    /// Boot a machine in QEMU: a file is built first, a disk image keeps its state.
    Run(Run),
    /// Show what is in a disk image.
    Inspect {
        /// The disk image.
        disk: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a machine that is off has said: its workloads, its kernel and init.
    Logs(Logs),
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

/// How a machine's inputs are chosen.
#[derive(Debug, Clone, Args)]
pub struct Choice {
    /// Take the kernel from this Debian package instead of the file's.
    #[arg(long, value_name = "NAME", value_parser = parse_package)]
    pub kernel_package: Option<String>,
    /// Choose the newest versions anew and pin them in coracle.lock.
    #[arg(long)]
    pub update: bool,
}

/// `coracle build`.
#[derive(Debug, Args)]
pub struct Build {
    /// The machine's file.
    pub file: PathBuf,
    /// The image to write [default: NAME.img in this folder].
    #[arg(long, short, value_name = "DISK.img")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as help")]
    pub choice: Choice,
}

/// `coracle run`.
#[derive(Debug, Args)]
pub struct Run {
    /// A machine's file or a disk image.
    #[arg(value_name = "FILE|DISK.img")]
    pub machine: PathBuf,
    /// Start the image's kernel without firmware and boot loader.
    #[arg(long)]
    pub direct: bool,
    /// What carries out the guest's instructions; auto takes KVM only if a trial boot succeeds.
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub accel: Accel,
    /// Fail if the machine is not ready after this many seconds.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: Option<u64>,
    /// Power the machine off once every workload is ready; exit 0 if both went well.
    #[arg(long)]
    pub exit_when_ready: bool,
    /// The machine's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub memory: u32,
    /// The machine's processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: u32,
    /// Reach the published port PUBLISHED at port HOST of this host instead (0: any free one).
    #[arg(long = "port", value_name = "PUBLISHED=HOST", value_parser = parse_port)]
    pub ports: Vec<(u16, u16)>,
    /// Hand over the secret NAME of a workload: the content of FILE.
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = parse_secret)]
    pub secrets: Vec<(String, PathBuf)>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as help")]
    pub choice: Choice,
}

/// `--accel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM if a trial boot under it succeeds, else TCG.
    Auto,
    /// QEMU's own translation.
    Tcg,
    /// The host's processor.
    Kvm,
}

fn parse_package(text: &str) -> Result<String, String> {
    let text = Text::new(0..text.len(), text.to_owned());
    value::package(&text).map_err(|mistake| match mistake.hint {
        Some(hint) => format!("{}: {hint}", mistake.message),
        None => mistake.message,
    })
}

fn parse_port(text: &str) -> Result<(u16, u16), String> {
    let (published, host) = text
        .split_once('=')
        .ok_or("write PUBLISHED=HOST, as in 8080=18080")?;
    match (published.parse(), host.parse()) {
        (Ok(published), Ok(host)) if published != 0 => Ok((published, host)),
        _ => Err("both are ports from 0 to 65535, the published one not 0".to_owned()),
    }
}

fn parse_secret(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), file.into()))
        }
        _ => Err("write NAME=FILE, as in db-password=password.txt".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn package_names_are_checked() {
        assert!(parse_package("linux-image-amd64").is_ok());
        for bad in ["", "Bad Name", "-oDir=x", "bash-"] {
            let mistake = parse_package(bad).unwrap_err();
            assert!(mistake.contains("is no Debian package name"), "{mistake}");
        }
    }

    #[test]
    fn secret_pairs_are_checked() {
        assert_eq!(parse_secret("a=b=c"), Ok(("a".into(), "b=c".into())));
        for bad in ["a", "=b", "a="] {
            assert!(parse_secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_pairs_are_checked() {
        assert_eq!(parse_port("8080=0"), Ok((8080, 0)));
        for bad in ["8080", "=1", "0=1", "1=70000", "a=b"] {
            assert!(parse_port(bad).is_err(), "{bad}");
        }
    }
}
