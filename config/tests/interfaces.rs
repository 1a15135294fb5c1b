//! `[network.interface.LABEL]` as its users meet it.

use config::boot::{BondMode, BootLink, Ipv6};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn machine(text: &str) -> String {
    format!("name = \"m\"\n{}", text.replace("KEY", KEY))
}

/// The rendered mistakes of a machine with these interfaces.
fn mistakes(text: &str) -> String {
    let text = machine(text);
    match config::parse(&text) {
        Ok(spec) => panic!("accepted: {spec:?}"),
        Err(mistakes) => mistakes.render("os.toml", &text),
    }
}

const LAN: &str = "[network.interface.lan]\ndevice = \"eth0\"\n";

#[test]
fn a_router_with_all_kinds_of_interfaces_is_a_machine() {
    let spec = config::parse(&machine(
        "[network.interface.a]\nmac = \"52:54:00:00:00:01\"\n\
         [network.interface.b]\npath = \"0000:00:04.0\"\n\
         [network.interface.up]\nbond = { of = [\"a\", \"b\"], mode = \"802.3ad\" }\ndhcp = true\nmetric = 5\n\
         [network.interface.v10]\nvlan = { id = 10, of = \"up\" }\naddresses = [\"10.1.0.1/16\", \"fd00::1/64\"]\n\
         gateways = [\"10.1.0.9\"]\nroutes = [{ to = \"10.2.0.0/16\", via = \"10.1.0.2\", metric = 7 }]\n\
         ipv6 = \"static\"\nmtu = 9000\n\
         [network.interface.wg0]\naddresses = [\"10.9.0.1/24\"]\n\
         wireguard = { key = \"wg-key\", listen = 51820, peers = [{ public_key = \"KEY\", preshared_key = \"wg-psk\", \
         endpoint = \"vpn.example.org:51820\", allowed = [\"10.8.0.0/16\"], keepalive = \"25s\" }] }\n\
         [network.interface.br0]\nbridge = { of = [] }\n",
    ))
    .unwrap();
    let [a, b, up, v10, wg0, br0] = &spec.interfaces[..] else {
        panic!("{:?}", spec.interfaces);
    };
    assert_eq!(
        (a.master.as_deref(), b.master.as_deref()),
        (Some("up"), Some("up"))
    );
    assert_eq!(
        (a.ipv6, up.ipv6, wg0.ipv6),
        (Ipv6::Off, Ipv6::Auto, Ipv6::Static)
    );
    assert!(matches!(
        &up.link,
        BootLink::Bond {
            mode: BondMode::Lacp,
            ..
        }
    ));
    assert_eq!((a.group, up.group, br0.group), (16, 18, 21));
    assert_eq!((up.metric, v10.metric), (5, 103));
    assert_eq!(v10.mtu, Some(9000));
    let BootLink::WireGuard(tunnel) = &wg0.link else {
        panic!("{wg0:?}");
    };
    assert_eq!(
        tunnel.peers[0].endpoint,
        Some(("vpn.example.org".to_owned(), 51820))
    );
    assert_eq!(tunnel.peers[0].keepalive, Some(25));
    assert_eq!(
        spec.secret_names().collect::<Vec<_>>(),
        ["wg-key", "wg-psk"]
    );
}

/// What is put below `lan`, and lines that the message must have.
const BELOW_LAN: &[(&str, &[&str])] = &[
    (
        "mac = \"52:54\"",
        &["`52:54` is no Ethernet address", "os.toml:4:7"],
    ),
    ("driver = \"a/b\"", &["`a/b` is no name of a driver"]),
    (
        "ipv6 = \"atuo\"",
        &["`atuo` is nothing to do with IPv6", "did you mean `auto`?"],
    ),
    (
        "addresses = [\"192.0.2.7\"]",
        &["`192.0.2.7` is no address with a prefix", "os.toml:4:14"],
    ),
    (
        "addresses = [\"192.0.2.0/24\"]",
        &["`192.0.2.0/24` is the network itself"],
    ),
    (
        "addresses = [\"2001:db8::1/64\"]\nipv6 = \"off\"",
        &["is of IPv6, which is off here"],
    ),
    (
        "addresses = [\"192.0.2.7/24\"]\ngateways = [\"192.0.3.1\"]",
        &["`192.0.3.1` is on no network of this interface"],
    ),
    ("gateways = [\"gate\"]", &["`gate` is no address of a host"]),
    (
        "routes = [{ to = \"10.0.0.1/8\" }]",
        &[
            "`10.0.0.1/8` has an address behind its prefix",
            "did you mean \"10.0.0.0/8\"?",
        ],
    ),
    (
        "dhcp = true\nroutes = [{ to = \"10.0.0.0/8\", via = \"fe80::1\" }]",
        &["`fe80::1` is no router to 10.0.0.0/8"],
    ),
    (
        "mtu = 1000",
        &["`1000` is no size of a packet", "from 1280 to 65535"],
    ),
    ("metric = 0", &["`0` is no metric"]),
    (
        "vlan = { id = 1, of = \"lan\" }",
        &["`eth0` selects a link, but interface `lan` is made as a vlan"],
    ),
    (
        "[network.interface.v]\nvlan = { id = 4095, of = \"lan\" }",
        &["`4095` is no number of a VLAN", "from 1 to 4094"],
    ),
    (
        "[network.interface.v]\nvlan = { id = 1, of = \"lna\" }",
        &["`lna` is no interface", "did you mean `lan`?"],
    ),
    (
        "[network.interface.v]\nvlan = { id = 1, of = \"v\" }",
        &["`v` makes `v` a part of itself"],
    ),
    (
        "[network.interface.a-very-long-name]\nbridge = { of = [] }",
        &["`a-very-long-name` is no name for a bridge"],
    ),
    (
        "dhcp = true\n[network.interface.b]\nbridge = { of = [\"lan\"] }",
        &[
            "`lan` has addresses of its own, but is part of `b`",
            "[network.interface.b]",
        ],
    ),
    (
        "[network.interface.b]\nbridge = { of = [\"lan\"] }\n[network.interface.c]\nbond = { of = [\"lan\"] }",
        &["`c` has `lan`, which is part of `b` already"],
    ),
    (
        "[network.interface.b]\nbond = { of = [\"lan\"], mode = \"lacp\" }",
        &["`lacp` is no mode of a bond"],
    ),
    (
        "[network.interface.b]\nbond = { of = [] }\nbridge = { of = [] }",
        &["interface `b` is both a bond and a bridge"],
    ),
    (
        "[network.interface.b]\ndevice = \"eth0\"",
        &["two interfaces select the same link"],
    ),
    (
        "addresses = [\"192.0.2.7/24\"]\n[network.interface.b]\ndevice = \"eth1\"\naddresses = [\"192.0.2.7/25\"]",
        &["`192.0.2.7/25` is an address of `lan` already"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"a b\" }",
        &["`a b` is no name of a secret"],
    ),
    (
        "[network.interface.w]\ndhcp = true\nwireguard = { key = \"k\" }",
        &["`dhcp` on a WireGuard interface"],
    ),
    (
        "[network.interface.w]\nipv6 = \"auto\"\nwireguard = { key = \"k\" }",
        &["`auto` on a WireGuard interface"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"k\", listen = 0 }",
        &["`0` is no port"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"k\", peers = [{ public_key = \"k\" }] }",
        &["`k` is no public key", "wg pubkey"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"k\", peers = [{ public_key = \"KEY\" }, { public_key = \"KEY\" }] }",
        &["is a peer already"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"k\", peers = [{ public_key = \"KEY\", endpoint = \"host\" }] }",
        &["`host` is no host and port"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"k\", peers = [{ public_key = \"KEY\", keepalive = \"500ms\" }] }",
        &["`500ms` is no time between two packets"],
    ),
    (
        "[network.interface.w]\nwireguard = { key = \"k\" }\n[network.interface.b]\nbridge = { of = [\"w\"] }",
        &["`w` is a WireGuard interface, which carries no Ethernet"],
    ),
];

#[test]
fn each_mistake_of_an_interface_names_its_place_its_text_and_its_mend() {
    for (below, lines) in BELOW_LAN {
        let told = mistakes(&format!("{LAN}{below}\n"));
        for line in *lines {
            assert!(told.contains(line), "{below}: no {line:?} in\n{told}");
        }
        assert!(told.contains("hint: "), "{below}: {told}");
    }
}

#[test]
fn only_one_interface_may_be_any_link() {
    let told = mistakes("[network.interface.a]\ndhcp = true\n[network.interface.b]\ndhcp = true\n");
    assert!(
        told.contains("more than one interface without `device`"),
        "{told}"
    );
}
