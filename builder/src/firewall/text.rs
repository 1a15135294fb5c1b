//! The ruleset as nft(8) reads it.

use std::fmt::{self, Display, Write as _};

use config::boot::Protocol;

use super::ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Side, Statement, Value,
};

impl Ruleset {
    /// A script for `nft -f`; it replaces the table as a whole.
    pub fn text(&self) -> String {
        let mut out =
            "table inet coracle\ndelete table inet coracle\ntable inet coracle {\n".to_owned();
        for set in &self.sets {
            write_set(&mut out, set);
        }
        for chain in &self.chains {
            write_chain(&mut out, chain);
        }
        out.push_str("}\n");
        out
    }
}

// Writing to a String cannot fail.
fn write_set(out: &mut String, set: &Set) {
    let kind = if set.data.is_some() { "map" } else { "set" };
    let key = joined(set.key.iter().map(|field| type_of(*field)));
    let data = match set.data {
        None => "",
        Some(Family::V4) => " : ipv4_addr . inet_service",
        Some(Family::V6) => " : ipv6_addr . inet_service",
    };
    let _ = writeln!(out, "    {kind} {} {{\n        type {key}{data}", set.name);
    if set.expires {
        out.push_str("        flags timeout\n");
    }
    if !set.elements.is_empty() {
        let elements: Vec<String> = set.elements.iter().map(element).collect();
        let _ = writeln!(
            out,
            "        elements = {{\n            {}\n        }}",
            elements.join(",\n            ")
        );
    }
    out.push_str("    }\n");
}

fn element(element: &Element) -> String {
    let key = joined(element.key.iter().map(Shown));
    match element.data {
        None => key,
        Some((address, port)) => format!("{key} : {address} . {port}"),
    }
}

/// A value as nft(8) writes it.
struct Shown<'a>(&'a Value);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Interface(name) => write!(f, "\"{name}\""),
            Value::V4(address) => address.fmt(f),
            Value::V6(address) => address.fmt(f),
            Value::Protocol(protocol) => f.write_str(protocol_name(*protocol)),
            Value::Port(port) => port.fmt(f),
            Value::Icmp(number) => number.fmt(f),
        }
    }
}

fn write_chain(out: &mut String, chain: &Chain) {
    let _ = writeln!(out, "    chain {} {{", chain.name);
    if let Some(hook) = chain.hook {
        let policy = if chain.drop { "drop" } else { "accept" };
        let _ = writeln!(out, "        {}; policy {policy};", hook_text(hook));
    }
    for rule in &chain.rules {
        let _ = writeln!(out, "        {}", rule_text(rule));
    }
    out.push_str("    }\n");
}

const fn hook_text(hook: Hook) -> &'static str {
    match hook {
        Hook::RawPrerouting => "type filter hook prerouting priority raw",
        Hook::Input => "type filter hook input priority filter",
        Hook::Forward => "type filter hook forward priority filter",
        Hook::Postrouting => "type filter hook postrouting priority filter",
        Hook::DestinationPrerouting => "type nat hook prerouting priority dstnat",
        // nft has no name for this priority at this hook in all versions.
        Hook::DestinationOutput => "type nat hook output priority -100",
        Hook::SourcePostrouting => "type nat hook postrouting priority srcnat",
    }
}

fn rule_text(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.clauses.iter().map(clause).collect();
    words.push(statement(&rule.statement));
    words.join(" ")
}

fn clause(clause: &Clause) -> String {
    let not = |is: bool| if is { "" } else { "!= " };
    match clause {
        Clause::Group(Side::In, group, is) => format!("iifgroup {}{group}", not(*is)),
        Clause::Group(Side::Out, group, is) => format!("oifgroup {}{group}", not(*is)),
        Clause::Loopback(Side::In, is) => format!("iif {}\"lo\"", not(*is)),
        Clause::Loopback(Side::Out, is) => format!("oif {}\"lo\"", not(*is)),
        Clause::Established => "ct state established,related".to_owned(),
        Clause::Invalid => "ct state invalid".to_owned(),
        Clause::Translated => "ct status dnat".to_owned(),
        Clause::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Clause::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Clause::From(prefix) => format!("{} saddr {prefix}", ip(Family::of(prefix.address))),
        Clause::To(prefix) => format!("{} daddr {prefix}", ip(Family::of(prefix.address))),
        Clause::ToMachine => "fib daddr type local".to_owned(),
        Clause::Ports(protocol, first, last) => {
            let name = protocol_name(*protocol);
            match first == last {
                true => format!("{name} dport {first}"),
                false => format!("{name} dport {first}-{last}"),
            }
        }
        Clause::Icmp(family, kind) => format!("{} {kind}", part(Field::IcmpType(*family))),
        Clause::In(fields, set, is) => {
            format!(
                "{} {}@{set}",
                joined(fields.iter().map(|f| part(*f))),
                not(*is)
            )
        }
    }
}

fn statement(statement: &Statement) -> String {
    match statement {
        Statement::Accept => "accept".to_owned(),
        Statement::Drop => "drop".to_owned(),
        Statement::Jump(chain) => format!("jump {chain}"),
        Statement::Goto(chain) => format!("goto {chain}"),
        Statement::TranslateByMap(family, fields, map) => {
            let key = joined(fields.iter().map(|f| part(*f)));
            format!("dnat {} to {key} map @{map}", ip(*family))
        }
        Statement::TranslateTo(address) => {
            format!("dnat {} to {address}", ip(Family::of(*address)))
        }
        Statement::TranslatePort(port) => format!("dnat to :{port}"),
        Statement::Source(address) => format!("snat {} to {address}", ip(Family::of(*address))),
        Statement::Masquerade => "masquerade".to_owned(),
    }
}

const fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

const fn part(field: Field) -> &'static str {
    match field {
        Field::InterfaceName => "iifname",
        Field::Source(Family::V4) => "ip saddr",
        Field::Source(Family::V6) => "ip6 saddr",
        Field::Destination(Family::V4) => "ip daddr",
        Field::Destination(Family::V6) => "ip6 daddr",
        Field::Protocol => "meta l4proto",
        Field::Port => "th dport",
        Field::IcmpType(Family::V4) => "icmp type",
        Field::IcmpType(Family::V6) => "icmpv6 type",
    }
}

const fn type_of(field: Field) -> &'static str {
    match field {
        Field::InterfaceName => "ifname",
        Field::Source(Family::V4) | Field::Destination(Family::V4) => "ipv4_addr",
        Field::Source(Family::V6) | Field::Destination(Family::V6) => "ipv6_addr",
        Field::Protocol => "inet_proto",
        Field::Port => "inet_service",
        Field::IcmpType(Family::V4) => "icmp_type",
        Field::IcmpType(Family::V6) => "icmpv6_type",
    }
}

fn joined(parts: impl Iterator<Item = impl Display>) -> String {
    parts
        .map(|part| part.to_string())
        .collect::<Vec<_>>()
        .join(" . ")
}
