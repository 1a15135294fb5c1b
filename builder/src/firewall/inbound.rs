//! What reaches the machine itself.

use config::Spec;
use config::boot::{BootInterface, BootLink, Ipv6, Protocol};
use config::network::Allow;

use super::compile::{DNS, MOST_EXPANDED, exactly, from_workloads, open_ports, rule};
use super::reach;
use super::ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Side, Statement, Value,
};

/// The ports that are open at all addresses.
const OPEN: &str = "open";
/// What workloads reach of the machine.
const FROM_WORKLOADS: &str = "from_workloads";

/// ICMP: destination unreachable, time exceeded, parameter problem (RFC 792).
const ERRORS: [u8; 3] = [3, 11, 12];
const ECHO_REQUEST: u8 = 8;
/// ICMPv6 (RFC 4443): destination unreachable, packet too big, time exceeded, parameter problem.
const ERRORS6: [u8; 4] = [1, 2, 3, 4];
const ECHO_REQUEST6: u8 = 128;
/// Router solicitation and advertisement, neighbour solicitation and advertisement (RFC 4861).
const NEIGHBOURS6: [u8; 4] = [133, 134, 135, 136];
/// Multicast listeners: query, report, done (RFC 2710), report of version 2 (RFC 3810).
const LISTENERS6: [u8; 4] = [130, 131, 132, 143];
/// Where DHCP answers its clients: version 4 (RFC 2131 §4.1) and version 6 (RFC 8415 §7.2).
const DHCP_CLIENT: u16 = 68;
const DHCP6_CLIENT: u16 = 546;

pub(super) fn add(ruleset: &mut Ruleset, spec: &Spec) {
    let has_endpoints = !spec.fabric.endpoints.is_empty();
    if has_endpoints {
        add_from_workloads(ruleset, spec);
    }
    let mut rules = vec![
        rule([Clause::Established], Statement::Accept),
        rule([Clause::Loopback(Side::In, true)], Statement::Accept),
    ];
    if has_endpoints {
        rules.push(rule(
            [from_workloads()],
            Statement::Goto(FROM_WORKLOADS.to_owned()),
        ));
    }
    if spec.firewall.drop {
        rules.push(rule([Clause::Invalid], Statement::Drop));
        rules.extend(control(ruleset, spec));
        rules.push(rule([Clause::Translated], Statement::Accept));
        rules.extend(open(ruleset, spec));
        rules.extend(
            spec.firewall
                .allow
                .iter()
                .flat_map(|allow| allowed(spec, allow)),
        );
    }
    ruleset.chains.push(Chain {
        name: "inbound".to_owned(),
        hook: Some(Hook::Input),
        drop: spec.firewall.drop,
        rules,
    });
}

/// What a network needs to work, and echo.
fn control(ruleset: &mut Ruleset, spec: &Spec) -> Vec<Rule> {
    let mut types = ERRORS.to_vec();
    let mut types6 = [&ERRORS6[..], &NEIGHBOURS6, &LISTENERS6].concat();
    if spec.firewall.ping {
        types.push(ECHO_REQUEST);
        types6.push(ECHO_REQUEST6);
    }
    types6.sort_unstable();
    let mut rules = Vec::new();
    for (family, types) in [(Family::V4, types), (Family::V6, types6)] {
        let key = vec![Field::IcmpType(family)];
        let name = family.named("control");
        rules.push(rule(
            [Clause::In(key.clone(), name.clone(), true)],
            Statement::Accept,
        ));
        let element = |kind| Element {
            key: vec![Value::Icmp(kind)],
            data: None,
        };
        ruleset.sets.push(Set {
            name,
            key,
            data: None,
            expires: false,
            elements: types.into_iter().map(element).collect(),
        });
    }
    rules.extend(spec.interfaces.iter().flat_map(dhcp_clients));
    rules
}

/// Where the interface's own clients are answered.
fn dhcp_clients(interface: &BootInterface) -> impl Iterator<Item = Rule> {
    let clients = [
        (interface.dhcp, Family::V4, DHCP_CLIENT),
        (interface.ipv6 == Ipv6::Auto, Family::V6, DHCP6_CLIENT),
    ];
    let is_none = interface.master.is_some();
    let by = Clause::Group(Side::In, interface.group, true);
    let running = clients
        .into_iter()
        .filter(move |client| client.0 && !is_none);
    running.map(move |(_, family, port)| {
        let client = Clause::Ports(Protocol::Udp, port, port);
        rule(
            [by.clone(), Clause::Family(family), client],
            Statement::Accept,
        )
    })
}

/// What host-network workloads and sockets listen on, and where tunnels end.
fn open(ruleset: &mut Ruleset, spec: &Spec) -> Vec<Rule> {
    let mut rules = Vec::new();
    if ruleset.sets.iter().all(|set| set.name != OPEN) {
        let elements = open_elements(spec);
        add_open_set(ruleset, elements);
    }
    if ruleset.sets.iter().any(|set| set.name == OPEN) {
        rules.push(rule([in_open()], Statement::Accept));
    }
    rules.extend(open_rules(spec));
    let tunnels = spec
        .interfaces
        .iter()
        .filter_map(|interface| match &interface.link {
            BootLink::WireGuard(tunnel) => tunnel.listen,
            _ => None,
        });
    for port in tunnels {
        rules.push(rule(
            [Clause::Ports(Protocol::Udp, port, port)],
            Statement::Accept,
        ));
    }
    rules
}

fn add_open_set(ruleset: &mut Ruleset, elements: Vec<Element>) {
    if !elements.is_empty() {
        ruleset.sets.push(Set {
            name: OPEN.to_owned(),
            key: vec![Field::Protocol, Field::Port],
            data: None,
            expires: false,
            elements,
        });
    }
}

fn in_open() -> Clause {
    Clause::In(vec![Field::Protocol, Field::Port], OPEN.to_owned(), true)
}

/// The open ports that are elements of a set: those of all addresses, in short ranges.
fn open_elements(spec: &Spec) -> Vec<Element> {
    let everywhere = open_ports(spec).into_iter().filter(|p| p.0.is_none());
    let mut elements: Vec<Element> = everywhere
        .filter(|(_, first, last, _)| last - first < MOST_EXPANDED)
        .flat_map(|(_, first, last, protocol)| {
            (first..=last).map(move |port| Element {
                key: vec![Value::Protocol(protocol), Value::Port(port)],
                data: None,
            })
        })
        .collect();
    elements.sort();
    elements.dedup();
    elements
}

/// The others, a rule each.
fn open_rules(spec: &Spec) -> Vec<Rule> {
    let is_rule = |port: &(Option<_>, u16, u16, Protocol)| {
        port.0.is_some() || port.2 - port.1 >= MOST_EXPANDED
    };
    let ports = open_ports(spec).into_iter().filter(is_rule);
    ports
        .map(|(address, first, last, protocol)| {
            let at = address.map(|address| match address.is_unspecified() {
                true => Clause::Family(Family::of(address)),
                false => Clause::To(exactly(address)),
            });
            let ports = Clause::Ports(protocol, first, last);
            rule(at.into_iter().chain([ports]), Statement::Accept)
        })
        .collect()
}

fn allowed(spec: &Spec, allow: &Allow) -> Vec<Rule> {
    let interface = allow.interface.and_then(|at| spec.interfaces.get(at));
    let by = interface.map(|i| Clause::Group(Side::In, i.group, true));
    let ports = Clause::Ports(allow.protocol, allow.first, allow.last);
    let one = |from: Option<Clause>| {
        let clauses = by.clone().into_iter().chain(from).chain([ports.clone()]);
        rule(clauses, Statement::Accept)
    };
    match allow.from[..] {
        [] => vec![one(None)],
        _ => allow
            .from
            .iter()
            .map(|from| one(Some(Clause::From(*from))))
            .collect(),
    }
}

/// Workloads reach the machine's name server, its echo, and what it publishes for others; with `reach` only what that names;
/// from internal networks alone nothing that is published.
fn add_from_workloads(ruleset: &mut Ruleset, spec: &Spec) {
    let fabric = &spec.fabric;
    let gateways = [fabric.gateway.into(), fabric.gateway6.into()];
    let mut rules: Vec<Rule> = reach::from_crowded().into();
    for gateway in gateways {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let dns = Clause::Ports(protocol, DNS, DNS);
            rules.push(rule([Clause::To(exactly(gateway)), dns], Statement::Accept));
        }
    }
    for (gateway, family, echo) in [
        (gateways[0], Family::V4, ECHO_REQUEST),
        (gateways[1], Family::V6, ECHO_REQUEST6),
    ] {
        let to = Clause::To(exactly(gateway));
        rules.push(rule([to, Clause::Icmp(family, echo)], Statement::Accept));
    }
    for kind in [135, 136] {
        rules.push(rule([Clause::Icmp(Family::V6, kind)], Statement::Accept));
    }
    rules.extend(reach::of_machine(ruleset, spec));
    rules.push(rule([], Statement::Goto(reach::PUBLIC.to_owned())));
    let mut public = vec![rule([Clause::Translated], Statement::Accept)];
    let elements = open_elements(spec);
    if !elements.is_empty() {
        add_open_set(ruleset, elements);
        public.push(rule([in_open()], Statement::Accept));
    }
    public.extend(open_rules(spec));
    public.push(rule([], Statement::Drop));
    for (name, rules) in [(reach::PUBLIC, public), (FROM_WORKLOADS, rules)] {
        ruleset.chains.push(Chain {
            name: name.to_owned(),
            hook: None,
            drop: false,
            rules,
        });
    }
}
