//! What a build is told: which machine, where to, and how its inputs are chosen.

use std::path::PathBuf;

use clap::Args;
use config::manifest::Text;
use config::value;

use super::Telling;
use crate::export::Format;

/// How a machine's inputs are chosen.
#[derive(Debug, Clone, Args)]
pub struct Choice {
    /// Take the kernel from this Debian package instead of the file's.
    #[arg(long, value_name = "NAME", value_parser = parse_package)]
    pub kernel_package: Option<String>,
    /// Choose everything anew and pin it in coracle.lock, as `coracle update` does.
    #[arg(long, conflicts_with_all = ["locked", "offline"])]
    pub update: bool,
    /// Fail where coracle.lock would change.
    #[arg(long)]
    pub locked: bool,
    /// Fetch nothing: what is needed is in the cache.
    #[arg(long)]
    pub offline: bool,
}

/// `coracle update`.
#[derive(Debug, Args)]
pub struct Update {
    /// The machine's file.
    #[arg(default_value = "os.toml")]
    pub file: PathBuf,
    /// Move the pins of this workload only.
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
}

/// `coracle build`.
#[derive(Debug, Args)]
pub struct Build {
    /// The machine's file.
    pub file: PathBuf,
    /// The image to write [default: NAME.img, or what the format's names end with, in this folder].
    #[arg(long, short, value_name = "DISK.img")]
    pub output: Option<PathBuf>,
    /// The image's form [default: what the output's name ends with says, a raw disk otherwise].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as help")]
    pub choice: Choice,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as help")]
    pub telling: Telling,
}

fn parse_package(text: &str) -> Result<String, String> {
    let text = Text::new(0..text.len(), text.to_owned());
    value::package(&text).map_err(|mistake| match mistake.hint {
        Some(hint) => format!("{}: {hint}", mistake.message),
        None => mistake.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_checked() {
        assert!(parse_package("linux-image-amd64").is_ok());
        for bad in ["", "Bad Name", "-oDir=x", "bash-"] {
            let mistake = parse_package(bad).unwrap_err();
            assert!(mistake.contains("is no Debian package name"), "{mistake}");
        }
    }
}
