//! Who reaches whom, in the words of `coracle check`.

use config::boot::{Network, Protocol};
use config::network::{Allow, Reach};
use config::spec::{Spec, Workload};

type Row = (&'static str, String);

/// The firewall, and the networks of the workloads.
pub(super) fn machine_rows(spec: &Spec) -> Vec<Row> {
    let firewall = &spec.firewall;
    let inbound = if firewall.drop {
        "what nothing allows is dropped"
    } else {
        "all is let in (loosened)"
    };
    let ping = if firewall.ping || !firewall.drop {
        "answers ping"
    } else {
        "answers no ping"
    };
    let mut rows = vec![("firewall", format!("{inbound}, {ping}"))];
    rows.extend(
        firewall
            .allow
            .iter()
            .map(|allow| ("open", allowed(spec, allow))),
    );
    let fabric = &spec.fabric;
    if fabric.endpoints.is_empty() {
        return rows;
    }
    let pool = format!("{} and {}", fabric.pool, fabric.pool6);
    rows.push(("addresses", format!("of workloads out of {pool}")));
    rows.extend(fabric.networks.iter().map(|network| {
        let is_on = |e: &&config::network::Endpoint| e.networks.contains(&network.name);
        let members: Vec<&str> = fabric
            .endpoints
            .iter()
            .filter(is_on)
            .map(|e| e.name.as_str())
            .collect();
        let internal = if network.internal { ", internal" } else { "" };
        let members = members.join(", ");
        (
            "workloads on",
            format!("{} are {members}{internal}", network.name),
        )
    }));
    rows
}

fn allowed(spec: &Spec, allow: &Allow) -> String {
    let mut text = allow.first.to_string();
    if allow.last != allow.first {
        text = format!("{text}-{}", allow.last);
    }
    text.push_str(suffix(allow.protocol));
    let from: Vec<String> = allow.from.iter().map(ToString::to_string).collect();
    if !from.is_empty() {
        text = format!("{text} from {}", from.join(", "));
    }
    match allow.interface.and_then(|at| spec.interfaces.get(at)) {
        Some(interface) => format!("{text} by {}", interface.label),
        None => text,
    }
}

const fn suffix(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "/udp",
    }
}

/// Published ports.
pub(super) fn port_rows(workload: &Workload) -> Vec<Row> {
    let row = |port: &config::network::Port| {
        let mut target = port.target.to_string();
        if port.count > 1 {
            target = format!("{target}-{}", port.last_target());
        }
        let local = if port.is_local() {
            ", for the machine itself alone"
        } else {
            ""
        };
        ("port", format!("{port} leads to {target}{local}"))
    };
    workload.ports.iter().map(row).collect()
}

/// Its addresses, and what it reaches.
pub(super) fn rows(spec: &Spec, workload: &Workload) -> Vec<Row> {
    let unit = workload.pod.as_ref().unwrap_or(&workload.name);
    let Some(endpoint) = spec.fabric.endpoint(unit) else {
        return Vec::new();
    };
    if workload.network != Network::Own {
        return Vec::new();
    }
    let reached = match &endpoint.reach {
        None if endpoint.leads_outside => "all on its networks, and outside".to_owned(),
        None => "all on its networks".to_owned(),
        Some(list) if list.is_empty() => "nobody".to_owned(),
        Some(list) => {
            let names: Vec<String> = list.iter().map(|reach| reached(spec, reach)).collect();
            format!("{} alone", names.join(", "))
        }
    };
    vec![
        (
            "addresses",
            format!("{} and {}", endpoint.address, endpoint.address6),
        ),
        ("reaches", reached),
    ]
}

fn reached(spec: &Spec, reach: &Reach) -> String {
    match reach {
        Reach::Outside => "outside".to_owned(),
        Reach::Endpoint {
            index,
            port,
            direct,
        } => {
            let mut text = spec.fabric.endpoints[*index].name.clone();
            if let Some((port, protocol)) = port {
                text = format!("{text}:{port}{}", suffix(*protocol));
            }
            match direct {
                true => text,
                false => format!("{text} by its published ports"),
            }
        }
        Reach::Machine {
            first,
            last,
            protocol,
        } => {
            let ports = if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            format!("the machine's port {ports}{}", suffix(*protocol))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_tell_who_reaches_whom() {
        let spec = config::parse(
            "name = \"m\"\n[network.named.back]\ninternal = true\n[firewall]\nping = false\n\
             allow = [{ ports = \"22\", from = [\"10.0.0.0/8\"] }]\n\
             [workload.db]\nimage = \"dir:x\"\nnetwork = \"back\"\n\
             [workload.web]\nimage = \"dir:x\"\nnetwork = [\"default\", \"back\"]\nports = [\"127.0.0.1:80-81:80-81\"]\n\
             reach = [\"db:5432\", \"outside\"]\n",
        )
        .unwrap();
        let shown = |rows: Vec<Row>| -> Vec<String> {
            let rows = rows.into_iter();
            rows.map(|(what, value)| format!("{what}: {value}"))
                .collect()
        };
        let machine = shown(machine_rows(&spec));
        for line in [
            "firewall: what nothing allows is dropped, answers no ping",
            "open: 22 from 10.0.0.0/8",
            "workloads on: default are web",
            "workloads on: back are db, web, internal",
        ] {
            assert!(machine.iter().any(|m| m == line), "{line} in {machine:?}");
        }
        let workload = |name| spec.workloads.iter().find(|w| w.name == name).unwrap();
        assert_eq!(
            shown(rows(&spec, workload("db")))[1],
            "reaches: all on its networks"
        );
        let web = workload("web");
        assert_eq!(
            shown(rows(&spec, web))[1],
            "reaches: db:5432, outside alone"
        );
        let ports = shown(port_rows(web));
        assert_eq!(
            ports,
            ["port: 127.0.0.1:80-81 leads to 80-81, for the machine itself alone"]
        );
    }
}
