//! The netlink layer against the running kernel, each test in a network namespace of its own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

use coracle_init::net::netlink::address::{self, Address};
use coracle_init::net::netlink::link::{self, Kind, Link, Peer, Wishes};
use coracle_init::net::netlink::monitor::{Monitor, News, group};
use coracle_init::net::netlink::route::{self, Origin, Route};
use coracle_init::net::netlink::{LOOPBACK_INDEX, Socket};
use coracle_init::sys;
use rustix::io::Errno;

/// Puts this thread into a new namespace; `false` where the tests may not.
fn enter() -> bool {
    let entered = sys::unshare(libc::CLONE_NEWNET).is_ok();
    if !entered {
        eprintln!("skipped: no network namespace to be had without root");
    }
    entered
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn make_pair(socket: &mut Socket, namespace: &File) {
    let wishes = Wishes {
        group: Some(8),
        up: Some(true),
        ..Wishes::default()
    };
    let peer = Peer {
        namespace: namespace.as_fd(),
        index: 101,
        wishes: Wishes {
            name: Some("b"),
            ..Wishes::default()
        },
    };
    let request = link::create("a", 100, &Kind::Veth(peer), &wishes);
    socket.request_all(&[request, link::bring_up(101)]).unwrap();
}

fn links(socket: &mut Socket) -> Vec<Link> {
    socket.list(&link::list(), Link::read).unwrap()
}

#[test]
fn a_pair_with_addresses_and_routes_is_made_by_one_call_and_listed() {
    if !enter() {
        return;
    }
    let mut socket = Socket::open().unwrap();
    make_pair(&mut socket, &own_namespace());
    let own = Address {
        flags: address::NO_DUPLICATE_CHECK,
        ..Address::new(100, address("fd00::1"), 64)
    };
    let requests = [
        Address::new(100, address("192.0.2.1"), 24).set(),
        own.set(),
        Route::default_by(100, address("192.0.2.2"), Origin::Static).set(),
        Route::default_by(100, address("fd00::2"), Origin::Static).set(),
        Route::new(100, address("10.9.0.0"), 16, Origin::Static).set(),
        route::set_neighbour(100, address("192.0.2.2"), [2, 0, 0, 0, 0, 2]),
        route::set_neighbour(100, address("fd00::2"), [2, 0, 0, 0, 0, 2]),
    ];
    socket.request_all(&requests).unwrap();
    let found = links(&mut socket);
    let a = found.iter().find(|link| link.name == "a").unwrap();
    assert_eq!((a.index, a.group), (100, 8));
    assert_eq!(a.kind.as_deref(), Some("veth"));
    assert!(a.is_running());
    let routes = socket.list(&route::list(), Route::read).unwrap();
    let gateways: Vec<_> = routes.iter().filter_map(|route| route.gateway).collect();
    assert_eq!(gateways, [address("192.0.2.2"), address("fd00::2")]);
    let addresses = socket.list(&address::list(), Address::read).unwrap();
    assert!(addresses.iter().any(|found| found.address == own.address));
}

#[test]
fn a_refusal_tells_which_request_and_why_in_the_kernels_words() {
    if !enter() {
        return;
    }
    let mut socket = Socket::open().unwrap();
    make_pair(&mut socket, &own_namespace());
    let requests = [
        link::bring_up(LOOPBACK_INDEX),
        Route::default_by(100, address("192.0.2.2"), Origin::Static).set(),
        Address::new(100, address("192.0.2.1"), 24).set(),
        link::bring_up(999),
    ];
    let refused = socket.request_each(&requests).unwrap();
    let told: Vec<_> = refused
        .iter()
        .map(|refused| (refused.request, refused.errno))
        .collect();
    assert_eq!(told, [(1, Errno::NETUNREACH), (3, Errno::NODEV)]);
    let text = refused[0].to_string();
    assert!(text.contains("invalid gateway"), "{text}");
    // What stood behind it is done all the same.
    let addresses = socket.list(&address::list(), Address::read).unwrap();
    assert!(addresses.iter().any(|found| found.index == 100));
}

#[test]
fn news_of_links_and_addresses_are_heard() {
    if !enter() {
        return;
    }
    let mut monitor = Monitor::open(group::LINK | group::IPV4_ADDRESS | group::IPV4_ROUTE).unwrap();
    let mut socket = Socket::open().unwrap();
    make_pair(&mut socket, &own_namespace());
    let own = Address::new(100, address("192.0.2.1"), 24);
    let requests = [own.set(), link::delete("a")];
    socket.request_all(&requests).unwrap();
    let news = monitor.read();
    let heard = |wanted: &dyn Fn(&News) -> bool| news.iter().any(wanted);
    assert!(heard(
        &|news| matches!(news, News::Link(link) if link.name == "b")
    ));
    assert!(heard(
        &|news| matches!(news, News::Address(found) if found.address == own.address)
    ));
    assert!(heard(
        &|news| matches!(news, News::Route(route) if route.index == 100)
    ));
    assert!(heard(
        &|news| matches!(news, News::LinkGone(link) if link.index == 100)
    ));
    assert_eq!(links(&mut socket).len(), 1);
}

#[test]
fn links_are_changed_by_wishes() {
    if !enter() {
        return;
    }
    let mut socket = Socket::open().unwrap();
    make_pair(&mut socket, &own_namespace());
    let down = Wishes {
        up: Some(false),
        ..Wishes::default()
    };
    let wishes = Wishes {
        name: Some("renamed"),
        mtu: Some(1400),
        group: Some(17),
        hardware_address: Some([2, 0, 0, 0, 0, 9]),
        no_link_local: true,
        up: Some(true),
        ..Wishes::default()
    };
    let requests = [link::change(100, &down), link::change(100, &wishes)];
    socket.request_all(&requests).unwrap();
    let found = links(&mut socket);
    let link = found.iter().find(|link| link.index == 100).unwrap();
    assert_eq!(link.name, "renamed");
    assert_eq!((link.mtu, link.group), (1400, 17));
    assert_eq!(link.hardware_address, wishes.hardware_address);
}
