//! Links that are made: VLAN, bond, bridge, WireGuard.

use crate::boot::{BondMode, BootLink, BootMatch, BootPeer, BootWireGuard};
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::secret::secret_name;
use crate::value::{self, Parsed, wrong};

use super::values;

const MODES: [(&str, BondMode); 7] = [
    ("balance-rr", BondMode::BalanceRr),
    ("active-backup", BondMode::ActiveBackup),
    ("balance-xor", BondMode::BalanceXor),
    ("broadcast", BondMode::Broadcast),
    ("802.3ad", BondMode::Lacp),
    ("balance-tlb", BondMode::BalanceTlb),
    ("balance-alb", BondMode::BalanceAlb),
];

/// Which link an interface is; `None` after a mistake.
pub(super) fn link(
    label: &Text,
    from: &manifest::Interface,
    mistakes: &mut Mistakes,
) -> Option<BootLink> {
    let kinds: Vec<(&str, std::ops::Range<usize>)> = [
        ("vlan", from.vlan.as_ref().map(toml::Spanned::span)),
        ("bond", from.bond.as_ref().map(toml::Spanned::span)),
        ("bridge", from.bridge.as_ref().map(toml::Spanned::span)),
        (
            "wireguard",
            from.wireguard.as_ref().map(toml::Spanned::span),
        ),
    ]
    .into_iter()
    .filter_map(|(kind, span)| Some((kind, span?)))
    .collect();
    let Some((kind, span)) = kinds.first() else {
        return Some(BootLink::Found(BootMatch {
            device: mistakes.take_some(from.device.as_ref(), values::device_name),
            mac: mistakes.take_some(from.mac.as_ref(), values::mac),
            driver: mistakes.take_some(from.driver.as_ref(), values::sysfs_name),
            path: mistakes.take_some(from.path.as_ref(), values::sysfs_name),
        }));
    };
    if let Some((other, _)) = kinds.get(1) {
        let message = format!(
            "interface `{}` is both a {kind} and a {other}",
            label.get_ref()
        );
        mistakes.push(
            Diagnostic::at(span.clone(), message).hint(
                "an interface is one thing: remove one of the two, or make it two interfaces",
            ),
        );
    }
    let selections = [&from.device, &from.mac, &from.driver, &from.path];
    for key in selections.into_iter().flatten() {
        let what = format!(
            "selects a link, but interface `{}` is made as a {kind}",
            label.get_ref()
        );
        mistakes.push(wrong(
            key,
            what,
            "remove one of the two: a link is found or made",
        ));
    }
    check_made_name(label, kind, mistakes);
    match (&from.vlan, &from.bond, &from.bridge, &from.wireguard) {
        (Some(vlan), ..) => {
            let vlan = vlan.get_ref();
            let id = mistakes.take(values::number(&vlan.id, "number of a VLAN", 1..=4094))?;
            Some(BootLink::Vlan {
                id: u16::try_from(id).expect("the range ends at 4094"),
                of: vlan.of.get_ref().clone(),
            })
        }
        (_, Some(bond), ..) => Some(BootLink::Bond {
            of: parts(&bond.get_ref().of),
            mode: mistakes
                .take_some(bond.get_ref().mode.as_ref(), bond_mode)
                .unwrap_or(BondMode::ActiveBackup),
        }),
        (_, _, Some(bridge), _) => Some(BootLink::Bridge {
            of: parts(&bridge.get_ref().of),
            stp: bridge.get_ref().stp,
        }),
        (_, _, _, Some(wireguard)) => {
            wire_guard(wireguard.get_ref(), mistakes).map(BootLink::WireGuard)
        }
        (None, None, None, None) => None,
    }
}

/// The label becomes the link's name.
fn check_made_name(label: &Text, kind: &str, mistakes: &mut Mistakes) {
    let name = label.get_ref();
    if name.len() > 15 || name == "lo" || name == "all" || name == "default" {
        let what = format!("is no name for a {kind}");
        let hint = "the link has its label as its name: 1 to 15 characters, and none of `lo`, `all`, `default`";
        mistakes.push(wrong(label, what, hint));
    }
}

fn parts(of: &[Text]) -> Vec<String> {
    of.iter().map(|label| label.get_ref().clone()).collect()
}

fn bond_mode(text: &Text) -> Parsed<BondMode> {
    let found = MODES.iter().find(|(name, _)| name == text.get_ref());
    found.map(|(_, mode)| *mode).ok_or_else(|| {
        let hint = suggest(text.get_ref(), MODES.map(|(name, _)| name));
        wrong(text, "is no mode of a bond", hint)
    })
}

fn wire_guard(from: &manifest::WireGuard, mistakes: &mut Mistakes) -> Option<BootWireGuard> {
    let peers = from.peers.iter();
    let peers: Vec<BootPeer> = peers
        .filter_map(|peer| self::peer(peer, mistakes))
        .collect();
    for (at, peer) in from.peers.iter().enumerate() {
        let before = &from.peers[..at];
        if before
            .iter()
            .any(|other| other.public_key.get_ref() == peer.public_key.get_ref())
        {
            let hint = "each peer stands once: join the two";
            mistakes.push(wrong(&peer.public_key, "is a peer already", hint));
        }
    }
    Some(BootWireGuard {
        key: mistakes.take(secret_name(&from.key))?,
        listen: from
            .listen
            .as_ref()
            .and_then(|port| mistakes.take(values::port(port))),
        peers,
    })
}

fn peer(from: &manifest::Peer, mistakes: &mut Mistakes) -> Option<BootPeer> {
    Some(BootPeer {
        public_key: mistakes.take(values::public_key(&from.public_key))?,
        preshared_key: mistakes.take_some(from.preshared_key.as_ref(), secret_name),
        endpoint: mistakes.take_some(from.endpoint.as_ref(), values::endpoint),
        allowed: mistakes.take_all(&from.allowed, values::network),
        keepalive: mistakes.take_some(from.keepalive.as_ref(), keepalive),
    })
}

/// Whole seconds, as many as fit 16 bits.
fn keepalive(text: &Text) -> Parsed<u16> {
    let duration = value::duration(text)?;
    u16::try_from(duration.as_secs())
        .ok()
        .filter(|seconds| *seconds > 0 && duration.subsec_nanos() == 0)
        .ok_or_else(|| {
            let hint = "whole seconds from \"1s\" to \"65535s\", as in \"25s\"";
            wrong(text, "is no time between two packets", hint)
        })
}
