//! Transactions of the firewall against the running kernel, in a network namespace of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};

use config::boot::{BootEndpoint, BootFabric, CROWDED_SETS, FIREWALL_TABLE};
use coracle_init::net::firewall::{self, Error, batch};
use coracle_init::net::netlink::Socket;
use coracle_init::net::netlink::connection::{self, Connection};
use coracle_init::net::netlink::message::{Answer, CREATE, EXCLUSIVE, Request, attributes};
use coracle_init::net::relief;
use coracle_init::sys;
use rustix::io::Errno;

/// `NFNL_SUBSYS_NFTABLES`.
const TABLES: u8 = 10;
const NEW_TABLE: u16 = (TABLES as u16) << 8;
const GET_TABLE: u16 = NEW_TABLE + 1;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const NEW_SET: u16 = NEW_TABLE + 9;
const NEW_ELEMENTS: u16 = NEW_TABLE + 12;
const GET_ELEMENTS: u16 = NEW_TABLE + 13;
/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_NEW`.
const NEW_CONNECTION: u16 = 1 << 8;
const INET: u8 = 1;

fn table(name: &str) -> Request {
    let mut request = Request::new(NEW_TABLE, CREATE, &[INET, 0, 0, 0]);
    request.put_text(1, name);
    request
}

fn chain(of: &str) -> Request {
    let mut request = Request::new(NEW_CHAIN, CREATE, &[INET, 0, 0, 0]);
    request.put_text(1, of).put_text(3, "c");
    request
}

fn tables() -> usize {
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).unwrap();
    let list = Request::new(GET_TABLE, 0, &[INET, 0, 0, 0]);
    let is_table = |answer: &Answer<'_>| (answer.kind == NEW_TABLE).then_some(());
    socket.list(&list, is_table).unwrap().len()
}

#[test]
fn a_transaction_is_taken_whole_or_refused_with_the_number_of_its_message() {
    if sys::unshare(libc::CLONE_NEWNET).is_err() {
        eprintln!("skipped: no network namespace to be had without root");
        return;
    }
    // More than a socket's buffer usually has room for.
    let many: Vec<Request> = (0..6000)
        .map(|number| table(&format!("table-{number}")))
        .collect();
    firewall::load(batch(&many)).unwrap();
    assert_eq!(tables(), 6000);
    let wrong = [
        table("one"),
        chain("one"),
        chain("no-such-table"),
        table("two"),
    ];
    let Err(Error::Refused(refused)) = firewall::load(batch(&wrong)) else {
        panic!("taken");
    };
    // The begin is number 0.
    assert_eq!((refused.request, refused.errno), (3, Errno::NOENT));
    assert_eq!(tables(), 6000);
}

fn endpoint(name: &str, last: u8) -> BootEndpoint {
    BootEndpoint {
        name: name.to_owned(),
        link: format!("w_{name}"),
        address: Ipv4Addr::new(10, 213, 0, last),
        address6: format!("fd00::{last}").parse().unwrap(),
        names: Vec::new(),
        networks: Vec::new(),
        outside: true,
    }
}

fn fabric() -> BootFabric {
    BootFabric {
        gateway: Ipv4Addr::new(10, 213, 0, 1),
        gateway6: "fd00::1".parse().unwrap(),
        pool: (Ipv4Addr::new(10, 213, 0, 0), 16),
        pool6: ("fd00::".parse().unwrap(), 64),
        firewall: String::new(),
        modules: Vec::new(),
        spare_modules: Vec::new(),
        endpoints: vec![endpoint("flood", 2), endpoint("quiet", 3)],
        resolver: false,
    }
}

/// As the builder makes it.
fn crowded_set(name: &str, length: u32) -> Request {
    const TIMEOUT: u32 = 0x10;
    let mut request = Request::new(NEW_SET, CREATE, &[INET, 0, 0, 0]);
    request.put_text(1, FIREWALL_TABLE).put_text(2, name);
    request.put(3, &TIMEOUT.to_be_bytes());
    request.put(4, &7_u32.to_be_bytes());
    request.put(5, &length.to_be_bytes());
    request.put(10, &length.to_be_bytes());
    request
}

/// An entry in the table of connections, over UDP.
fn connection(from: IpAddr, to: IpAddr, port: u16, is_assured: bool) -> Request {
    tracked(17, from, to, port, is_assured)
}

fn tracked(protocol: u8, from: IpAddr, to: IpAddr, port: u16, is_assured: bool) -> Request {
    const SEEN_REPLY_AND_CONFIRMED: u32 = 2 | 8;
    let (family, source, destination) = if from.is_ipv4() {
        (2, 1, 2)
    } else {
        (10, 3, 4)
    };
    let mut request = Request::new(NEW_CONNECTION, CREATE | EXCLUSIVE, &[family, 0, 0, 0]);
    for (kind, from, to, ports) in [(1, from, to, (port, 53)), (2, to, from, (53_u16, port))] {
        request.nest(kind, |tuple| {
            tuple.nest(1, |addresses| {
                addresses.put_address(source, from);
                addresses.put_address(destination, to);
            });
            tuple.nest(2, |transport| {
                transport.put(1, &[protocol]);
                transport.put(2, &ports.0.to_be_bytes());
                transport.put(3, &ports.1.to_be_bytes());
            });
        });
    }
    let status = SEEN_REPLY_AND_CONFIRMED | if is_assured { 4 } else { 0 };
    request.put(3, &status.to_be_bytes());
    request.put(7, &600_u32.to_be_bytes());
    request
}

/// The same over TCP, and both sides closed it.
fn closed(from: IpAddr, to: IpAddr, port: u16) -> Request {
    const TIME_WAIT: u8 = 7;
    let mut request = tracked(6, from, to, port, true);
    request.nest(4, |protocol| {
        protocol.nest(1, |tcp| {
            tcp.put(1, &[TIME_WAIT]);
        });
    });
    request
}

/// How many connections somebody began or answers.
fn held(by: IpAddr) -> usize {
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).unwrap();
    let is_one = |answer: &Answer<'_>| {
        let connection = Connection::read(answer)?;
        (connection.from == by || connection.by == by).then_some(())
    };
    socket.list(&connection::list(), is_one).unwrap().len()
}

/// How many addresses are in a set.
fn crowded(set: &str) -> usize {
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).unwrap();
    let mut list = Request::new(GET_ELEMENTS, 0, &[INET, 0, 0, 0]);
    list.put_text(1, FIREWALL_TABLE).put_text(2, set);
    let count = |answer: &Answer<'_>| {
        let body = (answer.kind == NEW_ELEMENTS).then(|| &answer.body[4..])?;
        let list = attributes(body).find(|(kind, _)| *kind == 3)?.1;
        Some(attributes(list).count())
    };
    socket.list(&list, count).unwrap().iter().sum()
}

#[test]
fn connections_that_are_over_make_room_and_nobody_is_shut_out_for_them() {
    if sys::unshare(libc::CLONE_NEWNET).is_err() {
        eprintln!("skipped: no network namespace to be had without root");
        return;
    }
    let [first, second] = [
        crowded_set(CROWDED_SETS[0], 4),
        crowded_set(CROWDED_SETS[1], 16),
    ];
    firewall::load(batch(&[table(FIREWALL_TABLE), first, second])).unwrap();
    let fabric = fabric();
    let server = IpAddr::from(fabric.endpoints[0].address);
    let outside: IpAddr = [192, 0, 2, 1].into();
    let entries = (1000..1600).map(|port| closed(outside, server, port));
    let alive = (2000..2300).map(|port| connection(outside, server, port, true));
    let entries: Vec<Request> = entries.chain(alive).collect();
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).unwrap();
    for some in entries.chunks(100) {
        socket.request_all(some).unwrap();
    }
    assert_eq!(held(server), 900);
    relief::relieve(&fabric, 1000).unwrap();
    assert_eq!((held(server), crowded(CROWDED_SETS[0])), (300, 0));
    // More than a half of the table, and nothing new is over: the three that were are enough here, and none there.
    let three = [3000, 3001, 3002].map(|port| closed(outside, server, port));
    socket.request_all(&three).unwrap();
    relief::relieve(&fabric, 440).unwrap();
    assert_eq!((held(server), crowded(CROWDED_SETS[0])), (300, 0));
    relief::relieve(&fabric, 440).unwrap();
    assert_eq!((held(server), crowded(CROWDED_SETS[0])), (220, 1));
}

#[test]
fn who_fills_the_table_of_connections_is_cut_and_shut_out_and_nobody_else() {
    if sys::unshare(libc::CLONE_NEWNET).is_err() {
        eprintln!("skipped: no network namespace to be had without root");
        return;
    }
    let sets = [
        crowded_set(CROWDED_SETS[0], 4),
        crowded_set(CROWDED_SETS[1], 16),
    ];
    let [first, second] = sets;
    firewall::load(batch(&[table(FIREWALL_TABLE), first, second])).unwrap();
    let fabric = fabric();
    let [flood, quiet] = [0, 1].map(|at| IpAddr::from(fabric.endpoints[at].address));
    let flood6 = IpAddr::from(fabric.endpoints[0].address6);
    let (outside, outside6) = ([192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap());
    let mut entries = Vec::new();
    for port in 1000..1500 {
        entries.push(connection(flood, outside, port, true));
        entries.push(connection(flood6, outside6, port, true));
    }
    entries.extend((1000..1050).map(|port| connection(outside, quiet, port, true)));
    entries.extend((2000..2100).map(|port| connection(quiet, outside, port, false)));
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).unwrap();
    for some in entries.chunks(100) {
        socket.request_all(some).unwrap();
    }
    assert_eq!((held(flood) + held(flood6), held(quiet)), (1000, 150));

    relief::relieve(&fabric, 4000).unwrap();
    assert_eq!(
        (held(flood) + held(flood6), crowded(CROWDED_SETS[0])),
        (1000, 0)
    );
    relief::relieve(&fabric, 1400).unwrap();
    // A half is 700, of which the other one has 50 that both sides of were heard.
    assert_eq!((held(flood) + held(flood6), held(quiet)), (650, 150));
    assert_eq!(CROWDED_SETS.map(crowded), [1, 1]);
    // Again, while it is shut out already.
    relief::relieve(&fabric, 1000).unwrap();
    assert_eq!((held(flood) + held(flood6), held(quiet)), (450, 150));
}
