//! What a DHCPv6 server sends: an answer is within its bounds. The head and the client's identifier are given.
#![no_main]

use coracle_init::net::dhcp6::message::{Identity, MOST, Reply, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let identity = Identity {
        hardware_address: [0; 6],
        association: 0,
    };
    let head = [
        7, 0, 0, 0, 0, 1, 0, 10, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1,
    ];
    let packet = [&head[..], bytes].concat();
    if let Some(Reply::Advertise(grant) | Reply::Reply(grant)) = parse(&packet, &identity, 0) {
        assert!(grant.addresses.len() <= MOST && grant.dns.len() <= MOST);
        assert!(grant.ntp.len() <= MOST);
    }
});
