//! The client under a fake clock.

use super::super::lease::INFINITE;
use super::*;

const START: Duration = Duration::from_secs(50);

fn grant(seconds: u32) -> Grant {
    Grant {
        address: Ipv4Addr::new(10, 0, 2, 15),
        server: Ipv4Addr::new(10, 0, 2, 2),
        prefix: 24,
        routes: Vec::new(),
        dns: Vec::new(),
        domain: None,
        search: Vec::new(),
        ntp: Vec::new(),
        hostname: None,
        mtu: None,
        seconds,
        renewal: None,
        rebinding: None,
    }
}

fn bound(seconds: u32) -> Client {
    let mut client = Client::new(START, None, 1);
    client.tick(START);
    client.receive(Reply::Offer(grant(seconds)), START);
    assert_eq!(
        client.receive(Reply::Acknowledge(grant(seconds)), START),
        [Output::Bound(grant(seconds))]
    );
    client
}

fn extend() -> Request {
    Request::Extend {
        address: grant(1).address,
    }
}

fn discover() -> Request {
    Request::Discover { wish: None }
}

fn confirm() -> Output {
    let address = grant(1).address;
    Output::Broadcast(Request::Confirm { address })
}

#[test]
fn the_address_of_before_is_asked_for_at_once_and_silence_delays_little() {
    let known = Some(Known::Held(grant(1).address));
    let mut client = Client::new(START, known, 1);
    assert_eq!(client.tick(START), [confirm()]);
    let mut silent = Client::new(START, known, 1);
    assert_eq!(
        client.receive(Reply::Acknowledge(grant(60)), START),
        [Output::Bound(grant(60))]
    );
    silent.tick(START);
    assert_eq!(silent.tick(START + CONFIRM_PAUSE), [confirm()]);
    let wish = known.map(|_| grant(1).address);
    let discover = Output::Broadcast(Request::Discover { wish });
    assert_eq!(silent.tick(START + 2 * CONFIRM_PAUSE), [discover]);
}

#[test]
fn an_address_of_before_that_is_refused_or_another_one_is_not_taken() {
    let known = Some(Known::Held(grant(1).address));
    let mut client = Client::new(START, known, 1);
    client.tick(START);
    let other = Grant {
        address: Ipv4Addr::new(10, 0, 2, 99),
        ..grant(800)
    };
    assert_eq!(client.receive(Reply::Acknowledge(other), START), []);
    assert_eq!(
        client.receive(Reply::Refuse, START),
        [Output::Broadcast(discover())]
    );
}

#[test]
fn an_address_that_was_given_back_is_a_wish() {
    let wish = Some(grant(1).address);
    let mut client = Client::new(START, wish.map(Known::Released), 1);
    let discover = Output::Broadcast(Request::Discover { wish });
    assert_eq!(client.tick(START), [discover]);
}

#[test]
fn a_link_that_is_back_has_its_lease_confirmed_refused_or_kept() {
    for answer in [
        Some(Reply::Acknowledge(grant(800))),
        Some(Reply::Refuse),
        None,
    ] {
        let mut client = bound(800);
        let back = START + Duration::from_secs(100);
        client.link_is_back(back);
        assert_eq!(client.tick(back), [confirm()]);
        match answer {
            Some(reply @ Reply::Acknowledge(_)) => {
                let outputs = client.receive(reply, back);
                assert_eq!(outputs, [Output::Bound(grant(800))]);
                let renewal = back + Duration::from_secs(400);
                assert_eq!(client.next_deadline(), Some(renewal));
            }
            Some(reply) => {
                assert_eq!(client.receive(reply, back), [Output::Lost]);
                let next = client.next_deadline().unwrap();
                assert_eq!(client.tick(next), [Output::Broadcast(discover())]);
            }
            None => {
                for _ in 1..CONFIRM_TRIES {
                    let next = client.next_deadline().unwrap();
                    assert_eq!(client.tick(next), [confirm()]);
                }
                assert_eq!(client.tick(client.next_deadline().unwrap()), []);
                let renewal = START + Duration::from_secs(400);
                assert_eq!(client.next_deadline(), Some(renewal));
            }
        }
    }
}

#[test]
fn a_lease_that_ended_while_the_link_was_lost_is_lost() {
    let mut client = bound(800);
    let late = START + Duration::from_secs(900);
    client.link_is_back(late);
    assert_eq!(client.tick(late), [Output::Lost]);
}

#[test]
fn an_address_of_somebody_else_is_declined_and_not_wished_again() {
    let mut client = bound(800);
    let Grant {
        address, server, ..
    } = grant(1);
    let decline = Output::Broadcast(Request::Decline { address, server });
    assert_eq!(client.decline(START), [Output::Lost, decline]);
    assert_eq!(client.decline(START), []);
    assert_eq!(client.next_deadline(), Some(START + DECLINE_PAUSE));
    assert_eq!(
        client.tick(START + DECLINE_PAUSE),
        [Output::Broadcast(discover())]
    );
}

#[test]
fn only_a_lease_is_released() {
    let Grant {
        address, server, ..
    } = grant(1);
    let release = Output::Unicast(Request::Release { address, server }, server);
    assert_eq!(bound(800).release(), Some(release));
    assert_eq!(Client::new(START, None, 1).release(), None);
}

#[test]
fn the_good_path_waits_for_nothing() {
    let mut client = Client::new(START, None, 1);
    assert_eq!(client.tick(START), [Output::Broadcast(discover())]);
    let select = Request::Select {
        address: grant(1).address,
        server: grant(1).server,
    };
    assert_eq!(
        client.receive(Reply::Offer(grant(60)), START),
        [Output::Broadcast(select)]
    );
    assert_eq!(
        client.receive(Reply::Acknowledge(grant(60)), START),
        [Output::Bound(grant(60))]
    );
}

#[test]
fn discovers_are_repeated_with_growing_random_pauses() {
    let mut client = Client::new(START, None, 7);
    let mut now = START;
    for seconds in [4, 8, 16, 32, 64, 64, 64] {
        assert_eq!(client.tick(now), [Output::Broadcast(discover())]);
        let pause = client.next_deadline().unwrap() - now;
        let middle = Duration::from_secs(seconds);
        assert!(
            pause >= middle - Duration::from_secs(1) && pause <= middle + Duration::from_secs(1)
        );
        assert!(client.tick(now + pause / 2).is_empty());
        now += pause;
    }
}

#[test]
fn a_request_in_vain_begins_again() {
    let mut client = Client::new(START, None, 3);
    client.tick(START);
    client.receive(Reply::Offer(grant(60)), START);
    for _ in 1..REQUEST_TRIES {
        let now = client.next_deadline().unwrap();
        assert!(matches!(
            client.tick(now)[..],
            [Output::Broadcast(Request::Select { .. })]
        ));
    }
    assert_eq!(client.tick(client.next_deadline().unwrap()), []);
    assert_eq!(
        client.tick(client.next_deadline().unwrap()),
        [Output::Broadcast(discover())]
    );
}

#[test]
fn a_refused_request_begins_again_but_not_at_once() {
    let mut client = Client::new(START, None, 3);
    client.tick(START);
    client.receive(Reply::Offer(grant(60)), START);
    assert_eq!(client.receive(Reply::Refuse, START), []);
    assert!(client.next_deadline().unwrap() >= START + Duration::from_secs(1));
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut client = bound(800);
    let at = |seconds| START + Duration::from_secs(seconds);
    assert_eq!(client.next_deadline(), Some(at(400)));
    assert_eq!(
        client.tick(at(400)),
        [Output::Unicast(extend(), grant(1).server)]
    );
    assert_eq!(client.next_deadline(), Some(at(550)));
    client.tick(at(550));
    client.tick(at(625));
    assert_eq!(client.next_deadline(), Some(at(685)));
    client.tick(at(685));
    assert_eq!(client.next_deadline(), Some(at(700)));
    assert_eq!(client.tick(at(700)), [Output::Broadcast(extend())]);
    assert_eq!(client.next_deadline(), Some(at(760)));
    client.tick(at(760));
    assert_eq!(client.tick(at(800)), [Output::Lost]);
}

#[test]
fn an_extended_lease_counts_from_the_answer() {
    let mut client = bound(800);
    let at = |seconds| START + Duration::from_secs(seconds);
    client.tick(at(400));
    assert_eq!(
        client.receive(Reply::Acknowledge(grant(800)), at(410)),
        [Output::Bound(grant(800))]
    );
    assert_eq!(client.next_deadline(), Some(at(810)));
}

#[test]
fn a_bound_client_ignores_answers_that_it_did_not_ask_for() {
    let mut client = bound(800);
    assert_eq!(client.receive(Reply::Refuse, START), []);
    assert_eq!(client.receive(Reply::Acknowledge(grant(5)), START), []);
    let renewing = START + Duration::from_secs(400);
    client.tick(renewing);
    let other = Grant {
        address: Ipv4Addr::new(10, 0, 2, 99),
        ..grant(800)
    };
    assert_eq!(client.receive(Reply::Acknowledge(other), renewing), []);
    assert_eq!(client.receive(Reply::Refuse, renewing), [Output::Lost]);
}

#[test]
fn odd_times_of_a_server_are_replaced() {
    for (renewal, rebinding) in [
        (Some(0), Some(0)),
        (Some(900), Some(900)),
        (Some(700), Some(600)),
    ] {
        let held = Held::new(
            Grant {
                renewal,
                rebinding,
                ..grant(800)
            },
            START,
        );
        let (first, second, end) = held.times.unwrap();
        assert!(first <= second && second < end, "{renewal:?} {rebinding:?}");
    }
    assert!(Held::new(grant(1), START).times.is_some());
}

#[test]
fn an_infinite_lease_is_never_renewed() {
    assert_eq!(bound(INFINITE).next_deadline(), None);
}

#[test]
fn however_short_a_lease_is_it_is_not_extended_at_once() {
    for seconds in 1..20 {
        let mut client = bound(seconds);
        assert!(client.next_deadline() > Some(START), "{seconds}");
        assert_eq!(client.tick(START), [], "{seconds}");
        // Nor when it is granted again at each request.
        let mut now = START;
        for _ in 0..10 {
            now = client.next_deadline().unwrap();
            client.tick(now);
            client.receive(Reply::Offer(grant(seconds)), now);
            client.receive(Reply::Acknowledge(grant(seconds)), now);
        }
        assert!(now >= START + Duration::from_secs(10), "{seconds}");
    }
}

#[test]
fn an_offer_that_nobody_asked_for_does_not_shorten_a_pause() {
    let mut client = bound(600);
    client.decline(START);
    assert_eq!(client.receive(Reply::Offer(grant(600)), START), []);
    let after = START + DECLINE_PAUSE;
    assert_eq!(client.tick(after), [Output::Broadcast(discover())]);
    assert_eq!(client.receive(Reply::Offer(grant(600)), after).len(), 1);
}
