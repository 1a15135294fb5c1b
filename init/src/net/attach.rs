//! `coracle-init attach NAME`: gives a workload its network. It runs as a hook of the workload's start, with the
//! container's state (runtime-spec, "State") on standard input.
//!
//! A pair of links, one end in the namespace as `eth0`: both know each other's hardware addresses for ever, so that
//! nobody asks for them and no packet waits. All of it goes with the namespace. Refuses nothing of what the workload may
//! do with its end later: what comes out of it is the firewall's to judge, by the link that it comes from.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;

use config::boot::ENDPOINT_GROUP;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;

use super::endpoints::{self, ENDPOINTS, Endpoint};
use super::netlink::address::{Address, NO_DUPLICATE_CHECK};
use super::netlink::link::{self, Kind, Peer, Wishes};
use super::netlink::message::Request;
use super::netlink::route::{Origin, Route, set_neighbour};
use super::netlink::{LOOPBACK_INDEX, Socket, has_ipv6};

/// What the workload's end is called.
const NAME: &str = "eth0";
/// Its index: behind those that tunnels take which a kernel makes in each namespace.
const INDEX: u32 = 16;
/// Below this a port is only for who may `CAP_NET_BIND_SERVICE`; in a namespace of one's own there is nobody to guard.
const PORT_START: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// The most of the state that is read, in bytes.
const STATE_LIMIT: u64 = 1 << 20;

/// What is needed of the state.
#[derive(Deserialize)]
struct State {
    pid: u32,
}

/// Runs the hook; returns the exit status. The reason of a failure is on standard error, where the runtime takes it
/// from.
#[must_use]
pub fn run(name: &str) -> i32 {
    let result = read_pid().and_then(|pid| attach_process(name, pid));
    result.map_or_else(
        |reason| {
            eprintln!("{reason}");
            1
        },
        |()| 0,
    )
}

fn read_pid() -> Result<u32, String> {
    let mut text = Vec::new();
    let mut input = io::stdin().take(STATE_LIMIT);
    input
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot read the container's state: {error}"))?;
    let state: State = serde_json::from_slice(&text)
        .map_err(|error| format!("this is no container's state: {error}"))?;
    Ok(state.pid)
}

/// Attaches the network namespace of a process; this process is in it from then on.
///
/// # Errors
/// In words: there is no such endpoint, or what the kernel says.
pub fn attach_process(name: &str, pid: u32) -> Result<(), String> {
    let text = fs::read_to_string(ENDPOINTS)
        .map_err(|error| format!("cannot read {ENDPOINTS}: {error}"))?;
    let endpoint = endpoints::find(&text, name)
        .ok_or_else(|| format!("{name} has no network of its own in {ENDPOINTS}"))?;
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(|error| format!("cannot open {path}: {error}"))?;
    attach(&endpoint, &namespace).map_err(|error| format!("network of {name}: {error}"))
}

/// Attaches a network namespace; this thread is in it from then on.
///
/// # Errors
/// What the kernel says.
pub fn attach(endpoint: &Endpoint, namespace: &File) -> Result<(), String> {
    let explain = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
    let mut host = Socket::open().map_err(explain("speak to the kernel"))?;
    let refused = host
        .request_each(&host_requests(endpoint, namespace))
        .map_err(|refused| explain("make its link")(refused.into()))?;
    // Of an earlier life there is often nothing to delete.
    let mut refused = refused
        .into_iter()
        .filter(|refused| (refused.request, refused.errno) != (0, Errno::NODEV));
    if let Some(refused) = refused.next() {
        return Err(explain("make its link")(refused.into()));
    }
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| explain("enter its namespace")(errno.into()))?;
    let mut inside = Socket::open().map_err(explain("speak to the kernel inside"))?;
    inside
        .request_all(&inside_requests(endpoint))
        .map_err(|refused| explain("set up its end")(refused.into()))?;
    fs::write(PORT_START, "0").map_err(explain("open the ports below 1024 to it"))
}

/// What is done on the machine's side. The first one removes what an earlier life left there: namespaces are destroyed
/// some time after they are left.
fn host_requests(endpoint: &Endpoint, namespace: &File) -> Vec<Request> {
    let index = endpoint.index;
    let wishes = Wishes {
        hardware_address: Some(endpoint.host_hardware()),
        group: Some(ENDPOINT_GROUP),
        ..Wishes::default()
    };
    let peer = Peer {
        namespace: namespace.as_fd(),
        index: INDEX,
        wishes: Wishes {
            name: Some(NAME),
            hardware_address: Some(endpoint.peer_hardware()),
            ..Wishes::default()
        },
    };
    let quiet = Wishes {
        no_link_local: has_ipv6(),
        // Connections to 127.0.0.1 of the machine lead here by published ports.
        route_localnet: true,
        ..Wishes::default()
    };
    let mut requests = vec![
        link::delete(&endpoint.link),
        link::create(&endpoint.link, index, &Kind::Veth(peer), &wishes),
        link::change(index, &quiet),
        link::bring_up(index),
    ];
    for (address, gateway) in pairs(endpoint) {
        let route = Route {
            source: Some(gateway),
            // By IPv6 the kernel's own choice is 1024, and a router that says better is heard.
            metric: address.is_ipv6().then_some(1),
            ..Route::new(index, address, length(address), Origin::Boot)
        };
        requests.push(route.set());
        requests.push(set_neighbour(index, address, endpoint.peer_hardware()));
    }
    requests
}

/// What is done in the namespace.
fn inside_requests(endpoint: &Endpoint) -> Vec<Request> {
    let quiet = Wishes {
        no_link_local: has_ipv6(),
        ..Wishes::default()
    };
    let mut requests = vec![
        link::bring_up(LOOPBACK_INDEX),
        link::change(INDEX, &quiet),
        link::bring_up(INDEX),
    ];
    for (address, gateway) in pairs(endpoint) {
        let own = Address {
            flags: NO_DUPLICATE_CHECK,
            ..Address::new(INDEX, address, length(address))
        };
        let route = Route {
            on_link: true,
            ..Route::default_by(INDEX, gateway, Origin::Boot)
        };
        requests.push(own.set());
        requests.push(set_neighbour(INDEX, gateway, endpoint.host_hardware()));
        requests.push(route.set());
    }
    requests
}

/// The workload's address and the machine's, by the families that the kernel speaks.
fn pairs(endpoint: &Endpoint) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let pairs = [
        (endpoint.address.into(), endpoint.gateway.into()),
        (endpoint.address6.into(), endpoint.gateway6.into()),
    ];
    pairs.into_iter().take(if has_ipv6() { 2 } else { 1 })
}

/// The prefix of one address alone.
const fn length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
