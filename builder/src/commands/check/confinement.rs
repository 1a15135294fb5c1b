//! What a workload may use and do, in the words of `coracle check`. Whatever is looser than the default has a line of
//! its own that begins with `loosened`, in words that do not change.

use config::boot::Network;
use config::spec::{IDS, Workload};

use crate::bundle::ROOT_CAPABILITIES;

type Row = (&'static str, String);

/// Limits, network, ids, capabilities, and what is loosened.
pub(super) fn rows(workload: &Workload) -> Vec<Row> {
    let mut rows = vec![("limits", limits(workload))];
    for (name, path) in &workload.connect {
        rows.push(("connects to", format!("socket {name} at {path}")));
    }
    rows.push(("network", network(workload)));
    rows.push(("ids", ids(workload)));
    rows.push(("capabilities", capabilities(workload)));
    rows.extend(
        loosened(workload)
            .into_iter()
            .map(|what| ("loosened", what)),
    );
    rows
}

fn network(workload: &Workload) -> String {
    match (workload.network, &workload.pod) {
        (Network::Own, _) => format!("on {}", workload.networks.join(", ")),
        (Network::Host, _) => "the machine's own".to_owned(),
        (Network::None, None) => "none but loopback".to_owned(),
        (Network::None, Some(pod)) => format!("loopback of pod {pod}"),
    }
}

fn ids(workload: &Workload) -> String {
    match workload.first_id {
        Some(first) => format!("{first} to {} on the machine", first + (IDS - 1)),
        None => "the machine's own".to_owned(),
    }
}

/// One line each, the same words for the same thing.
fn loosened(workload: &Workload) -> Vec<String> {
    let mut lines = Vec::new();
    if workload.first_id.is_none() {
        lines.push("user_namespace host: its root is the machine's root".to_owned());
    }
    if workload.host_pids {
        lines.push(
            "pid_namespace host: it sees all processes, and ends those of its user".to_owned(),
        );
    }
    if workload.network == Network::Host {
        lines.push("network host: it reaches all that the machine reaches".to_owned());
    }
    for capability in workload.capabilities.iter().flatten() {
        lines.push(format!("capability {capability}"));
    }
    if !workload.read_only {
        lines.push("writable root: its root can be written until it stops".to_owned());
    }
    lines
}

fn limits(workload: &Workload) -> String {
    let mut limits: Vec<String> = Vec::new();
    if let Some(bytes) = workload.memory {
        limits.push(format!("memory {} MiB", bytes >> 20));
    }
    if let Some(millis) = workload.cpu_millis {
        limits.push(format!("processors {}.{:03}", millis / 1000, millis % 1000));
    }
    limits.push(format!("processes {}", workload.pids));
    if let Some(files) = workload.open_files {
        limits.push(format!("open files {files}"));
    }
    if let Some(io) = workload.io {
        if let Some(weight) = io.weight {
            limits.push(format!("disk weight {weight}"));
        }
        if let Some(maximum) = io.maximum() {
            limits.push(format!("disk {maximum}"));
        }
    }
    limits.join(", ")
}

fn capabilities(workload: &Workload) -> String {
    match (&workload.capabilities, workload.first_id) {
        (Some(list), _) if list.is_empty() => "none".to_owned(),
        (Some(list), _) => list.join(" "),
        (None, Some(_)) => format!(
            "if it runs as root {} over its own ids, else none",
            ROOT_CAPABILITIES.join(" ")
        ),
        (None, None) => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(extra: &str) -> Workload {
        let text = format!("name = \"m\"\n[workload.w]\nimage = \"dir:x\"\n{extra}");
        config::parse(&text).unwrap().workloads.remove(0)
    }

    #[test]
    fn each_loosening_has_its_line() {
        let tight = workload("network = \"none\"\nread_only = true");
        assert!(loosened(&tight).is_empty());
        let loose = workload(
            "network = \"host\"\nuser_namespace = \"host\"\npid_namespace = \"host\"\ncapabilities = [\"NET_ADMIN\"]",
        );
        assert_eq!(
            loosened(&loose),
            [
                "user_namespace host: its root is the machine's root",
                "pid_namespace host: it sees all processes, and ends those of its user",
                "network host: it reaches all that the machine reaches",
                "capability CAP_NET_ADMIN",
                "writable root: its root can be written until it stops",
            ]
        );
    }

    #[test]
    fn limits_are_told_with_their_numbers() {
        let limited = workload("memory = \"64MiB\"\nio = { weight = 7, write_ops = 9 }");
        let expected = "memory 64 MiB, processes 4096, disk weight 7, disk wiops=9";
        assert_eq!(limits(&limited), expected);
        assert_eq!(ids(&limited), "65536 to 131071 on the machine");
    }
}
