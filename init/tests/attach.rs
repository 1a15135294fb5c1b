//! Workloads' links in real network namespaces: one plays the machine, others the workloads. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use coracle_init::net::attach::attach;
use coracle_init::net::endpoints::Endpoint;
use coracle_init::net::netlink::address::{self, Address, NO_DUPLICATE_CHECK};
use coracle_init::net::netlink::link::{self, Link};
use coracle_init::net::netlink::route::{self, Route};
use coracle_init::net::netlink::{LOOPBACK_INDEX, Socket};
use coracle_init::sys;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, 1);

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        link: format!("w{last}"),
        index: 0x1_0000 + u32::from(last),
        address: Ipv4Addr::new(10, 213, 0, last),
        address6: Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, last.into()),
        gateway: GATEWAY,
        gateway6: GATEWAY6,
    }
}

/// A new network namespace, which lives as long as the file; `None` where the tests may not.
fn namespace() -> Option<File> {
    let make = || {
        sys::unshare(libc::CLONE_NEWNET).ok()?;
        Some(File::open("/proc/thread-self/ns/net").unwrap())
    };
    let made = thread::spawn(make).join().unwrap();
    if made.is_none() {
        eprintln!("skipped: no network namespace to be had without root");
    }
    made
}

/// Does something in a namespace.
fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// A machine that forwards, without a firewall.
fn machine() -> Option<File> {
    let machine = namespace()?;
    within(&machine, || {
        let address = |address: IpAddr, prefix| {
            let flags = NO_DUPLICATE_CHECK;
            let address = Address::new(LOOPBACK_INDEX, address, prefix);
            Address { flags, ..address }.set()
        };
        let requests = [
            link::bring_up(LOOPBACK_INDEX),
            address(GATEWAY.into(), 32),
            address(GATEWAY6.into(), 128),
        ];
        Socket::open().unwrap().request_all(&requests).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    });
    Some(machine)
}

fn attach_to(machine: &File, last: u8) -> File {
    let workload = namespace().unwrap();
    within(machine, || attach(&endpoint(last), &workload).unwrap());
    workload
}

/// Who the connection seems to come from, for who is connected to.
fn connect(from: &File, to: &File, address: IpAddr) -> IpAddr {
    let listener = within(to, || {
        TcpListener::bind(SocketAddr::new(address, 80)).unwrap()
    });
    let target = listener.local_addr().unwrap();
    let mut stream = within(from, || {
        TcpStream::connect_timeout(&target, Duration::from_secs(60)).unwrap()
    });
    let (mut accepted, peer) = listener.accept().unwrap();
    stream.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    accepted.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    peer.ip()
}

#[test]
fn workloads_reach_each_other_and_the_machine_by_both_families() {
    let Some(machine) = machine() else { return };
    let (one, two) = (attach_to(&machine, 11), attach_to(&machine, 12));
    let (first, second) = (endpoint(11), endpoint(12));
    for (from, to) in [
        (IpAddr::from(first.address), IpAddr::from(second.address)),
        (first.address6.into(), second.address6.into()),
    ] {
        assert_eq!(connect(&one, &two, to), from);
        assert_eq!(connect(&two, &one, from), to);
    }
    for (workload, gateway) in [
        (IpAddr::from(first.address), IpAddr::from(GATEWAY)),
        (first.address6.into(), GATEWAY6.into()),
    ] {
        assert_eq!(connect(&one, &machine, gateway), workload);
        assert_eq!(connect(&machine, &one, workload), gateway);
    }
    let own = endpoint(11).address;
    assert_eq!(connect(&one, &one, own.into()), IpAddr::from(own));
}

#[test]
fn a_workload_has_its_addresses_at_once_and_every_port() {
    let Some(machine) = machine() else { return };
    let workload = attach_to(&machine, 13);
    within(&workload, || {
        let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        assert_eq!(start.unwrap().trim(), "0");
        let mut socket = Socket::open().unwrap();
        let links = socket.list(&link::list(), Link::read).unwrap();
        let running: Vec<_> = links.iter().filter(|link| link.is_running()).collect();
        let names: Vec<_> = running.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo", "eth0"]);
        let addresses = socket.list(&address::list(), Address::read).unwrap();
        let own = addresses
            .iter()
            .filter(|address| address.index != LOOPBACK_INDEX);
        let own: Vec<_> = own
            .map(|found| (found.address, found.flags & address::TENTATIVE))
            .collect();
        let endpoint = endpoint(13);
        let expected = [(endpoint.address.into(), 0), (endpoint.address6.into(), 0)];
        assert_eq!(own, expected);
    });
}

#[test]
fn what_a_workload_asks_for_comes_from_its_own_address() {
    let Some(machine) = machine() else { return };
    let _workload = attach_to(&machine, 15);
    let link = endpoint(15).link;
    within(&machine, || {
        let setting = |name: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{link}/{name}");
            fs::read_to_string(path).unwrap().trim().to_owned()
        };
        // Else it could fill the machine's one table of neighbours by ARP.
        assert_eq!(setting("rp_filter"), "1");
        assert_eq!(setting("send_redirects"), "0");
    });
}

#[test]
fn what_is_for_a_workload_that_is_gone_goes_nowhere() {
    let Some(machine) = machine() else { return };
    within(&machine, || {
        let requests = [
            route::set_unreachable(Ipv4Addr::new(10, 213, 0, 0).into(), 16),
            route::set_unreachable("fd12::".parse().unwrap(), 64),
        ];
        Socket::open().unwrap().request_all(&requests).unwrap();
    });
    let endpoint = endpoint(16);
    for address in [IpAddr::from(endpoint.address), endpoint.address6.into()] {
        let error = within(&machine, || TcpStream::connect((address, 80)).unwrap_err());
        // Without any route it were the network that is unreachable.
        assert_eq!(
            error.kind(),
            ErrorKind::HostUnreachable,
            "{address}: {error}"
        );
    }
    let workload = attach_to(&machine, 16);
    assert_eq!(
        connect(&machine, &workload, endpoint.address.into()),
        IpAddr::from(GATEWAY)
    );
}

#[test]
fn what_an_earlier_life_left_makes_room() {
    let Some(machine) = machine() else { return };
    let old = attach_to(&machine, 14);
    let new = attach_to(&machine, 14);
    let address = endpoint(14).address;
    assert_eq!(
        connect(&machine, &new, address.into()),
        IpAddr::from(GATEWAY)
    );
    let left = within(&old, || {
        let mut socket = Socket::open().unwrap();
        socket.list(&link::list(), Link::read).unwrap()
    });
    assert!(left.iter().all(|link| link.name != "eth0"));
}

#[test]
fn a_thousand_lives_leave_nothing() {
    let Some(machine) = machine() else { return };
    let begun = Instant::now();
    let mut attaching = Duration::ZERO;
    for round in 0..1000_u32 {
        let workload = namespace().unwrap();
        let last = 20 + u8::try_from(round % 200).unwrap();
        let start = Instant::now();
        within(&machine, || attach(&endpoint(last), &workload).unwrap());
        attaching += start.elapsed();
    }
    println!("{attaching:?} of {:?}", begun.elapsed());
    let deadline = Instant::now() + Duration::from_secs(120);
    within(&machine, || {
        let mut socket = Socket::open().unwrap();
        loop {
            let links = socket.list(&link::list(), Link::read).unwrap();
            let routes = socket.list(&route::list(), Route::read).unwrap();
            if links.len() == 1 && routes.iter().all(|route| route.index == LOOPBACK_INDEX) {
                return;
            }
            // Namespaces are destroyed by and by.
            assert!(Instant::now() < deadline, "{links:?} {routes:?}");
            thread::sleep(Duration::from_millis(50));
        }
    });
}
