//! `[pod.NAME]`: workloads that share namespaces and a lifetime.

use std::collections::BTreeMap;

use crate::boot::Network;
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Manifest, Text};
use crate::mistakes::Mistakes;
use crate::network::{self, Membership};
use crate::value;
use crate::workload::confinement;

/// A validated pod; at least one workload is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name, a DNS label.
    pub name: String,
    /// The hostname of all its workloads.
    pub hostname: String,
    /// They share one pid namespace.
    pub share_pid: bool,
    /// The machine's id that their id 0 is; `None`: their ids are the machine's.
    pub first_id: Option<u32>,
    /// Whose network they have.
    pub network: Network,
    /// The networks that they are on; none unless the network is their own.
    pub networks: Vec<String>,
}

impl Pod {
    pub(crate) fn new(name: &Text, from: &manifest::Pod, mistakes: &mut Mistakes) -> Self {
        mistakes.take(value::dns_label(name, "pod name"));
        network::refuse_reserved(name, "pod", mistakes);
        let membership = Membership::new(from.network.as_ref(), mistakes);
        Self {
            name: name.get_ref().clone(),
            hostname: mistakes
                .take_some(from.hostname.as_ref(), value::hostname)
                .unwrap_or_else(|| name.get_ref().clone()),
            share_pid: from.share_pid,
            first_id: mistakes
                .take_some(from.user_namespace.as_ref(), confinement::user_namespace)
                .unwrap_or(true)
                .then_some(confinement::IDS),
            network: membership.network,
            networks: membership.networks,
        }
    }
}

/// Each workload's pod exists, and each pod has a workload.
pub(crate) fn check_members(manifest: &Manifest, mistakes: &mut Mistakes) {
    let mut members: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in manifest.workload.values().filter_map(|w| w.pod.as_ref()) {
        *members.entry(pod.get_ref()).or_default() += 1;
        if !manifest.pod.contains_key(pod.get_ref().as_str()) {
            let known = manifest.pod.keys().map(|name| name.get_ref().as_str());
            let hint = if manifest.pod.is_empty() {
                format!("add [pod.{}]", pod.get_ref())
            } else {
                suggest(pod.get_ref(), known)
            };
            mistakes.push(
                Diagnostic::at(
                    pod.span(),
                    format!("`{}`: there is no pod of that name", pod.get_ref()),
                )
                .hint(hint),
            );
        }
    }
    for name in manifest.pod.keys() {
        if !members.contains_key(name.get_ref().as_str()) {
            mistakes.push(
                Diagnostic::at(
                    name.span(),
                    format!("no workload is in pod `{}`", name.get_ref()),
                )
                .hint(format!("add pod = \"{}\" to its workloads", name.get_ref())),
            );
        }
    }
}
