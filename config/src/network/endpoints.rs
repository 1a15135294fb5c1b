//! Which workloads and pods have a network of their own, with their names and published ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Endpoint, Fabric, Port, port};
use crate::boot::Network;
use crate::diagnostic::Diagnostic;
use crate::manifest::{Manifest, Text};
use crate::mistakes::Mistakes;
use crate::pod::Pod;
use crate::value::wrong;
use crate::workload::Workload;

/// Ports that lead to others are an entry each of the firewall.
const MOST_SHIFTED: u16 = 1024;

/// The endpoints without their addresses, in the order of the file; a name that two of them have is a mistake.
pub(super) fn endpoints(
    manifest: &Manifest,
    workloads: &[Workload],
    pods: &[Pod],
    mistakes: &mut Mistakes,
) -> Vec<Endpoint> {
    let lone = workloads
        .iter()
        .filter(|w| w.pod.is_none() && w.network == Network::Own)
        .map(|workload| Endpoint {
            ports: workload.ports.clone(),
            ..plain(&workload.name, false, &workload.networks)
        });
    let pods = pods
        .iter()
        .filter(|pod| pod.network == Network::Own)
        .map(|pod| {
            let members = || {
                let is_member = |w: &&Workload| w.pod.as_ref() == Some(&pod.name);
                workloads.iter().filter(is_member)
            };
            let mut endpoint = plain(&pod.name, true, &pod.networks);
            let names = members().map(|w| w.name.clone());
            endpoint
                .names
                .extend(names.filter(|name| *name != pod.name));
            endpoint.ports = members().flat_map(|w| w.ports.clone()).collect();
            endpoint
        });
    let mut endpoints: Vec<Endpoint> = lone.chain(pods).collect();
    let place = |endpoint: &Endpoint| {
        let name = endpoint.name.as_str();
        match endpoint.is_pod {
            true => manifest
                .pod
                .get_key_value(name)
                .map(|(name, _)| name.span()),
            false => manifest
                .workload
                .get_key_value(name)
                .map(|(name, _)| name.span()),
        }
    };
    endpoints.sort_by_key(|endpoint| (endpoint.is_pod, place(endpoint).map(|span| span.start)));
    check_names(&endpoints, manifest, mistakes);
    check_ports(manifest, workloads, mistakes);
    endpoints
}

/// What the addresses that ports are published at, and the networks of who publishes them, do not go with.
pub(super) fn check_published(
    fabric: &Fabric,
    workloads: &[Workload],
    manifest: &Manifest,
    mistakes: &mut Mistakes,
) {
    let gateways = [IpAddr::V4(fabric.gateway), IpAddr::V6(fabric.gateway6)];
    for workload in workloads {
        let unit = workload.pod.as_ref().unwrap_or(&workload.name);
        let is_own = workload.network == Network::Own;
        let endpoint = fabric.endpoint(unit).filter(|_| is_own);
        let is_shut_in = endpoint.is_some_and(|endpoint| !endpoint.leads_outside);
        for (text, port) in published(workload, manifest) {
            let is_in_pool = |at: &IpAddr| fabric.pool.contains(*at) || fabric.pool6.contains(*at);
            let at = port.address.filter(is_in_pool);
            if at.is_some_and(|at| !gateways.contains(&at)) && !fabric.endpoints.is_empty() {
                let what = "is published at an address of workloads, which the machine has not";
                let hint = "write an address that the machine has, or none for all of them";
                mistakes.push(wrong(text, what, hint));
            }
            if is_shut_in && !port.is_local() {
                mistakes.push(wrong(
                    text,
                    format!("lets the outside in to `{unit}`, which is on internal networks alone"),
                    "publish it for the machine itself, as in \"127.0.0.1:8080:80\", or put it on another network, too",
                ));
            }
        }
    }
}

/// The ports of a workload, as written and as read.
fn published<'a>(
    workload: &Workload,
    manifest: &'a Manifest,
) -> impl Iterator<Item = (&'a Text, Port)> {
    let table = manifest.workload.get(workload.name.as_str());
    let texts = table.map_or(&[][..], |table| &table.ports);
    texts
        .iter()
        .filter_map(|text| Some((text, port(text).ok()?)))
}

/// What cannot lead into another network.
fn check_ports(manifest: &Manifest, workloads: &[Workload], mistakes: &mut Mistakes) {
    for workload in workloads.iter().filter(|w| w.network == Network::Own) {
        for (text, port) in published(workload, manifest) {
            if port.is_local() && port.address.is_some_and(|address| address.is_ipv6()) {
                mistakes.push(wrong(
                    text,
                    "leads nowhere: no kernel routes IPv6's loopback address",
                    "write 127.0.0.1 in its place, for one",
                ));
            }
            if port.count > MOST_SHIFTED && port.published != port.target {
                mistakes.push(wrong(
                    text,
                    format!("leads {} ports to others", port.count),
                    format!("at most {MOST_SHIFTED} at once, or to the same ports"),
                ));
            }
        }
    }
}

fn plain(name: &str, is_pod: bool, networks: &[String]) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        is_pod,
        link: String::new(),
        address: Ipv4Addr::UNSPECIFIED,
        address6: Ipv6Addr::UNSPECIFIED,
        names: vec![name.to_owned()],
        networks: networks.to_vec(),
        leads_outside: false,
        reach: None,
        ports: Vec::new(),
    }
}

/// A name leads to one address.
fn check_names(endpoints: &[Endpoint], manifest: &Manifest, mistakes: &mut Mistakes) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for endpoint in endpoints {
        for name in &endpoint.names {
            let Some(other) = owners.insert(name, &endpoint.name) else {
                continue;
            };
            // Workloads differ from each other: one of the two is a pod.
            let pod = if endpoint.is_pod {
                &endpoint.name
            } else {
                other
            };
            let span = manifest.pod.get_key_value(pod).map(|(name, _)| name.span());
            mistakes.push(Diagnostic {
                span,
                message: format!("`{name}` is a workload outside of pod `{pod}`, too"),
                hint: Some(
                    "a name leads to one address: choose another one for the pod".to_owned(),
                ),
            });
        }
    }
}
