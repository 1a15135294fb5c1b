//! The DHCP client's state machine: (state, packet or time) → what to send and what to tell (RFC 2131 §4.4).
//!
//! - **Selecting**: `DISCOVER` is sent, and again after 4, 8, 16, 32, 64 … seconds, each ± 1 second.
//! - **Requesting**: an offer was taken; `REQUEST` is repeated the same way, and after the fourth in vain the
//!   client selects again.
//! - **Bound**: nothing to do until T1.
//! - **Renewing** (from T1): `REQUEST` to the server, again after half of the time to T2, at least a minute.
//! - **Rebinding** (from T2): `REQUEST` to everyone, again after half of the time to the lease's end.
//! - At the lease's end, or when a server refuses: the address goes, and the client selects again.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Grant, Reply, Request};

/// Tries of one `REQUEST` before the client begins again.
const REQUEST_TRIES: u32 = 4;
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

#[derive(Debug)]
enum State {
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
    /// A small random sequence for the jitter.
    seed: u32,
}

impl Client {
    /// Begins at `now`; `seed` is random, so that machines that start together do not ask together for ever.
    #[must_use]
    pub const fn new(now: Duration, seed: u32) -> Self {
        Self {
            state: State::Selecting {
                tries: 0,
                next: now,
            },
            seed,
        }
    }

    /// When [`Client::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Selecting { next, .. } | State::Requesting { next, .. } => Some(*next),
            State::Bound { next, .. } => *next,
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let jitter = self.jitter();
        match &mut self.state {
            State::Selecting { tries, next } => {
                *next = now + retry_delay(*tries, jitter);
                *tries += 1;
                vec![Output::Broadcast(Request::Discover)]
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
            State::Bound { lease, next } => match lease.extend(now) {
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
            (State::Selecting { .. }, Reply::Offer(offer)) => {
                self.state = State::Requesting {
                    offer,
                    tries: 0,
                    next: now,
                };
                self.tick(now)
            }
            (State::Requesting { .. }, Reply::Acknowledge(grant)) => self.bind(grant, now),
            (State::Requesting { .. }, Reply::Refuse) => self.select(now),
            (State::Bound { lease, .. }, reply) if lease.is_extending(now) => match reply {
                Reply::Acknowledge(grant) if grant.address == lease.grant.address => {
                    self.bind(grant, now)
                }
                Reply::Refuse => self.lose(now),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn select(&mut self, now: Duration) -> Vec<Output> {
        // Not at once: a server that refuses each request must not be flooded.
        let next = now + Duration::from_secs(1) + self.jitter();
        self.state = State::Selecting { tries: 0, next };
        Vec::new()
    }

    fn lose(&mut self, now: Duration) -> Vec<Output> {
        self.select(now);
        vec![Output::Lost]
    }

    fn bind(&mut self, grant: Grant, now: Duration) -> Vec<Output> {
        let lease = Held::new(grant.clone(), now);
        let next = lease.times.map(|(renewal, ..)| renewal);
        self.state = State::Bound { lease, next };
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
            let rebinding = grant
                .rebinding
                .filter(|&at| at > 0 && at < seconds)
                .unwrap_or(seconds / 8 * 7);
            let renewal = grant
                .renewal
                .filter(|&at| at > 0 && at < rebinding)
                .unwrap_or(seconds / 2);
            let at = |seconds: u32| now + Duration::from_secs(u64::from(seconds));
            (at(renewal.min(rebinding)), at(rebinding), at(seconds))
        });
        Self { grant, times }
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
            seconds,
            renewal: None,
            rebinding: None,
        }
    }

    fn bound(seconds: u32) -> Client {
        let mut client = Client::new(START, 1);
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

    #[test]
    fn the_good_path_waits_for_nothing() {
        let mut client = Client::new(START, 1);
        assert_eq!(client.tick(START), [Output::Broadcast(Request::Discover)]);
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
        let mut client = Client::new(START, 7);
        let mut now = START;
        for seconds in [4, 8, 16, 32, 64, 64, 64] {
            assert_eq!(client.tick(now), [Output::Broadcast(Request::Discover)]);
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
        let mut client = Client::new(START, 3);
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
            [Output::Broadcast(Request::Discover)]
        );
    }

    #[test]
    fn a_refused_request_begins_again_but_not_at_once() {
        let mut client = Client::new(START, 3);
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
}
