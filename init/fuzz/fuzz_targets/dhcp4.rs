//! What DHCPv4 servers send, one packet after the other, as time passes: a grant is within its bounds, and the client
//! always sleeps. The head, which says whom a packet is for, is given.
#![no_main]

use std::time::Duration;

use coracle_init::net::dhcp::client::{Client, Output};
use coracle_init::net::dhcp::message::{Identity, parse};
use coracle_init_fuzz::{Packets, pass};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let identity = Identity {
        xid: 0,
        hardware_address: [0; 6],
        hostname: String::new(),
    };
    let mut now = Duration::from_secs(1);
    let mut client = Client::new(now, None, 1);
    for (pause, options) in Packets(bytes) {
        pass(&mut client, &mut now, pause, Client::next_deadline, |client, now| {
            client.tick(now);
        });
        let mut packet = vec![0; 236];
        packet[..3].copy_from_slice(&[2, 1, 6]);
        packet[16..20].copy_from_slice(&[10, 0, 2, 15]);
        packet.extend([99, 130, 83, 99]);
        packet.extend(options);
        match (parse(&packet, &identity), options.len()) {
            (Some(reply), _) => {
                for output in client.receive(reply, now) {
                    if let Output::Bound(grant) = output {
                        assert!(grant.prefix <= 32 && grant.seconds > 0);
                        assert!(grant.dns.len() <= 8 && grant.routes.len() <= 64);
                    }
                }
            }
            (None, 0) => client.link_is_back(now),
            (None, 1) => drop(client.decline(now)),
            (None, _) => {}
        }
    }
});
