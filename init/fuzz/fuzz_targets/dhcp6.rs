//! What DHCPv6 servers send, one packet after the other, as time passes: a grant is within its bounds, and the client
//! always sleeps. The head and the client's identifier are given.
#![no_main]

use std::time::Duration;

use coracle_init::net::dhcp6::client::{Client, Output, Want};
use coracle_init::net::dhcp6::message::{Identity, MOST, parse};
use coracle_init_fuzz::{Packets, pass};

const CLIENT: [u8; 14] = [0, 1, 0, 10, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let identity = Identity {
        hardware_address: [0; 6],
        association: 0,
    };
    let mut now = Duration::from_secs(1);
    let mut client = Client::new(1);
    client.want(Want::Address, now);
    for (pause, options) in Packets(bytes) {
        pass(&mut client, &mut now, pause, Client::next_deadline, |client, now| {
            client.tick(now);
        });
        let Some((kind, options)) = options.split_first() else {
            client.link_is_back(now);
            continue;
        };
        let kind = match kind % 32 {
            0 => {
                client.decline(now);
                continue;
            }
            kind if kind % 2 == 0 => 2,
            _ => 7,
        };
        let transaction = client.transaction();
        let mut packet = transaction.to_be_bytes().to_vec();
        packet[0] = kind;
        packet.extend(CLIENT);
        packet.extend(options);
        let Some(reply) = parse(&packet, &identity, transaction) else {
            continue;
        };
        for output in client.receive(reply, now) {
            if let Output::Bound(grant) | Output::Informed(grant) = output {
                assert!(grant.addresses.len() <= MOST && grant.dns.len() <= MOST);
                assert!(grant.ntp.len() <= MOST);
            }
        }
    }
});
