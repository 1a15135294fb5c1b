//! The child `uplink` against real servers and hostile ones, in network namespaces. Needs root, `ip` and `dnsmasq`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod network;

use std::net::Ipv4Addr;
use std::time::Duration;

use network::server::Scripted;
use network::{Machine, Net};

/// `[network.interface.uplink]` with these keys.
fn uplink(keys: &str) -> String {
    format!("[network.interface.uplink]\ndevice = \"eth0\"\n{keys}\n")
}

#[test]
fn a_real_server_gives_addresses_of_both_families_and_gets_them_back() {
    let Some(net) = Net::new() else { return };
    net.server(&["addr", "add", "10.7.0.1/24", "dev", "eth0"]);
    net.server(&["addr", "add", "fd07::1/64", "dev", "eth0", "nodad"]);
    let leases = net.path("leases");
    let lease_file = format!("--dhcp-leasefile={leases}");
    let _dnsmasq = net.dnsmasq(&[
        "--dhcp-range=10.7.0.50,10.7.0.60,5m",
        "--dhcp-range=fd07::100,fd07::1ff,64,5m",
        "--enable-ra",
        "--dhcp-authoritative",
        "--dhcp-option=option:router,10.7.0.1",
        "--dhcp-option=option:dns-server,10.7.0.53",
        "--dhcp-option=option:ntp-server,10.7.0.123",
        "--dhcp-option=option:domain-search,corp.example",
        "--dhcp-option=option:mtu,1400",
        "--dhcp-option=option:classless-static-route,10.9.0.0/16,10.7.0.9,0.0.0.0/0,10.7.0.1",
        "--dhcp-option=option6:dns-server,[fd07::53]",
        "--domain=lan.example",
        "--dhcp-host=02:00:00:00:07:02,machine-7",
        &lease_file,
    ]);
    let mut machine = Machine::start(&net, &uplink("dhcp = true"));
    machine.wait_for("bound uplink eth0 10.7.0.");
    let bound = machine.wait_for("fd07::1");
    assert!(bound.contains("gateway 10.7.0.1"), "{bound}");
    let facts = machine.wait_for_file("run/coracle/net/facts.json", |text| {
        text.contains("fd07::53")
    });
    for part in ["10.7.0.53", "10.7.0.123", "corp.example", "machine-7"] {
        assert!(facts.contains(part), "{part}: {facts}");
    }
    let resolv_conf = machine.file("run/coracle/etc/resolv.conf");
    assert!(
        resolv_conf.contains("nameserver 10.7.0.53\n"),
        "{resolv_conf}"
    );
    assert!(
        resolv_conf.starts_with("search corp.example"),
        "{resolv_conf}"
    );
    assert_eq!(machine.run(&["hostname"]).trim(), "machine-7");
    let hosts = machine.file("run/coracle/etc/hosts");
    assert!(hosts.contains("127.0.1.1 machine-7\n"), "{hosts}");
    let routes = net.machine(&["route"]);
    assert!(
        routes.contains("10.9.0.0/16 via 10.7.0.9 dev eth0 proto dhcp"),
        "{routes}"
    );
    assert!(
        routes.contains("default via 10.7.0.1 dev eth0 proto dhcp"),
        "{routes}"
    );
    assert!(net.machine(&["link", "show", "eth0"]).contains("mtu 1400"));
    assert!(net.machine(&["-6", "route"]).contains("default via fe80::"));
    let is_leased = |text: &str| text.contains("02:00:00:00:07:02");
    machine.wait_for_path(&leases, is_leased);
    machine.end();
    machine.wait_for_path(&leases, |text| !is_leased(text));
}

/// A server of the test's own, at 10.7.0.1.
fn scripted() -> Option<(Net, Scripted)> {
    let net = Net::new()?;
    net.server(&["addr", "add", "10.7.0.1/24", "dev", "eth0"]);
    let server = Scripted::new(&net);
    Some((net, server))
}

#[test]
fn a_lease_is_renewed_refused_rebound_and_lost_when_the_server_vanishes() {
    let Some((net, server)) = scripted() else {
        return;
    };
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    server.serve([10, 7, 0, 50], 8);
    machine.wait_for("bound uplink eth0 10.7.0.50/24 gateway 10.7.0.1");
    let renewal = server.wait_for(network::server::REQUEST);
    assert_eq!(renewal.from, Ipv4Addr::new(10, 7, 0, 50));
    server.answer(&renewal, network::server::ACK, [10, 7, 0, 50], 8);
    let renewal = server.wait_for(network::server::REQUEST);
    server.answer(&renewal, network::server::NAK, [0; 4], 0);
    machine.wait_for("lost uplink");
    assert!(!net.machine(&["addr"]).contains("10.7.0.50"));
    server.serve([10, 7, 0, 51], 8);
    machine.wait_for("bound uplink eth0 10.7.0.51/24");
    // From now on it is silent.
    machine.wait_for("lost uplink");
    server.forget();
    server.serve([10, 7, 0, 52], 600);
    machine.wait_for("bound uplink eth0 10.7.0.52/24");
}

#[test]
fn a_machine_that_comes_back_asks_for_the_address_it_had() {
    let Some((net, server)) = scripted() else {
        return;
    };
    let interfaces = uplink("dhcp = true\nipv6 = \"off\"");
    let mut machine = Machine::start_with(&net, &interfaces, true);
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    machine.restart();
    drop(machine);
    let mut machine = Machine::start_with(&net, &interfaces, true);
    let first = server.next();
    assert_eq!(
        (first.kind, first.from.is_unspecified()),
        (network::server::REQUEST, true)
    );
    assert_eq!(first.wish, Some(Ipv4Addr::new(10, 7, 0, 50)));
    server.answer(&first, network::server::ACK, [10, 7, 0, 50], 600);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    machine.end();
    assert_eq!(
        server.wait_for(network::server::RELEASE).from,
        Ipv4Addr::new(10, 7, 0, 50)
    );
    drop(machine);
    // What was given back is a wish, and another network refuses what it does not know.
    let mut machine = Machine::start_with(&net, &interfaces, true);
    let first = server.next();
    assert_eq!(first.kind, network::server::DISCOVER);
    assert_eq!(first.wish, Some(Ipv4Addr::new(10, 7, 0, 50)));
    server.serve([10, 7, 0, 60], 600);
    machine.wait_for("bound uplink eth0 10.7.0.60/24");
    machine.restart();
    drop(machine);
    let mut machine = Machine::start_with(&net, &interfaces, true);
    let first = server.wait_for(network::server::REQUEST);
    server.answer(&first, network::server::NAK, [0; 4], 0);
    server.serve([10, 7, 0, 61], 600);
    machine.wait_for("bound uplink eth0 10.7.0.61/24");
}

#[test]
fn an_address_of_somebody_else_is_told_and_declined() {
    let Some((net, server)) = scripted() else {
        return;
    };
    net.server(&["addr", "add", "10.7.0.50/24", "dev", "eth0"]);
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("10.7.0.50 is the address of 02:00:00:00:07:01: declined");
    assert_eq!(
        server.wait_for(network::server::DECLINE).wish,
        Some(Ipv4Addr::new(10, 7, 0, 50))
    );
    machine.wait_for("lost uplink");
    server.serve([10, 7, 0, 51], 600);
    machine.wait_for("bound uplink eth0 10.7.0.51/24");
}

#[test]
fn an_address_that_somebody_claims_later_and_insists_on_is_declined() {
    let Some((net, server)) = scripted() else {
        return;
    };
    let accept = "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_accept";
    net.spawn(&["sh", "-c", accept]).0.wait().unwrap();
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    // The address is announced when nobody has answered.
    let neighbours = || net.server(&["neigh", "show", "10.7.0.50"]);
    network::wait_until(neighbours, |seen| seen.contains("02:00:00:00:07:02"));
    net.server(&["addr", "add", "10.7.0.50/24", "dev", "eth0"]);
    // Each of its questions for another address claims its own.
    let _ping = net.spawn(&["ping", "-I", "10.7.0.50", "10.7.0.99"]);
    machine.wait_for("10.7.0.50 is the address of 02:00:00:00:07:01: declined");
    server.wait_for(network::server::DECLINE);
    machine.wait_for("lost uplink");
}

#[test]
fn a_link_that_is_lost_and_back_has_its_lease_confirmed() {
    let Some((net, server)) = scripted() else {
        return;
    };
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("bound uplink");
    net.server(&["link", "set", "eth0", "down"]);
    machine.wait_for("lost uplink");
    net.server(&["link", "set", "eth0", "up"]);
    let confirm = server.wait_for(network::server::REQUEST);
    assert_eq!(confirm.wish, Some(Ipv4Addr::new(10, 7, 0, 50)));
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    server.answer(&confirm, network::server::NAK, [0; 4], 0);
    machine.wait_for("lost uplink");
    server.serve([10, 7, 0, 51], 600);
    machine.wait_for("bound uplink eth0 10.7.0.51/24");
}

#[test]
fn a_link_that_comes_late_goes_and_comes_again_is_configured_each_time() {
    let Some(net) = Net::new() else { return };
    let late =
        "[network.interface.late]\nmac = \"02:00:00:00:09:02\"\naddresses = [\"192.0.2.7/24\"]\n";
    let mut machine = Machine::start(
        &net,
        &format!("{}{late}", uplink("addresses = [\"10.7.0.2/24\"]")),
    );
    machine.wait_for("bound uplink eth0 10.7.0.2/24");
    machine.wait_for("late: waiting for its link");
    for _ in 0..2 {
        net.plug("eth9", 9);
        machine.wait_for("bound late eth9 192.0.2.7/24");
        net.server(&["link", "del", "eth9"]);
        machine.wait_for("lost late");
    }
}

#[test]
fn static_interfaces_have_what_the_file_says() {
    let Some(net) = Net::new() else { return };
    net.server(&["addr", "add", "10.7.0.2/24", "dev", "eth0"]);
    let second = "[network.interface.second]\ndevice = \"eth1\"\n\
                  [network.interface.br0]\nbridge = { of = [\"second\"] }\naddresses = [\"10.8.0.2/24\"]\n\
                  gateways = [\"10.8.0.1\"]\nipv6 = \"static\"\n";
    net.plug("eth1", 8);
    let keys = "addresses = [\"10.7.0.2/24\", \"fd07::2/64\"]\ngateways = [\"10.7.0.1\", \"fd07::1\"]\nmtu = 1300\n\
                metric = 7\nipv6 = \"static\"\nroutes = [{ to = \"10.9.0.0/16\", via = \"10.7.0.9\", metric = 3 }]\n";
    let mut machine = Machine::start(&net, &format!("{}{second}", uplink(keys)));
    machine.wait_for("uplink: 10.7.0.2 is the address of 02:00:00:00:07:01 too");
    machine.wait_for("bound br0 br0 10.8.0.2/24");
    let routes = net.machine(&["route"]);
    for route in [
        "default via 10.7.0.1 dev eth0 proto static metric 7",
        "default via 10.8.0.1 dev br0 proto static metric 102",
        "10.9.0.0/16 via 10.7.0.9 dev eth0 proto static metric 3",
        "10.7.0.0/24 dev eth0 proto kernel scope link src 10.7.0.2 metric 7",
    ] {
        assert!(routes.contains(route), "{route}:\n{routes}");
    }
    assert!(
        net.machine(&["-6", "route"])
            .contains("default via fd07::1 dev eth0 proto static metric 7")
    );
    let links = net.machine(&["-d", "link"]);
    assert!(
        links.contains("mtu 1300") && links.contains("master br0"),
        "{links}"
    );
    let part = net.machine(&["addr", "show", "eth1"]);
    assert!(!part.contains("inet"), "{part}");
    assert!(!net.machine(&["addr", "show", "eth0"]).contains("dynamic"));
}

#[test]
fn a_flood_of_hostile_answers_neither_ends_it_nor_takes_its_memory() {
    let Some((net, server)) = scripted() else {
        return;
    };
    let mut machine = Machine::start(&net, &uplink("dhcp = true"));
    let discover = server.wait_for(network::server::DISCOVER);
    let good = network::server::reply(&discover, network::server::OFFER, [10, 7, 0, 50], 600);
    let before = machine.resident();
    let mut state = 0x2545_f491_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 8).unwrap() % below
    };
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        // The head that says whom it is for stays: what is behind it is what hostile bytes are about.
        for _ in 0..1 + random(6) {
            let at = 236 + random(bytes.len() - 236);
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        // An offer it stays: whoever may grant on this network may grant anything.
        bytes[240..243].copy_from_slice(&[53, 1, network::server::OFFER]);
        let more = random(300);
        bytes.extend((0..more).map(|at| u8::try_from(at % 251).unwrap()));
        server.send(&bytes);
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(machine.is_running());
    let after = machine.resident();
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
    server.forget();
    loop {
        let packet = server.next();
        match packet.kind {
            network::server::DISCOVER => {
                server.answer(&packet, network::server::OFFER, [10, 7, 0, 51], 600)
            }
            network::server::REQUEST => {
                server.answer(&packet, network::server::ACK, [10, 7, 0, 51], 600);
                break;
            }
            _ => {}
        }
    }
    machine.wait_for("bound uplink eth0 10.7.0.51/24");
}

#[test]
fn a_pool_that_ran_dry_is_waited_for() {
    let Some(net) = Net::new() else { return };
    net.server(&["addr", "add", "10.7.0.1/24", "dev", "eth0"]);
    let leases = net.path("leases");
    let taken = "4000000000 02:00:00:00:00:99 10.7.0.50 other *\n";
    std::fs::write(&leases, taken).unwrap();
    let lease_file = format!("--dhcp-leasefile={leases}");
    let dnsmasq = net.dnsmasq(&["--dhcp-range=10.7.0.50,10.7.0.50,5m", &lease_file]);
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    std::thread::sleep(Duration::from_secs(2));
    assert!(machine.is_running());
    assert!(!net.machine(&["addr"]).contains("10.7.0"));
    drop(dnsmasq);
    std::fs::write(&leases, "").unwrap();
    let _dnsmasq = net.dnsmasq(&["--dhcp-range=10.7.0.50,10.7.0.50,5m", &lease_file]);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
}

#[test]
fn routers_alone_give_addresses_and_name_servers() {
    let Some(net) = Net::new() else { return };
    net.server(&["addr", "add", "fd07::1/64", "dev", "eth0", "nodad"]);
    let _dnsmasq = net.dnsmasq(&[
        "--dhcp-range=fd07::,ra-stateless,64,5m",
        "--enable-ra",
        "--dhcp-option=option6:dns-server,[fd07::53]",
        "--dhcp-option=option6:domain-search,corp.example",
        "--dhcp-option=option6:ntp-server,[fd07::123]",
    ]);
    let mut machine = Machine::start(&net, &uplink("metric = 9"));
    machine.wait_for("bound uplink eth0 fd07::ff:fe00:702/64");
    // The name servers come with the advertisement, the time servers by DHCPv6, which it asks for.
    let facts = machine.wait_for_file("run/coracle/net/facts.json", |text| {
        text.contains("fd07::123")
    });
    assert!(facts.contains("fd07::53") && facts.contains("corp.example"));
    let routes = net.machine(&["-6", "route"]);
    let default = routes.lines().find(|line| line.starts_with("default"));
    assert!(
        default.is_some_and(|line| line.contains("proto ra metric 9")),
        "{routes}"
    );
}

#[test]
fn an_address_by_dhcpv6_is_declined_confirmed_renewed_and_released() {
    let Some(net) = Net::new() else { return };
    let own_address = ["fd07::1/64", "dev", "eth0", "nodad"];
    net.server(&[&["addr", "add"], &own_address[..]].concat());
    // Every address of the range is somebody's, until one was declined.
    let taken = ["fd07::100/128", "fd07::101/128"];
    for address in taken {
        net.server(&["addr", "add", address, "dev", "eth0", "nodad"]);
    }
    let leases = net.path("leases");
    let lease_file = format!("--dhcp-leasefile={leases}");
    let _dnsmasq = net.dnsmasq(&[
        "--dhcp-range=fd07::100,fd07::101,64,2m",
        "--enable-ra",
        &lease_file,
    ]);
    let mut machine = Machine::start(&net, &uplink(""));
    machine.wait_for("is somebody else's address: declined");
    net.wait_for_log("DHCPDECLINE(eth0)");
    for address in taken {
        net.server(&["addr", "del", address, "dev", "eth0"]);
    }
    machine.wait_for("bound uplink eth0 fd07::10");
    net.server(&["link", "set", "eth0", "down"]);
    machine.wait_for("lost uplink");
    net.server(&["link", "set", "eth0", "up"]);
    net.server(&[&["addr", "add"], &own_address[..]].concat());
    net.wait_for_log("DHCPCONFIRM(eth0)");
    machine.wait_for("bound uplink eth0 fd07::10");
    // Half of the shortest lease that dnsmasq grants has to pass.
    net.wait_for_log("DHCPRENEW(eth0)");
    assert!(net.machine(&["-6", "addr"]).contains("fd07::10"));
    machine.end();
    net.wait_for_log("DHCPRELEASE(eth0)");
}

#[test]
fn what_is_killed_leaves_everything_and_the_next_one_takes_it_over() {
    let Some((net, server)) = scripted() else {
        return;
    };
    net.plug("eth1", 8);
    let bridge = "[network.interface.second]\ndevice = \"eth1\"\n\
                  [network.interface.br0]\nbridge = { of = [\"second\"] }\naddresses = [\"10.8.0.2/24\"]\n";
    let interfaces = format!("{}{bridge}", uplink("dhcp = true\nipv6 = \"off\""));
    let mut machine = Machine::start(&net, &interfaces);
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("bound uplink");
    drop(machine);
    let before = net.machine(&["addr"]);
    assert!(before.contains("10.7.0.50/24") && before.contains("10.8.0.2/24"));
    let mut machine = Machine::start(&net, &interfaces);
    machine.wait_for("bound br0 br0 10.8.0.2/24");
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    let after = net.machine(&["addr"]);
    assert_eq!(after.matches("inet 10.").count(), 2, "{after}");
}

#[test]
fn two_interfaces_on_one_network_do_not_take_each_other_for_somebody_else() {
    let Some(net) = Net::new() else { return };
    net.plug("eth1", 8);
    net.server(&["link", "add", "br0", "type", "bridge"]);
    for port in ["eth0", "eth1"] {
        net.server(&["link", "set", port, "master", "br0"]);
    }
    net.server(&["link", "set", "br0", "up"]);
    net.server(&["addr", "add", "10.7.0.1/24", "dev", "br0"]);
    let lease_file = format!("--dhcp-leasefile={}", net.path("leases"));
    let _dnsmasq = net.dnsmasq(&[
        "--interface=br0",
        "--dhcp-range=10.7.0.50,10.7.0.60,5m",
        &lease_file,
    ]);
    let keys = "dhcp = true\nipv6 = \"off\"";
    let second = format!("[network.interface.second]\ndevice = \"eth1\"\n{keys}\n");
    let mut machine = Machine::start(&net, &format!("{}{second}", uplink(keys)));
    machine.wait_for("bound");
    machine.wait_for("bound");
    // It asks three times within two seconds, and is answered at once.
    std::thread::sleep(Duration::from_secs(3));
    let addresses = net.machine(&["addr"]);
    assert_eq!(addresses.matches("inet 10.7.0.").count(), 2, "{addresses}");
}

#[test]
fn a_network_that_is_back_is_told_also_where_the_file_fixes_all_facts() {
    let Some(net) = Net::new() else { return };
    let fixed = "[network]\ndns = [\"10.7.0.1\"]\nntp = [\"10.7.0.1\"]\n";
    let keys = "addresses = [\"10.7.0.2/24\"]\nipv6 = \"off\"";
    let mut machine = Machine::start(&net, &format!("{fixed}{}", uplink(keys)));
    machine.wait_for("bound uplink");
    net.server(&["link", "set", "eth0", "down"]);
    machine.wait_for("lost uplink");
    net.server(&["link", "set", "eth0", "up"]);
    machine.wait_for("changed");
    machine.wait_for("bound uplink");
}

#[test]
fn who_is_killed_and_does_not_find_again_what_it_had_tells_that_it_is_lost() {
    let Some(net) = Net::new() else { return };
    let interfaces = uplink("addresses = [\"10.7.0.2/24\"]\nipv6 = \"off\"");
    let mut machine = Machine::start(&net, &interfaces);
    machine.wait_for("bound uplink");
    drop(machine);
    net.server(&["link", "set", "eth0", "down"]);
    let mut machine = Machine::start(&net, &interfaces);
    machine.wait_for("lost uplink");
}

#[test]
fn what_dhcp_tells_of_the_workloads_addresses_is_refused_or_told() {
    let Some(net) = Net::new() else { return };
    net.server(&["addr", "add", "10.7.0.1/24", "dev", "eth0"]);
    let _dnsmasq = net.dnsmasq(&[
        "--dhcp-range=10.7.0.50,10.7.0.60,5m",
        "--dhcp-authoritative",
        "--dhcp-option=option:classless-static-route,10.7.9.0/24,10.7.0.9,10.9.0.0/16,10.7.0.9,0.0.0.0/0,10.7.0.1",
    ]);
    let pool = "[network]\naddresses = [\"10.7.0.0/16\"]\n";
    let workload = "[workload.w]\nimage = \"dir:x\"\n";
    let interface = uplink("dhcp = true\nipv6 = \"off\"");
    let mut machine = Machine::start(&net, &format!("{pool}{interface}{workload}"));
    machine.wait_for("the route to 10.7.9.0/24 is refused");
    machine.wait_for("bound uplink eth0 10.7.0.");
    machine.wait_for("meets the workloads' addresses, 10.7.0.0/16");
    let routes = net.machine(&["route"]);
    assert!(routes.contains("10.9.0.0/16 via 10.7.0.9"), "{routes}");
    assert!(!routes.contains("10.7.9.0"), "{routes}");
}

#[test]
fn the_mtu_of_a_lease_goes_with_it() {
    use network::server::{ACK, DISCOVER, NAK, OFFER, REQUEST, reply, reply_with};
    let Some((net, server)) = scripted() else {
        return;
    };
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    let with_mtu = |packet: &_, kind| {
        let answer = reply(packet, kind, [10, 7, 0, 50], 8);
        server.send(&reply_with(&answer, 26, &1400_u16.to_be_bytes()));
    };
    with_mtu(&server.wait_for(DISCOVER), OFFER);
    with_mtu(&server.wait_for(REQUEST), ACK);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    let link = || net.machine(&["link", "show", "eth0"]);
    assert!(link().contains("mtu 1400"));
    let renewal = server.wait_for(REQUEST);
    server.answer(&renewal, NAK, [0; 4], 0);
    machine.wait_for("lost uplink");
    network::wait_until(link, |link| link.contains("mtu 1500"));
}

#[test]
fn a_link_with_another_hardware_address_begins_anew_without_the_address_of_before() {
    let Some((net, server)) = scripted() else {
        return;
    };
    let mut machine = Machine::start(&net, &uplink("dhcp = true\nipv6 = \"off\""));
    server.serve([10, 7, 0, 50], 600);
    machine.wait_for("bound uplink eth0 10.7.0.50/24");
    net.machine(&["link", "set", "eth0", "address", "02:00:00:00:07:99"]);
    server.serve([10, 7, 0, 51], 600);
    machine.wait_for("bound uplink eth0 10.7.0.51/24");
    let addresses = net.machine(&["addr", "show", "eth0"]);
    assert!(!addresses.contains("10.7.0.50"), "{addresses}");
    // It is the same while there is no carrier.
    net.server(&["link", "set", "eth0", "down"]);
    machine.wait_for("lost uplink");
    net.machine(&["link", "set", "eth0", "address", "02:00:00:00:07:98"]);
    net.server(&["link", "set", "eth0", "up"]);
    server.serve([10, 7, 0, 52], 600);
    machine.wait_for("bound uplink eth0 10.7.0.52/24");
    let addresses = net.machine(&["addr", "show", "eth0"]);
    assert!(!addresses.contains("10.7.0.51"), "{addresses}");
}

#[test]
fn routers_are_asked_again_when_the_cable_moves() {
    let Some(net) = Net::new() else { return };
    net.server(&["addr", "add", "fd07::1/64", "dev", "eth0", "nodad"]);
    let _dnsmasq = net.dnsmasq(&["--dhcp-range=fd07::,ra-only,64,5m", "--enable-ra"]);
    let mut machine = Machine::start(&net, &uplink(""));
    machine.wait_for("bound uplink eth0 fd07::");
    let asked = || {
        let log = std::fs::read_to_string(net.path("dnsmasq.log")).unwrap();
        log.matches("RTR-SOLICIT").count().to_string()
    };
    let before: usize = asked().parse().unwrap();
    net.server(&["link", "set", "eth0", "down"]);
    machine.wait_for("lost uplink");
    net.server(&["link", "set", "eth0", "up"]);
    net.server(&["addr", "replace", "fd07::1/64", "dev", "eth0", "nodad"]);
    network::wait_until(asked, |asked| asked.parse::<usize>().unwrap() > before);
}

#[test]
fn a_part_that_leaves_its_bridge_by_hand_is_made_one_again() {
    let Some(net) = Net::new() else { return };
    let bridge =
        "[network.interface.br0]\nbridge = { of = [\"uplink\"] }\naddresses = [\"10.8.0.2/24\"]\n";
    let mut machine = Machine::start(&net, &format!("{}{bridge}", uplink("")));
    machine.wait_for("bound br0 br0 10.8.0.2/24");
    let link = || net.machine(&["link", "show", "eth0"]);
    network::wait_until(link, |link| link.contains("master br0"));
    // One that has just been made a part is left alone for a moment.
    std::thread::sleep(Duration::from_secs(6));
    net.machine(&["link", "set", "eth0", "nomaster"]);
    network::wait_until(link, |link| link.contains("master br0"));
}

#[test]
fn what_the_kernel_refuses_of_the_file_is_put_on_the_link_later() {
    let Some(net) = Net::new() else { return };
    let keys = "addresses = [\"10.7.0.2/24\"]\ngateways = [\"10.7.0.9\"]\nipv6 = \"static\"\n";
    // No machine is its own router.
    net.machine(&["addr", "add", "10.7.0.9/32", "dev", "lo"]);
    let mut machine = Machine::start(&net, &uplink(keys));
    machine.wait_for("gateway");
    net.machine(&["addr", "del", "10.7.0.9/32", "dev", "lo"]);
    let routes = || net.machine(&["route"]);
    network::wait_until(routes, |routes| routes.contains("default via 10.7.0.9"));
}
