//! What a workload shares with the machine: its ids, its network.

use toml::Spanned;

use crate::boot::Network;
use crate::condition;
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Manifest, Text};
use crate::mistakes::Mistakes;
use crate::pod::Pod;
use crate::value::{self, Parsed};
use crate::workload::Workload;

/// How many ids a user namespace has: all that 16 bits count.
pub const IDS: u32 = 65_536;

/// Whether the user namespace is an own one.
pub(crate) fn user_namespace(text: &Text) -> Parsed<bool> {
    match text.get_ref().as_str() {
        "own" => Ok(true),
        "host" => Ok(false),
        other => Err(
            Diagnostic::at(text.span(), format!("`{other}` is no user namespace"))
                .hint(suggest(other, ["own", "host"])),
        ),
    }
}

/// Whether the pid namespace is the machine's. The kernel shows no other's processes in a user namespace of its own.
pub(super) fn host_pids(from: &manifest::Workload, mistakes: &mut Mistakes) -> bool {
    let Some(text) = &from.pid_namespace else {
        return false;
    };
    let mistake = |what: String, hint: String| Diagnostic::at(text.span(), what).hint(hint);
    let has_own_ids = from.user_namespace.as_ref().map(|u| u.get_ref().as_str()) != Some("host");
    match text.get_ref().as_str() {
        "own" => false,
        "host" => {
            if has_own_ids && from.pod.is_none() {
                let what = "`pid_namespace = \"host\"` with a user namespace of its own";
                let hint =
                    "add user_namespace = \"host\": the machine's processes are those of its ids";
                mistakes.push(mistake(what.to_owned(), hint.to_owned()));
            }
            true
        }
        other => {
            let what = format!("`{other}` is no pid namespace");
            mistakes.push(mistake(what, suggest(other, ["own", "host"])));
            false
        }
    }
}

/// Where a workload sees a socket: not where the kernel's own file systems are.
pub(super) fn place(text: &Text) -> Parsed<String> {
    let path = value::absolute_path(text)?;
    if let Some(taken) = ["proc", "sys", "dev"]
        .into_iter()
        .find(|first| path.split('/').nth(1) == Some(first))
    {
        let what = format!("no socket can be at `{path}`: /{taken} is the kernel's");
        return Err(Diagnostic::at(text.span(), what).hint("as in \"/run/app.sock\""));
    }
    Ok(path)
}

/// What is the pod's to say, and what cannot be reached.
pub(super) fn check(from: &manifest::Workload, network: Network, mistakes: &mut Mistakes) {
    if let Some(pod) = &from.pod {
        for (key, value) in [
            ("network", from.network.as_ref().map(Spanned::span)),
            ("reach", from.reach.as_ref().map(Spanned::span)),
            (
                "user_namespace",
                from.user_namespace.as_ref().map(Spanned::span),
            ),
            (
                "pid_namespace",
                from.pid_namespace.as_ref().map(Spanned::span),
            ),
        ] {
            if let Some(span) = value {
                let what = format!("`{key}` of a workload in pod `{}`", pod.get_ref());
                let hint = if key == "pid_namespace" {
                    "a pod shares no process with the machine: remove it".to_owned()
                } else {
                    format!(
                        "its workloads share it: write it in [pod.{}]",
                        pod.get_ref()
                    )
                };
                mistakes.push(Diagnostic::at(span, what).hint(hint));
            }
        }
    }
    if network == Network::None {
        refuse_ports(&from.ports, mistakes);
    }
}

fn refuse_ports(ports: &[Text], mistakes: &mut Mistakes) {
    for port in ports {
        let what = format!("nobody reaches port `{}`", port.get_ref());
        mistakes.push(Diagnostic::at(port.span(), what).hint(
            "network = \"none\" has no port outside: remove it, or let a [socket.NAME] listen",
        ));
    }
}

/// Gives the workloads of pods what their pod says, and each user namespace its ids: pods first, then workloads, in
/// the order of the file and of their start.
pub(crate) fn assign(
    pods: &mut [Pod],
    workloads: &mut [Workload],
    manifest: &Manifest,
    mistakes: &mut Mistakes,
) {
    let mut next = (1..).map(|number| number * IDS);
    for pod in &mut *pods {
        pod.first_id = pod.first_id.and_then(|_| next.next());
    }
    for workload in workloads {
        match pods
            .iter()
            .find(|pod| Some(&pod.name) == workload.pod.as_ref())
        {
            Some(pod) => {
                workload.first_id = pod.first_id;
                workload.network = pod.network;
                workload.networks.clone_from(&pod.networks);
                let table = manifest.workload.get(workload.name.as_str());
                if let (Network::None, Some(table)) = (pod.network, table) {
                    refuse_ports(&table.ports, mistakes);
                }
            }
            None => workload.first_id = workload.first_id.and_then(|_| next.next()),
        }
        let implied = condition::implied(workload.network);
        workload.conditions.splice(0..0, implied);
    }
}
