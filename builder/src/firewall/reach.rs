//! Who reaches whom through the machine.

use config::Spec;
use config::boot::{CROWDED_SETS, ENDPOINT_GROUP, Protocol};
use config::network::{Endpoint, Reach};

use super::compile::{MOST_EXPANDED, address, from_workloads, rule, to_workloads};
use super::ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Side, Statement, Value,
};

/// All endpoints, and their router.
pub(super) const INSIDE: &str = "inside";
/// The endpoints with `reach`.
const NARROWED: &str = "narrowed";
/// What of the machine is open to workloads, at the addresses where it is.
pub(super) const PUBLIC: &str = "public";
/// The endpoints that are on internal networks alone.
const INTERNAL: &str = "internal";

pub(super) fn add(ruleset: &mut Ruleset, spec: &Spec) {
    let fabric = &spec.fabric;
    let mut rules = vec![
        rule([Clause::Established], Statement::Accept),
        rule([Clause::Invalid], Statement::Drop),
    ];
    add_crowded(ruleset);
    rules.extend(from_crowded());
    rules.extend(crowded(to_workloads(), Field::Destination));
    let mut from_outside = vec![rule(
        [Clause::Translated, to_workloads()],
        Statement::Accept,
    )];
    if has_narrowed(spec) {
        for family in Family::BOTH {
            let chain = family.named(NARROWED);
            let narrowed = [
                from_workloads(),
                in_set(Field::Source(family), NARROWED, family),
            ];
            rules.push(rule(narrowed, Statement::Goto(chain.clone())));
            let chain_rules = narrowed_rules(ruleset, spec, family);
            ruleset.chains.push(Chain {
                name: chain,
                hook: None,
                drop: false,
                rules: chain_rules,
            });
        }
    }
    let between = "between".to_owned();
    let is_between = [from_workloads(), to_workloads()];
    rules.push(rule(is_between, Statement::Goto(between.clone())));
    let mut between_rules = network_rules(ruleset, spec);
    if fabric.endpoints.iter().any(|e| !e.leads_outside) {
        for family in Family::BOTH {
            let internal = || in_set(Field::Source(family), INTERNAL, family);
            if ruleset
                .sets
                .iter()
                .all(|set| set.name != family.named(INTERNAL))
            {
                add_endpoint_set(ruleset, INTERNAL, family, spec, |e| !e.leads_outside);
            }
            between_rules.push(rule([internal()], Statement::Drop));
            rules.push(rule([from_workloads(), internal()], Statement::Drop));
        }
    }
    between_rules.push(rule([Clause::Translated], Statement::Accept));
    between_rules.push(rule([], Statement::Drop));
    ruleset.chains.push(Chain {
        name: between,
        hook: None,
        drop: false,
        rules: between_rules,
    });
    rules.push(rule([from_workloads()], Statement::Accept));
    rules.append(&mut from_outside);
    ruleset.chains.push(Chain {
        name: "forwarded".to_owned(),
        hook: Some(Hook::Forward),
        drop: true,
        rules,
    });
}

/// Nothing new comes from a workload that holds too much of the table of connections.
pub(super) fn from_crowded() -> [Rule; 2] {
    crowded(from_workloads(), Field::Source)
}

fn crowded(by: Clause, end: fn(Family) -> Field) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let set = crowded_set(family).to_owned();
        let is_crowded = Clause::In(vec![end(family)], set, true);
        rule([by.clone(), is_crowded], Statement::Drop)
    })
}

/// init puts them there.
fn add_crowded(ruleset: &mut Ruleset) {
    ruleset.sets.extend(Family::BOTH.map(|family| Set {
        name: crowded_set(family).to_owned(),
        key: vec![Field::Source(family)],
        data: None,
        expires: true,
        elements: Vec::new(),
    }));
}

const fn crowded_set(family: Family) -> &'static str {
    match family {
        Family::V4 => CROWDED_SETS[0],
        Family::V6 => CROWDED_SETS[1],
    }
}

/// The set of [`INSIDE`].
pub(super) fn add_inside(ruleset: &mut Ruleset, spec: &Spec) {
    let fabric = &spec.fabric;
    let gateways = [Value::V4(fabric.gateway), Value::V6(fabric.gateway6)];
    for (family, gateway) in Family::BOTH.into_iter().zip(gateways) {
        add_endpoint_set(ruleset, INSIDE, family, spec, |_| true);
        let set = ruleset.sets.last_mut().expect("it has just been added");
        set.elements.push(element([gateway]));
        set.elements.sort();
    }
}

/// What of the machine the narrowed ones and those of internal networks do not reach.
pub(super) fn of_machine(ruleset: &mut Ruleset, spec: &Spec) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        if has_narrowed(spec) {
            add_endpoint_set(ruleset, NARROWED, family, spec, |e| e.reach.is_some());
            let name = family.named("machine");
            let (elements, long) = machine_elements(spec, family);
            if !elements.is_empty() {
                let key = vec![Field::Source(family), Field::Protocol, Field::Port];
                rules.push(rule(
                    [Clause::In(key.clone(), name.clone(), true)],
                    Statement::Goto(PUBLIC.to_owned()),
                ));
                ruleset.sets.push(Set {
                    name,
                    key,
                    data: None,
                    expires: false,
                    elements,
                });
            }
            rules.extend(long);
            let narrowed = in_set(Field::Source(family), NARROWED, family);
            rules.push(rule([narrowed], Statement::Drop));
        }
        if spec.fabric.endpoints.iter().any(|e| !e.leads_outside) {
            add_endpoint_set(ruleset, INTERNAL, family, spec, |e| !e.leads_outside);
            let internal = in_set(Field::Source(family), INTERNAL, family);
            rules.push(rule([internal], Statement::Drop));
        }
    }
    rules
}

fn has_narrowed(spec: &Spec) -> bool {
    spec.fabric.endpoints.iter().any(|e| e.reach.is_some())
}

pub(super) fn in_set(field: Field, name: &str, family: Family) -> Clause {
    Clause::In(vec![field], family.named(name), true)
}

fn add_endpoint_set(
    ruleset: &mut Ruleset,
    name: &str,
    family: Family,
    spec: &Spec,
    is_in: impl Fn(&Endpoint) -> bool,
) {
    let mut elements: Vec<Element> = spec
        .fabric
        .endpoints
        .iter()
        .filter(|e| is_in(e))
        .map(|e| element([address(e, family)]))
        .collect();
    elements.sort();
    ruleset.sets.push(Set {
        name: family.named(name),
        key: vec![Field::Source(family)],
        data: None,
        expires: false,
        elements,
    });
}

fn element(key: impl IntoIterator<Item = Value>) -> Element {
    Element {
        key: key.into_iter().collect(),
        data: None,
    }
}

/// Who is on a network reaches who is on it.
fn network_rules(ruleset: &mut Ruleset, spec: &Spec) -> Vec<Rule> {
    let mut rules = Vec::new();
    for network in &spec.fabric.networks {
        let is_on = |e: &Endpoint| e.networks.contains(&network.name);
        // Who is alone on a network reaches nobody there.
        if spec.fabric.endpoints.iter().filter(|e| is_on(e)).count() < 2 {
            continue;
        }
        for family in Family::BOTH {
            let name = format!("on_{}_", network.name);
            add_endpoint_set(ruleset, &name, family, spec, is_on);
            let both = [Field::Source(family), Field::Destination(family)];
            let both = both.map(|field| in_set(field, &name, family));
            rules.push(rule(both, Statement::Accept));
        }
    }
    rules
}

/// The chain of the narrowed ones.
fn narrowed_rules(ruleset: &mut Ruleset, spec: &Spec, family: Family) -> Vec<Rule> {
    let source = Field::Source(family);
    let pair = vec![source, Field::Destination(family)];
    let with_port = [&pair[..], &[Field::Protocol, Field::Port]].concat();
    let mut rules = Vec::new();
    let outside: Vec<Element> = reaches(spec)
        .filter(|(_, reach)| matches!(reach, Reach::Outside))
        .map(|(from, _)| element([address(from, family)]))
        .collect();
    let not_within = Clause::Group(Side::Out, ENDPOINT_GROUP, false);
    let direct = |only_port, is_direct| elements_between(spec, family, only_port, is_direct);
    for (name, key, before, elements) in [
        ("reach_outside", vec![source], Some(not_within), outside),
        ("reach", pair.clone(), None, direct(false, true)),
        ("reach_ports", with_port.clone(), None, direct(true, true)),
        (
            "reach_published",
            pair,
            Some(Clause::Translated),
            direct(false, false),
        ),
        (
            "reach_published_ports",
            with_port,
            Some(Clause::Translated),
            direct(true, false),
        ),
    ] {
        if elements.is_empty() {
            continue;
        }
        let name = format!("{name}_{}", family.named("ip"));
        let mut elements = elements;
        elements.sort();
        elements.dedup();
        let is_in = Clause::In(key.clone(), name.clone(), true);
        let within = before.unwrap_or_else(to_workloads);
        rules.push(rule([within, is_in], Statement::Accept));
        ruleset.sets.push(Set {
            name,
            key,
            data: None,
            expires: false,
            elements,
        });
    }
    rules.push(rule([], Statement::Drop));
    rules
}

fn reaches(spec: &Spec) -> impl Iterator<Item = (&Endpoint, &Reach)> {
    let endpoints = spec.fabric.endpoints.iter();
    endpoints.flat_map(|from| from.reach.iter().flatten().map(move |reach| (from, reach)))
}

fn elements_between(
    spec: &Spec,
    family: Family,
    with_port: bool,
    wanted_direct: bool,
) -> Vec<Element> {
    let element_of = |(from, reach): (&Endpoint, &Reach)| {
        let &Reach::Endpoint {
            index,
            port,
            direct,
        } = reach
        else {
            return None;
        };
        let to = &spec.fabric.endpoints[index];
        let port = port.map(|(port, protocol)| [Value::Protocol(protocol), Value::Port(port)]);
        let is_wanted = direct == wanted_direct && port.is_some() == with_port;
        let pair = [address(from, family), address(to, family)];
        is_wanted.then(|| element(pair.into_iter().chain(port.into_iter().flatten())))
    };
    reaches(spec).filter_map(element_of).collect()
}

/// What narrowed ones reach of the machine: elements, and rules for long ranges.
fn machine_elements(spec: &Spec, family: Family) -> (Vec<Element>, Vec<Rule>) {
    let (mut elements, mut rules) = (Vec::new(), Vec::new());
    for (from, reach) in reaches(spec) {
        let &Reach::Machine {
            first,
            last,
            protocol,
        } = reach
        else {
            continue;
        };
        if last - first < MOST_EXPANDED {
            elements.extend((first..=last).map(|port| {
                let protocol: Protocol = protocol;
                element([
                    address(from, family),
                    Value::Protocol(protocol),
                    Value::Port(port),
                ])
            }));
        } else {
            let from = match family {
                Family::V4 => from.address.into(),
                Family::V6 => from.address6.into(),
            };
            let from = Clause::From(super::compile::exactly(from));
            let ports = Clause::Ports(protocol, first, last);
            rules.push(rule([from, ports], Statement::Goto(PUBLIC.to_owned())));
        }
    }
    elements.sort();
    elements.dedup();
    (elements, rules)
}
