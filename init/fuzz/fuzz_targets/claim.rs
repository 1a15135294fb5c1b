//! What others say of an address by ARP, as time passes: only who claims it has it, and the one who asks always sleeps.
#![no_main]

use std::net::Ipv4Addr;
use std::time::Duration;

use coracle_init::net::uplink::conflict::{Question, Verdict};
use coracle_init_fuzz::{Packets, pass};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let own = [2, 0, 0, 0, 0, 1];
    let mut now = Duration::from_secs(1);
    let mut question = Question::new(ADDRESS, own, now);
    for (pause, packet) in Packets(bytes) {
        pass(&mut question, &mut now, pause, Question::next_deadline, |question, now| {
            question.tick(now);
        });
        if let Verdict::Owned(owner) = question.receive(packet, now) {
            assert!(owner != own && packet[14..18] == ADDRESS.octets());
        }
    }
});
