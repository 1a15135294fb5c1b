//! Each port of the machine belongs to one: a workload that publishes it, one that listens on the machine's network, a
//! socket, the name server.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::{Fabric, Port, port};
use crate::boot::{Network, Protocol};
use crate::diagnostic::Diagnostic;
use crate::manifest::Manifest;
use crate::mistakes::Mistakes;
use crate::socket::Socket;
use crate::spec::by_place;
use crate::workload::Workload;

/// The port of DNS (RFC 1035 §4.2).
const DNS: u16 = 53;

/// A port of the machine, or several in a row, that somebody has.
struct Claim {
    address: Option<IpAddr>,
    first: u16,
    last: u16,
    protocol: Protocol,
    /// `publish`es, `listen`s.
    how: How,
    who: String,
    /// What the file says of it, and where.
    text: String,
    span: Option<Range<usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// What comes in is sent on to a network of its own.
    Publishes,
    /// A process has it bound.
    Listens,
    /// The machine's name server has it bound.
    Serves,
}

/// No two claims are one port.
pub(crate) fn check_claims(
    fabric: &Fabric,
    workloads: &[Workload],
    sockets: &[Socket],
    manifest: &Manifest,
    mistakes: &mut Mistakes,
) {
    let mut claims: Vec<Claim> = resolver_claims(fabric).collect();
    claims.extend(tunnel_claims(manifest));
    for workload in workloads {
        claims.extend(workload_claims(workload, manifest));
    }
    claims.extend(sockets.iter().filter_map(|s| socket_claim(s, manifest)));
    let order = |at: &usize| (claims[*at].protocol, claims[*at].first);
    let mut sorted: Vec<usize> = (0..claims.len()).collect();
    sorted.sort_by_key(order);
    let mut found: Vec<(usize, usize)> = Vec::new();
    // Those whose ports may still meet what comes next.
    let mut open: Vec<usize> = Vec::new();
    for at in sorted {
        let claim = &claims[at];
        open.retain(|&other| {
            claims[other].protocol == claim.protocol && claims[other].last >= claim.first
        });
        for &other in open
            .iter()
            .filter(|&&other| conflict(&claims[other], claim))
        {
            found.push((at.max(other), at.min(other)));
        }
        open.push(at);
    }
    found.sort_unstable();
    // One mistake for each place that has any.
    found.dedup_by_key(|(later, _)| *later);
    for (later, earlier) in found {
        mistakes.push(mistake(&claims[later], &claims[earlier]));
    }
}

fn resolver_claims(fabric: &Fabric) -> impl Iterator<Item = Claim> {
    let is_there = !fabric.endpoints.is_empty();
    let gateways = [IpAddr::V4(fabric.gateway), IpAddr::V6(fabric.gateway6)];
    let both = gateways.map(|gateway| [(gateway, Protocol::Tcp), (gateway, Protocol::Udp)]);
    let claims = both.into_iter().flatten().map(|(gateway, protocol)| Claim {
        address: Some(gateway),
        first: DNS,
        last: DNS,
        protocol,
        how: How::Serves,
        who: "the machine's name server".to_owned(),
        text: String::new(),
        span: None,
    });
    claims.filter(move |_| is_there)
}

/// Where tunnels end. A port that is none is told elsewhere.
fn tunnel_claims(manifest: &Manifest) -> impl Iterator<Item = Claim> {
    by_place(&manifest.network.interface)
        .into_iter()
        .filter_map(|(label, interface)| {
            let listen = interface.wireguard.as_ref()?.get_ref().listen.as_ref()?;
            let port = u16::try_from(*listen.get_ref()).ok()?;
            Some(Claim {
                address: None,
                first: port,
                last: port,
                protocol: Protocol::Udp,
                how: How::Listens,
                who: format!("tunnel `{}`", label.get_ref()),
                text: port.to_string(),
                span: Some(listen.span()),
            })
        })
}

fn workload_claims(workload: &Workload, manifest: &Manifest) -> Vec<Claim> {
    let texts = manifest.workload.get(workload.name.as_str());
    let texts = texts.map_or(&[][..], |table| &table.ports);
    let mut claims = Vec::new();
    for (text, port) in texts
        .iter()
        .filter_map(|text| Some((text, port(text).ok()?)))
    {
        let claim = |address, first, how| Claim {
            address,
            first,
            last: first + (port.count - 1),
            protocol: port.protocol,
            how,
            who: format!("workload `{}`", workload.name),
            text: text.get_ref().clone(),
            span: Some(text.span()),
        };
        match workload.network {
            Network::Own => claims.push(claim(port.address, port.published, How::Publishes)),
            Network::Host if is_direct(&port) => {
                claims.push(claim(port.address, port.target, How::Listens));
            }
            Network::Host => {
                claims.push(claim(port.address, port.published, How::Publishes));
                let any = None;
                claims.push(claim(any, port.target, How::Listens));
            }
            Network::None => {}
        }
    }
    claims
}

/// The workload itself listens on the published port.
fn is_direct(port: &Port) -> bool {
    port.published == port.target
}

fn socket_claim(socket: &Socket, manifest: &Manifest) -> Option<Claim> {
    let (address, port, protocol) = socket.endpoint()?;
    let table = manifest.socket.get(socket.name.as_str())?;
    // On Linux the unspecified IPv6 address listens for IPv4, too.
    let all = address.is_unspecified() && address.is_ipv6();
    Some(Claim {
        address: Some(address).filter(|_| !all),
        first: port,
        last: port,
        protocol,
        how: How::Listens,
        who: format!("socket `{}`", socket.name),
        text: table.listen.get_ref().clone(),
        span: Some(table.listen.span()),
    })
}

fn conflict(one: &Claim, other: &Claim) -> bool {
    let same_ports =
        one.protocol == other.protocol && one.first <= other.last && other.first <= one.last;
    // What is published never gets in the way of the name server, as long as it is not its very address.
    let hows = [one.how, other.how];
    let beside_server = hows.contains(&How::Serves)
        && hows.contains(&How::Publishes)
        && (covers_all(one.address) || covers_all(other.address));
    same_ports && !beside_server && addresses_meet(one.address, other.address)
}

fn covers_all(address: Option<IpAddr>) -> bool {
    address.is_none_or(|address| address.is_unspecified())
}

/// Whether a packet may be for both.
fn addresses_meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one == other
                || one.is_ipv4() == other.is_ipv4()
                    && (one.is_unspecified() || other.is_unspecified())
        }
        _ => true,
    }
}

fn mistake(later: &Claim, earlier: &Claim) -> Diagnostic {
    let port = later.first.max(earlier.first);
    let verb = match earlier.how {
        How::Publishes => format!("port {port} is published by {} already", earlier.who),
        How::Listens | How::Serves => format!("{} listens on port {port} already", earlier.who),
    };
    let hint = match (earlier.how, later.how) {
        (How::Serves, _) => format!(
            "workloads ask it for names at {}: listen on an address, as in \"192.0.2.1:53:53/udp\"",
            earlier.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        ),
        (How::Publishes, How::Publishes) => "publish each port once".to_owned(),
        _ => "each port of the machine is one's alone: let one of them listen elsewhere".to_owned(),
    };
    Diagnostic {
        span: later.span.clone(),
        message: format!("`{}`: {verb}", later.text),
        hint: Some(hint),
    }
}
