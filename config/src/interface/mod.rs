//! `[network.interface.LABEL]`: which links the machine has, and what is on them.
//!
//! What the file says of an interface is what init does with it, so there is no other type between than
//! [`BootInterface`].

mod made;
mod rules;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;

use toml::Spanned;

use crate::boot::{BootAddress, BootInterface, BootLink, BootRoute, FIRST_GROUP, Ipv6};
use crate::diagnostic::suggest;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed, wrong};

/// The metric of the first interface's routes; the next interface has the next number.
const FIRST_METRIC: u32 = 100;

/// The interfaces in the order of the file; without any, one that finds its link and its addresses itself.
pub(crate) fn interfaces(
    table: &BTreeMap<Text, manifest::Interface>,
    mistakes: &mut Mistakes,
) -> Vec<BootInterface> {
    if table.is_empty() {
        return vec![BootInterface::automatic("uplink")];
    }
    let mut listed: Vec<_> = table.iter().collect();
    listed.sort_by_key(|(label, _)| label.span().start);
    let mut interfaces: Vec<BootInterface> = listed
        .iter()
        .zip(0..)
        .filter_map(|((label, from), place)| interface(label, from, place, mistakes))
        .collect();
    rules::check(&listed, &mut interfaces, mistakes);
    interfaces
}

fn interface(
    label: &Text,
    from: &manifest::Interface,
    place: u32,
    mistakes: &mut Mistakes,
) -> Option<BootInterface> {
    let name = mistakes.take(value::dns_label(label, "label"))?;
    let link = made::link(label, from, mistakes)?;
    let is_tunnel = matches!(link, BootLink::WireGuard(_));
    let otherwise = if is_tunnel { Ipv6::Static } else { Ipv6::Auto };
    let ipv6 = mistakes.take_some(from.ipv6.as_ref(), ipv6);
    if is_tunnel {
        check_tunnel(from, ipv6, mistakes);
    }
    let ipv6 = ipv6.unwrap_or(otherwise);
    let metric = from
        .metric
        .as_ref()
        .and_then(|metric| mistakes.take(self::metric(metric)));
    let interface = BootInterface {
        label: name,
        group: FIRST_GROUP + place,
        link,
        master: None,
        dhcp: from.dhcp.as_ref().is_some_and(|dhcp| *dhcp.get_ref()),
        ipv6,
        addresses: mistakes.take_all(&from.addresses, values::own_address),
        gateways: mistakes.take_all(&from.gateways, values::host),
        routes: from
            .routes
            .iter()
            .filter_map(|from| route(from, mistakes))
            .collect(),
        mtu: from
            .mtu
            .as_ref()
            .and_then(|mtu| mistakes.take(self::mtu(mtu, ipv6))),
        metric: metric.unwrap_or(FIRST_METRIC + place),
    };
    check_ipv6(from, &interface, mistakes);
    check_gateways(from, &interface, mistakes);
    Some(interface)
}

fn ipv6(text: &Text) -> Parsed<Ipv6> {
    match text.get_ref().as_str() {
        "auto" => Ok(Ipv6::Auto),
        "static" => Ok(Ipv6::Static),
        "off" => Ok(Ipv6::Off),
        other => Err(wrong(
            text,
            "is nothing to do with IPv6",
            suggest(other, ["auto", "static", "off"]),
        )),
    }
}

fn metric(of: &Spanned<i64>) -> Parsed<u32> {
    values::number(of, "metric", 1..=i32::MAX.unsigned_abs())
}

/// IPv6 needs 1280 bytes (RFC 8200 §5), IPv4 68 (RFC 791).
fn mtu(of: &Spanned<i64>, ipv6: Ipv6) -> Parsed<u32> {
    let least = if ipv6 == Ipv6::Off { 68 } else { 1280 };
    values::number(of, "size of a packet", least..=65_535)
}

fn route(from: &manifest::Route, mistakes: &mut Mistakes) -> Option<BootRoute> {
    let to = mistakes.take(values::network(&from.to))?;
    let via = mistakes.take_some(from.via.as_ref(), values::host);
    if let (Some(text), Some(via)) = (&from.via, via)
        && via.is_ipv4() != to.address.is_ipv4()
    {
        let hint = "a route and its router are both of IPv4 or both of IPv6";
        mistakes.push(wrong(text, format!("is no router to {to}"), hint));
    }
    Some(BootRoute {
        to,
        via,
        metric: from
            .metric
            .as_ref()
            .and_then(|metric| mistakes.take(self::metric(metric))),
    })
}

/// Nobody hands out addresses in a tunnel.
fn check_tunnel(from: &manifest::Interface, ipv6: Option<Ipv6>, mistakes: &mut Mistakes) {
    let hint = "give it `addresses`";
    if let Some(dhcp) = from.dhcp.as_ref().filter(|dhcp| *dhcp.get_ref()) {
        let message = "`dhcp` on a WireGuard interface, where nobody answers it";
        mistakes.push(crate::Diagnostic::at(dhcp.span(), message).hint(hint));
    }
    if let (Some(text), Some(Ipv6::Auto)) = (&from.ipv6, ipv6) {
        let what = "on a WireGuard interface, where no router tells of itself";
        mistakes.push(wrong(text, what, hint));
    }
}

fn check_ipv6(from: &manifest::Interface, interface: &BootInterface, mistakes: &mut Mistakes) {
    if interface.ipv6 != Ipv6::Off {
        return;
    }
    let routes = from.routes.iter().map(|route| &route.to);
    for text in from.addresses.iter().chain(&from.gateways).chain(routes) {
        if text.get_ref().contains(':') {
            let hint = "write ipv6 = \"static\", or remove it";
            mistakes.push(wrong(text, "is of IPv6, which is off here", hint));
        }
    }
}

/// A router must be on one of the interface's networks, as far as those are known.
fn check_gateways(from: &manifest::Interface, interface: &BootInterface, mistakes: &mut Mistakes) {
    let vias = from.routes.iter().filter_map(|route| route.via.as_ref());
    for text in from.gateways.iter().chain(vias) {
        let Ok(gateway) = text.get_ref().parse::<IpAddr>() else {
            continue;
        };
        let told = match gateway {
            IpAddr::V4(_) => interface.dhcp,
            IpAddr::V6(address) => interface.ipv6 == Ipv6::Auto || address.is_unicast_link_local(),
        };
        let near = |network: &BootAddress| network.contains(gateway);
        if !told && !interface.addresses.iter().any(near) {
            let hint = "a router is in the network of one of the interface's `addresses`";
            mistakes.push(wrong(text, "is on no network of this interface", hint));
        }
    }
}
