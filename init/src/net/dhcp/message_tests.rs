//! Packets, good, odd and hostile.

use super::super::options::{MOST, MOST_ROUTES};
use super::*;
use crate::net::domain_name as domain;

fn identity() -> Identity {
    Identity {
        xid: 0x0102_0304,
        hardware_address: [0x52, 0x54, 0, 1, 2, 3],
        hostname: "web-1".to_owned(),
    }
}

/// An answer with these options behind the cookie.
fn answer(options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; FIXED_SIZE];
    packet[..4].copy_from_slice(&[2, 1, 6, 0]);
    packet[4..8].copy_from_slice(&identity().xid.to_be_bytes());
    packet[16..20].copy_from_slice(&[10, 0, 2, 15]);
    packet[28..34].copy_from_slice(&identity().hardware_address);
    packet.extend(COOKIE);
    packet.extend(options);
    packet
}

const GOOD: [u8; 36] = [
    53, 1, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 1, 0x51, 0x80, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2,
    2, 6, 4, 10, 0, 2, 3, 0, 0, 255,
];

fn granted(options: &[u8]) -> Option<Grant> {
    match parse(&answer(options), &identity())? {
        Reply::Offer(grant) | Reply::Acknowledge(grant) => Some(grant),
        Reply::Refuse => None,
    }
}

fn with(extra: &[u8]) -> Vec<u8> {
    [&GOOD[..33], extra, &[255]].concat()
}

#[test]
fn a_grant_is_read() {
    let grant = granted(&GOOD).unwrap();
    assert_eq!(
        (grant.address, grant.prefix),
        (Ipv4Addr::new(10, 0, 2, 15), 24)
    );
    assert_eq!(
        (grant.server, grant.seconds),
        (Ipv4Addr::new(10, 0, 2, 2), 86_400)
    );
    assert_eq!(
        grant.routes,
        [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 2))]
    );
    assert_eq!(grant.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
}

#[test]
fn every_truncation_is_survived() {
    let whole = answer(&GOOD);
    for length in 0..whole.len() {
        let _ = parse(&whole[..length], &identity());
    }
    assert_eq!(parse(&whole[..240], &identity()), None);
}

#[test]
fn every_broken_byte_is_survived() {
    for at in 0..answer(&GOOD).len() {
        for bit in 0..8 {
            let mut packet = answer(&GOOD);
            packet[at] ^= 1 << bit;
            let _ = parse(&packet, &identity());
        }
    }
}

#[test]
fn packets_for_others_are_ignored() {
    for at in [0, 1, 2, 4, 7, 28, 33, 236, 239] {
        let mut packet = answer(&GOOD);
        packet[at] ^= 1;
        assert_eq!(parse(&packet, &identity()), None, "byte {at}");
    }
}

#[test]
fn malformed_options_are_refused() {
    let cases: [&[u8]; 8] = [
        &[],
        &[53],
        &[53, 1],
        &[53, 200, 5],
        &[53, 1, 5, 255],
        &[53, 2, 5, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 60, 255],
        &[53, 1, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 0, 255],
        &[
            53, 1, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 60, 1, 4, 255, 0, 255, 0, 255,
        ],
    ];
    for options in cases {
        assert_eq!(granted(options), None, "{options:?}");
    }
}

#[test]
fn unusable_addresses_are_refused() {
    for address in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
        let mut packet = answer(&GOOD);
        packet[16..20].copy_from_slice(&address);
        assert_eq!(parse(&packet, &identity()), None, "{address:?}");
    }
}

#[test]
fn a_refusal_needs_no_address() {
    assert_eq!(
        parse(&answer(&[53, 1, 6, 255]), &identity()),
        Some(Reply::Refuse)
    );
}

#[test]
fn classless_routes_replace_the_router() {
    let routes = [121, 12, 0, 10, 0, 2, 9, 16, 10, 7, 0, 0, 0, 0, 0, 0];
    let grant = granted(&with(&routes[..14])).unwrap();
    let expected = [
        (Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 9)),
        (Ipv4Addr::new(10, 7, 0, 0), 16, Ipv4Addr::UNSPECIFIED),
    ];
    assert_eq!(grant.routes, expected);
    for bad in [
        &[121_u8, 1, 33][..],
        &[121, 3, 24, 10, 7],
        &[121, 5, 33, 1, 2, 3, 4],
    ] {
        assert_eq!(granted(&with(bad)), None, "{bad:?}");
    }
}

#[test]
fn a_domain_is_a_name_or_nothing() {
    for (text, good) in [
        ("example.org", true),
        ("a b", false),
        ("x\nnameserver 6.6.6.6", false),
        ("", false),
    ] {
        let option = [&[15, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        assert_eq!(
            granted(&with(&option)).unwrap().domain.is_some(),
            good,
            "{text:?}"
        );
    }
}

#[test]
fn overloaded_fields_hold_options_too() {
    let mut packet = answer(&[52, 1, 1, 255]);
    packet[108..108 + GOOD.len()].copy_from_slice(&GOOD);
    assert!(matches!(
        parse(&packet, &identity()),
        Some(Reply::Acknowledge(_))
    ));
}

#[test]
fn requests_have_their_parts_in_place() {
    let address = Ipv4Addr::new(10, 0, 2, 15);
    let discover = encode(&identity(), &Request::Discover { wish: None }, 3);
    assert!(discover.len() >= MINIMUM_SIZE);
    assert_eq!(discover[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 3, 0x80, 0]);
    assert_eq!(discover[236..243], [99, 130, 83, 99, 53, 1, 1]);
    let extend = encode(&identity(), &Request::Extend { address }, 0);
    assert_eq!(extend[10..16], [0, 0, 10, 0, 2, 15]);
    let select = encode(
        &identity(),
        &Request::Select {
            address,
            server: address,
        },
        0,
    );
    assert_eq!(select[243..255], [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 15]);
}

#[test]
fn what_ends_a_lease_asks_for_nothing() {
    let address = Ipv4Addr::new(10, 0, 2, 15);
    let server = Ipv4Addr::new(10, 0, 2, 2);
    let release = encode(&identity(), &Request::Release { address, server }, 0);
    assert_eq!(release[12..16], [10, 0, 2, 15]);
    assert_eq!(release[240..250], [53, 1, 7, 54, 4, 10, 0, 2, 2, 255]);
    let decline = encode(&identity(), &Request::Decline { address, server }, 0);
    assert_eq!(decline[12..16], [0; 4]);
    assert_eq!(
        decline[240..256],
        [53, 1, 4, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 255]
    );
}

#[test]
fn names_time_servers_and_the_mtu_are_read() {
    let more = [
        &[12, 5][..],
        b"web-9",
        &[26, 2, 5, 120, 42, 4, 10, 0, 2, 7, 119, 5],
        b"\x03lan\x00",
    ]
    .concat();
    let grant = granted(&with(&more)).unwrap();
    assert_eq!(grant.hostname.as_deref(), Some("web-9"));
    assert_eq!(grant.mtu, Some(1400));
    assert_eq!(grant.ntp, [Ipv4Addr::new(10, 0, 2, 7)]);
    assert_eq!(grant.search, ["lan"]);
    assert_eq!(granted(&with(&[26, 2, 0, 10])).unwrap().mtu, None);
}

#[test]
fn hostile_answers_are_read_within_the_bounds() {
    let options = with(&[121, 5, 0, 10, 0, 2, 2, 119, 5, 3, 108, 97, 110, 0]);
    let mut taken = 0;
    let mut check = |packet: &[u8]| {
        if let Some(Reply::Offer(grant) | Reply::Acknowledge(grant)) = parse(packet, &identity()) {
            taken += 1;
            assert!(grant.dns.len() <= MOST && grant.ntp.len() <= MOST);
            assert!(grant.routes.len() <= MOST_ROUTES && grant.search.len() <= domain::MOST);
            assert!(grant.prefix <= 32 && grant.seconds > 0);
        }
    };
    crate::net::random::mutated(50_000, &answer(&options), &mut check);
    crate::net::random::random_bytes(20_000, 600, |options| check(&answer(options)));
    assert!(taken > 100, "{taken}");
}
