//! The DHCPv6 client's state machine: (state, packet or time) → what to send and what to tell (RFC 8415 §18.2).
//!
//! - **Idle**: routers ask for nothing.
//! - **Soliciting**: `SOLICIT` until a server offers an address. The first offer is taken: waiting for a better one, as
//!   §18.2.1 would, costs each boot a second for networks that have two servers.
//! - **Requesting**: `REQUEST`, ten times at most, then soliciting again.
//! - **Bound**: nothing until T1, then `RENEW` to the server, from T2 `REBIND` to all; at the end of all addresses
//!   they are lost and the client solicits again.
//! - **Confirming**: bound, and the link was lost and is back: `CONFIRM` for ten seconds; silence keeps the addresses.
//! - **Informing**: `INFORMATION-REQUEST` until it is answered, and again when that is old.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::lease::Held;
use super::message::{Grant, Reply, Request};

/// First and longest pauses of repetitions, in milliseconds (§7.6).
const SOLICIT: (u64, u64) = (1_000, 3_600_000);
const REQUEST: (u64, u64) = (1_000, 30_000);
const CONFIRM: (u64, u64) = (1_000, 4_000);
const EXTEND: (u64, u64) = (10_000, 600_000);
const INFORM: (u64, u64) = (1_000, 3_600_000);
/// `REQ_MAX_RC`.
const REQUEST_TRIES: u32 = 10;
/// `CNF_MAX_RD`.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);
/// `IRT_DEFAULT` and `IRT_MINIMUM` (§21.23).
const REFRESH: u64 = 86_400;
const LEAST_REFRESH: u64 = 600;
/// The pause after a server that refuses what it offered.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// `SOL_MAX_DELAY`, of which a random part is waited before the first message (§18.2.1). It keeps machines that start
/// together from asking at the same moment; a tenth of it does that too, and is within the rule.
const FIRST_DELAY_MS: u32 = 100;

const NO_BINDING: u16 = 3;
const NOT_ON_LINK: u16 = 4;

/// What the client is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// Nothing: no router asks for DHCPv6.
    Nothing,
    /// Name servers and the like ("other" flag).
    Information,
    /// An address too ("managed" flag).
    Address,
}

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send to all servers of the link.
    Send(Request),
    /// These addresses are granted, anew or again.
    Bound(Grant),
    /// Name servers and the like were told.
    Informed(Grant),
    /// These addresses must not be used any more.
    Lost(Vec<Ipv6Addr>),
}

#[derive(Debug)]
enum State {
    Idle,
    Soliciting,
    Requesting { offer: Grant },
    Bound { lease: Held, phase: Phase },
    Informing,
    Informed,
}

/// What is done about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Quiet,
    Confirming { until: Duration },
    Renewing,
    Rebinding,
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    state: State,
    want: Want,
    /// The number of the exchange that goes on.
    transaction: u32,
    /// When it began.
    begun: Duration,
    tries: u32,
    pause: Duration,
    next: Option<Duration>,
    longest_solicit: Option<u32>,
    seed: u32,
}

impl Client {
    /// Nothing is wanted yet; `seed` is random.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self {
            state: State::Idle,
            want: Want::Nothing,
            transaction: 0,
            begun: Duration::ZERO,
            tries: 0,
            pause: Duration::ZERO,
            next: None,
            longest_solicit: None,
            seed,
        }
    }

    /// What a router says is wanted. More than before begins at once; less changes nothing until a lease ends. Where two
    /// routers say otherwise by turns, a lease that is there goes on.
    pub fn want(&mut self, want: Want, now: Duration) {
        let before = std::mem::replace(&mut self.want, want);
        if want <= before || matches!(self.state, State::Bound { .. }) {
            return;
        }
        let delay = Duration::from_millis(u64::from(self.random() % FIRST_DELAY_MS));
        match want {
            Want::Nothing => {}
            Want::Information => self.begin(State::Informing, now + delay),
            Want::Address => self.begin(State::Soliciting, now + delay),
        }
    }

    /// When [`Client::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.next
    }

    /// The number by which an answer to the last message is known.
    #[must_use]
    pub const fn transaction(&self) -> u32 {
        self.transaction
    }

    /// Hundredths of a second since the exchange began, for its messages.
    #[must_use]
    pub fn elapsed(&self, now: Duration) -> u16 {
        u16::try_from(now.saturating_sub(self.begun).as_millis() / 10).unwrap_or(u16::MAX)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        match &self.state {
            State::Idle => {
                self.next = None;
                Vec::new()
            }
            State::Soliciting => {
                let longest = self
                    .longest_solicit
                    .map(|seconds| u64::from(seconds) * 1000);
                self.repeat((SOLICIT.0, longest.unwrap_or(SOLICIT.1)), now);
                vec![Output::Send(Request::Solicit)]
            }
            State::Requesting { .. } if self.tries >= REQUEST_TRIES => {
                self.begin(State::Soliciting, now);
                self.tick(now)
            }
            State::Requesting { offer } => {
                let request = Request::Request(offer.binding());
                self.repeat(REQUEST, now);
                vec![Output::Send(request)]
            }
            State::Informing => {
                self.repeat(INFORM, now);
                vec![Output::Send(Request::Inform)]
            }
            State::Informed => {
                self.begin(State::Informing, now);
                self.tick(now)
            }
            State::Bound { .. } => self.tick_bound(now),
        }
    }

    fn tick_bound(&mut self, now: Duration) -> Vec<Output> {
        let State::Bound { lease, phase } = &mut self.state else {
            return Vec::new();
        };
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if is_due(lease.end) {
            return self.lose(now);
        }
        let wanted = match *phase {
            Phase::Confirming { until } if until > now => *phase,
            _ if is_due(lease.rebinding) => Phase::Rebinding,
            _ if is_due(lease.renewal) => Phase::Renewing,
            _ => Phase::Quiet,
        };
        let begins = std::mem::replace(phase, wanted) != wanted;
        let binding = lease.grant.binding();
        let (request, pauses) = match wanted {
            Phase::Quiet => {
                self.next = self.next_of_lease();
                return Vec::new();
            }
            Phase::Confirming { .. } => (Request::Confirm(binding.addresses), CONFIRM),
            Phase::Renewing => (Request::Renew(binding), EXTEND),
            Phase::Rebinding => (Request::Rebind(binding.addresses), EXTEND),
        };
        if begins {
            self.new_exchange(now);
        }
        self.repeat(pauses, now);
        // What comes next by the lease itself must not be slept over.
        self.next = [self.next, self.next_of_lease()]
            .into_iter()
            .flatten()
            .min();
        vec![Output::Send(request)]
    }

    /// The next of the lease's times that changes what is done.
    fn next_of_lease(&self) -> Option<Duration> {
        let State::Bound { lease, phase } = &self.state else {
            return None;
        };
        let times = match phase {
            Phase::Quiet => [lease.renewal, lease.rebinding, lease.end],
            Phase::Renewing => [None, lease.rebinding, lease.end],
            Phase::Rebinding => [None, None, lease.end],
            Phase::Confirming { until } => [Some(*until), None, lease.end],
        };
        times.into_iter().flatten().min()
    }

    /// An answer came.
    pub fn receive(&mut self, reply: Reply, now: Duration) -> Vec<Output> {
        match (&self.state, reply) {
            (State::Soliciting, Reply::Advertise(offer)) => {
                self.longest_solicit = offer.longest_solicit.or(self.longest_solicit);
                if offer.binding().addresses.is_empty() || offer.status != 0 {
                    return Vec::new();
                }
                self.begin(State::Requesting { offer }, now);
                self.tick(now)
            }
            (State::Soliciting, Reply::Reply(grant)) if grant.rapid => self.take(grant, now),
            (State::Requesting { .. }, Reply::Reply(grant)) => self.take(grant, now),
            (State::Informing, Reply::Reply(grant)) => {
                let seconds = grant.refresh.map_or(REFRESH, u64::from).max(LEAST_REFRESH);
                self.state = State::Informed;
                self.next = Some(now + Duration::from_secs(seconds));
                vec![Output::Informed(grant)]
            }
            (State::Bound { phase, .. }, Reply::Reply(grant)) => match phase {
                Phase::Quiet => Vec::new(),
                Phase::Confirming { .. } if grant.status == NOT_ON_LINK => self.lose(now),
                Phase::Confirming { .. } => self.confirmed(now),
                Phase::Renewing | Phase::Rebinding => self.extended(grant, now),
            },
            _ => Vec::new(),
        }
    }

    /// The answer to a `REQUEST`.
    fn take(&mut self, grant: Grant, now: Duration) -> Vec<Output> {
        if grant.status == 0 && !grant.binding().addresses.is_empty() {
            return self.bind(grant, now);
        }
        self.begin(State::Soliciting, now + REFUSED_PAUSE);
        Vec::new()
    }

    fn confirmed(&mut self, now: Duration) -> Vec<Output> {
        if let State::Bound { phase, .. } = &mut self.state {
            *phase = Phase::Quiet;
        }
        self.next = Some(now);
        self.tick(now)
    }

    /// The answer to `RENEW` or `REBIND`.
    fn extended(&mut self, grant: Grant, now: Duration) -> Vec<Output> {
        let State::Bound { lease, .. } = &self.state else {
            return Vec::new();
        };
        if grant.status == NO_BINDING || grant.status == NOT_ON_LINK {
            return self.lose(now);
        }
        let given = grant.binding().addresses;
        if grant.status != 0 || given.is_empty() {
            return Vec::new();
        }
        let before = lease.grant.binding().addresses;
        let gone: Vec<Ipv6Addr> = before
            .into_iter()
            .filter(|address| !given.contains(address))
            .collect();
        let mut outputs = Vec::new();
        if !gone.is_empty() {
            outputs.push(Output::Lost(gone));
        }
        outputs.extend(self.bind(grant, now));
        outputs
    }

    /// The link was lost and is back, perhaps to another network.
    pub fn link_is_back(&mut self, now: Duration) {
        match &mut self.state {
            State::Bound { phase, .. } => {
                *phase = Phase::Confirming {
                    until: now + CONFIRM_LIMIT,
                };
                self.new_exchange(now);
            }
            State::Idle => {}
            State::Informing | State::Informed => self.begin(State::Informing, now),
            State::Soliciting | State::Requesting { .. } => self.begin(State::Soliciting, now),
        }
    }

    /// Somebody else has these addresses.
    pub fn decline(&mut self, now: Duration) -> Vec<Output> {
        let State::Bound { lease, .. } = &self.state else {
            return Vec::new();
        };
        let binding = lease.grant.binding();
        self.new_exchange(now);
        let decline = Output::Send(Request::Decline(binding));
        let mut outputs = vec![decline];
        outputs.extend(self.lose(now + REFUSED_PAUSE));
        outputs
    }

    /// The addresses are not needed any more.
    pub fn release(&mut self, now: Duration) -> Option<Output> {
        let State::Bound { lease, .. } = &self.state else {
            return None;
        };
        let binding = lease.grant.binding();
        self.begin(State::Idle, now);
        Some(Output::Send(Request::Release(binding)))
    }

    /// Begins anew, later than now where a server shall not be flooded.
    fn lose(&mut self, at: Duration) -> Vec<Output> {
        let State::Bound { lease, .. } = &self.state else {
            return Vec::new();
        };
        let addresses = lease.grant.binding().addresses;
        match self.want {
            Want::Address => self.begin(State::Soliciting, at),
            Want::Information => self.begin(State::Informing, at),
            Want::Nothing => self.begin(State::Idle, at),
        }
        vec![Output::Lost(addresses)]
    }

    fn bind(&mut self, grant: Grant, now: Duration) -> Vec<Output> {
        let lease = Held::new(grant.clone(), now);
        self.state = State::Bound {
            lease,
            phase: Phase::Quiet,
        };
        self.next = self.next_of_lease();
        vec![Output::Bound(grant)]
    }

    fn begin(&mut self, state: State, at: Duration) {
        self.state = state;
        self.new_exchange(at);
    }

    fn new_exchange(&mut self, at: Duration) {
        self.transaction = self.random() & 0xff_ffff;
        self.begun = at;
        self.tries = 0;
        self.next = Some(at);
    }

    /// The next repetition: twice the pause before, a tenth more or less (§15).
    fn repeat(&mut self, (first, longest): (u64, u64), now: Duration) {
        let base = if self.tries == 0 {
            Duration::from_millis(first)
        } else {
            (self.pause * 2).min(Duration::from_millis(longest))
        };
        let permille = 900 + self.random() % 200;
        self.pause = base * permille / 1000;
        self.tries += 1;
        self.next = Some(now + self.pause);
    }

    fn random(&mut self) -> u32 {
        self.seed = self
            .seed
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.seed >> 8
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
