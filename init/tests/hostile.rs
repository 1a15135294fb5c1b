//! The child `uplink` against hostile routers and DHCPv6 servers, in network namespaces: it keeps working, stays small, and
//! heals once they are gone. Needs root and `ip`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod network;

use std::net::Ipv6Addr;
use std::time::Duration;

use network::router::{
    ADVERTISE, INFINITE, RENEW, REPLY, REQUEST, Router, SOLICIT, grant, name_servers, prefix,
};
use network::{Machine, Net, wait_until};

const AUTO: &str = "[network.interface.uplink]\ndevice = \"eth0\"\n";
const MANAGED: u8 = 0x80;

/// Numbers that look random and are the same each time.
struct Dice(u32);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(self.0 >> 8).unwrap() % limit
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, last)
}

/// An option of an advertisement that no honest router sends. What it tells of addresses and routes ends soon: these are
/// the kernel's to use, and a link has room for sixteen addresses.
fn hostile_option(dice: &mut Dice) -> Vec<u8> {
    let short = [0, 1, 2, 3];
    let network = Ipv6Addr::new(0xfd66, 0, 0, dice.of(&[0, 1, 2, 3]), 0, 0, 0, 0);
    let mut option = match dice.below(6) {
        0 => {
            let length = dice.of(&[0, 1, 7, 63, 64, 65, 127, 128, 129, 255]);
            prefix(network, length, (dice.of(&short), dice.of(&short)))
        }
        1 => {
            let servers: Vec<_> = (0..dice.below(20))
                .map(|_| address(dice.0 as u16))
                .collect();
            name_servers(dice.of(&[0, 1, 2, 600, INFINITE]), &servers)
        }
        2 => {
            let mut option = vec![31, 4, 0, 0];
            option.extend(dice.of(&[1, 600, INFINITE]).to_be_bytes());
            // Compression pointers, which are none here, labels beyond the end, and such as nobody can show.
            option.extend(
                (0..24).map(|_| dice.of(&[0, 1, 3, 63, 64, 0xc0, b'a', b'\n', b'.', 0xff])),
            );
            option
        }
        3 => {
            let mut option = vec![5, 1, 0, 0];
            option.extend(
                dice.of(&[0, 1, 68, 1279, 1280, 1400, 9000, INFINITE])
                    .to_be_bytes(),
            );
            option
        }
        4 => [
            vec![24, 3, dice.byte(), 8],
            vec![0, 0, 0, 1],
            network.octets().to_vec(),
        ]
        .concat(),
        _ => {
            let mut option = vec![dice.byte(), 2];
            option.extend((0..14).map(|_| dice.byte()));
            option
        }
    };
    if dice.below(8) == 0 {
        let at = dice.below(option.len());
        option[at] = dice.byte();
    }
    option
}

#[test]
fn a_flood_of_hostile_advertisements_does_not_end_it_and_an_honest_router_is_heard_behind_it() {
    let Some(net) = Net::new() else { return };
    let router = Router::new(&net);
    let mut machine = Machine::start(&net, AUTO);
    let link = || net.machine(&["-6", "addr", "show", "dev", "eth0"]);
    wait_until(link, |seen| {
        seen.contains("fe80::") && !seen.contains("tentative")
    });
    let before = machine.resident();
    let mut dice = Dice(7);
    for round in 0..4000 {
        let options: Vec<u8> = (0..dice.below(5))
            .flat_map(|_| hostile_option(&mut dice))
            .collect();
        // The managed flag stays away: nobody is there to be asked.
        let seconds = dice.of(&[0, 1, 2]);
        router.advertise(dice.byte() & 0x3f, seconds, &options);
        if round % 500 == 0 {
            let cut = dice.below(20);
            router.send_raw(&vec![134; cut]);
            router.advertise(0, 1, &vec![dice.byte(); 60_000]);
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(machine.is_running());
    let after = machine.resident();
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
    let resolv_conf = machine.file("run/coracle/etc/resolv.conf");
    assert!(resolv_conf.lines().count() <= 10, "{resolv_conf}");
    let mtu = net.machine(&["link", "show", "eth0"]);
    assert!(mtu.contains("mtu 1500"), "{mtu}");
    // What was told for ever is believed as long as the link stays. Another cable, and others are heard.
    net.server(&["link", "set", "eth0", "down"]);
    wait_until(
        || net.machine(&["link", "show", "eth0"]),
        |seen| seen.contains("NO-CARRIER"),
    );
    net.server(&["link", "set", "eth0", "up"]);
    net.server(&["addr", "replace", "fe80::1/64", "dev", "eth0", "nodad"]);
    let good = [
        prefix(address(0), 64, (600, 1200)),
        name_servers(1200, &[address(0x53)]),
    ];
    let facts = || {
        router.advertise(0, 1800, &good.concat());
        std::thread::sleep(Duration::from_millis(300));
        machine.file("run/coracle/net/facts.json")
    };
    wait_until(facts, |seen| seen.contains("fd07::53"));
    wait_until(link, |seen| seen.contains("fd07::ff:fe00:702/64"));
    let routes = net.machine(&["-6", "route"]);
    assert!(routes.contains("default via fe80::1"), "{routes}");
    machine.wait_for("fd07::ff:fe00:702/64");
}

#[test]
fn a_flood_of_hostile_dhcpv6_answers_does_not_end_it_and_an_honest_server_is_heard_behind_it() {
    let Some(net) = Net::new() else { return };
    let router = Router::new(&net);
    let mut machine = Machine::start(&net, AUTO);
    let asked = loop {
        router.advertise(MANAGED, 1800, &[]);
        if let Some(asked) = router.next_within(Duration::from_millis(500)) {
            break asked;
        }
    };
    assert_eq!(asked.kind(), SOLICIT);
    let before = machine.resident();
    let mut dice = Dice(11);
    let good = grant(&asked, ADVERTISE, address(0x66), (600, 1200));
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        match dice.below(8) {
            // Somebody else's exchange, or somebody else's client.
            0 => bytes[1 + dice.below(3)] ^= 1 << dice.below(8),
            1 => bytes[8 + dice.below(10)] ^= 1 << dice.below(8),
            2 => bytes.truncate(dice.below(good.len())),
            3 => bytes.extend((0..dice.below(60_000)).map(|at| u8::try_from(at % 251).unwrap())),
            4 => bytes[0] = dice.byte() | 8,
            _ => {
                for _ in 0..1 + dice.below(4) {
                    let at = 18 + dice.below(bytes.len() - 18);
                    bytes[at] = dice.of(&[0, 1, 0x7f, 0x80, 0xff]);
                }
            }
        }
        router.send(&asked, &bytes);
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(machine.is_running());
    let after = machine.resident();
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
    router.forget();
    router.serve(address(0x100), (600, 1200));
    machine.wait_for("fd07::100");
}

#[test]
fn leases_of_dhcpv6_that_end_at_once_soon_or_never_are_taken_as_they_are() {
    let Some(net) = Net::new() else { return };
    let router = Router::new(&net);
    let mut machine = Machine::start(&net, AUTO);
    while router.next_within(Duration::from_millis(500)).is_none() {
        router.advertise(MANAGED, 1800, &[]);
    }
    // One that ends before it begins is none, and nobody asks for it without a pause.
    let asked = router.wait_for(SOLICIT);
    router.send(&asked, &grant(&asked, ADVERTISE, address(0x10), (0, 0)));
    // More time to be used than to be there is nonsense (RFC 8415 §21.6).
    let asked = router.wait_for(SOLICIT);
    router.send(&asked, &grant(&asked, ADVERTISE, address(0x11), (2, 1)));
    // One that ends before it is known to be nobody else's is of no use, and does no harm: it is not asked for in a hurry.
    let mut messages = 0;
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while std::time::Instant::now() < end {
        let Some(asked) = router.next_within(Duration::from_secs(1)) else {
            continue;
        };
        messages += 1;
        let kind = match asked.kind() {
            SOLICIT => ADVERTISE,
            REQUEST | RENEW => REPLY,
            _ => continue,
        };
        router.send(&asked, &grant(&asked, kind, address(0x12), (1, 1)));
    }
    assert!(messages < 40, "{messages} messages in five seconds");
    router.serve(address(0x13), (INFINITE, INFINITE));
    machine.wait_for("fd07::13");
    let seen = net.machine(&["-6", "addr", "show", "dev", "eth0"]);
    assert!(seen.contains("fd07::13/128"), "{seen}");
    let line = seen
        .lines()
        .skip_while(|line| !line.contains("fd07::13/128"))
        .nth(1);
    assert!(
        line.is_some_and(|line| line.contains("valid_lft forever")),
        "{seen}"
    );
    assert!(
        !seen.contains("fd07::10/") && !seen.contains("fd07::11/"),
        "{seen}"
    );
}

#[test]
fn a_workloads_address_is_not_taken_of_a_dhcpv6_server() {
    let Some(net) = Net::new() else { return };
    let router = Router::new(&net);
    let text = format!("{AUTO}[workload.w]\nimage = \"dir:x\"\n");
    let spec = config::parse(&format!("name = \"machine\"\n{text}"));
    let inside = spec.unwrap_or_else(|_| panic!("{text}")).fabric.endpoints[0].address6;
    let mut machine = Machine::start(&net, &text);
    while router.next_within(Duration::from_millis(500)).is_none() {
        router.advertise(MANAGED, 1800, &[]);
    }
    for _ in 0..3 {
        let asked = router.next_within(Duration::from_secs(60)).unwrap();
        assert_eq!(
            asked.kind(),
            SOLICIT,
            "it asks on as if nobody had answered"
        );
        router.send(&asked, &grant(&asked, ADVERTISE, inside, (600, 1200)));
    }
    router.serve(address(0x13), (600, 1200));
    machine.wait_for("fd07::13");
}
