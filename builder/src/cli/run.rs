//! What a run in QEMU is told: the machine and the hardware that it gets.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Choice;

/// `coracle run`.
#[derive(Debug, Args)]
pub struct Run {
    /// A machine's file or a disk image.
    #[arg(value_name = "FILE|DISK.img")]
    pub machine: PathBuf,
    /// Start the image's kernel without firmware and boot loader.
    #[arg(long)]
    pub direct: bool,
    /// Boot with a firmware that enforces Secure Boot and trusts the certificate in FILE alone; without FILE, the one that the
    /// image is signed with.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "direct")]
    pub secure_boot: Option<Option<PathBuf>>,
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
