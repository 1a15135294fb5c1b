//! `network` of workloads and pods, and `[network.named.NAME]`.

use toml::Spanned;

use super::{DEFAULT_NETWORK, NamedNetwork, RESERVED, refuse_reserved};
use crate::boot::Network;
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{Manifest, OneOrMore, Text};
use crate::mistakes::Mistakes;
use crate::pod::Pod;
use crate::spec::by_place;
use crate::value;
use crate::workload::Workload;

/// The network of a workload or pod whose file does not say.
const UNSAID: Network = Network::Own;

/// Which network a workload or pod has, and which networks it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) network: Network,
    /// Empty unless the network is its own.
    pub(crate) networks: Vec<String>,
}

impl Membership {
    fn plain(network: Network) -> Self {
        let networks = match network {
            Network::Own => vec![DEFAULT_NETWORK.to_owned()],
            Network::Host | Network::None => Vec::new(),
        };
        Self { network, networks }
    }

    /// What the key says; whether the names are those of networks is judged by [`networks`].
    pub(crate) fn new(said: Option<&Spanned<OneOrMore>>, mistakes: &mut Mistakes) -> Self {
        let Some(said) = said else {
            return Self::plain(UNSAID);
        };
        match said.get_ref() {
            OneOrMore::One(word) => match word.as_str() {
                "own" | DEFAULT_NETWORK => Self::plain(Network::Own),
                "host" => Self::plain(Network::Host),
                "none" => Self::plain(Network::None),
                name => Self {
                    network: Network::Own,
                    networks: vec![name.to_owned()],
                },
            },
            OneOrMore::More(names) => Self::of_several(said, names, mistakes),
        }
    }

    fn of_several(said: &Spanned<OneOrMore>, names: &[Text], mistakes: &mut Mistakes) -> Self {
        if names.is_empty() {
            mistakes.push(
                Diagnostic::at(said.span(), "`network` is empty")
                    .hint("write network = \"none\" for one that reaches nobody"),
            );
        }
        let mut networks: Vec<String> = Vec::new();
        for name in names {
            let word = name.get_ref();
            let mistake = match word.as_str() {
                "host" | "none" => Some("it stands alone, as in network = \"host\""),
                "own" => Some("among others it is called `default`"),
                "outside" | "network" => Some("name networks, as in [\"front\", \"back\"]"),
                _ if networks.contains(word) => Some("name it once"),
                _ => None,
            };
            match mistake {
                Some(hint) => mistakes.push(
                    Diagnostic::at(name.span(), format!("`{word}` is no network of several"))
                        .hint(hint),
                ),
                None => networks.push(word.clone()),
            }
        }
        Self {
            network: Network::Own,
            networks,
        }
    }
}

/// The networks that somebody is on; unknown ones, and those that nobody is on, are mistakes.
pub(super) fn networks(
    manifest: &Manifest,
    workloads: &[Workload],
    pods: &[Pod],
    mistakes: &mut Mistakes,
) -> Vec<NamedNetwork> {
    let named = by_place(&manifest.network.named);
    for (name, _) in &named {
        mistakes.take(value::dns_label(name, "network name"));
        refuse_reserved(name, "network", mistakes);
    }
    let said = manifest.workload.values().map(|w| &w.network);
    for said in said
        .chain(manifest.pod.values().map(|p| &p.network))
        .flatten()
    {
        check_known(said, manifest, mistakes);
    }
    let is_used = |name: &str| {
        let on = |networks: &[String]| networks.iter().any(|n| n == name);
        pods.iter().any(|pod| on(&pod.networks))
            || workloads.iter().any(|w| w.pod.is_none() && on(&w.networks))
    };
    let mut networks = Vec::new();
    if is_used(DEFAULT_NETWORK) {
        networks.push(NamedNetwork {
            name: DEFAULT_NETWORK.to_owned(),
            internal: false,
        });
    }
    for (name, table) in named {
        if is_used(name.get_ref()) {
            networks.push(NamedNetwork {
                name: name.get_ref().clone(),
                internal: table.internal,
            });
        } else {
            mistakes.push(
                Diagnostic::at(
                    name.span(),
                    format!("nobody is on network `{}`", name.get_ref()),
                )
                .hint(format!(
                    "add network = \"{}\" to its workloads",
                    name.get_ref()
                )),
            );
        }
    }
    networks
}

fn check_known(said: &Spanned<OneOrMore>, manifest: &Manifest, mistakes: &mut Mistakes) {
    let one;
    let names = match said.get_ref() {
        OneOrMore::More(names) => names.as_slice(),
        OneOrMore::One(name) => {
            if ["own", "host", "none"].contains(&name.as_str()) {
                return;
            }
            one = [Text::new(said.span(), name.clone())];
            &one
        }
    };
    for name in names {
        let word = name.get_ref();
        let is_known = manifest.network.named.contains_key(word.as_str());
        // Reserved ones in a list are told by [`Membership::of_several`].
        let is_told =
            matches!(said.get_ref(), OneOrMore::More(_)) && RESERVED.contains(&word.as_str());
        if is_known || is_told || word == DEFAULT_NETWORK {
            continue;
        }
        let named = manifest
            .network
            .named
            .keys()
            .map(|name| name.get_ref().as_str());
        let known: Vec<&str> = ["own", DEFAULT_NETWORK, "host", "none"]
            .into_iter()
            .chain(named)
            .collect();
        let hint = match suggest(word, known.iter().copied()) {
            hint if hint.starts_with("did") => hint,
            hint => format!("{hint}; or add [network.named.{word}]"),
        };
        mistakes.push(Diagnostic::at(name.span(), format!("`{word}` is no network")).hint(hint));
    }
}
