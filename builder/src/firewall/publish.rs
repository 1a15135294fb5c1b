//! Published ports: whose destination becomes a workload's address, or another port of the machine.

use std::net::IpAddr;

use config::Spec;
use config::boot::{Network, Protocol};
use config::network::{Endpoint, Port};

use super::compile::{DNS, MOST_EXPANDED, address_value, exactly, from_workloads, loopback6, rule};
use super::ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Statement, Value,
};

/// The chain of both hooks.
pub(super) const CHAIN: &str = "published";

/// Ports of the machine that lead to others of it: host-network workloads that listen elsewhere.
pub(super) fn redirects(spec: &Spec) -> Vec<&Port> {
    let on_host = spec.workloads.iter().filter(|w| w.network == Network::Host);
    let ports = on_host.flat_map(|w| &w.ports);
    ports.filter(|port| port.published != port.target).collect()
}

pub(super) fn add(ruleset: &mut Ruleset, spec: &Spec) {
    let mut rules = Vec::new();
    // What is bound to one address goes before what is bound to all.
    let mut general = Vec::new();
    let endpoints = &spec.fabric.endpoints;
    for family in Family::BOTH {
        let (bound, unbound) = elements(endpoints, family);
        for (name, elements, with_address, rules) in [
            ("bound", bound, true, &mut rules),
            ("ports", unbound, false, &mut general),
        ] {
            if elements.is_empty() {
                continue;
            }
            let name = family.named(name);
            let address = with_address.then_some(Field::Destination(family));
            let key: Vec<Field> = address
                .into_iter()
                .chain([Field::Protocol, Field::Port])
                .collect();
            rules.push(rule(
                [Clause::Family(family)],
                Statement::TranslateByMap(family, key.clone(), name.clone()),
            ));
            ruleset.sets.push(Set {
                name,
                key,
                data: Some(family),
                expires: false,
                elements,
            });
        }
    }
    for port in redirects(spec) {
        let place = if is_bound(port.address) {
            &mut rules
        } else {
            &mut general
        };
        place.extend(redirect_rules(port));
    }
    for endpoint in endpoints {
        for port in endpoint.ports.iter().filter(|port| is_rule(port)) {
            let place = if is_bound(port.address) {
                &mut rules
            } else {
                &mut general
            };
            place.extend(range_rules(endpoint, port));
        }
    }
    rules.append(&mut general);
    if rules.is_empty() {
        return;
    }
    ruleset.chains.push(Chain {
        name: CHAIN.to_owned(),
        hook: None,
        drop: false,
        rules,
    });
    let to_chain = rule([Clause::ToMachine], Statement::Jump(CHAIN.to_owned()));
    let mut incoming = resolver_exceptions(spec);
    incoming.push(to_chain.clone());
    // What is sent to ::1 stays there: the kernel routes nothing of it, and a refusal is better than silence.
    let stays = rule([Clause::To(loopback6())], Statement::Accept);
    for (name, hook, rules) in [
        ("incoming", Hook::DestinationPrerouting, incoming),
        ("outgoing", Hook::DestinationOutput, vec![stays, to_chain]),
    ] {
        ruleset.chains.push(Chain {
            name: name.to_owned(),
            hook: Some(hook),
            drop: false,
            rules,
        });
    }
}

/// The machine's name server is asked at the gateway's addresses, even if a workload publishes that port.
fn resolver_exceptions(spec: &Spec) -> Vec<Rule> {
    let fabric = &spec.fabric;
    let publishes_dns = fabric
        .endpoints
        .iter()
        .flat_map(|e| &e.ports)
        .any(|port| (port.published..=port.last_published()).contains(&DNS));
    if !publishes_dns {
        return Vec::new();
    }
    let gateways = [fabric.gateway.into(), fabric.gateway6.into()];
    let rules = gateways.into_iter().flat_map(|gateway: IpAddr| {
        [Protocol::Udp, Protocol::Tcp].map(|protocol| {
            let dns = Clause::Ports(protocol, DNS, DNS);
            let to = Clause::To(exactly(gateway));
            rule([from_workloads(), to, dns], Statement::Accept)
        })
    });
    rules.collect()
}

/// It has one address, or all of a family.
fn is_bound(address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| !address.is_unspecified())
}

/// A range too long for elements that keeps its ports.
fn is_rule(port: &Port) -> bool {
    port.count > MOST_EXPANDED && port.published == port.target
}

/// The elements of one family: with an address, and without.
fn elements(endpoints: &[Endpoint], family: Family) -> (Vec<Element>, Vec<Element>) {
    let (mut bound, mut unbound) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        let target: IpAddr = match family {
            Family::V4 => endpoint.address.into(),
            Family::V6 => endpoint.address6.into(),
        };
        for port in endpoint.ports.iter().filter(|port| !is_rule(port)) {
            if port
                .address
                .is_some_and(|address| Family::of(address) != family)
            {
                continue;
            }
            let address = port.address.filter(|address| !address.is_unspecified());
            let list = if address.is_some() {
                &mut bound
            } else {
                &mut unbound
            };
            list.extend((0..port.count).map(|step| {
                Element {
                    key: address
                        .map(address_value)
                        .into_iter()
                        .chain([
                            Value::Protocol(port.protocol),
                            Value::Port(port.published + step),
                        ])
                        .collect(),
                    data: Some((target, port.target + step)),
                }
            }));
        }
    }
    bound.sort();
    unbound.sort();
    (bound, unbound)
}

/// The families that a port is published in.
fn families(port: &Port) -> Vec<Family> {
    match port.address {
        Some(address) => vec![Family::of(address)],
        None => Family::BOTH.to_vec(),
    }
}

fn at(port: &Port, family: Family) -> Clause {
    match port.address.filter(|address| !address.is_unspecified()) {
        Some(address) => Clause::To(exactly(address)),
        None => Clause::Family(family),
    }
}

fn range_rules(endpoint: &Endpoint, port: &Port) -> Vec<Rule> {
    let rule_of = |family| {
        let target = match family {
            Family::V4 => endpoint.address.into(),
            Family::V6 => endpoint.address6.into(),
        };
        let ports = Clause::Ports(port.protocol, port.published, port.last_published());
        rule([at(port, family), ports], Statement::TranslateTo(target))
    };
    families(port).into_iter().map(rule_of).collect()
}

fn redirect_rules(port: &Port) -> Vec<Rule> {
    let to = port.address.map(|address| match address.is_unspecified() {
        true => Clause::Family(Family::of(address)),
        false => Clause::To(exactly(address)),
    });
    let rule_of = |step| {
        let published = port.published + step;
        let ports = Clause::Ports(port.protocol, published, published);
        rule(
            to.clone().into_iter().chain([ports]),
            Statement::TranslatePort(port.target + step),
        )
    };
    (0..port.count).map(rule_of).collect()
}
