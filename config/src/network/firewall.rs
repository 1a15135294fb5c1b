//! `[firewall]`: what of the machine itself the outside reaches.

use std::net::{IpAddr, Ipv6Addr};

use crate::boot::Protocol;
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Manifest, Text};
use crate::mistakes::Mistakes;
use crate::network::Prefix;
use crate::network::port::port_range;
use crate::network::prefix;
use crate::value::{Parsed, wrong};

/// What of the machine itself the outside reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// What nothing else allows is dropped.
    pub drop: bool,
    /// Echo requests are answered.
    pub ping: bool,
    /// Ports of the machine's own network that are open.
    pub allow: Vec<Allow>,
}

/// Ports of the machine's own network that are open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// Transport.
    pub protocol: Protocol,
    /// From these addresses; none: from all.
    pub from: Vec<Prefix>,
    /// Through this interface, by its place in the file; `None`: through all.
    pub interface: Option<usize>,
}

impl Firewall {
    /// `labels` are those of the interfaces, in the order of the file.
    pub(crate) fn new(manifest: &Manifest, labels: &[String], mistakes: &mut Mistakes) -> Self {
        let from = &manifest.firewall;
        let drop = mistakes.take_some(from.inbound.as_ref(), inbound);
        if drop == Some(false) {
            check_needed(from, mistakes);
        }
        Self {
            drop: drop.unwrap_or(true),
            ping: from.ping.as_ref().is_none_or(|ping| *ping.get_ref()),
            allow: from
                .allow
                .iter()
                .filter_map(|from| allow(from, labels, mistakes))
                .collect(),
        }
    }
}

fn inbound(text: &Text) -> Parsed<bool> {
    match text.get_ref().as_str() {
        "drop" => Ok(true),
        "accept" => Ok(false),
        other => Err(wrong(
            text,
            "is nothing to do with what comes in",
            suggest(other, ["drop", "accept"]),
        )),
    }
}

fn allow(from: &manifest::Allow, labels: &[String], mistakes: &mut Mistakes) -> Option<Allow> {
    let ports = mistakes.take(port_range(from.ports.get_ref()).ok_or_else(|| {
        wrong(
            &from.ports,
            "is no port",
            "a port from 1 to 65535, or a range, as in \"22\" or \"8000-8010\"",
        )
    }));
    let protocol = mistakes.take_some(from.protocol.as_ref(), protocol);
    let sources = mistakes.take_all(&from.from, source);
    let interface = mistakes.take_some(from.interface.as_ref(), |text| {
        let known = || labels.iter().map(String::as_str);
        let place = labels.iter().position(|label| label == text.get_ref());
        place.ok_or_else(|| {
            let message = format!("`{}`: there is no interface of that label", text.get_ref());
            Diagnostic::at(text.span(), message)
                .hint(suggest(text.get_ref(), known().collect::<Vec<_>>()))
        })
    });
    let (first, last) = ports?;
    Some(Allow {
        first,
        last,
        protocol: protocol.unwrap_or(Protocol::Tcp),
        from: sources,
        interface,
    })
}

/// No packet has an address of IPv4 in IPv6's form.
fn source(text: &Text) -> Parsed<Prefix> {
    const MAPPED: Prefix = Prefix {
        address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)),
        length: 96,
    };
    let prefix = prefix(text)?;
    if let (IpAddr::V6(address), true) = (prefix.address, MAPPED.holds(&prefix)) {
        let [.., a, b, c, d] = address.octets();
        let plain = Prefix::of([a, b, c, d].into(), prefix.length - MAPPED.length);
        let what = "is IPv4 in IPv6's form, which no packet has";
        return Err(wrong(text, what, format!("write \"{plain}\"")));
    }
    Ok(prefix)
}

/// Where everything is let in there is nothing to allow or refuse.
fn check_needed(from: &manifest::Firewall, mistakes: &mut Mistakes) {
    let hint = "leave it out, or write inbound = \"drop\"";
    let ping = from.ping.as_ref().filter(|ping| !ping.get_ref());
    let ports = from.allow.iter().map(|allow| allow.ports.span());
    let places = ping.map(|ping| (ping.span(), "`ping = false`"));
    let places = places
        .into_iter()
        .chain(ports.map(|span| (span, "`allow`")));
    for (span, what) in places {
        let message = format!("{what} says nothing where all is let in");
        mistakes.push(Diagnostic::at(span, message).hint(hint));
    }
}

fn protocol(text: &Text) -> Parsed<Protocol> {
    match text.get_ref().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(wrong(
            text,
            "is no protocol",
            suggest(other, ["tcp", "udp"]),
        )),
    }
}
