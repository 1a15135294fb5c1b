//! What `coracle check` says of the machine's interfaces.

use std::fmt::Write as _;

use config::boot::{BootInterface, BootLink, BootMatch, Ipv6};

/// One line: which link, whose part, and what is on it.
pub(super) fn describe(interface: &BootInterface) -> String {
    let mut text = format!("{}: {}", interface.label, link(&interface.link));
    if let Some(master) = &interface.master {
        let _ = write!(text, ", part of {master}");
        return text;
    }
    if interface.dhcp {
        text.push_str(", DHCPv4");
    }
    match interface.ipv6 {
        Ipv6::Auto => text.push_str(", IPv6 by its routers"),
        Ipv6::Static => {}
        Ipv6::Off => text.push_str(", no IPv6"),
    }
    for address in &interface.addresses {
        let _ = write!(text, ", {address}");
    }
    text
}

fn link(link: &BootLink) -> String {
    match link {
        BootLink::Found(found) => selection(found),
        BootLink::Vlan { id, of } => format!("VLAN {id} of {of}"),
        BootLink::Bond { of, .. } => format!("bond of {}", of.join(", ")),
        BootLink::Bridge { of, .. } if of.is_empty() => "bridge of nothing".to_owned(),
        BootLink::Bridge { of, .. } => format!("bridge of {}", of.join(", ")),
        BootLink::WireGuard(tunnel) => {
            let listens = tunnel
                .listen
                .map_or_else(String::new, |port| format!(" at port {port}"));
            match tunnel.peers.len() {
                1 => format!("WireGuard{listens}, 1 peer"),
                count => format!("WireGuard{listens}, {count} peers"),
            }
        }
    }
}

fn selection(found: &BootMatch) -> String {
    let mac = found.mac.map(|mac| {
        let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(":")
    });
    let parts: Vec<String> = [
        found.device.clone(),
        mac,
        found
            .driver
            .as_ref()
            .map(|driver| format!("driver {driver}")),
        found.path.as_ref().map(|path| format!("device {path}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "first interface".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_interface_is_told() {
        let text = "name = \"m\"\n[network.interface.lan]\ndriver = \"e1000\"\nmac = \"52:54:00:00:00:01\"\n\
                    [network.interface.back]\nbond = { of = [\"lan\"] }\naddresses = [\"192.0.2.7/24\"]\n\
                    [network.interface.v7]\nvlan = { id = 7, of = \"back\" }\ndhcp = true\nipv6 = \"off\"\n\
                    [network.interface.wg0]\nwireguard = { key = \"k\", listen = 51820 }\n";
        let spec = config::parse(text).unwrap();
        let told: Vec<String> = spec.interfaces.iter().map(describe).collect();
        assert_eq!(
            told,
            [
                "lan: 52:54:00:00:00:01, driver e1000, part of back",
                "back: bond of lan, IPv6 by its routers, 192.0.2.7/24",
                "v7: VLAN 7 of back, DHCPv4, no IPv6",
                "wg0: WireGuard at port 51820, 0 peers",
            ]
        );
    }
}
