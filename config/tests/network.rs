//! The language of the workloads' networks and of the firewall: whole files in, who reaches whom or the mistakes out.

use config::boot::{Network, Protocol};
use config::network::Reach;
use config::spec::Spec;

/// Two networks, an internal one among them, a pod, a workload of the machine's network, and a socket.
const MACHINE: &str = r#"
name = "m"

[network.named.front]
[network.named.back]
internal = true
[network.interface.lan]
dhcp = true

[firewall]
allow = [{ ports = "22", interface = "lan" }]

[socket.http]
listen = "80"

[pod.site]
network = ["front", "back"]

[workload.app]
image = "dir:x"
pod = "site"
ports = ["8080:80"]

[workload.helper]
image = "dir:x"
pod = "site"
ports = ["8443:443"]

[workload.db]
image = "dir:x"
network = "back"

[workload.job]
image = "dir:x"
network = "own"
reach = ["outside", "app:443"]

[workload.metrics]
image = "dir:x"
network = "host"
ports = ["9100:9100"]

[workload.lazy]
image = "dir:x"
network = "none"
sockets = ["http"]
"#;

fn spec(text: &str) -> Spec {
    config::parse(text).unwrap_or_else(|mistakes| panic!("{}", mistakes.render("os.toml", text)))
}

fn mistakes(text: &str) -> String {
    match config::parse(text) {
        Ok(spec) => panic!("accepted: {:?}", spec.fabric),
        Err(mistakes) => mistakes.render("os.toml", text),
    }
}

#[test]
fn a_pod_is_one_endpoint_with_the_names_and_ports_of_its_members() {
    let fabric = spec(MACHINE).fabric;
    let names: Vec<&str> = fabric.endpoints.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["db", "job", "site"]);
    let site = fabric.endpoint("site").unwrap();
    assert_eq!(site.names, ["site", "app", "helper"]);
    assert_eq!(site.networks, ["front", "back"]);
    let ports: Vec<u16> = site.ports.iter().map(|port| port.published).collect();
    assert_eq!(ports, [8080, 8443]);
    let networks: Vec<_> = fabric
        .networks
        .iter()
        .map(|n| (n.name.as_str(), n.internal))
        .collect();
    let expected = [("default", false), ("front", false), ("back", true)];
    assert_eq!(networks, expected);
}

#[test]
fn only_networks_that_are_not_internal_lead_outside() {
    let fabric = spec(MACHINE).fabric;
    let leads = |name| fabric.endpoint(name).unwrap().leads_outside;
    assert_eq!(
        [leads("db"), leads("site"), leads("job")],
        [false, true, true]
    );
}

#[test]
fn reach_leads_to_endpoints_the_machines_ports_and_the_outside() {
    let reached = |reach: &str| {
        let text = MACHINE.replace("[\"outside\", \"app:443\"]", reach);
        let fabric = spec(&text).fabric;
        fabric.endpoint("job").unwrap().reach.clone().unwrap()
    };
    let site = |port| Reach::Endpoint {
        index: 2,
        port,
        direct: false,
    };
    let machine = |port| Reach::Machine {
        first: port,
        last: port,
        protocol: Protocol::Tcp,
    };
    for (reach, expected) in [
        ("[]", vec![]),
        ("[\"outside\"]", vec![Reach::Outside]),
        ("[\"app\"]", vec![site(None)]),
        ("[\"site:443\"]", vec![site(Some((443, Protocol::Tcp)))]),
        ("[\"metrics\"]", vec![machine(9100)]),
        (
            "[\"metrics:9100\", \"lazy\"]",
            vec![machine(9100), machine(80)],
        ),
    ] {
        assert_eq!(reached(reach), expected, "{reach}");
    }
}

#[test]
fn settings_and_the_firewall_are_what_the_file_says() {
    let text = MACHINE.replace(
        "[network.named.front]",
        "[network]\ndns = [\"192.0.2.53\", \"2001:db8::53\"]\nsearch = [\"example.org\"]\nntp = []\nhostname = \"h\"\n\
         [network.named.front]",
    );
    let machine = spec(&text);
    assert_eq!(machine.settings.dns.len(), 2);
    assert_eq!(machine.settings.ntp.as_deref(), Some(&[][..]));
    assert!(machine.hostname_fixed);
    assert_eq!(machine.firewall.allow[0].interface, Some(0));
    let plain = spec("name = \"m\"\n[firewall]\ninbound = \"accept\"");
    assert!(!plain.firewall.drop && plain.firewall.ping && !plain.hostname_fixed);
    assert_eq!(plain.settings.ntp, None);
}

#[test]
fn members_have_the_network_of_their_pod() {
    let machine = spec(MACHINE);
    let app = machine.workloads.iter().find(|w| w.name == "app").unwrap();
    assert_eq!((app.network, app.networks.len()), (Network::Own, 2));
}

/// Each row: what is put in place of what in [`MACHINE`], and what the message must have.
const ROWS: &[(&str, &str, &[&str])] = &[
    (
        "network = \"back\"",
        "network = \"bcak\"",
        &[
            "`bcak` is no network",
            "did you mean `back`?",
            "os.toml:31:11",
        ],
    ),
    (
        "network = \"back\"",
        "network = \"db\"",
        &["`db` is no network", "or add [network.named.db]"],
    ),
    (
        "[\"front\", \"back\"]",
        "[\"front\", \"frnot\"]",
        &[
            "`frnot` is no network",
            "did you mean `front`?",
            "os.toml:17:21",
        ],
    ),
    (
        "[\"front\", \"back\"]",
        "[]",
        &["`network` is empty", "network = \"none\""],
    ),
    (
        "[\"front\", \"back\"]",
        "[\"front\", \"host\"]",
        &["`host` is no network of several", "it stands alone"],
    ),
    (
        "[\"front\", \"back\"]",
        "[\"front\", \"front\"]",
        &["`front` is no network of several", "name it once"],
    ),
    (
        "[\"front\", \"back\"]",
        "7",
        &["wrong type: integer `7`", "as in \"own\""],
    ),
    (
        "[network.named.front]",
        "[network.named.outside]\n[network.named.front]",
        &["`outside`: no network can have this name"],
    ),
    (
        "[network.named.front]",
        "[network.named.spare]\n[network.named.front]",
        &["nobody is on network `spare`", "add network = \"spare\""],
    ),
    (
        "internal = true",
        "internl = true",
        &["unknown key `internl`", "did you mean `internal`?"],
    ),
    (
        "[workload.db]",
        "[workload.own]\nimage = \"dir:x\"\n[workload.db]",
        &[
            "`own`: no workload can have this name",
            "a meaning of its own",
        ],
    ),
    (
        "[workload.db]",
        "[workload.site]\nimage = \"dir:x\"\nnetwork = \"own\"\n[workload.db]",
        &["`site` is a workload outside of pod `site`, too"],
    ),
    (
        "\"app:443\"",
        "\"ap:443\"",
        &[
            "there is no workload or pod of that name",
            "did you mean `app`?",
        ],
    ),
    (
        "\"app:443\"",
        "\"db:5432\"",
        &[
            "`job` and `db` have no network in common",
            "network = [\"back\", …]",
        ],
    ),
    (
        "\"app:443\"",
        "\"app:0\"",
        &["is nothing to reach", "db:6379"],
    ),
    ("\"app:443\"", "\"app/udp\"", &["is nothing to reach"]),
    (
        "\"app:443\"",
        "\"app:1/sctp\"",
        &["the unknown protocol `sctp`"],
    ),
    (
        "\"outside\"",
        "\"outside:53\"",
        &["`outside:53` has a port"],
    ),
    (
        "\"app:443\"",
        "\"metrics:1\"",
        &[
            "`metrics:1`: `metrics` does not have this port",
            "only its `ports`",
        ],
    ),
    (
        "network = \"back\"",
        "network = \"back\"\nreach = [\"metrics\"]",
        &["`metrics` is nowhere from internal networks alone"],
    ),
    (
        "network = \"back\"",
        "network = \"back\"\nreach = [\"outside\"]",
        &["`outside` is nowhere from internal networks alone"],
    ),
    (
        "network = \"host\"",
        "network = \"host\"\nreach = [\"db\"]",
        &["`reach` without a network of its own"],
    ),
    (
        "network = \"none\"",
        "network = \"none\"\nreach = []",
        &["`reach` without a network"],
    ),
    (
        "pod = \"site\"\nports = [\"8080:80\"]",
        "pod = \"site\"\nreach = [\"db\"]",
        &["`reach` of a workload in pod `site`", "[pod.site]"],
    ),
    (
        "\"8080:80\"",
        "\"9100:80\"",
        &[
            "`9100:9100`: port 9100 is published by workload `app` already",
            "let one of them listen elsewhere",
        ],
    ),
    (
        "\"8080:80\"",
        "\"8440-8450:1-11\"",
        &[
            "port 8443 is published by workload `app` already",
            "os.toml:27:10",
        ],
    ),
    (
        "\"8080:80\"",
        "\"127.0.0.1:80:80\"",
        &["`80`: port 80 is published by workload `app` already"],
    ),
    (
        "\"9100:9100\"",
        "\"53:53/udp\"",
        &[
            "`53:53/udp`: the machine's name server listens on port 53 already",
            "listen on an address",
        ],
    ),
    (
        "\"8080:80\"",
        "\"[::1]:8080:80\"",
        &["`[::1]:8080:80` leads nowhere", "127.0.0.1"],
    ),
    (
        "\"8080:80\"",
        "\"10000-19999:20000-29999\"",
        &["leads 10000 ports to others", "at most 1024"],
    ),
    (
        "dhcp = true",
        "addresses = [\"10.213.7.1/24\"]",
        &[
            "`10.213.7.1/24` meets the pool of the workloads' addresses, 10.213.0.0/16",
            "choose another pool",
        ],
    ),
    (
        "dhcp = true",
        "dhcp = true\n[network.interface.wg]\nwireguard = { key = \"k\", listen = 53, peers = [] }",
        &[
            "`53`: ",
            "the machine's name server listens on port 53 already",
        ],
    ),
    (
        "dhcp = true",
        "dhcp = true\nroutes = [{ to = \"10.0.0.0/8\" }, { to = \"10.213.8.0/24\" }]",
        &[
            "`10.213.8.0/24` is in the pool of the workloads' addresses, 10.213.0.0/16",
            "os.toml:9:41",
        ],
    ),
    (
        "dhcp = true",
        "dhcp = true\n[network.interface.wg]\nwireguard = { key = \"k\", peers = [{ public_key = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\", allowed = [\"10.213.0.0/17\"] }] }",
        &["`10.213.0.0/17` is in the pool of the workloads' addresses"],
    ),
    (
        "network = \"back\"\n",
        "network = \"back\"\nports = [\"127.0.0.1:5432:5432\", \"5433:5432\"]\n",
        &[
            "`5433:5432` lets the outside in to `db`, which is on internal networks alone",
            "as in \"127.0.0.1:8080:80\"",
        ],
    ),
    (
        "\"9100:9100\"",
        "\"10.213.0.1:9100:9100\", \"10.213.0.9:9101:9101\"",
        &[
            "`10.213.0.9:9101:9101` is published at an address of workloads",
            "os.toml:41:34",
        ],
    ),
    (
        "\"8080:80\"",
        "\"10.213.7.7:8080:80\"",
        &["`10.213.7.7:8080:80` is published at an address of workloads"],
    ),
    (
        "interface = \"lan\" }",
        "from = [\"::ffff:10.0.0.0/104\"] }",
        &[
            "`::ffff:10.0.0.0/104` is IPv4 in IPv6's form",
            "write \"10.0.0.0/8\"",
        ],
    ),
    (
        "[firewall]",
        "[firewall]\ninbound = \"accept\"\nping = false",
        &[
            "`ping = false` says nothing where all is let in",
            "`allow` says nothing where all is let in",
            "or write inbound = \"drop\"",
        ],
    ),
    (
        "network = \"host\"",
        "network = \"host\"\nafter = [\"firewall\"]",
        &[
            "`firewall`: there is no workload of that name",
            "waits for the firewall anyway",
        ],
    ),
    (
        "ports = \"22\"",
        "ports = \"22-21\"",
        &["`22-21` is no port", "or a range"],
    ),
    (
        "interface = \"lan\"",
        "interface = \"wan\"",
        &["`wan`: there is no interface of that label", "`lan`"],
    ),
    (
        "interface = \"lan\"",
        "from = [\"10.0.0.1/8\"]",
        &[
            "has bits set behind its length",
            "did you mean \"10.0.0.0/8\"?",
        ],
    ),
    (
        "interface = \"lan\"",
        "protocol = \"tpc\"",
        &["`tpc` is no protocol", "did you mean `tcp`?"],
    ),
    (
        "[firewall]",
        "[firewall]\ninbound = \"deny\"",
        &[
            "`deny` is nothing to do with what comes in",
            "`drop`, `accept`",
        ],
    ),
    (
        "[network.named.front]",
        "[network]\naddresses = [\"10.0.0.0/30\"]\n[network.named.front]",
        &["has no length for a pool", "from /8 to /29"],
    ),
    (
        "[network.named.front]",
        "[network]\naddresses = [\"127.0.0.0/8\"]\n[network.named.front]",
        &["is nothing that workloads can have"],
    ),
    (
        "[network.named.front]",
        "[network]\naddresses = [\"10.0.0.0/16\", \"10.1.0.0/16\"]\n[network.named.front]",
        &["is a second pool of its kind"],
    ),
    (
        "[network.named.front]",
        "[network]\ndns = [\"ns.example.org\"]\n[network.named.front]",
        &["is no address of a name server"],
    ),
    (
        "[network.named.front]",
        "[network]\ndns = []\n[network.named.front]",
        &["`dns` is empty", "leave it out"],
    ),
    (
        "[network.named.front]",
        "[network]\nsearch = [\"a_b\"]\n[network.named.front]",
        &["is no part of a domain"],
    ),
];

#[test]
fn mistakes_are_told_with_their_place_and_mend() {
    let mut missing = String::new();
    for (from, to, expected) in ROWS {
        assert!(MACHINE.contains(from), "{from}");
        let shown = mistakes(&MACHINE.replacen(from, to, 1));
        for part in expected.iter().filter(|part| !shown.contains(**part)) {
            missing.push_str(&format!("{to}: no {part:?} in\n{shown}\n"));
        }
    }
    assert!(missing.is_empty(), "{missing}");
}

#[test]
fn a_pool_with_too_few_addresses_is_a_mistake() {
    let workloads: String = (0..6)
        .map(|n| format!("[workload.w{n}]\nimage = \"dir:x\"\nnetwork = \"own\"\n"))
        .collect();
    let text = format!("name = \"m\"\n[network]\naddresses = [\"10.0.0.0/29\"]\n{workloads}");
    let shown = mistakes(&text);
    assert!(
        shown.contains("has 5 addresses for workloads, and 6 want one"),
        "{shown}"
    );
}

#[test]
fn a_port_may_be_published_once_for_each_address_and_beside_the_name_server() {
    for (first, second) in [
        ("127.0.0.1:80:80", "127.0.0.2:80:80"),
        ("127.0.0.1:80:80", "[2001:db8::1]:80:80"),
        ("0.0.0.0:80:80", "[::]:80:80"),
        ("80:80", "80:80/udp"),
        ("80-89:80-89", "90:80"),
        ("53:53/udp", "53:53"),
    ] {
        let text = format!(
            "name = \"m\"\n[workload.a]\nimage = \"dir:x\"\nnetwork = \"own\"\nports = [\"{first}\"]\n\
             [workload.b]\nimage = \"dir:x\"\nnetwork = \"own\"\nports = [\"{second}\"]\n"
        );
        spec(&text);
    }
}
