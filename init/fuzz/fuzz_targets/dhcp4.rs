//! What a DHCPv4 server sends: an answer is within its bounds. The head says whom it is for and is given.
#![no_main]

use std::time::Duration;

use coracle_init::net::dhcp::client::Client;
use coracle_init::net::dhcp::message::{Identity, Reply, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let identity = Identity {
        xid: 0,
        hardware_address: [0; 6],
        hostname: String::new(),
    };
    let mut packet = vec![0; 236];
    packet[..3].copy_from_slice(&[2, 1, 6]);
    packet[16..20].copy_from_slice(&[10, 0, 2, 15]);
    packet.extend([99, 130, 83, 99]);
    packet.extend(bytes);
    let mut client = Client::new(Duration::ZERO, None, 1);
    client.tick(Duration::ZERO);
    if let Some(reply) = parse(&packet, &identity) {
        if let Reply::Offer(grant) | Reply::Acknowledge(grant) = &reply {
            assert!(grant.prefix <= 32 && grant.seconds > 0);
            assert!(grant.dns.len() <= 8 && grant.routes.len() <= 64);
        }
        client.receive(reply, Duration::ZERO);
    }
});
