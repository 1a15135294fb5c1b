//! One question on its way to the name servers, for all who wait for its answer.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::answer::Transport;
use super::forwarder::Client;
use super::question::{Key, Query};

/// How long each name server is waited for, in the first, second and third round.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(900),
    Duration::from_millis(1800),
    Duration::from_millis(3000),
];
/// A question is given up after so long, however many name servers there are. Stub resolvers ask again after 5 s.
const GIVE_UP: Duration = Duration::from_secs(9);

/// Where a question is, of all the tries that it has.
#[derive(Debug)]
pub struct Flight {
    /// What is asked.
    pub key: Key,
    /// Who waits for the answer.
    pub waiters: Vec<(Client, Query)>,
    /// The number of the message that is on its way.
    pub id: u16,
    /// It has an OPT record.
    pub with_extension: bool,
    /// By datagram, or by TCP after an answer was cut.
    pub transport: Transport,
    /// When the next try is due.
    pub deadline: Duration,
    servers: Rc<[SocketAddr]>,
    first: usize,
    tries: usize,
    begun: Duration,
}

impl Flight {
    /// `first`: the number of the name server that is asked first.
    #[must_use]
    pub fn new(key: Key, servers: Rc<[SocketAddr]>, first: usize, now: Duration) -> Self {
        Self {
            key,
            waiters: Vec::new(),
            id: 0,
            with_extension: true,
            transport: Transport::Udp,
            deadline: now,
            servers,
            first,
            tries: 0,
            begun: now,
        }
    }

    /// Goes on to the next name server; `None` after the last round.
    pub fn next_try(&mut self, now: Duration) -> Option<SocketAddr> {
        let round = self.tries.checked_div(self.servers.len())?;
        let patience = *PATIENCE.get(round)?;
        let end = self.begun + GIVE_UP;
        if now >= end {
            return None;
        }
        self.tries += 1;
        self.transport = Transport::Udp;
        self.with_extension = true;
        self.deadline = (now + patience).min(end);
        Some(self.servers[self.server()])
    }

    /// Asks the same name server in another way.
    pub fn try_again(&mut self, now: Duration) -> SocketAddr {
        let patience = PATIENCE[1];
        self.deadline = (now + patience).min(self.begun + GIVE_UP);
        self.servers[self.server()]
    }

    /// The number of the name server that is asked.
    #[must_use]
    pub fn server(&self) -> usize {
        (self.first + self.tries.saturating_sub(1)) % self.servers.len().max(1)
    }

    /// It is on its way to one of these name servers.
    #[must_use]
    pub fn is_to(&self, servers: &Rc<[SocketAddr]>) -> bool {
        Rc::ptr_eq(&self.servers, servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::Name;
    use domain::base::iana::Rtype;

    fn tries(count: u8) -> Vec<(u128, String)> {
        let servers: Vec<SocketAddr> = (0..count)
            .map(|last| SocketAddr::from(([192, 0, 2, last], 53)))
            .collect();
        let key = Key::new(&Name::vec_from_str("a").unwrap(), Rtype::A);
        let mut flight = Flight::new(key, servers.into(), 1, Duration::ZERO);
        let mut tries = Vec::new();
        let mut now = Duration::ZERO;
        while let Some(server) = flight.next_try(now) {
            tries.push((now.as_millis(), server.ip().to_string()));
            now = flight.deadline;
        }
        tries.push((now.as_millis(), "end".to_owned()));
        tries
    }

    #[test]
    fn every_name_server_is_tried_in_each_round() {
        let text = |count| {
            let words: Vec<String> = tries(count)
                .into_iter()
                .map(|(at, server)| format!("{at}:{}", server.trim_start_matches("192.0.2.")))
                .collect();
            words.join(" ")
        };
        assert_eq!(text(0), "0:end");
        assert_eq!(text(1), "0:0 900:0 2700:0 5700:end");
        assert_eq!(text(2), "0:1 900:0 1800:1 3600:0 5400:1 8400:0 9000:end");
        assert!(text(8).ends_with("9000:end"));
    }
}
