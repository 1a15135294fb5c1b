//! From the machine's file to its ruleset.

use std::net::IpAddr;

use config::Spec;
use config::boot::{ENDPOINT_GROUP, Network, Protocol};
use config::network::{Endpoint, Prefix};

use super::ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Side, Statement, Value,
};
use super::{inbound, publish, reach};

/// The port of DNS (RFC 1035 §4.2).
pub(super) const DNS: u16 = 53;
/// A range of more ports is a rule of its own instead of so many elements of a set.
pub(super) const MOST_EXPANDED: u16 = 64;

/// The machine's ruleset; `None`: everything is let in, and nobody has a network of its own.
pub fn compile(spec: &Spec) -> Option<Ruleset> {
    let has_endpoints = !spec.fabric.endpoints.is_empty();
    let redirects = publish::redirects(spec);
    if !has_endpoints && !spec.firewall.drop && redirects.is_empty() {
        return None;
    }
    let mut ruleset = Ruleset::default();
    inbound::add(&mut ruleset, spec);
    publish::add(&mut ruleset, spec);
    if has_endpoints {
        reach::add_inside(&mut ruleset, spec);
        add_sources(&mut ruleset, &spec.fabric.endpoints);
        reach::add(&mut ruleset, spec);
        add_leaving(&mut ruleset);
        add_exits(&mut ruleset, spec);
    }
    Some(ruleset)
}

/// The kernel modules that the ruleset and the workloads' links need.
pub fn modules(spec: &Spec) -> Vec<&'static str> {
    let Some(ruleset) = compile(spec) else {
        return Vec::new();
    };
    let mut modules = vec!["nf_tables", "nft_ct"];
    let publishes = ruleset.chains.iter().any(|c| c.name == publish::CHAIN);
    let has_endpoints = !spec.fabric.endpoints.is_empty();
    // Chains that translate: published ports, and what leaves the machine or its loopback addresses.
    if publishes || has_endpoints {
        modules.extend(["nft_chain_nat", "nft_nat"]);
    }
    if publishes {
        modules.push("nft_fib_inet");
    }
    if has_endpoints {
        modules.extend(["nft_masq", "veth"]);
    }
    modules
}

/// What shows and changes the table of connections: loaded when it fills up, by workloads that are to be told apart.
pub fn spare_modules(spec: &Spec) -> Vec<&'static str> {
    if spec.fabric.endpoints.is_empty() {
        return Vec::new();
    }
    vec!["nf_conntrack_netlink"]
}

/// Packets of workloads come from their own addresses. The machine's loopback addresses are the machine's alone: links of
/// workloads route them (`route_localnet`), for published ports that are bound to one of them.
fn add_sources(ruleset: &mut Ruleset, endpoints: &[Endpoint]) {
    let mut rules = vec![rule(
        [Clause::Loopback(Side::In, false), Clause::To(loopback())],
        Statement::Drop,
    )];
    // Nobody outside is a workload, nor its router: not by IPv6 either, where the kernel would not mind.
    for family in Family::BOTH {
        rules.push(rule(
            [
                Clause::Group(Side::In, ENDPOINT_GROUP, false),
                Clause::Loopback(Side::In, false),
                reach::in_set(Field::Source(family), reach::INSIDE, family),
            ],
            Statement::Drop,
        ));
    }
    for family in Family::BOTH {
        let name = family.named("sources");
        let key = vec![Field::InterfaceName, Field::Source(family)];
        ruleset.sets.push(Set {
            name: name.clone(),
            key: key.clone(),
            data: None,
            expires: false,
            elements: endpoints
                .iter()
                .map(|e| Element {
                    key: vec![Value::Interface(e.link.clone()), address(e, family)],
                    data: None,
                })
                .collect(),
        });
        if family == Family::V6 {
            // The search for neighbours has link-local addresses.
            for kind in [135, 136] {
                rules.push(rule(
                    [from_workloads(), link_local(), icmp6(kind)],
                    Statement::Accept,
                ));
            }
        }
        rules.push(rule(
            [from_workloads(), Clause::In(key, name, false)],
            Statement::Drop,
        ));
    }
    ruleset.chains.push(Chain {
        name: "sources".to_owned(),
        hook: Some(Hook::RawPrerouting),
        drop: false,
        rules,
    });
}

/// What is for a workload goes to its link or nowhere: whatever routes there are, when there is no such link, and from the
/// machine itself, too.
fn add_leaving(ruleset: &mut Ruleset) {
    let rules = Family::BOTH.map(|family| {
        let clauses = [
            Clause::Group(Side::Out, ENDPOINT_GROUP, false),
            Clause::Loopback(Side::Out, false),
            reach::in_set(Field::Destination(family), reach::INSIDE, family),
        ];
        rule(clauses, Statement::Drop)
    });
    ruleset.chains.push(Chain {
        name: "leaving".to_owned(),
        hook: Some(Hook::Postrouting),
        drop: false,
        rules: rules.into(),
    });
}

/// What leaves the machine has the machine's address; so has what comes back to where it came from, since else its answer
/// would not pass the machine.
fn add_exits(ruleset: &mut Ruleset, spec: &Spec) {
    let fabric = &spec.fabric;
    let mut rules = Vec::new();
    for (family, pool, gateway) in [
        (Family::V4, fabric.pool, IpAddr::from(fabric.gateway)),
        (Family::V6, fabric.pool6, fabric.gateway6.into()),
    ] {
        let outside = Clause::Group(Side::Out, ENDPOINT_GROUP, false);
        rules.push(rule([Clause::From(pool), outside], Statement::Masquerade));
        if family == Family::V4 {
            rules.push(rule(
                [Clause::From(loopback()), to_workloads()],
                Statement::Source(gateway),
            ));
        }
        let published = fabric.endpoints.iter().filter(|e| !e.ports.is_empty());
        let elements: Vec<Element> = published
            .map(|e| Element {
                key: vec![address(e, family), address(e, family)],
                data: None,
            })
            .collect();
        if !elements.is_empty() {
            let key = vec![Field::Source(family), Field::Destination(family)];
            let name = family.named("itself");
            rules.push(rule(
                [Clause::In(key.clone(), name.clone(), true)],
                Statement::Source(gateway),
            ));
            ruleset.sets.push(Set {
                name,
                key,
                data: None,
                expires: false,
                elements,
            });
        }
    }
    ruleset.chains.push(Chain {
        name: "exits".to_owned(),
        hook: Some(Hook::SourcePostrouting),
        drop: false,
        rules,
    });
}

pub(super) fn rule(clauses: impl IntoIterator<Item = Clause>, statement: Statement) -> Rule {
    Rule {
        clauses: clauses.into_iter().collect(),
        statement,
    }
}

pub(super) const fn from_workloads() -> Clause {
    Clause::Group(Side::In, ENDPOINT_GROUP, true)
}

pub(super) const fn to_workloads() -> Clause {
    Clause::Group(Side::Out, ENDPOINT_GROUP, true)
}

/// 127.0.0.0/8.
pub(super) fn loopback() -> Prefix {
    Prefix::of([127, 0, 0, 0].into(), 8)
}

/// ::1, which no kernel routes.
pub(super) fn loopback6() -> Prefix {
    Prefix::of([0, 0, 0, 0, 0, 0, 0, 1].into(), 128)
}

fn link_local() -> Clause {
    Clause::From(Prefix::of([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10))
}

fn icmp6(kind: u8) -> Clause {
    Clause::Icmp(Family::V6, kind)
}

pub(super) fn exactly(address: IpAddr) -> Prefix {
    Prefix::of(address, if address.is_ipv4() { 32 } else { 128 })
}

pub(super) fn address(endpoint: &Endpoint, family: Family) -> Value {
    match family {
        Family::V4 => Value::V4(endpoint.address),
        Family::V6 => Value::V6(endpoint.address6),
    }
}

pub(super) fn address_value(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::V4(address),
        IpAddr::V6(address) => Value::V6(address),
    }
}

/// The ports that the machine itself listens on for others: what its host-network workloads listen on where that is what
/// they publish, and sockets. Address, first and last port.
pub(super) fn open_ports(spec: &Spec) -> Vec<(Option<IpAddr>, u16, u16, Protocol)> {
    let on_host = spec.workloads.iter().filter(|w| w.network == Network::Host);
    let ports = on_host.flat_map(|w| &w.ports);
    let direct = ports
        .filter(|port| port.published == port.target)
        .map(|port| (port.address, port.target, port.last_target(), port.protocol));
    let sockets = spec.sockets.iter().filter_map(|socket| {
        let (address, port, protocol) = socket.endpoint()?;
        // A socket at the unspecified IPv6 address hears IPv4, too.
        let address = Some(address).filter(|a| !(a.is_ipv6() && a.is_unspecified()));
        Some((address, port, port, protocol))
    });
    direct.chain(sockets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_translates_addresses_has_its_modules() {
        let names = |rest: &str| {
            let text = format!(
                "name = \"m\"\n[workload.a]\ndebian = [\"busybox-static\"]\ncommand = [\"busybox\"]\n{rest}"
            );
            modules(&config::parse(&text).unwrap()).join(" ")
        };
        let inside = "nf_tables nft_ct nft_chain_nat nft_nat";
        assert_eq!(
            names("network = \"own\""),
            format!("{inside} nft_masq veth")
        );
        let published = names("network = \"own\"\nports = [\"8080:80\"]");
        assert_eq!(published, format!("{inside} nft_fib_inet nft_masq veth"));
        assert_eq!(names("network = \"host\""), "nf_tables nft_ct");
    }
}
