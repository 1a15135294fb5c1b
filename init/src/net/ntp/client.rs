//! Rounds: who is asked when, and what each round comes to. Without input or output.
//!
//! In a round each server is asked some times with pauses in between, and its quickest exchange counts. A server that asks
//! for it is left out for some rounds, or for good (the kiss codes of RFC 5905 §7.4).

use std::net::IpAddr;
use std::time::Duration;

use super::clock::Quality;
use super::discipline::{Decision, Discipline, is_last_day_of_month};
use super::packet::{self, Leap, Unfit};
use super::sample::{Sample, select};

/// So often a server is asked in the first round, and in each of the others.
const FIRST_BURST: u32 = 4;
const BURST: u32 = 2;
/// Between two requests to one server; a reply that takes longer is of no use.
const GAP: Duration = Duration::from_secs(2);
/// The first pause after a round without replies; it doubles to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(16);
const LONGEST_RETRY: Duration = Duration::from_secs(1024);
/// The pause after a round in which every server was asked too often.
const LEAST_RETRY_WHEN_TOO_OFTEN: Duration = Duration::from_secs(128);

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    address: IpAddr,
    left: u32,
    ask_at: Duration,
    request: Option<Request>,
    best: Option<Sample>,
    is_denied: bool,
    /// How many rounds it is left out, and how many it will be next time.
    skipped: u32,
    penalty: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    nonce: u64,
    sent: i64,
    until: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a server, by its number; [`Client::sent`] is told first.
    Send(usize),
    /// Set the clock by so many nanoseconds, as this server says.
    Step(i64, Quality, IpAddr),
    /// Draw it.
    Slew(i64, Quality, IpAddr),
    /// Find out the servers' addresses, and give them to [`Client::set_servers`].
    Resolve,
    /// Something to show.
    Note(String),
}

/// The whole state.
#[derive(Debug)]
pub struct Client {
    servers: Vec<Server>,
    discipline: Discipline,
    pivot: i64,
    is_asking: bool,
    next_round: Duration,
    retry: Duration,
    had_round: bool,
    last_note: String,
}

impl Client {
    /// Servers are still to be found. `earliest`: when the image was made, in seconds since 1970.
    #[must_use]
    pub fn new(earliest: i64, now: Duration) -> Self {
        Self {
            servers: Vec::new(),
            discipline: Discipline::new(earliest),
            pivot: earliest,
            is_asking: false,
            next_round: now,
            retry: FIRST_RETRY,
            had_round: false,
            last_note: String::new(),
        }
    }

    /// Asks these from now on; what is known of one that stays is kept.
    pub fn set_servers(&mut self, addresses: &[IpAddr], now: Duration) {
        let mut former = std::mem::take(&mut self.servers);
        for &address in addresses {
            let known = former.iter().position(|server| server.address == address);
            let server = known.map_or_else(|| Server::new(address), |at| former.swap_remove(at));
            self.servers.push(server);
        }
        self.begin_round(now);
    }

    /// Forgets the servers, and asks for others at once.
    pub fn reset(&mut self, now: Duration) {
        self.servers.clear();
        self.is_asking = false;
        self.next_round = now;
        self.retry = FIRST_RETRY;
    }

    /// The network may be there again: who asked in vain last time need not wait for the pause to end.
    pub fn network_is_back(&mut self, now: Duration) {
        if self.retry > FIRST_RETRY {
            self.reset(now);
        }
    }

    fn begin_round(&mut self, now: Duration) {
        let burst = if self.had_round { BURST } else { FIRST_BURST };
        for server in &mut self.servers {
            server.begin_round(burst, now);
        }
        self.is_asking = true;
    }

    /// What is due. `wall`: the clock's time in nanoseconds since 1970.
    pub fn tick(&mut self, now: Duration, wall: i64) -> Vec<Action> {
        if !self.is_asking {
            if now < self.next_round {
                return Vec::new();
            }
            if !self.servers.iter().any(Server::is_usable) {
                return vec![Action::Resolve];
            }
            self.begin_round(now);
        }
        let mut actions = Vec::new();
        for (index, server) in self.servers.iter_mut().enumerate() {
            if server.request.is_some_and(|request| request.until <= now) {
                server.request = None;
            }
            if server.is_due(now) {
                actions.push(Action::Send(index));
            }
        }
        if self.servers.iter().all(Server::is_done) {
            actions.extend(self.end_round(now, wall));
        }
        actions
    }

    /// When [`Client::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Duration {
        if !self.is_asking {
            return self.next_round;
        }
        let servers = self.servers.iter();
        let deadlines = servers
            .filter(|server| !server.is_done())
            .map(Server::deadline);
        deadlines.min().unwrap_or(self.next_round)
    }

    /// The address of a server.
    #[must_use]
    pub fn address(&self, index: usize) -> Option<IpAddr> {
        self.servers.get(index).map(|server| server.address)
    }

    /// The request to a server that is sent at this moment. `nonce`: a random number.
    pub fn sent(
        &mut self,
        index: usize,
        nonce: u64,
        now: Duration,
        wall: i64,
    ) -> [u8; packet::SIZE] {
        let server = &mut self.servers[index];
        server.left -= 1;
        server.ask_at = now + GAP;
        server.request = Some(Request {
            nonce,
            sent: wall,
            until: now + GAP,
        });
        packet::request(nonce)
    }

    /// There is no way to a server: it is left out of this round.
    pub fn unreachable(&mut self, index: usize) {
        if let Some(server) = self.servers.get_mut(index) {
            server.left = 0;
            server.request = None;
        }
    }

    /// What came from a server, and when by the clock.
    pub fn receive(&mut self, index: usize, bytes: &[u8], wall: i64) -> Vec<Action> {
        let pivot = self.pivot;
        let Some(server) = self.servers.get_mut(index) else {
            return Vec::new();
        };
        let Some(request) = server.request else {
            return Vec::new();
        };
        match packet::parse(bytes, request.nonce, pivot) {
            Err(Unfit::Foreign) => return Vec::new(),
            Ok(reply) => server.take(Sample::new(&reply, request.sent, wall)),
            Err(Unfit::TooOften) => {
                server.leave_out();
                self.retry = self.retry.max(LEAST_RETRY_WHEN_TOO_OFTEN);
            }
            Err(Unfit::Denied) => server.is_denied = true,
            Err(Unfit::Useless) => {}
        }
        server.request = None;
        if server.is_denied {
            server.left = 0;
            let text = format!("{} wants to be asked no more", server.address);
            return self.note(text);
        }
        Vec::new()
    }

    fn end_round(&mut self, now: Duration, wall: i64) -> Vec<Action> {
        self.is_asking = false;
        let with_sample = |(index, server): (usize, &Server)| Some((index, server.best?));
        let (indices, samples): (Vec<usize>, Vec<Sample>) = self
            .servers
            .iter()
            .enumerate()
            .filter_map(with_sample)
            .unzip();
        if samples.is_empty() {
            self.next_round = now + self.retry;
            self.retry = (self.retry * 2).min(LONGEST_RETRY);
            // Their names may stand for others by now.
            self.servers
                .retain(|server| server.is_denied || server.skipped > 0);
            return self.note("no time server answers".to_owned());
        }
        self.retry = FIRST_RETRY;
        let Some(chosen) = select(&samples) else {
            self.next_round = now + Duration::from_secs(1 << self.discipline.pause());
            return self.note("the time servers do not agree".to_owned());
        };
        self.had_round = true;
        let address = self.servers[indices[chosen]].address;
        self.apply(samples[chosen], address, now, wall)
    }

    fn apply(&mut self, sample: Sample, by: IpAddr, now: Duration, wall: i64) -> Vec<Action> {
        let decision = self.discipline.decide(sample.offset, wall);
        self.next_round = now + Duration::from_secs(1 << self.discipline.pause());
        let true_time = wall.saturating_add(sample.offset);
        let quality = Quality {
            distance: sample.distance,
            pause: self.discipline.pause(),
            leap: if is_last_day_of_month(true_time) {
                sample.leap
            } else {
                Leap::None
            },
        };
        match decision {
            Decision::Step(offset) => {
                self.last_note.clear();
                vec![Action::Step(offset, quality, by)]
            }
            Decision::Slew(offset) => {
                self.last_note.clear();
                vec![Action::Slew(offset, quality, by)]
            }
            Decision::Hold => self.note(format!(
                "the clock seems off by {} by {by}; waiting for the next rounds",
                seconds(sample.offset)
            )),
            Decision::Refuse => self.note(format!(
                "{by} tells a time that cannot be, {} from now",
                seconds(sample.offset)
            )),
        }
    }

    /// Tells something once, however often it comes.
    fn note(&mut self, text: String) -> Vec<Action> {
        // With other numbers it is the same.
        let is_text = |c: &char| !c.is_ascii_digit();
        let before = self.last_note.chars().filter(is_text);
        if text.chars().filter(is_text).eq(before) {
            return Vec::new();
        }
        self.last_note.clone_from(&text);
        vec![Action::Note(text)]
    }
}

impl Server {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            left: 0,
            ask_at: Duration::ZERO,
            request: None,
            best: None,
            is_denied: false,
            skipped: 0,
            penalty: 1,
        }
    }

    fn begin_round(&mut self, burst: u32, now: Duration) {
        self.best = None;
        self.request = None;
        self.ask_at = self.ask_at.max(now);
        self.left = if self.is_usable() { burst } else { 0 };
        self.skipped = self.skipped.saturating_sub(1);
    }

    const fn is_usable(&self) -> bool {
        !self.is_denied && self.skipped == 0
    }

    fn is_due(&self, now: Duration) -> bool {
        self.left > 0 && self.request.is_none() && self.ask_at <= now
    }

    const fn is_done(&self) -> bool {
        self.left == 0 && self.request.is_none()
    }

    fn deadline(&self) -> Duration {
        self.request.map_or(self.ask_at, |request| request.until)
    }

    fn take(&mut self, sample: Option<Sample>) {
        let is_better = |sample: &Sample| self.best.is_none_or(|best| sample.delay < best.delay);
        if let Some(sample) = sample.filter(is_better) {
            self.best = Some(sample);
        }
    }

    /// It is asked again after a while that doubles each time.
    fn leave_out(&mut self) {
        self.left = 0;
        self.penalty = (self.penalty * 2).min(64);
        self.skipped = self.penalty;
    }
}

/// With a sign and three digits: `+3.200 s`.
#[must_use]
pub fn seconds(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { '-' } else { '+' };
    let milliseconds = nanoseconds.unsigned_abs().div_ceil(1_000_000);
    format!("{sign}{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
