//! The workloads' networks: who has which address, and what the machine needs for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Whose network a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Its own or its pod's: an interface with addresses that the machine routes, as one of [`BootFabric::endpoints`].
    Own,
    /// The machine's.
    Host,
    /// Its own or its pod's, with nothing but the loopback interface.
    None,
}

impl Network {
    /// Whether the workload or pod has a network namespace.
    #[must_use]
    pub const fn is_separate(self) -> bool {
        !matches!(self, Self::Host)
    }
}

/// The interface group (`IFLA_GROUP`) of the host sides of all workloads' links.
pub const ENDPOINT_GROUP: u32 = 8;

/// The firewall's table, of the family `inet`.
pub const FIREWALL_TABLE: &str = "coracle";
/// The firewall's sets, by IPv4 and IPv6, of the workloads that get no new connections for a while: the only ones in which
/// something is put while the machine runs.
pub const CROWDED_SETS: [&str; 2] = ["crowded4", "crowded6"];

/// The firewall and the workloads' links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootFabric {
    /// The machine's address that workloads know: their router and name server. It lies on `lo`.
    pub gateway: Ipv4Addr,
    /// The same by IPv6.
    pub gateway6: Ipv6Addr,
    /// The addresses of all workloads there may be, as a network and its length: they are nowhere else.
    pub pool: (Ipv4Addr, u8),
    /// The same by IPv6.
    pub pool6: (Ipv6Addr, u8),
    /// The file in the root with the firewall: netlink messages, one batch (a transaction of nftables).
    pub firewall: String,
    /// Absolute paths of the kernel modules that it needs, in load order.
    pub modules: Vec<String>,
    /// The same of those by which the table of connections is read and changed: loaded when it fills up.
    pub spare_modules: Vec<String>,
    /// The workloads and pods with a network of their own, in the order of the file; often none.
    pub endpoints: Vec<BootEndpoint>,
    /// A name server runs on the gateway addresses.
    pub resolver: bool,
}

/// A workload or pod with a network of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootEndpoint {
    /// The workload or pod.
    pub name: String,
    /// What the host side of its link is called; at most 15 bytes.
    pub link: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address by IPv6.
    pub address6: Ipv6Addr,
    /// What resolves to it: its name, and those of a pod's workloads.
    pub names: Vec<String>,
    /// The networks that it is on; whoever has one of them in common knows its names.
    pub networks: Vec<String>,
    /// It reaches what is beyond the machine; else no name server out there hears of what it asks for.
    pub outside: bool,
}
