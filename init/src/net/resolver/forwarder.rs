//! What becomes of each question and each answer, without input or output.
//!
//! A question is answered from the machine's own names, or from the cache, or it joins the flight of an equal one, or it
//! begins a flight of its own. Where a bound is reached the client is told that its question failed (SERVFAIL), so it may
//! ask again; nobody waits for nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use domain::base::iana::OptRcode;

use super::answer::{self, Answer, Transport};
use super::cache::Cache;
use super::flight::Flight;
use super::names::{Found, Names};
use super::question::{self, Key, Query, Refusal};
use super::upstream::{self, Outcome};

/// The bounds of the cache.
const CACHE_ENTRIES: usize = 4096;
const CACHE_BYTES: usize = 2 << 20;
/// So many questions are under way at once, and so many of them by TCP.
const MOST_FLIGHTS: usize = 512;
const MOST_TCP_FLIGHTS: usize = 32;
/// So many questions wait at once, in all and of one client, whichever of its addresses it asks from. Nobody begins more
/// flights than are left, so that some are left for who has none, however many take what they can.
const MOST_WAITING: usize = 4096;
const MOST_WAITING_OF_ONE: usize = 128;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// The address that the question came from.
    pub address: SocketAddr,
    /// The way back.
    pub via: Via,
}

/// The way back to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// The number of the listening socket.
    Udp(usize),
    /// The number of the connection.
    Tcp(u64),
}

impl Via {
    fn transport(self) -> Transport {
        match self {
            Self::Udp(_) => Transport::Udp,
            Self::Tcp(_) => Transport::Tcp,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a client its answer.
    Reply(Client, Vec<u8>),
    /// Send a question to a name server, from a socket of its own, in place of the flight's former one.
    Ask {
        /// The flight.
        flight: u64,
        /// The name server.
        server: SocketAddr,
        /// The way there.
        transport: Transport,
        /// The message.
        message: Vec<u8>,
    },
    /// Close the flight's socket.
    Close(u64),
    /// Close a client's connection: it sends what no client may.
    HangUp(u64),
}

/// Where the numbers of questions come from.
pub type Random<'a> = &'a mut dyn FnMut() -> u16;

/// The whole state.
#[derive(Debug)]
pub struct Forwarder {
    names: Names,
    servers: Rc<[SocketAddr]>,
    best: usize,
    cache: Cache,
    flights: HashMap<u64, Flight>,
    by_key: HashMap<Key, u64>,
    deadlines: BTreeSet<(Duration, u64)>,
    /// How many questions of each member of the names wait.
    waiting: HashMap<usize, usize>,
    waiting_count: usize,
    tcp_count: usize,
    last_number: u64,
}

impl Forwarder {
    /// Without name servers: whatever is not of the machine's own names fails.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self {
            names,
            servers: Rc::new([]),
            best: 0,
            cache: Cache::new(CACHE_ENTRIES, CACHE_BYTES),
            flights: HashMap::new(),
            by_key: HashMap::new(),
            deadlines: BTreeSet::new(),
            waiting: HashMap::new(),
            waiting_count: 0,
            tcp_count: 0,
            last_number: 0,
        }
    }

    /// The machine is called so from now on.
    pub fn set_hostname(&mut self, hostname: &str) {
        self.names.set_hostname(hostname);
    }

    /// Other name servers: what the former ones said is forgotten, and what they were asked is asked again.
    pub fn set_servers(
        &mut self,
        servers: &[SocketAddr],
        now: Duration,
        random: Random<'_>,
    ) -> Vec<Action> {
        if *self.servers == *servers {
            return Vec::new();
        }
        self.servers = servers.into();
        self.best = 0;
        self.cache.clear();
        let numbers: Vec<u64> = self.flights.keys().copied().collect();
        let mut actions = Vec::new();
        for number in numbers {
            let former = self.take(number).expect("it is one of them");
            let mut flight = Flight::new(former.key, self.servers.clone(), 0, now);
            flight.waiters = former.waiters;
            actions.extend(self.next_try(number, flight, now, random));
        }
        actions
    }

    /// A client's message.
    pub fn question(
        &mut self,
        client: Client,
        bytes: &[u8],
        now: Duration,
        random: Random<'_>,
    ) -> Vec<Action> {
        let query = match question::parse(bytes) {
            Ok(query) => query,
            Err(Refusal::Ignored) => return ignore(client),
            Err(Refusal::Told(envelope, code)) => {
                return vec![Action::Reply(client, answer::refuse(&envelope, code))];
            }
        };
        let Some(asker) = self.names.member(client.address.ip()) else {
            let message = answer::refuse(&query.envelope, OptRcode::REFUSED);
            return vec![Action::Reply(client, message)];
        };
        if let Found::Answer(answer) = self.names.find(asker, &query.key) {
            return vec![reply(client, &query, &answer, 0)];
        }
        if let Some((answer, age)) = self.cache.get(&query.key, now) {
            return vec![reply(client, &query, &answer, age)];
        }
        self.forward(asker, client, query, now, random)
    }

    fn forward(
        &mut self,
        asker: usize,
        client: Client,
        query: Query,
        now: Duration,
        random: Random<'_>,
    ) -> Vec<Action> {
        let known = self.by_key.get(&query.key).copied();
        if let Some(flight) = known.and_then(|number| self.flights.get(&number)) {
            let is_same = |(other, asked): &(Client, Query)| {
                *other == client && asked.envelope.id == query.envelope.id
            };
            if flight.waiters.iter().any(is_same) {
                return ignore(client);
            }
        }
        if self.servers.is_empty() || !self.may_wait(asker, known.is_none()) {
            return vec![reply(client, &query, &failure(&query.key), 0)];
        }
        *self.waiting.entry(asker).or_default() += 1;
        self.waiting_count += 1;
        if let Some(flight) = known.and_then(|number| self.flights.get_mut(&number)) {
            flight.waiters.push((client, query));
            return Vec::new();
        }
        self.last_number += 1;
        let key = query.key.clone();
        let mut flight = Flight::new(key, self.servers.clone(), self.best, now);
        flight.waiters.push((client, query));
        self.next_try(self.last_number, flight, now, random)
    }

    fn may_wait(&self, asker: usize, begins_flight: bool) -> bool {
        let own = self.waiting.get(&asker).copied().unwrap_or(0);
        let left = MOST_FLIGHTS.saturating_sub(self.flights.len());
        let may_begin = !begins_flight || own < left;
        self.waiting_count < MOST_WAITING && own < MOST_WAITING_OF_ONE && may_begin
    }

    /// What came on a flight's socket.
    pub fn answer(
        &mut self,
        number: u64,
        bytes: &[u8],
        now: Duration,
        random: Random<'_>,
    ) -> Vec<Action> {
        let Some(flight) = self.flights.get(&number) else {
            return Vec::new();
        };
        let outcome = upstream::accept(bytes, &flight.key, flight.id, flight.with_extension);
        match outcome {
            Outcome::Unfit if flight.transport == Transport::Udp => Vec::new(),
            Outcome::Answer(answer, seconds) => {
                self.best = flight.server();
                let answer = Rc::new(answer);
                let key = flight.key.clone();
                self.cache.insert(key, answer.clone(), seconds, now);
                self.land(number, &answer)
            }
            Outcome::Truncated
                if flight.transport == Transport::Udp && self.tcp_count < MOST_TCP_FLIGHTS =>
            {
                self.again(number, now, random, |flight| {
                    flight.transport = Transport::Tcp
                })
            }
            Outcome::WithoutExtension => {
                self.again(number, now, random, |flight| flight.with_extension = false)
            }
            Outcome::Unfit | Outcome::Truncated | Outcome::Failure => {
                self.failed(number, now, random)
            }
        }
    }

    /// A flight's socket failed, or its name server did.
    pub fn failed(&mut self, number: u64, now: Duration, random: Random<'_>) -> Vec<Action> {
        let Some(flight) = self.take(number) else {
            return Vec::new();
        };
        if flight.server() == self.best && !self.servers.is_empty() {
            self.best = (self.best + 1) % self.servers.len();
        }
        self.next_try(number, flight, now, random)
    }

    /// What is due.
    pub fn tick(&mut self, now: Duration, random: Random<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(&(at, number)) = self.deadlines.first() {
            if at > now {
                break;
            }
            actions.extend(self.failed(number, now, random));
        }
        actions
    }

    /// When [`Forwarder::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Asks the same name server in another way.
    fn again(
        &mut self,
        number: u64,
        now: Duration,
        random: Random<'_>,
        change: impl FnOnce(&mut Flight),
    ) -> Vec<Action> {
        let mut flight = self.take(number).expect("the caller has seen it");
        change(&mut flight);
        let server = flight.try_again(now);
        vec![self.ask(number, flight, server, random)]
    }

    fn next_try(
        &mut self,
        number: u64,
        mut flight: Flight,
        now: Duration,
        random: Random<'_>,
    ) -> Vec<Action> {
        if let Some(server) = flight.next_try(now) {
            return vec![self.ask(number, flight, server, random)];
        }
        let answer = failure(&flight.key);
        self.put(number, flight);
        self.land(number, &answer)
    }

    fn ask(
        &mut self,
        number: u64,
        mut flight: Flight,
        server: SocketAddr,
        random: Random<'_>,
    ) -> Action {
        flight.id = random();
        let message = upstream::compose(&flight.key, flight.id, flight.with_extension);
        let transport = flight.transport;
        self.put(number, flight);
        Action::Ask {
            flight: number,
            server,
            transport,
            message,
        }
    }

    /// Gives all who wait their answer.
    fn land(&mut self, number: u64, answer: &Answer) -> Vec<Action> {
        let flight = self.take(number).expect("the caller has seen it");
        let mut actions = vec![Action::Close(number)];
        for (client, query) in flight.waiters {
            self.waiting_count -= 1;
            if let Some(asker) = self.names.member(client.address.ip())
                && let Some(count) = self.waiting.get_mut(&asker)
            {
                *count -= 1;
                if *count == 0 {
                    self.waiting.remove(&asker);
                }
            }
            actions.push(reply(client, &query, answer, 0));
        }
        actions
    }

    fn put(&mut self, number: u64, flight: Flight) {
        self.by_key.insert(flight.key.clone(), number);
        self.deadlines.insert((flight.deadline, number));
        self.tcp_count += usize::from(flight.transport == Transport::Tcp);
        self.flights.insert(number, flight);
    }

    fn take(&mut self, number: u64) -> Option<Flight> {
        let flight = self.flights.remove(&number)?;
        self.by_key.remove(&flight.key);
        self.deadlines.remove(&(flight.deadline, number));
        self.tcp_count -= usize::from(flight.transport == Transport::Tcp);
        Some(flight)
    }
}

/// There will be no answer to this, which a connection would wait for.
fn ignore(client: Client) -> Vec<Action> {
    match client.via {
        Via::Udp(_) => Vec::new(),
        Via::Tcp(number) => vec![Action::HangUp(number)],
    }
}

fn failure(key: &Key) -> Answer {
    Answer::empty(key, OptRcode::SERVFAIL, false)
}

fn reply(client: Client, query: &Query, answer: &Answer, age: u32) -> Action {
    let message = answer.reply(query, client.via.transport(), age);
    Action::Reply(client, message)
}

#[cfg(test)]
#[path = "forwarder_tests.rs"]
mod tests;
