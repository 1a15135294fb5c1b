//! What a client of the resolver sends: it is answered in a datagram's size, asked on, or passed over.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use coracle_init::net::resolver::UDP_SIZE;
use coracle_init::net::resolver::forwarder::{Action, Client, Forwarder, Via};
use coracle_init::net::resolver::names::Names;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let gateway = (Ipv4Addr::new(10, 213, 0, 1), Ipv6Addr::LOCALHOST);
    let mut forwarder = Forwarder::new(Names::new(gateway, Vec::new()));
    let client = Client {
        address: ([10, 213, 0, 2], 1).into(),
        via: Via::Udp(0),
    };
    for action in forwarder.question(client, bytes, Duration::ZERO, &mut || 0) {
        if let Action::Reply(_, message) = action {
            assert!((12..=usize::from(UDP_SIZE)).contains(&message.len()));
        }
    }
});
