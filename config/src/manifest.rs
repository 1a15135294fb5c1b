//! `Manifest`: the file as the user wrote it, each value with its place. Nothing is judged here but form: TOML's
//! own rules, unknown keys and wrong types.

#![allow(
    missing_docs,
    reason = "the keys are documented for users in docs/reference.md"
)]

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::diagnostic::{Diagnostic, Diagnostics, suggest};

/// A text with its place.
pub type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: Text,
    pub version: Option<Text>,
    #[serde(default)]
    pub kernel: Kernel,
    #[serde(default)]
    pub boot: Boot,
    #[serde(default)]
    pub debian: Debian,
    pub state: Option<State>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub workload: BTreeMap<Text, Workload>,
}

/// `[kernel]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    pub package: Option<Text>,
    pub suite: Option<Text>,
    pub image: Option<Text>,
    pub modules: Option<Text>,
    #[serde(default)]
    pub command_line: Vec<Text>,
    pub module_signatures: Option<bool>,
    #[serde(default)]
    pub initrd_modules: Vec<Text>,
    #[serde(default)]
    pub extra_modules: Vec<Text>,
}

/// `[boot]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    pub loader: Option<Text>,
    pub stub: Option<Text>,
}

/// `[debian]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    pub suite: Option<Text>,
}

/// `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub size: Text,
}

/// `[network]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub hostname: Option<Text>,
    #[serde(default)]
    pub interface: BTreeMap<Text, Interface>,
}

/// `[network.interface.LABEL]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub device: Option<Text>,
    #[serde(default)]
    pub dhcp: bool,
}

/// `[workload.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub image: Option<Text>,
    pub debian: Option<Spanned<Vec<Text>>>,
    pub command: Option<Spanned<Vec<Text>>>,
    pub args: Option<Spanned<Vec<Text>>>,
    #[serde(default)]
    pub env: BTreeMap<Text, Text>,
    pub user: Option<Text>,
    pub working_dir: Option<Text>,
    #[serde(default)]
    pub ports: Vec<Text>,
    #[serde(default)]
    pub after: Vec<Text>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub files: Vec<File>,
    pub memory: Option<Text>,
    pub cpus: Option<Spanned<f64>>,
    pub pids: Option<Spanned<i64>>,
    pub health: Option<Spanned<Health>>,
    pub capabilities: Option<Vec<Text>>,
    #[serde(default)]
    pub read_only: bool,
    pub scratch: Option<Text>,
    pub restart: Option<Text>,
    pub stop_signal: Option<Text>,
    pub stop_timeout: Option<Text>,
}

/// An entry of `volumes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub name: Text,
    pub path: Text,
    #[serde(default)]
    pub read_only: bool,
}

/// An entry of `files`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: Text,
    pub content: Option<Text>,
    pub source: Option<Text>,
    pub link: Option<Text>,
    pub mode: Option<Text>,
}

/// `health`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    pub http: Option<Text>,
    pub tcp: Option<Text>,
    pub every: Option<Text>,
}

impl Manifest {
    /// Reads the text.
    ///
    /// # Errors
    /// The first mistake of form, with its place.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        toml::from_str(text).map_err(|error| explain(&error).into())
    }
}

/// Makes the parser's error one of ours: unknown keys get the nearest known one as a hint.
fn explain(error: &toml::de::Error) -> Diagnostic {
    let message = error.message().trim_end().to_owned();
    let (message, hint) = match unknown_field(&message) {
        Some((key, known)) => (
            format!("unknown key `{key}`"),
            Some(suggest(key, known.iter().copied())),
        ),
        None => (message.replace("missing field", "missing key"), None),
    };
    Diagnostic {
        span: error.span(),
        message,
        hint,
    }
}

/// Takes serde's "unknown field `a`, expected `b` or `c`" apart: the key and the known ones.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let quoted: Vec<&str> = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2)
        .collect();
    let (key, known) = quoted.split_first()?;
    Some((key, known.to_vec()))
}
