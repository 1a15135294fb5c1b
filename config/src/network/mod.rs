//! The workloads' networks: pool and addresses, who is on which network, who reaches whom, the machine's own ports.
//!
//! A workload (or pod) with a network of its own is an [`Endpoint`]: it has an address out of the machine's pool, which
//! follows from its name. A named network is no interface but a set of endpoints that reach each other. What is decided
//! here the builder's firewall enforces.

mod allocation;
mod claims;
mod endpoints;
mod firewall;
mod membership;
mod port;
mod prefix;
mod reach;
mod settings;

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) use claims::check_claims;
pub use firewall::{Allow, Firewall};
pub(crate) use membership::Membership;
pub use port::Port;
pub(crate) use port::{port, port_number};
pub use prefix::{Prefix, prefix};
pub use settings::Settings;

use crate::boot::Protocol;
use crate::diagnostic::Diagnostic;
use crate::manifest::{Manifest, Text};
use crate::mistakes::Mistakes;
use crate::pod::Pod;
use crate::workload::Workload;

/// The network of whoever names none.
pub const DEFAULT_NETWORK: &str = "default";

/// Names with a meaning of their own, so that no workload, pod or network has them.
const RESERVED: [&str; 6] = ["outside", "network", "host", "own", "none", DEFAULT_NETWORK];

/// The workloads' networks, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// The endpoints' addresses.
    pub pool: Prefix,
    /// The same by IPv6.
    pub pool6: Prefix,
    /// The machine's address in the pool.
    pub gateway: Ipv4Addr,
    /// The same by IPv6.
    pub gateway6: Ipv6Addr,
    /// The networks that somebody is on: the default one first, then in the order of the file.
    pub networks: Vec<NamedNetwork>,
    /// Workloads and pods with a network of their own, in the order of the file: workloads first.
    pub endpoints: Vec<Endpoint>,
}

/// A network that workloads are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedNetwork {
    /// Its name, a DNS label.
    pub name: String,
    /// It leads nowhere else.
    pub internal: bool,
}

/// A workload or pod with a network of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// It is a pod.
    pub is_pod: bool,
    /// The host side of its link, at most 15 bytes.
    pub link: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address by IPv6.
    pub address6: Ipv6Addr,
    /// What resolves to it.
    pub names: Vec<String>,
    /// The networks that it is on, at least one.
    pub networks: Vec<String>,
    /// Networks that lead outside are among them.
    pub leads_outside: bool,
    /// What alone it reaches; `None`: all on its networks, and the outside if they lead there.
    pub reach: Option<Vec<Reach>>,
    /// The machine's ports that lead to it.
    pub ports: Vec<Port>,
}

/// Something that an endpoint reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// All that the machine reaches beyond itself.
    Outside,
    /// Another endpoint, directly if they have a network in common, else by its published ports.
    Endpoint {
        /// Its place in [`Fabric::endpoints`].
        index: usize,
        /// Only this port of it.
        port: Option<(u16, Protocol)>,
        /// They have a network in common.
        direct: bool,
    },
    /// A port of the machine that a workload listens on by itself or by a socket.
    Machine {
        /// The first port, as the machine sees it behind any redirection.
        first: u16,
        /// The last port.
        last: u16,
        /// Transport.
        protocol: Protocol,
    },
}

impl Endpoint {
    /// Whether it reaches what is beyond the machine.
    #[must_use]
    pub fn reaches_outside(&self) -> bool {
        let may = |reach: &Vec<Reach>| reach.contains(&Reach::Outside);
        self.leads_outside && self.reach.as_ref().is_none_or(may)
    }
}

impl Fabric {
    pub(crate) fn new(
        manifest: &Manifest,
        workloads: &[Workload],
        pods: &[Pod],
        mistakes: &mut Mistakes,
    ) -> Self {
        let pool = allocation::Pool::new(manifest, mistakes);
        let networks = membership::networks(manifest, workloads, pods, mistakes);
        let mut endpoints = endpoints::endpoints(manifest, workloads, pods, mistakes);
        allocation::assign(&pool, &mut endpoints, manifest, mistakes);
        for endpoint in &mut endpoints {
            let leads = |network: &NamedNetwork| {
                !network.internal && endpoint.networks.contains(&network.name)
            };
            endpoint.leads_outside = networks.iter().any(leads);
        }
        reach::resolve(&mut endpoints, manifest, workloads, pods, mistakes);
        let fabric = Self {
            gateway: pool.gateway(),
            gateway6: pool.gateway6(),
            pool: pool.v4,
            pool6: pool.v6,
            networks,
            endpoints,
        };
        endpoints::check_published(&fabric, workloads, manifest, mistakes);
        fabric
    }

    /// The endpoint of that name.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.name == name)
    }
}

/// A name that means something else cannot be a workload's, a pod's or a network's.
pub(crate) fn refuse_reserved(name: &Text, what: &str, mistakes: &mut Mistakes) {
    let reserved = name.get_ref().as_str();
    if RESERVED.contains(&reserved) {
        let hint = match reserved {
            "network" => {
                "choose another one: after = [\"network\"] waits for the machine's network"
            }
            "outside" => "choose another one: reach = [\"outside\"] is all beyond the machine",
            _ => "choose another one: as a value of `network` it has a meaning of its own",
        };
        mistakes.push(
            Diagnostic::at(
                name.span(),
                format!("`{reserved}`: no {what} can have this name"),
            )
            .hint(hint),
        );
    }
}
