//! The client under a fake clock.

use super::super::lease::INFINITE;
use super::super::message::{Binding, Leased};
use super::*;

const START: Duration = Duration::from_secs(50);

fn grant(valid: u32) -> Grant {
    Grant {
        server: b"server".to_vec(),
        preference: 0,
        rapid: false,
        addresses: vec![Leased {
            address: "2001:db8::7".parse().unwrap(),
            preferred: valid,
            valid,
        }],
        renewal: 0,
        rebinding: 0,
        status: 0,
        dns: Vec::new(),
        search: Vec::new(),
        ntp: Vec::new(),
        refresh: None,
        longest_solicit: None,
    }
}

fn binding() -> Binding {
    grant(1).binding()
}

fn soliciting() -> (Client, Duration) {
    let mut client = Client::new(1);
    client.want(Want::Address, START);
    let first = client.next_deadline().unwrap();
    assert!(first < START + Duration::from_millis(u64::from(FIRST_DELAY_MS)));
    assert_eq!(client.tick(first), [Output::Send(Request::Solicit)]);
    (client, first)
}

/// Bound at [`START`].
fn bound(valid: u32) -> Client {
    let (mut client, _) = soliciting();
    client.receive(Reply::Advertise(grant(valid)), START);
    let outputs = client.receive(Reply::Reply(grant(valid)), START);
    assert_eq!(outputs, [Output::Bound(grant(valid))]);
    client
}

#[test]
fn the_first_offer_is_requested_at_once() {
    let (mut client, now) = soliciting();
    let before = client.transaction();
    assert_eq!(
        client.receive(Reply::Advertise(grant(60)), now),
        [Output::Send(Request::Request(binding()))]
    );
    assert_ne!(client.transaction(), before);
}

#[test]
fn an_offer_without_an_address_is_none_and_a_rapid_reply_binds() {
    let (mut client, now) = soliciting();
    let empty = Grant {
        addresses: Vec::new(),
        ..grant(60)
    };
    assert_eq!(client.receive(Reply::Advertise(empty), now), []);
    assert_eq!(client.receive(Reply::Reply(grant(60)), now), []);
    let rapid = Grant {
        rapid: true,
        ..grant(60)
    };
    assert_eq!(
        client.receive(Reply::Reply(rapid.clone()), now),
        [Output::Bound(rapid)]
    );
}

#[test]
fn solicits_go_on_with_doubled_pauses() {
    let (mut client, mut now) = soliciting();
    for seconds in [1, 2, 4, 8, 16] {
        let pause = client.next_deadline().unwrap() - now;
        let least = Duration::from_millis(seconds * 500);
        assert!(
            pause >= least && pause <= Duration::from_millis(seconds * 1800),
            "{pause:?}"
        );
        now += pause;
        assert_eq!(client.tick(now), [Output::Send(Request::Solicit)]);
    }
}

#[test]
fn a_request_in_vain_solicits_again() {
    let (mut client, now) = soliciting();
    client.receive(Reply::Advertise(grant(60)), now);
    for _ in 1..REQUEST_TRIES {
        let now = client.next_deadline().unwrap();
        assert!(matches!(
            client.tick(now)[..],
            [Output::Send(Request::Request(_))]
        ));
    }
    let now = client.next_deadline().unwrap();
    assert_eq!(client.tick(now), [Output::Send(Request::Solicit)]);
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut client = bound(1000);
    let at = |seconds| START + Duration::from_secs(seconds);
    assert_eq!(client.next_deadline(), Some(at(500)));
    assert_eq!(
        client.tick(at(500)),
        [Output::Send(Request::Renew(binding()))]
    );
    let mut rebound = false;
    while let Some(now) = client.next_deadline().filter(|now| *now < at(1000)) {
        for output in client.tick(now) {
            let Output::Send(request) = output else {
                panic!("{output:?}");
            };
            let rebinds = matches!(request, Request::Rebind(_));
            assert_eq!(rebinds, now >= at(800));
            rebound |= rebinds;
        }
    }
    assert!(rebound);
    assert_eq!(client.tick(at(1000)), [Output::Lost(binding().addresses)]);
    assert_eq!(client.tick(at(1000)), [Output::Send(Request::Solicit)]);
}

#[test]
fn an_extended_lease_counts_from_the_answer_and_what_is_left_out_is_lost() {
    let mut client = bound(1000);
    let at = |seconds| START + Duration::from_secs(seconds);
    client.tick(at(500));
    let mut other = grant(1000);
    other.addresses[0].address = "2001:db8::8".parse().unwrap();
    assert_eq!(
        client.receive(Reply::Reply(other.clone()), at(510)),
        [Output::Lost(binding().addresses), Output::Bound(other)]
    );
    assert_eq!(client.next_deadline(), Some(at(1010)));
}

#[test]
fn a_server_that_knows_nothing_of_the_lease_ends_it() {
    let mut client = bound(1000);
    let now = START + Duration::from_secs(500);
    client.tick(now);
    let refused = Grant {
        status: NO_BINDING,
        ..grant(0)
    };
    let outputs = client.receive(Reply::Reply(refused), now);
    assert_eq!(outputs, [Output::Lost(binding().addresses)]);
}

#[test]
fn a_link_that_is_back_has_its_addresses_confirmed() {
    for (status, kept) in [(Some(0), true), (Some(NOT_ON_LINK), false), (None, true)] {
        let mut client = bound(1000);
        let back = START + Duration::from_secs(100);
        client.link_is_back(back);
        let confirm = Output::Send(Request::Confirm(binding().addresses));
        assert_eq!(client.tick(back), [confirm]);
        let outputs = match status {
            Some(status) => {
                let reply = Grant { status, ..grant(0) };
                client.receive(Reply::Reply(reply), back)
            }
            None => client.tick(back + CONFIRM_LIMIT),
        };
        assert_eq!(outputs.is_empty(), kept, "{outputs:?}");
        let renewal = Some(START + Duration::from_secs(500));
        assert_eq!(client.next_deadline() == renewal, kept);
    }
}

#[test]
fn a_lease_goes_on_whatever_routers_say_by_turns() {
    let mut client = bound(100);
    let renewal = client.next_deadline();
    for want in [Want::Nothing, Want::Information, Want::Address] {
        client.want(want, START);
        assert_eq!(client.next_deadline(), renewal, "{want:?}");
        assert!(client.tick(START).is_empty());
    }
    let outputs = client.tick(renewal.unwrap());
    assert_eq!(outputs, [Output::Send(Request::Renew(binding()))]);
}

#[test]
fn information_is_asked_for_again_when_it_is_old() {
    let mut client = Client::new(1);
    client.want(Want::Information, START);
    let now = client.next_deadline().unwrap();
    assert_eq!(client.tick(now), [Output::Send(Request::Inform)]);
    let reply = Grant {
        refresh: Some(1),
        ..grant(0)
    };
    let outputs = client.receive(Reply::Reply(reply.clone()), now);
    assert_eq!(outputs, [Output::Informed(reply)]);
    let again = now + Duration::from_secs(LEAST_REFRESH);
    assert_eq!(client.next_deadline(), Some(again));
    assert_eq!(client.tick(again), [Output::Send(Request::Inform)]);
}

#[test]
fn an_infinite_lease_is_never_renewed_and_odd_times_stay_in_order() {
    assert_eq!(bound(INFINITE).next_deadline(), None);
    for (renewal, rebinding) in [(900, 100), (5000, 5000), (0, 1)] {
        let odd = Grant {
            renewal,
            rebinding,
            ..grant(1000)
        };
        let held = Held::new(odd, START);
        assert!(held.renewal <= held.rebinding && held.rebinding <= held.end);
    }
}

#[test]
fn addresses_of_somebody_else_are_declined_and_released_ones_are_forgotten() {
    let mut client = bound(1000);
    let decline = Output::Send(Request::Decline(binding()));
    let lost = Output::Lost(binding().addresses);
    assert_eq!(client.decline(START), [decline, lost]);
    assert_eq!(client.next_deadline(), Some(START + REFUSED_PAUSE));
    let mut client = bound(1000);
    let release = Output::Send(Request::Release(binding()));
    assert_eq!(client.release(START), Some(release));
    assert_eq!(client.release(START), None);
}
