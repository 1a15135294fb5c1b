//! The DHCP client's state machine: (state, packet or time) → what to send and what to tell (RFC 2131 §4.4).
//!
//! - **Rebooting**: the client had an address before the machine started: `REQUEST` for it, and again after a second.
//!   A server that does not know the client is silent (RFC 2131 §4.3.2), and no boot shall wait for that: after the
//!   second try in vain the client selects, with that address as its wish.
//! - **Selecting**: `DISCOVER` is sent, and again after 4, 8, 16, 32, 64 … seconds, each ± 1 second.
//! - **Requesting**: an offer was taken; `REQUEST` is repeated the same way, and after the fourth in vain the
//!   client selects again.
//! - **Bound**: nothing to do until T1.
//! - **Renewing** (from T1): `REQUEST` to the server, again after half of the time to T2, at least a minute.
//! - **Rebinding** (from T2): `REQUEST` to everyone, again after half of the time to the lease's end.
//! - **Confirming**: bound, and the link was lost and is back: `REQUEST` to everyone as when rebooting, three times.
//!   Without an answer the lease goes on.
//! - At the lease's end, or when a server refuses: the address goes, and the client selects again.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Grant, Reply, Request};

/// Tries of one `REQUEST` before the client begins again.
const REQUEST_TRIES: u32 = 4;
/// Tries for an address of before.
const REBOOT_TRIES: u32 = 2;
/// Tries after a link is back.
const CONFIRM_TRIES: u32 = 3;
/// The pause between these.
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);
/// The pause after an address that somebody else has (RFC 2131 §3.1 point 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);
/// The shortest pause between two tries to extend a lease (RFC 2131 §4.4.5).
const EXTEND_PAUSE: Duration = Duration::from_secs(60);
/// A lease that never ends.
const INFINITE: u32 = u32::MAX;

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send to everyone.
    Broadcast(Request),
    /// Send to the server only.
    Unicast(Request, Ipv4Addr),
    /// The address is granted, anew or again.
    Bound(Grant),
    /// The address must not be used any more.
    Lost,
}

/// An address of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was not given back: it is asked for at once.
    Held(Ipv4Addr),
    /// It was given back: it is a wish.
    Released(Ipv4Addr),
}

#[derive(Debug)]
enum State {
    Rebooting {
        address: Ipv4Addr,
        tries: u32,
        next: Duration,
    },
    Selecting {
        tries: u32,
        next: Duration,
    },
    Requesting {
        offer: Grant,
        tries: u32,
        next: Duration,
    },
    Bound {
        lease: Held,
        /// How often it was asked whether the address is right here, while that is asked.
        confirming: Option<u32>,
        next: Option<Duration>,
    },
}

/// A granted lease with its absolute times.
#[derive(Debug, Clone)]
struct Held {
    grant: Grant,
    /// T1, T2 and the end; `None`: never ends.
    times: Option<(Duration, Duration, Duration)>,
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    state: State,
    /// The address that it would like.
    wish: Option<Ipv4Addr>,
    /// A small random sequence for the jitter.
    seed: u32,
}

impl Client {
    /// Begins at `now`; `seed` is random, so that machines that start together do not ask together for ever.
    #[must_use]
    pub const fn new(now: Duration, known: Option<Known>, seed: u32) -> Self {
        let next = now;
        let tries = 0;
        let (state, wish) = match known {
            Some(Known::Held(address)) => (
                State::Rebooting {
                    address,
                    tries,
                    next,
                },
                Some(address),
            ),
            Some(Known::Released(address)) => (State::Selecting { tries, next }, Some(address)),
            None => (State::Selecting { tries, next }, None),
        };
        Self { state, wish, seed }
    }

    /// When [`Client::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Rebooting { next, .. }
            | State::Selecting { next, .. }
            | State::Requesting { next, .. } => Some(*next),
            State::Bound { next, .. } => *next,
        }
    }

    /// The lease that it has.
    #[must_use]
    pub const fn lease(&self) -> Option<&Grant> {
        match &self.state {
            State::Bound { lease, .. } => Some(&lease.grant),
            _ => None,
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let jitter = self.jitter();
        match &mut self.state {
            State::Rebooting { tries, .. } if *tries >= REBOOT_TRIES => {
                self.state = State::Selecting {
                    tries: 0,
                    next: now,
                };
                self.tick(now)
            }
            State::Rebooting {
                address,
                tries,
                next,
            } => {
                *next = now + CONFIRM_PAUSE;
                *tries += 1;
                vec![Output::Broadcast(Request::Confirm { address: *address })]
            }
            State::Selecting { tries, next } => {
                *next = now + retry_delay(*tries, jitter);
                *tries += 1;
                vec![Output::Broadcast(Request::Discover { wish: self.wish })]
            }
            State::Requesting { tries, .. } if *tries >= REQUEST_TRIES => self.select(now),
            State::Requesting { offer, tries, next } => {
                *next = now + retry_delay(*tries, jitter);
                *tries += 1;
                vec![Output::Broadcast(Request::Select {
                    address: offer.address,
                    server: offer.server,
                })]
            }
            State::Bound {
                lease,
                confirming: Some(tries),
                next,
            } if *tries < CONFIRM_TRIES && !lease.is_over(now) => {
                *tries += 1;
                *next = Some(now + CONFIRM_PAUSE);
                let address = lease.grant.address;
                vec![Output::Broadcast(Request::Confirm { address })]
            }
            State::Bound {
                lease,
                confirming: confirming @ Some(_),
                next,
            } => {
                *confirming = None;
                *next = lease.times.map(|(renewal, ..)| renewal);
                self.tick(now)
            }
            State::Bound { lease, next, .. } => match lease.extend(now) {
                Some((output, at)) => {
                    *next = Some(at);
                    vec![output]
                }
                None => self.lose(now),
            },
        }
    }

    /// An answer came.
    pub fn receive(&mut self, reply: Reply, now: Duration) -> Vec<Output> {
        match (&self.state, reply) {
            // Not before it asks: the pause after a refusal or a conflict is no server's to shorten.
            (State::Selecting { tries: 1.., .. }, Reply::Offer(offer)) => {
                self.state = State::Requesting {
                    offer,
                    tries: 0,
                    next: now,
                };
                self.tick(now)
            }
            (State::Rebooting { address, .. }, Reply::Acknowledge(grant))
                if grant.address == *address =>
            {
                self.bind(grant, now)
            }
            (State::Rebooting { .. }, Reply::Refuse) => {
                // Another network, or another time: what is right here is asked for at once.
                self.wish = None;
                self.state = State::Selecting {
                    tries: 0,
                    next: now,
                };
                self.tick(now)
            }
            (State::Requesting { .. }, Reply::Acknowledge(grant)) => self.bind(grant, now),
            (State::Requesting { .. }, Reply::Refuse) => self.select(now),
            (
                State::Bound {
                    lease, confirming, ..
                },
                reply,
            ) if confirming.is_some() || lease.is_extending(now) => match reply {
                Reply::Acknowledge(grant) if grant.address == lease.grant.address => {
                    self.bind(grant, now)
                }
                Reply::Refuse => self.lose(now),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// The link was lost and is back, perhaps to another network.
    pub fn link_is_back(&mut self, now: Duration) {
        match &mut self.state {
            State::Bound {
                confirming, next, ..
            } => {
                *confirming = Some(0);
                *next = Some(now);
            }
            State::Rebooting { tries, next, .. } | State::Selecting { tries, next } => {
                *tries = 0;
                *next = now;
            }
            State::Requesting { .. } => {
                self.state = State::Selecting {
                    tries: 0,
                    next: now,
                };
            }
        }
    }

    /// Somebody else has the address.
    pub fn decline(&mut self, now: Duration) -> Vec<Output> {
        let Some(grant) = self.lease() else {
            return Vec::new();
        };
        let (address, server) = (grant.address, grant.server);
        self.wish = None;
        self.state = State::Selecting {
            tries: 0,
            next: now + DECLINE_PAUSE,
        };
        // First it goes, so that nothing is sent from it any more (RFC 2131 §4.4.4).
        vec![
            Output::Lost,
            Output::Broadcast(Request::Decline { address, server }),
        ]
    }

    /// The address is not needed any more.
    #[must_use]
    pub fn release(self) -> Option<Output> {
        let grant = self.lease()?;
        let (address, server) = (grant.address, grant.server);
        Some(Output::Unicast(
            Request::Release { address, server },
            server,
        ))
    }

    fn select(&mut self, now: Duration) -> Vec<Output> {
        // Not at once: a server that refuses each request must not be flooded.
        let next = now + Duration::from_secs(1) + self.jitter();
        self.state = State::Selecting { tries: 0, next };
        Vec::new()
    }

    fn lose(&mut self, now: Duration) -> Vec<Output> {
        self.wish = None;
        self.select(now);
        vec![Output::Lost]
    }

    fn bind(&mut self, grant: Grant, now: Duration) -> Vec<Output> {
        let lease = Held::new(grant.clone(), now);
        let next = lease.times.map(|(renewal, ..)| renewal);
        self.wish = Some(grant.address);
        self.state = State::Bound {
            lease,
            confirming: None,
            next,
        };
        vec![Output::Bound(grant)]
    }

    /// 0 to 2 seconds.
    fn jitter(&mut self) -> Duration {
        self.seed = self
            .seed
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        Duration::from_millis(u64::from(self.seed >> 16) % 2_000)
    }
}

impl Held {
    fn new(grant: Grant, now: Duration) -> Self {
        let seconds = grant.seconds;
        let times = (seconds != INFINITE).then(|| {
            // Never at once: a server that grants a moment only would be asked without end.
            let rebinding = grant
                .rebinding
                .filter(|&at| at > 0 && at < seconds)
                .unwrap_or(seconds - seconds.div_ceil(8))
                .max(1);
            let renewal = grant
                .renewal
                .filter(|&at| at > 0 && at < rebinding)
                .unwrap_or(seconds / 2)
                .max(1);
            let at = |seconds: u32| now + Duration::from_secs(u64::from(seconds));
            (at(renewal.min(rebinding)), at(rebinding), at(seconds))
        });
        Self { grant, times }
    }

    fn is_over(&self, now: Duration) -> bool {
        self.times.is_some_and(|(.., end)| now >= end)
    }

    fn is_extending(&self, now: Duration) -> bool {
        self.times.is_some_and(|(renewal, ..)| now >= renewal)
    }

    /// The request for this time and the time of the next; `None`: the lease is over.
    fn extend(&self, now: Duration) -> Option<(Output, Duration)> {
        let (_, rebinding, end) = self.times?;
        let request = Request::Extend {
            address: self.grant.address,
        };
        if now >= end {
            None
        } else if now >= rebinding {
            Some((
                Output::Broadcast(request),
                (now + pause(end - now)).min(end),
            ))
        } else {
            Some((
                Output::Unicast(request, self.grant.server),
                (now + pause(rebinding - now)).min(rebinding),
            ))
        }
    }
}

fn pause(left: Duration) -> Duration {
    (left / 2).max(EXTEND_PAUSE)
}

/// 4, 8, 16, 32, 64, 64 … seconds, each ± 1 second.
fn retry_delay(tries: u32, jitter: Duration) -> Duration {
    Duration::from_secs((4 << tries.min(4)) - 1) + jitter
}

#[cfg(test)]
mod tests {
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
                pause >= middle - Duration::from_secs(1)
                    && pause <= middle + Duration::from_secs(1)
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
}
