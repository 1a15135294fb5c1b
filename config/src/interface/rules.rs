//! What holds between interfaces: who is part of whom, and that no two are the same link or have the same address.

use std::collections::BTreeMap;

use crate::boot::{BootInterface, BootLink, BootMatch};
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::wrong;

/// Checks, and tells the parts of bonds and bridges what they are part of.
pub(super) fn check(
    listed: &[(&Text, &manifest::Interface)],
    interfaces: &mut [BootInterface],
    mistakes: &mut Mistakes,
) {
    check_selections(listed, interfaces, mistakes);
    check_addresses(listed, mistakes);
    for (label, from) in listed {
        for (part, is_member) in parts(from) {
            if let Some(part) = check_part(label, part, is_member, listed, mistakes) {
                let part = interfaces
                    .iter_mut()
                    .find(|interface| is_member && interface.label == part);
                set_master(label, part, listed, mistakes);
            }
        }
    }
    check_cycles(listed, mistakes);
}

/// What an interface is made of, and whether that has no addresses of its own then.
fn parts(from: &manifest::Interface) -> Vec<(&Text, bool)> {
    let vlan = from.vlan.iter().map(|vlan| (&vlan.get_ref().of, false));
    let bond = from.bond.iter().flat_map(|bond| &bond.get_ref().of);
    let bridge = from.bridge.iter().flat_map(|bridge| &bridge.get_ref().of);
    vlan.chain(bond.chain(bridge).map(|part| (part, true)))
        .collect()
}

fn find<'a>(
    name: &str,
    listed: &[(&'a Text, &'a manifest::Interface)],
) -> Option<(&'a Text, &'a manifest::Interface)> {
    let mut listed = listed.iter();
    listed.find(|(label, _)| label.get_ref() == name).copied()
}

/// The part's label, if it can be one.
fn check_part<'a>(
    label: &Text,
    part: &'a Text,
    is_member: bool,
    listed: &[(&Text, &manifest::Interface)],
    mistakes: &mut Mistakes,
) -> Option<&'a str> {
    let Some((_, from)) = find(part.get_ref(), listed) else {
        let labels = listed.iter().map(|(label, _)| label.get_ref().as_str());
        let others: Vec<&str> = labels.filter(|name| *name != label.get_ref()).collect();
        let hint = if others.is_empty() {
            format!("add [network.interface.{}]", part.get_ref())
        } else {
            suggest(part.get_ref(), others)
        };
        mistakes.push(wrong(
            part,
            "is no interface: there is none of that label",
            hint,
        ));
        return None;
    };
    if from.wireguard.is_some() {
        let what = "is a WireGuard interface, which carries no Ethernet";
        mistakes.push(wrong(part, what, "take an Ethernet interface"));
        return None;
    }
    let has_addresses =
        !(from.addresses.is_empty() && from.gateways.is_empty() && from.routes.is_empty())
            || from.dhcp.as_ref().is_some_and(|dhcp| *dhcp.get_ref())
            || from
                .ipv6
                .as_ref()
                .is_some_and(|ipv6| ipv6.get_ref() != "off");
    if is_member && has_addresses {
        let what = format!(
            "has addresses of its own, but is part of `{}`",
            label.get_ref()
        );
        let hint = format!(
            "move dhcp, ipv6, addresses, gateways and routes to [network.interface.{}]",
            label.get_ref()
        );
        mistakes.push(wrong(part, what, hint));
        return None;
    }
    Some(part.get_ref())
}

fn set_master(
    label: &Text,
    part: Option<&mut BootInterface>,
    listed: &[(&Text, &manifest::Interface)],
    mistakes: &mut Mistakes,
) {
    let Some(part) = part else { return };
    if let Some(other) = &part.master {
        let what = format!("has `{}`, which is part of `{other}` already", part.label);
        let place = find(label.get_ref(), listed).map_or(label, |(label, _)| label);
        mistakes.push(wrong(
            place,
            what,
            "an interface is part of one other at most",
        ));
    }
    part.master = Some(label.get_ref().clone());
    part.ipv6 = crate::boot::Ipv6::Off;
}

/// No interface is, over several steps, a part of itself.
fn check_cycles(listed: &[(&Text, &manifest::Interface)], mistakes: &mut Mistakes) {
    for (label, _) in listed {
        let mut reached = vec![label.get_ref().as_str()];
        let mut next = 0;
        while let Some((_, from)) = reached.get(next).and_then(|name| find(name, listed)) {
            next += 1;
            for (part, _) in parts(from) {
                if part.get_ref() == label.get_ref() {
                    let what = format!("makes `{}` a part of itself", label.get_ref());
                    mistakes.push(wrong(part, what, "remove it"));
                    return;
                }
                let known = reached.contains(&part.get_ref().as_str());
                if !known && find(part.get_ref(), listed).is_some() {
                    reached.push(part.get_ref());
                }
            }
        }
    }
}

/// Two interfaces must not take the same link; only one may be "any link".
fn check_selections(
    listed: &[(&Text, &manifest::Interface)],
    interfaces: &[BootInterface],
    mistakes: &mut Mistakes,
) {
    let mut seen: Vec<&BootMatch> = Vec::new();
    for interface in interfaces {
        let BootLink::Found(selection) = &interface.link else {
            continue;
        };
        if seen.contains(&selection) {
            let Some((label, _)) = find(&interface.label, listed) else {
                continue;
            };
            let (message, hint) = if *selection == BootMatch::default() {
                (
                    "more than one interface without `device`",
                    "name the kernel's interface of each, as in device = \"eth1\", or its mac, driver or path",
                )
            } else {
                (
                    "two interfaces select the same link",
                    "an interface stands once: join the two",
                )
            };
            mistakes.push(Diagnostic::at(label.span(), message).hint(hint));
        }
        seen.push(selection);
    }
}

fn check_addresses(listed: &[(&Text, &manifest::Interface)], mistakes: &mut Mistakes) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (label, from) in listed {
        for text in &from.addresses {
            let address = text.get_ref().split('/').next().unwrap_or_default();
            if let Some(other) = owners.insert(address, label.get_ref()) {
                let what = format!("is an address of `{other}` already");
                mistakes.push(wrong(text, what, "give each address to one interface"));
            }
        }
    }
}
