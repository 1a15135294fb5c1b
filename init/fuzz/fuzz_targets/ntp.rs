//! What a time server sends: a reply tells no time before the pivot.
#![no_main]

use coracle_init::net::ntp::packet::parse;
use coracle_init::net::ntp::sample::Sample;

const PIVOT: i64 = 1_735_689_600;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let nonce = bytes.get(24..32).and_then(|nonce| nonce.try_into().ok());
    let nonce = nonce.map_or(0, u64::from_be_bytes);
    if let Ok(reply) = parse(bytes, nonce, PIVOT) {
        assert!(reply.received >= PIVOT * 1_000_000_000 && reply.sent >= reply.received);
        let _ = Sample::new(&reply, i64::MIN, i64::MAX);
    }
});
