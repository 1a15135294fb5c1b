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

use super::lease::Held;
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

/// 4, 8, 16, 32, 64, 64 … seconds, each ± 1 second.
fn retry_delay(tries: u32, jitter: Duration) -> Duration {
    Duration::from_secs((4 << tries.min(4)) - 1) + jitter
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
