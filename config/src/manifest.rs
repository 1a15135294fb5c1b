//! `Manifest`: the file as the user wrote it, each value with its place. Nothing is judged here but form: TOML's
//! own rules, unknown keys and wrong types.

#![allow(
    missing_docs,
    reason = "the keys are documented for users in docs/reference.md"
)]

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
pub use toml::Spanned;

use crate::diagnostic::{Diagnostic, Diagnostics, suggest};

mod interface;

pub use interface::*;

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
    pub hardware: Hardware,
    #[serde(default)]
    pub boot: Boot,
    pub secure_boot: Option<SecureBoot>,
    #[serde(default)]
    pub debian: Debian,
    #[serde(default)]
    pub root: Root,
    pub state: Option<State>,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub failure: Failure,
    #[serde(default)]
    pub shutdown: Shutdown,
    pub watchdog: Option<Watchdog>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub firewall: Firewall,
    #[serde(default)]
    pub trust: Trust,
    #[serde(default)]
    pub registry: BTreeMap<Text, Registry>,
    #[serde(default)]
    pub pod: BTreeMap<Text, Pod>,
    #[serde(default)]
    pub socket: BTreeMap<Text, Socket>,
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

/// `[hardware]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    pub profile: Option<Text>,
    #[serde(default)]
    pub drivers: Vec<Text>,
}

/// `[boot]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    pub loader: Option<Text>,
    pub stub: Option<Text>,
    pub kernels: Option<Spanned<i64>>,
}

/// `[secure_boot]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBoot {
    pub certificate: Text,
    pub key: Option<Text>,
    pub sign_command: Option<Spanned<Vec<Text>>>,
    pub enroll: Option<Text>,
}

/// `[debian]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    pub suite: Option<Text>,
}

/// `[root]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    pub compression: Option<Text>,
    pub level: Option<Spanned<i64>>,
}

/// `[registry.HOST]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    pub ca: Option<Text>,
    #[serde(default)]
    pub insecure: bool,
}

/// `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub size: Text,
    pub on_damage: Option<Text>,
}

/// `[log]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub size: Option<Text>,
    pub memory: Option<Text>,
}

/// `[failure]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub action: Option<Text>,
    pub delay: Option<Text>,
}

/// `[shutdown]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    pub timeout: Option<Text>,
}

/// `[watchdog]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    pub timeout: Text,
}

/// `[network]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub hostname: Option<Text>,
    pub dns: Option<Spanned<Vec<Text>>>,
    pub search: Option<Spanned<Vec<Text>>>,
    pub ntp: Option<Spanned<Vec<Text>>>,
    #[serde(default)]
    pub addresses: Vec<Text>,
    #[serde(default)]
    pub named: BTreeMap<Text, NamedNetwork>,
    #[serde(default)]
    pub interface: BTreeMap<Text, Interface>,
}

/// `[network.named.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedNetwork {
    #[serde(default)]
    pub internal: bool,
}

/// `[firewall]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    pub inbound: Option<Text>,
    pub ping: Option<Spanned<bool>>,
    #[serde(default)]
    pub allow: Vec<Allow>,
}

/// An entry of `[firewall] allow`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    pub ports: Text,
    pub protocol: Option<Text>,
    #[serde(default)]
    pub from: Vec<Text>,
    pub interface: Option<Text>,
}

/// `[trust]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    pub default: Option<Text>,
    #[serde(default)]
    pub policy: BTreeMap<Text, TrustPolicy>,
}

/// `[trust.policy.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustPolicy {
    #[serde(default)]
    pub images: Vec<Text>,
    #[serde(default)]
    pub cosign_keys: Vec<Text>,
    #[serde(default)]
    pub openpgp_keys: Vec<Text>,
    pub signed_as: Option<Text>,
    #[serde(default)]
    pub unsigned: bool,
}

/// A word, or several in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OneOrMore {
    /// A word by itself.
    One(String),
    /// An array of words.
    More(Vec<Text>),
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E>(self, word: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<OneOrMore, A::Error> {
                let mut all = Vec::new();
                while let Some(word) = words.next_element()? {
                    all.push(word);
                }
                Ok(OneOrMore::More(all))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// `[pod.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    pub hostname: Option<Text>,
    #[serde(default)]
    pub share_pid: bool,
    pub network: Option<Spanned<OneOrMore>>,
    pub reach: Option<Spanned<Vec<Text>>>,
    pub user_namespace: Option<Text>,
}

/// `[socket.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    pub listen: Text,
    pub backlog: Option<Spanned<i64>>,
    pub mode: Option<Text>,
}

/// `[workload.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub kind: Option<Text>,
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
    pub requires: Vec<Text>,
    pub pod: Option<Text>,
    #[serde(default)]
    pub sockets: Vec<Text>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub files: Vec<File>,
    #[serde(default)]
    pub secrets: Vec<Secret>,
    pub memory: Option<Text>,
    pub cpus: Option<Spanned<f64>>,
    pub pids: Option<Spanned<i64>>,
    pub open_files: Option<Spanned<i64>>,
    pub io: Option<Io>,
    pub network: Option<Spanned<OneOrMore>>,
    pub reach: Option<Spanned<Vec<Text>>>,
    pub user_namespace: Option<Text>,
    /// `own` or `host`.
    pub pid_namespace: Option<Text>,
    #[serde(default)]
    pub connect: BTreeMap<Text, Text>,
    pub ready: Option<Text>,
    pub health: Option<Spanned<Health>>,
    pub watchdog: Option<Text>,
    pub capabilities: Option<Vec<Text>>,
    #[serde(default)]
    pub read_only: bool,
    pub scratch: Option<Text>,
    pub restart: Option<Text>,
    pub restart_delay: Option<Text>,
    pub restart_delay_max: Option<Text>,
    pub start_limit: Option<StartLimit>,
    pub stop_signal: Option<Text>,
    pub stop_timeout: Option<Text>,
}

/// `io`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Io {
    pub weight: Option<Spanned<i64>>,
    pub read: Option<Text>,
    pub write: Option<Text>,
    pub read_ops: Option<Spanned<i64>>,
    pub write_ops: Option<Spanned<i64>>,
}

/// An entry of `volumes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub name: Text,
    pub path: Text,
    #[serde(default)]
    pub read_only: bool,
    pub owner: Option<Text>,
    pub mode: Option<Text>,
    pub size: Option<Text>,
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

/// An entry of `secrets`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    pub name: Text,
    pub path: Option<Text>,
    pub mode: Option<Text>,
    #[serde(default)]
    pub optional: bool,
}

/// `health`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    pub http: Option<Text>,
    pub tcp: Option<Text>,
    pub exec: Option<Spanned<Vec<Text>>>,
    pub every: Option<Text>,
    pub timeout: Option<Text>,
    pub retries: Option<Spanned<i64>>,
    pub grace: Option<Text>,
}

/// `start_limit`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartLimit {
    pub starts: Spanned<i64>,
    pub within: Text,
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

/// Makes the parser's error one of ours: in the words of TOML instead of Rust's, and with its mend.
fn explain(error: &toml::de::Error) -> Diagnostic {
    let message = error.message().trim_end().to_owned();
    let (message, hint) = if let Some((key, known)) = unknown_field(&message) {
        let hint = suggest_key(key, &known);
        (format!("unknown key `{key}`"), Some(hint))
    } else if let Some((found, expected)) = wrong_type(&message) {
        let hint = type_hint(found, expected).map(str::to_owned);
        (
            format!("wrong type: {}, expected {}", plain(found), plain(expected)),
            hint,
        )
    } else if let Some(key) = message.strip_prefix("missing field ") {
        let bare = key.trim_matches('`');
        (
            format!("missing key {key}"),
            Some(format!("add it: {bare} = …")),
        )
    } else if message == "duplicate key" {
        let hint = "a key stands once in its table: remove one of the two";
        (message, Some(hint.to_owned()))
    } else {
        (message, None)
    };
    Diagnostic {
        span: error.span(),
        message,
        hint,
    }
}

/// The nearest known key; a key of the top level that slipped into a table above it is told its place.
fn suggest_key(key: &str, known: &[&str]) -> String {
    if ["name", "version"].contains(&key) {
        return format!("`{key}` stands at the top of the file, above the first [table]");
    }
    suggest(key, known.iter().copied())
}

/// Takes serde's "invalid type: FOUND, expected EXPECTED" apart.
fn wrong_type(message: &str) -> Option<(&str, &str)> {
    message
        .strip_prefix("invalid type: ")?
        .rsplit_once(", expected ")
}

/// serde's name of a type in the words of the TOML specification.
fn plain(of_serde: &str) -> &str {
    match of_serde {
        "a sequence" => "an array",
        "sequence" => "array",
        "a map" => "a table",
        "map" => "table",
        "i64" => "a whole number that fits",
        "f64" => "a number",
        expected if expected.starts_with("struct ") => "a table",
        other => other.strip_suffix(" as i128").unwrap_or(other),
    }
}

fn type_hint(found: &str, expected: &str) -> Option<&'static str> {
    match (found, expected) {
        (_, "struct Workload") => {
            Some("each workload has a name: write [workload.NAME] above its keys")
        }
        (_, "struct Interface") => {
            Some("each interface has a label: write [network.interface.LABEL] above its keys")
        }
        (_, "struct Pod" | "struct Socket") => {
            Some("each has a name: write [pod.NAME] or [socket.NAME] above its keys")
        }
        ("sequence", "a map") => {
            Some("write single brackets and a name of its own, as in [workload.web]")
        }
        (_, "struct NamedNetwork") => {
            Some("each network has a name: write [network.named.NAME] above its keys")
        }
        (_, "struct TrustPolicy") => {
            Some("each policy has a name: write [trust.policy.NAME] above its keys")
        }
        (_, "a string or an array of strings") => {
            Some("put it in quotes, as in \"own\" or [\"front\", \"back\"]")
        }
        (_, "a string") => Some("put it in quotes"),
        (_, "a sequence") => Some("put it in brackets, as in [\"one\", \"two\"]"),
        (_, "a boolean") => Some("write true or false"),
        (_, "i64" | "f64") => Some("write it without quotes, as in 2"),
        _ if plain(expected) == "a table" => {
            Some("write { key = value }, or a [table] on a line of its own")
        }
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_form_are_told_in_the_words_of_toml_with_their_mend() {
        for (text, message, hint) in [
            (
                "name = 5",
                "wrong type: integer `5`, expected a string",
                "in quotes",
            ),
            (
                "name = \"a\"\n[workload.w]\ndebian = \"x, expected y\"",
                "wrong type: string \"x, expected y\", expected an array",
                "in brackets",
            ),
            (
                "name = \"a\"\n[workload]\nimage = \"dir:.\"",
                "wrong type: string \"dir:.\", expected a table",
                "[workload.NAME]",
            ),
            (
                "name = \"a\"\n[[workload]]\nimage = \"dir:.\"",
                "wrong type: array, expected a table",
                "[workload.web]",
            ),
            (
                "name = \"a\"\nstate = true",
                "wrong type: boolean `true`, expected a table",
                "{ key = value }",
            ),
            (
                "name = \"a\"\n[workload.w]\npids = 99999999999999999999",
                "wrong type: integer `99999999999999999999`, expected a whole number that fits",
                "without quotes",
            ),
            (
                "[state]\nname = \"a\"",
                "unknown key `name`",
                "top of the file",
            ),
            ("version = \"1\"", "missing key `name`", "add it: name = …"),
            ("name = \"a\"\nname = \"b\"", "duplicate key", "remove one"),
        ] {
            let Diagnostics(all) = Manifest::parse(text).unwrap_err();
            assert_eq!(all[0].message, message);
            let found = all[0].hint.as_deref().unwrap_or_default();
            assert!(found.contains(hint), "{text}: {found}");
        }
    }
}
