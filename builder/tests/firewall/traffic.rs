//! What the firewall lets through, both families, between namespaces of this host.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::machine::{MACHINE, Machine, OUTSIDE, Seen, ask, connect, serve};

const TEXT: &str = r#"
name = "m"
[network]
addresses = ["10.77.0.0/24", "fd00:77::/64"]
[network.named.front]
[network.named.back]
internal = true
[network.interface.lan]
device = "up0"
[firewall]
allow = [{ ports = "22", interface = "lan" }, { ports = "23", from = ["198.51.100.0/24"] }]
[workload.web]
image = "dir:x"
network = ["front", "back"]
ports = ["8080:80", "53:53/udp", "7000:7000/udp", "127.0.0.1:8443:80", "9000-9002:80-82", "20000-29999:20000-29999"]
[workload.db]
image = "dir:x"
network = "back"
[workload.other]
image = "dir:x"
network = "own"
[workload.job]
image = "dir:x"
network = "own"
reach = ["outside", "web:82", "metrics"]
[workload.narrow]
image = "dir:x"
network = "front"
reach = ["web:80"]
[workload.metrics]
image = "dir:x"
network = "host"
ports = ["9100:9100", "9101:9102", "127.0.0.1:9200:9201", "10.0.0.9:9300:9300"]
"#;

fn machine() -> Machine {
    let machine = Machine::new(TEXT);
    for port in [53, 80, 81, 82, 25_000] {
        serve(machine.workload("web"), "web", port);
    }
    serve(machine.workload("db"), "db", 5432);
    serve(machine.workload("other"), "other", 80);
    for port in [22, 23, 53, 9100, 9102, 9201, 9300, 9999] {
        serve(&machine.host, "machine", port);
    }
    serve(&machine.outside, "outside", 80);
    machine
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn answer(name: &str, seen: IpAddr) -> Seen {
    Seen::Answer(name.to_owned(), seen)
}

/// Who connects, where to, and what comes of it.
type Row<'a> = (&'a str, IpAddr, u16, Seen);

fn check(machine: &Machine, rows: Vec<Row<'_>>) {
    for (from, to, port, expected) in rows {
        let namespace = match from {
            "outside" => &machine.outside,
            "machine" => &machine.host,
            name => machine.workload(name),
        };
        let tcp = connect(namespace, to, port);
        assert_eq!(tcp, expected, "{from} to {to} port {port}");
    }
}

#[test]
fn workloads_reach_those_of_their_networks_and_nobody_else() {
    let machine = machine();
    for v6 in [false, true] {
        let of = |name| machine.address(name, v6);
        check(
            &machine,
            vec![
                ("web", of("db"), 5432, answer("db", of("web"))),
                ("db", of("web"), 81, answer("web", of("db"))),
                ("db", of("web"), 83, Seen::Refused),
                ("other", of("web"), 80, Seen::Dropped),
                ("web", of("other"), 80, Seen::Dropped),
                ("other", of("db"), 5432, Seen::Dropped),
                ("narrow", of("web"), 80, answer("web", of("narrow"))),
                ("narrow", of("web"), 81, Seen::Dropped),
                ("web", of("narrow"), 80, Seen::Refused),
            ],
        );
    }
}

#[test]
fn the_outside_is_reached_with_the_machines_address_but_not_from_internal_networks() {
    let machine = machine();
    for (v6, outside, own) in [
        (false, OUTSIDE[0], MACHINE[0]),
        (true, OUTSIDE[1], MACHINE[1]),
    ] {
        let (outside, own) = (ip(outside), ip(own));
        check(
            &machine,
            vec![
                ("web", outside, 80, answer("outside", own)),
                ("job", outside, 80, answer("outside", own)),
                ("db", outside, 80, Seen::Dropped),
                ("narrow", outside, 80, Seen::Dropped),
                ("machine", outside, 80, answer("outside", own)),
                // A neighbour that knows the pool.
                ("outside", machine.address("web", v6), 80, Seen::Dropped),
                ("outside", machine.gateway(v6), 9999, Seen::Dropped),
            ],
        );
    }
}

#[test]
fn published_ports_lead_to_their_workload_and_keep_who_asks() {
    let machine = machine();
    for (v6, outside, own) in [
        (false, OUTSIDE[0], MACHINE[0]),
        (true, OUTSIDE[1], MACHINE[1]),
    ] {
        let (outside, own) = (ip(outside), ip(own));
        let of = |name| machine.address(name, v6);
        let gateway = machine.gateway(v6);
        check(
            &machine,
            vec![
                ("outside", own, 8080, answer("web", outside)),
                ("outside", own, 9000, answer("web", outside)),
                ("outside", own, 9001, answer("web", outside)),
                ("outside", own, 25_000, answer("web", outside)),
                ("outside", own, 80, Seen::Dropped),
                ("outside", own, 8443, Seen::Dropped),
                // By the machine's address and by the gateway's; to oneself with the gateway in between.
                ("other", own, 8080, answer("web", of("other"))),
                ("other", gateway, 8080, answer("web", of("other"))),
                ("web", own, 8080, answer("web", gateway)),
                ("web", gateway, 9001, answer("web", gateway)),
                // From internal networks those of the same network alone.
                ("db", own, 8080, answer("web", of("db"))),
                ("job", own, 9002, answer("web", of("job"))),
                ("job", own, 8080, Seen::Dropped),
                ("narrow", own, 8080, answer("web", of("narrow"))),
                ("narrow", own, 9001, Seen::Dropped),
                ("machine", own, 8080, answer("web", own)),
            ],
        );
        let dns = ask(&machine.outside, own, 53, None);
        assert_eq!(dns, answer("web", outside));
        // Workloads ask the machine at the gateway's address, whoever publishes the port.
        let dns = ask(machine.workload("other"), gateway, 53, None);
        assert_eq!(dns, answer("machine", of("other")));
    }
}

#[test]
fn the_machine_itself_reaches_published_ports_by_its_loopback_address() {
    let machine = machine();
    let gateway = machine.gateway(false);
    for port in [8080, 8443, 9001] {
        let seen = connect(&machine.host, ip("127.0.0.1"), port);
        assert_eq!(seen, answer("web", gateway), "{port}");
    }
    // The kernel routes nothing of IPv6's loopback address: nobody waits for it.
    assert_eq!(connect(&machine.host, ip("::1"), 8080), Seen::Refused);
}

#[test]
fn the_machines_own_ports_are_open_as_the_file_says() {
    let machine = machine();
    for (v6, outside, own) in [
        (false, OUTSIDE[0], MACHINE[0]),
        (true, OUTSIDE[1], MACHINE[1]),
    ] {
        let (outside, own) = (ip(outside), ip(own));
        let of = |name| machine.address(name, v6);
        let gateway = machine.gateway(v6);
        check(
            &machine,
            vec![
                ("outside", own, 22, answer("machine", outside)),
                ("outside", own, 23, Seen::Dropped),
                ("outside", own, 9999, Seen::Dropped),
                ("outside", own, 9100, answer("machine", outside)),
                ("outside", own, 9101, answer("machine", outside)),
                ("outside", own, 9102, Seen::Dropped),
                ("other", own, 9100, answer("machine", of("other"))),
                ("other", gateway, 9101, answer("machine", of("other"))),
                ("other", own, 22, Seen::Dropped),
                ("other", gateway, 9999, Seen::Dropped),
                ("job", gateway, 9100, answer("machine", of("job"))),
                ("job", gateway, 9101, answer("machine", of("job"))),
                // What it names it reaches as all others do, and no further.
                ("job", gateway, 9102, Seen::Dropped),
                ("job", gateway, 9201, Seen::Dropped),
                ("job", gateway, 9300, Seen::Dropped),
                ("narrow", gateway, 9100, Seen::Dropped),
                ("db", gateway, 9100, Seen::Dropped),
            ],
        );
        let ping = |namespace: &crate::namespace::Namespace| {
            let to = own.to_string();
            namespace.run(&["ping", "-c1", "-W2", &to], None);
        };
        ping(&machine.outside);
    }
}

#[test]
fn a_workload_that_rules_its_own_network_gets_no_further() {
    let machine = machine();
    let hostile = machine.workload("other");
    let (web, db) = (machine.address("web", false), machine.address("db", false));
    // Somebody else's address, one of the outside, the machine's.
    for (v6, stolen) in [
        (false, db),
        (false, ip("203.0.113.9")),
        (false, machine.gateway(false)),
        (true, machine.address("db", true)),
        (true, ip("2001:db8:9::9")),
    ] {
        hostile.ip(&format!("addr add {stolen} dev eth0 nodad"));
        let target = machine.address("web", v6);
        assert_eq!(
            ask(hostile, target, 80, Some(stolen)),
            Seen::Dropped,
            "{stolen}"
        );
        let published = ip(MACHINE[usize::from(v6)]);
        assert_eq!(
            ask(hostile, published, 53, Some(stolen)),
            Seen::Dropped,
            "{stolen}"
        );
        let bits = if v6 { 128 } else { 32 };
        hostile.ip(&format!("addr del {stolen}/{bits} dev eth0"));
    }
    // The machine's loopback addresses: its links route them.
    hostile.ip("route del table local local 127.0.0.0/8 dev lo");
    hostile.ip("route del table local local 127.0.0.1 dev lo");
    hostile.ip(&format!(
        "route add 127.0.0.0/8 via {} dev eth0 onlink",
        machine.gateway(false)
    ));
    for port in [9999, 8443] {
        assert_eq!(connect(hostile, ip("127.0.0.1"), port), Seen::Dropped);
    }
    assert_eq!(connect(hostile, web, 80), Seen::Dropped);
}

#[test]
fn nobody_outside_answers_for_a_workload_that_is_gone() {
    let machine = machine();
    machine
        .host
        .ip(&format!("link del {}", link(&machine, "db")));
    for (v6, outside) in [(false, OUTSIDE[0]), (true, OUTSIDE[1])] {
        let family = if v6 { "-6" } else { "-4" };
        let host = &machine.host;
        host.ip(&format!("{family} route add default via {outside}"));
        let db = machine.address("db", v6);
        machine.outside.ip(&format!("addr add {db} dev lo nodad"));
        for from in ["web", "other"] {
            let seen = connect(machine.workload(from), db, 80);
            assert_eq!(seen, Seen::Dropped, "{from} to {db}");
        }
        let seen = connect(host, db, 80);
        assert_eq!(seen, Seen::Dropped, "the machine itself to {db}");
        // A router that leads the machine astray gets the traffic of those who are there neither.
        let web = machine.address("web", v6);
        let length = if v6 { 128 } else { 32 };
        let web_link = link(&machine, "web");
        host.ip(&format!("{family} route del {web}/{length} dev {web_link}"));
        machine.outside.ip(&format!("addr add {web} dev lo nodad"));
        let seen = connect(machine.workload("narrow"), web, 80);
        assert_eq!(seen, Seen::Dropped, "to {web}");
        for to in [web, ip(MACHINE[usize::from(v6)])] {
            let seen = connect(host, to, if to == web { 80 } else { 8080 });
            assert_eq!(seen, Seen::Dropped, "the machine itself to {to}");
        }
    }
}

#[test]
fn nobody_outside_is_a_workload_or_its_router() {
    let machine = machine();
    let web = machine.workload("web");
    let heard = web.within(|| UdpSocket::bind("[::]:7000").unwrap());
    heard
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    for v6 in [false, true] {
        let own = ip(MACHINE[usize::from(v6)]);
        let honest = ip(OUTSIDE[usize::from(v6)]);
        let stolen = [machine.address("db", v6), machine.gateway(v6)];
        for source in stolen {
            machine
                .outside
                .ip(&format!("addr add {source} dev lo nodad"));
        }
        for (source, comes) in [(honest, true), (stolen[0], false), (stolen[1], false)] {
            machine.outside.within(move || {
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.send_to(b"?", (own, 7000)).unwrap();
            });
            let seen = heard.recv_from(&mut [0; 8]);
            assert_eq!(seen.is_ok(), comes, "{source}: {seen:?}");
        }
    }
}

fn link<'a>(machine: &'a Machine, name: &str) -> &'a str {
    &machine.spec.fabric.endpoint(name).unwrap().link
}

#[test]
fn nothing_new_comes_from_or_to_one_that_fills_the_table_of_connections() {
    let machine = machine();
    for v6 in [false, true] {
        let of = |name| machine.address(name, v6);
        let set = config::boot::CROWDED_SETS[usize::from(v6)];
        let element = format!("{{ {} timeout 60s }}", of("web"));
        let table = ["inet", config::boot::FIREWALL_TABLE];
        let command = ["nft", "add", "element", table[0], table[1], set, &element];
        machine.host.run(&command, None);
        let outside = ip(OUTSIDE[usize::from(v6)]);
        let own = ip(MACHINE[usize::from(v6)]);
        check(
            &machine,
            vec![
                ("web", outside, 80, Seen::Dropped),
                ("web", of("db"), 5432, Seen::Dropped),
                ("web", machine.gateway(v6), 53, Seen::Dropped),
                ("db", of("web"), 81, Seen::Dropped),
                ("outside", own, 8080, Seen::Dropped),
                ("job", outside, 80, answer("outside", own)),
                (
                    "other",
                    machine.gateway(v6),
                    53,
                    answer("machine", of("other")),
                ),
            ],
        );
    }
}
