//! What a router says of name servers and search domains, option by option: no more than a few are kept.
#![no_main]

use std::time::Duration;

use coracle_init::net::uplink::router::Advice;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut advice = Advice::default();
    for option in bytes.chunks(64) {
        advice.take(option, Duration::ZERO);
        assert!(advice.dns().count() <= 8 && advice.search().count() <= 8);
    }
});
